//! Who runs what: each generation is run by one process, under a lease that it renews.
//!
//! Expiry, by the database's clock, decides who tries to take over. Only the epoch decides who commits: it rises with every
//! change of owner, and every transaction of a loop checks it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::config::Config;
use crate::db::{Database, describe};
use crate::event::Position;
use crate::failure::Folder;
use crate::host::PluginHash;
use crate::progress::Progress;
use crate::projection::{self, Control, Exit, Job, Settings, Stats};
use crate::read_model::schema;
use crate::read_model::writer::Target;
use crate::registry::{Catalog, Deployed, Facts, tell};
use crate::shutdown::Shutdown;
use crate::source::Source;

/// How often leases are renewed and looked at.
const TICK: Duration = Duration::from_millis(500);
/// How long one look may take, before its connection is given up.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long loops may take to finish what is in flight at the end.
const GRACE: Duration = Duration::from_secs(10);

/// Gives back the leases of these generations, or of all.
const GIVE_BACK: &str = "update gobo.leases set owner = null, owner_name = null, expires_at = '-infinity' \
                         where owner = $1 and ($2::bigint[] is null or generation = any ($2))";

/// This process among all that work on one database.
#[derive(Debug, Clone)]
pub struct Node {
    /// Unique for every start of a process.
    pub id: Uuid,
    /// For people: host and process.
    pub name: String,
}

impl Node {
    /// Names this process.
    pub fn of_this_process() -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
            .unwrap_or_else(|_| "localhost".into());
        Self {
            id: Uuid::new_v4(),
            name: format!("{}:{}", host.trim(), std::process::id()),
        }
    }
}

/// What the loops of this process are doing. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Activity {
    loops: Arc<Mutex<HashMap<i64, Active>>>,
}

#[derive(Debug, Clone)]
struct Active {
    stats: Arc<Stats>,
    seen: (Instant, u64),
    rate: f64,
}

impl Activity {
    /// Events per second lately, if the loop runs in this process.
    pub fn events_per_second(&self, generation: i64) -> Option<f64> {
        self.lock().get(&generation).map(|active| active.rate)
    }

    /// Up to where a generation has processed events, committed or not, if its loop runs in this process.
    pub fn reached(&self, generation: i64) -> Option<Position> {
        self.lock()
            .get(&generation)
            .map(|active| active.stats.reached())
    }

    /// Why loops of this process cannot go on at present, by generation.
    pub fn troubles(&self) -> HashMap<i64, String> {
        (self.lock().iter())
            .filter_map(|(generation, active)| Some((*generation, active.stats.trouble()?)))
            .collect()
    }

    fn start(&self, generation: i64) -> Arc<Stats> {
        let stats = Arc::new(Stats::default());
        let active = Active {
            stats: stats.clone(),
            seen: (Instant::now(), 0),
            rate: 0.0,
        };
        self.lock().insert(generation, active);
        stats
    }

    fn end(&self, generation: i64) {
        self.lock().remove(&generation);
    }

    /// Measures the rates, as a moving average over about two seconds.
    fn measure(&self) {
        for active in self.lock().values_mut() {
            let (at, before) = active.seen;
            let (now, events) = (Instant::now(), active.stats.events());
            let seconds = (now - at).as_secs_f64();
            if seconds < TICK.as_secs_f64() / 2.0 {
                continue;
            }
            let weight = (seconds / 2.0).min(1.0);
            active.rate += weight * ((events - before) as f64 / seconds - active.rate);
            active.seen = (now, events);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Active>> {
        // Nothing that holds the lock can leave the map half changed.
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts loops for the generations that this process owns, and ends them.
pub struct Ownership {
    /// The database.
    pub db: Database,
    /// This process.
    pub node: Node,
    /// For how long a lease is taken and renewed.
    pub lease: Duration,
    /// The sources by name.
    pub sources: HashMap<String, Source>,
    /// How loops work.
    pub config: Arc<Config>,
    /// Told of every commit.
    pub progress: Progress,
    /// Told what the loops do.
    pub activity: Activity,
    /// Where events that cannot be processed are kept as files.
    pub failures: Option<Folder>,
}

struct Running {
    plugin: PluginHash,
    settings: Settings,
    control: watch::Sender<Control>,
}

/// A lease and the state of its generation.
struct Lease {
    mine: bool,
    free: bool,
    stopped: bool,
    retry: bool,
}

/// The loops of this process.
#[derive(Default)]
struct Loops {
    running: HashMap<i64, Running>,
    /// Loops that were fenced off since the last tick, with the plugin that they ran: most likely another one was
    /// deployed, and the catalogue is about to say so.
    fenced: HashMap<i64, PluginHash>,
    tasks: JoinSet<(i64, Exit)>,
}

impl Ownership {
    /// Runs until shutdown; then lets the loops finish what is in flight, and gives the leases back.
    pub async fn run(self, mut catalog: watch::Receiver<Arc<Catalog>>, mut shutdown: Shutdown) {
        let mut loops = Loops::default();
        let mut session = None;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.requested() => break,
                _ = tick.tick() => loops.fenced.clear(),
                _ = catalog.changed() => {}
                Some(ended) = loops.tasks.join_next() => self.ended(&mut loops, ended),
            }
            self.activity.measure();
            let picture = catalog.borrow_and_update().clone();
            let look = self.look(&mut session, &picture, &mut loops);
            match tokio::time::timeout(PATIENCE, look).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(error = describe(&error), "leases cannot be renewed now");
                    session = None;
                }
                Err(_) => {
                    tracing::warn!(
                        "the database takes longer than {PATIENCE:?} to answer; reconnecting"
                    );
                    session = None;
                }
            }
        }
        self.wind_down(loops).await;
    }

    /// Renews, and compares what runs with what should run.
    async fn look(
        &self,
        session: &mut Option<Client>,
        catalog: &Catalog,
        loops: &mut Loops,
    ) -> Result<(), tokio_postgres::Error> {
        let client = match session {
            Some(client) if !client.is_closed() => client,
            _ => {
                let settings = [("lock_timeout", "1s"), ("synchronous_commit", "on")];
                session.insert(self.db.connect("ownership", &settings).await?)
            }
        };
        let started = Instant::now();
        self.renew(client, loops).await?;
        client
            .execute(
                "insert into gobo.incarnation default values on conflict do nothing",
                &[],
            )
            .await?;
        let leases = self.leases(client).await?;
        let wanted: HashMap<i64, &Arc<Deployed>> = (catalog.generations.iter())
            .filter(|(_, deployed)| deployed.facts.runs())
            .map(|(generation, deployed)| (*generation, deployed))
            .collect();
        for (generation, running) in &loops.running {
            let found = wanted.get(generation);
            let fits = found.is_some_and(|found| {
                found.plugin.hash == running.plugin
                    && self.settings(&found.facts) == running.settings
            });
            let until = found.and_then(|found| found.facts.until);
            let retry = leases.get(generation).is_some_and(|lease| lease.retry);
            running.control.send_if_modified(|control| {
                let told = *control;
                control.stop |= !fits;
                control.until = until;
                control.nudges += u64::from(retry);
                *control != told
            });
        }
        let idle: Vec<i64> = (leases.iter())
            .filter(|(generation, lease)| {
                let runs = loops.running.contains_key(generation);
                let runnable = wanted.contains_key(generation) && !lease.stopped;
                lease.mine && !runs && !runnable
            })
            .map(|(generation, _)| *generation)
            .collect();
        if !idle.is_empty() {
            // Another node may have what this one lacks: a newer engine, the source's configuration.
            client
                .execute(GIVE_BACK, &[&self.node.id, &Some(idle)])
                .await?;
        }
        for (generation, deployed) in wanted {
            if loops.fenced.get(&generation) == Some(&deployed.plugin.hash) {
                continue;
            }
            let idle = !loops.running.contains_key(&generation);
            let Some(lease) = leases.get(&generation) else {
                continue;
            };
            // Renewing in time comes before taking over more.
            let in_time = started.elapsed() < self.lease / 3;
            let takes = idle && (lease.mine || lease.free) && !lease.stopped && in_time;
            if takes && let Err(error) = self.take(client, deployed, loops).await {
                if client.is_closed() {
                    return Err(error);
                }
                let (projection, error) = (&deployed.facts.projection, describe(&error));
                tracing::warn!(projection, error, "cannot be taken over now");
            }
        }
        Ok(())
    }

    /// Renews all leases at once. A loop whose lease was taken meanwhile is told to end; it could not commit any more.
    async fn renew(&self, client: &Client, loops: &Loops) -> Result<(), tokio_postgres::Error> {
        let rows = client
            .query(
                "update gobo.leases set expires_at = clock_timestamp() + make_interval(secs => $2) where owner = $1 returning generation",
                &[&self.node.id, &self.lease.as_secs_f64()],
            )
            .await?;
        let mine: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        for (generation, running) in &loops.running {
            if !mine.contains(generation) {
                tracing::warn!(generation, "the lease was taken over by another process");
                running.control.send_modify(|control| control.stop = true);
            }
        }
        Ok(())
    }

    async fn leases(&self, client: &Client) -> Result<HashMap<i64, Lease>, tokio_postgres::Error> {
        let rows = client
            .query(include_str!("ownership/leases.sql"), &[&self.node.id])
            .await?;
        let lease = |row: &tokio_postgres::Row| Lease {
            mine: row.get(1),
            free: row.get(2),
            stopped: row.get(3),
            retry: row.get(4),
        };
        Ok(rows.iter().map(|row| (row.get(0), lease(row))).collect())
    }

    /// Takes a lease that is free, or this process's own after its loop has ended, and starts the loop.
    async fn take(
        &self,
        client: &mut Client,
        deployed: &Deployed,
        loops: &mut Loops,
    ) -> Result<(), tokio_postgres::Error> {
        let facts = &deployed.facts;
        let generation = facts.generation;
        let Some(source) = self.sources.get(&facts.source) else {
            tracing::error!(
                projection = facts.projection,
                source = facts.source,
                "the source is not configured on this node"
            );
            return Ok(());
        };
        let Some(epoch) = self.raise_epoch(client, generation).await? else {
            return Ok(());
        };
        let (control, receiver) = watch::channel(Control {
            until: facts.until,
            ..Control::default()
        });
        let settings = self.settings(facts);
        let job = Job {
            db: self.db.clone(),
            source: source.clone(),
            plugin: deployed.plugin.clone(),
            target: Target {
                projection: facts.projection.clone(),
                generation,
                schema: schema::generation_schema(generation),
                hash: facts.hash,
            },
            epoch,
            settings: settings.clone(),
            progress: self.progress.clone(),
            stats: self.activity.start(generation),
            failures: self.failures.clone(),
        };
        tracing::info!(projection = facts.projection, generation, epoch, plugin = %facts.hash, "runs here now");
        let running = Running {
            plugin: facts.hash,
            settings,
            control,
        };
        loops.running.insert(generation, running);
        loops
            .tasks
            .spawn(async move { (generation, projection::run(job, receiver).await) });
        Ok(())
    }

    fn settings(&self, facts: &Facts) -> Settings {
        self.config
            .loop_settings(&facts.projection, &facts.settings)
    }

    /// Gives the new epoch, if the lease could be taken.
    async fn raise_epoch(
        &self,
        client: &mut Client,
        generation: i64,
    ) -> Result<Option<i64>, tokio_postgres::Error> {
        let taken = client
            .execute(
                include_str!("ownership/take.sql"),
                &[
                    &generation,
                    &self.node.id,
                    &self.node.name,
                    &self.lease.as_secs_f64(),
                ],
            )
            .await?;
        if taken == 0 {
            return Ok(None);
        }
        // The last owner may have been stopped in the middle of a transaction, which holds the checkpoint's lock. Where
        // that session is another role's, its own time-out ends it.
        let writer = format!("gobo {}", projection::writer_purpose(generation));
        let ended = client
            .execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = $1",
                &[&writer],
            )
            .await;
        if let Err(error) = ended {
            tracing::debug!(
                generation,
                error = describe(&error),
                "the last writer's session is not ours to end"
            );
        }
        let row = client
            .query_one(
                "update gobo.checkpoints set epoch = epoch + 1 where generation = $1 returning epoch",
                &[&generation],
            )
            .await?;
        Ok(Some(row.get(0)))
    }

    fn ended(&self, loops: &mut Loops, ended: Result<(i64, Exit), tokio::task::JoinError>) {
        match ended {
            Ok((generation, exit)) => {
                let running = loops.running.remove(&generation);
                if let (Exit::Fenced, Some(running)) = (&exit, running) {
                    loops.fenced.insert(generation, running.plugin);
                }
                self.activity.end(generation);
                tracing::info!(generation, ?exit, "the loop has ended");
            }
            // A loop that panics is a bug; its entry has a control nobody listens to any more.
            Err(error) => {
                tracing::error!(%error, "a loop crashed; it is started again");
                let dead = |running: &Running| running.control.is_closed();
                loops.running.retain(|_, running| !dead(running));
            }
        }
    }

    async fn wind_down(&self, mut loops: Loops) {
        for running in loops.running.values() {
            running.control.send_modify(|control| control.stop = true);
        }
        let all = async { while loops.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            tracing::warn!(
                "some loops did not finish in time; what they had in flight is processed again"
            );
            loops.tasks.shutdown().await;
        }
        if let Err(error) = self.release().await {
            tracing::warn!(
                error = describe(&error),
                "the leases could not be given back; they expire"
            );
        }
    }

    async fn release(&self) -> Result<(), tokio_postgres::Error> {
        let client = self.db.connect("ownership", &[]).await?;
        client
            .execute(GIVE_BACK, &[&self.node.id, &None::<Vec<i64>>])
            .await?;
        tell(&client).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EngineSettings;

    #[test]
    fn a_lease_that_ends_is_noticed_early_enough_for_a_take_over_within_five_seconds() {
        let lease = Duration::from_secs(EngineSettings::default().lease_seconds);
        // A second and more are left for taking over.
        assert!(lease + TICK < Duration::from_secs(4));
    }
}
