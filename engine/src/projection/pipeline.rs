//! The steady state: while one transaction commits, the next batch runs, the one after is begun, the one after is read.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::batch::{Begun, begin};
use super::late::Lookout;
use super::session::{Session, split_parked};
use super::{Control, Interrupt, Job};
use crate::event::Position;
use crate::read_model::ReadModel;
use crate::read_model::rows::Rows;
use crate::read_model::writer::{ChangeSet, Checkpoint, CommitError, DeadLetter, Writer};
use crate::source::{Limits, Reader};

/// How long a checkpoint that moved over unwanted events may stay in memory.
const LAZY: Duration = Duration::from_secs(1);

/// Why the pipeline ended. Everything that was processed before is committed.
pub(super) enum End {
    /// It was told to stop, or that there is something else to do.
    Told,
    /// An event at or below `through` is in trouble.
    Trouble { through: Position },
}

/// A batch on its way through `begin`.
struct Ahead {
    begun: JoinHandle<Begun>,
    waiting: Vec<DeadLetter>,
    through: Position,
}

/// How a transaction ended.
struct Done {
    result: Result<Checkpoint, CommitError>,
    through: Position,
    events: usize,
}

/// A set of changes on its way into the database.
struct Commit {
    from: Checkpoint,
    set: ChangeSet,
    events: usize,
}

pub(super) async fn run(
    session: &mut Session<'_>,
    control: &mut watch::Receiver<Control>,
) -> Result<End, Interrupt> {
    let job = session.job;
    let (ahead_in, ahead_out) = mpsc::channel(job.settings.batches_ahead.max(1));
    let (commit_in, commit_out) = mpsc::channel(1);
    let (done_in, done_out) = mpsc::channel(1);
    let read = read(
        job,
        &mut session.reader,
        &session.models,
        &session.parked,
        session.checkpoint.position,
        control.borrow().until,
        ahead_in,
    );
    let commit = commit(&session.writer, commit_out, done_in);
    let process = Processor {
        job,
        models: &session.models,
        parked: &session.parked,
        rows: &mut session.rows,
        checkpoint: &mut session.checkpoint,
        commits: &mut session.commits,
        pending: Pending::new(session.models.len()),
        in_flight: false,
        persisted: Instant::now(),
        commit: commit_in,
        done: done_out,
    }
    .run(ahead_out, control);
    // All three take turns in one task; what computes runs on worker threads, what waits is the database.
    tokio::select! {
        result = process => result,
        result = read => Err(result),
        () = commit => Err(Interrupt::Infrastructure("the committer ended".into())),
    }
}

/// Reads batches and hands each to a worker. Ends only with an error.
async fn read(
    job: &Job,
    reader: &mut Reader,
    models: &Arc<[ReadModel]>,
    parked: &HashSet<String>,
    mut after: Position,
    until: Option<Position>,
    ahead: mpsc::Sender<Ahead>,
) -> Interrupt {
    let types = job.plugin.descriptor.event_types.as_deref();
    let limits = Limits {
        max_events: job.settings.batch_events,
        max_bytes: job.settings.batch_bytes,
        upto: until,
    };
    loop {
        // Waiting for a place first bounds what is in memory.
        let Ok(place) = ahead.reserve().await else {
            return Interrupt::Infrastructure("the processor ended".into());
        };
        let batch = match reader.next_batch(after, types, limits).await {
            Ok(batch) => batch,
            Err(error) => return error.into(),
        };
        if batch.through <= after {
            drop(place);
            if until.is_some_and(|until| after >= until) {
                // Whoever set the end lifts it, or ends the loop.
                return std::future::pending().await;
            }
            if let Err(error) = job.source.wait_past(after).await {
                return error.into();
            }
            linger(job).await;
            continue;
        }
        after = batch.through;
        let (batch, waiting) = split_parked(batch, parked);
        let (plugin, models) = (job.plugin.clone(), models.clone());
        let slot = plugin.slot().await;
        place.send(Ahead {
            begun: tokio::task::spawn_blocking(move || begin(&plugin, slot, &models, batch)),
            waiting,
            through: after,
        });
    }
}

/// Lets more events come in, so that they are processed together; not while a reader waits.
async fn linger(job: &Job) {
    if job.settings.linger.is_zero() {
        return;
    }
    tokio::select! {
        () = tokio::time::sleep(job.settings.linger) => {}
        () = job.progress.awaited(job.target.generation) => {}
    }
}

/// Commits one set after the other.
async fn commit(writer: &Writer, mut sets: mpsc::Receiver<Commit>, ends: mpsc::Sender<Done>) {
    while let Some(Commit { from, set, events }) = sets.recv().await {
        let done = Done {
            result: writer.commit(from, &set).await,
            through: set.through,
            events,
        };
        if ends.send(done).await.is_err() {
            return;
        }
    }
    // The processor has ended or is about to: it decides what that means.
    std::future::pending().await
}

/// What waits for the transaction in flight to end.
struct Pending {
    set: ChangeSet,
    events: usize,
}

impl Pending {
    fn new(models: usize) -> Self {
        Self {
            set: ChangeSet::new(models),
            events: 0,
        }
    }
}

/// The ordered part: rows, `resume`, and what goes into which transaction.
struct Processor<'s> {
    job: &'s Job,
    models: &'s Arc<[ReadModel]>,
    parked: &'s HashSet<String>,
    rows: &'s mut Rows,
    checkpoint: &'s mut Checkpoint,
    commits: &'s mut u64,
    pending: Pending,
    in_flight: bool,
    persisted: Instant,
    commit: mpsc::Sender<Commit>,
    done: mpsc::Receiver<Done>,
}

impl Processor<'_> {
    async fn run(
        mut self,
        mut ahead: mpsc::Receiver<Ahead>,
        control: &mut watch::Receiver<Control>,
    ) -> Result<End, Interrupt> {
        let generation = self.job.target.generation;
        loop {
            let until = control.borrow().until;
            self.start_commit(until).await;
            let lazy = self.pending.set.through > self.checkpoint.position && !self.in_flight;
            let room = self.pending.set.rows() < self.job.settings.commit_rows
                && self.pending.set.bytes() < self.job.settings.commit_bytes;
            let troubled = tokio::select! {
                biased;
                done = self.done.recv() => self.finish_commit(done)?,
                _ = control.changed() => break,
                () = tokio::time::sleep_until(self.persisted + LAZY), if lazy => {
                    self.send_commit().await;
                    None
                }
                () = self.job.progress.awaited(generation), if lazy => {
                    self.send_commit().await;
                    None
                }
                Some(next) = ahead.recv(), if room => self.process(next).await?,
            };
            if let Some(through) = troubled {
                self.flush().await?;
                return Ok(End::Trouble { through });
            }
        }
        Ok(match self.flush().await? {
            Some(through) => End::Trouble { through },
            None => End::Told,
        })
    }

    /// Takes one batch through to its changes. Gives where the trouble is, if there is any.
    async fn process(&mut self, next: Ahead) -> Result<Option<Position>, Interrupt> {
        let begun = next
            .begun
            .await
            .map_err(|error| Interrupt::Infrastructure(format!("a worker failed: {error}")))?;
        let limits = self.job.plugin.limits();
        let diverged = self.checkpoint.diverged || self.pending.set.diverged;
        let lookout = Lookout::new(self.models, self.parked, None, diverged);
        let finished = super::batch::finish(begun, self.rows, self.models, limits, lookout).await?;
        let Ok(executed) = finished else {
            return Ok(Some(next.through));
        };
        let number = *self.commits + 1 + u64::from(self.in_flight);
        let set = &mut self.pending.set;
        if executed
            .add_to(set, self.rows, self.models, number)
            .is_err()
        {
            // The set now holds a part of the batch; it is dropped as a whole and read again.
            self.pending = Pending::new(self.models.len());
            return Ok(Some(next.through));
        }
        set.dead_letters.extend(next.waiting);
        self.pending.events += executed.batch.len();
        Ok(None)
    }

    /// Starts a transaction, if none is in flight and there is something that must not wait.
    async fn start_commit(&mut self, until: Option<Position>) {
        let set = &self.pending.set;
        // Somebody waits for the checkpoint to be there.
        let is_at_end = until == Some(set.through) && set.through > self.checkpoint.position;
        if !self.in_flight && (set.has_effects() || is_at_end) {
            self.send_commit().await;
        }
    }

    async fn send_commit(&mut self) {
        let pending = std::mem::replace(&mut self.pending, Pending::new(self.models.len()));
        self.persisted = Instant::now();
        self.in_flight = true;
        let commit = Commit {
            from: *self.checkpoint,
            set: pending.set,
            events: pending.events,
        };
        // The committer takes one at a time and none is in flight: there is room.
        let _ = self.commit.send(commit).await;
    }

    /// Takes a transaction's end into account. Gives where the trouble is, when PostgreSQL refused a row.
    fn finish_commit(&mut self, done: Option<Done>) -> Result<Option<Position>, Interrupt> {
        let Some(done) = done else {
            return Err(Interrupt::Infrastructure("the committer ended".into()));
        };
        self.in_flight = false;
        match done.result {
            Ok(checkpoint) => {
                *self.checkpoint = checkpoint;
                *self.commits += 1;
                self.rows.committed(*self.commits);
                self.job.stats.committed(done.events);
                self.job.progress.committed();
                Ok(None)
            }
            Err(CommitError::Refused(_)) => {
                // Whatever was computed after it rests on rows that do not exist.
                let through = done.through.max(self.pending.set.through);
                self.pending = Pending::new(self.models.len());
                Ok(Some(through))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Commits what was processed. Gives where the trouble is, when PostgreSQL refuses a row.
    async fn flush(&mut self) -> Result<Option<Position>, Interrupt> {
        loop {
            if !self.in_flight {
                if self.pending.set.through <= self.checkpoint.position {
                    return Ok(None);
                }
                self.send_commit().await;
            }
            let done = self.done.recv().await;
            if let Some(through) = self.finish_commit(done)? {
                return Ok(Some(through));
            }
        }
    }
}
