//! Two generations of a projection, brought to one position and compared there.
//!
//! A *barrier* is a position at which generations wait for a moment. Both get the same one, neither below where it is; a
//! loop that was past it before it heard raises it, and cannot pass it again. As soon as both are there, a snapshot is
//! taken in which they are, and the barrier is lifted: from then on they follow the events, and the comparison may take as
//! long as it likes. Readers read on all the while; what they see is late by the moment of the barrier.
//!
//! A barrier expires, so that an engine which dies over a comparison keeps nothing waiting.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;
use tokio_postgres::{Client, GenericClient, IsolationLevel, Transaction};

use super::GenerationError;
use super::diff::{Diff, DiffError, Options, Pair, compare};
use crate::db::Database;
use crate::event::Position;
use crate::registry::tell;

/// Comparisons at once, for each engine: each reads whole tables.
const AT_ONCE: usize = 2;
/// How far apart two generations may be when the barrier is set: whoever is ahead waits for the other one.
const NEAR: Position = 1_000;
/// How long two generations may take to come near each other.
const APPROACH: Duration = Duration::from_secs(10);
/// How long generations wait for each other before they are let go for a while.
const HOLD: Duration = Duration::from_secs(2);
/// How often that is tried.
const TRIES: u32 = 4;
/// The pause between.
const RELEASE: Duration = Duration::from_millis(500);
/// After how many seconds a barrier expires of which nobody takes care any more.
const EXPIRES: f64 = 10.0;
/// Between two looks at a barrier.
const LOOK: Duration = Duration::from_millis(10);
/// The class of the advisory locks under which barriers are set, one for each generation. It waits this long.
const BARRIERS: i32 = 0x676f_626f;
const LOCK_WAIT: &str = "15s";

/// Compares generations. Clones share the bound on how many at once.
#[derive(Clone)]
pub struct Comparer {
    database: Database,
    pool: Pool,
    slots: Arc<Semaphore>,
}

/// Which generations of a projection are compared, and how.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The projection.
    pub projection: String,
    /// The one generation; the live one when nobody says.
    pub a: Option<i64>,
    /// The other one; the candidate, or else the one that was live last.
    pub b: Option<i64>,
    /// How.
    pub options: Options,
}

/// A comparison whose snapshot is taken. It is given up when this is dropped.
#[derive(Debug)]
pub struct Comparison {
    /// What is compared, and where.
    pub pair: Pair,
    /// Its end.
    pub end: oneshot::Receiver<Result<Diff, DiffError>>,
}

/// A generation as it is compared.
struct Side {
    generation: i64,
    position: Position,
    /// It is complete, and does not move any more.
    done: bool,
    bulk: bool,
    until: Option<Position>,
}

impl Comparer {
    /// Compares in the database; `pool` is for what takes a moment.
    pub fn new(database: Database, pool: Pool) -> Self {
        Self {
            database,
            pool,
            slots: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Brings both generations to one position and begins to compare them.
    pub async fn start(&self, wanted: Wanted) -> Result<Comparison, GenerationError> {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            return Err(GenerationError::Conflict(format!(
                "{AT_ONCE} comparisons are under way already; try again when one has ended"
            )));
        };
        let (a, b) = self.generations(&wanted).await?;
        let (met_in, met) = oneshot::channel();
        let (end_in, end) = oneshot::channel();
        let comparer = self.clone();
        // A task of its own: whoever asked may go away, but a barrier that was set has to be lifted.
        tokio::spawn(async move {
            comparer.run(&wanted, [a, b], slot, met_in, end_in).await;
        });
        let pair = met.await.map_err(|_| {
            GenerationError::Conflict("the comparison failed; the engine's log says more".into())
        })??;
        Ok(Comparison { pair, end })
    }

    async fn generations(&self, wanted: &Wanted) -> Result<(i64, i64), GenerationError> {
        let projection = &wanted.projection;
        let client = self.pool.get().await?;
        let row = client
            .query_opt(include_str!("pair.sql"), &[projection])
            .await?
            .ok_or_else(|| GenerationError::NoProjection(projection.clone()))?;
        let (live, other): (i64, Option<i64>) = (row.get(0), row.get(1));
        let a = wanted.a.unwrap_or(live);
        let b = wanted.b.or(other).ok_or_else(|| {
            GenerationError::Conflict(format!(
                "generation {live} is the only one of projection \"{projection}\": there is nothing to compare it with"
            ))
        })?;
        match a == b {
            false => Ok((a, b)),
            true => Err(GenerationError::Invalid(format!(
                "generation {a} is to be compared with itself: name another one"
            ))),
        }
    }

    /// Gives the slot back before it tells how it ended: whoever hears that may compare again at once.
    async fn run(
        &self,
        wanted: &Wanted,
        pair: [i64; 2],
        slot: OwnedSemaphorePermit,
        met: oneshot::Sender<Result<Pair, GenerationError>>,
        mut end: oneshot::Sender<Result<Diff, DiffError>>,
    ) {
        let mut session = match self.database.connect("comparison", &[]).await {
            Ok(session) => session,
            Err(error) => {
                drop(slot);
                return drop(met.send(Err(error.into())));
            }
        };
        let diff = match self.meet(&wanted.projection, pair, &mut session).await {
            Err(error) => {
                drop(slot);
                return drop(met.send(Err(error)));
            }
            Ok((transaction, pair)) => {
                if met.send(Ok(pair)).is_err() {
                    return;
                }
                tokio::select! {
                    diff = compare(&transaction, pair, &wanted.options, |_| {}) => Some(diff),
                    () = end.closed() => None,
                }
            }
        };
        match diff {
            Some(diff) => {
                drop(slot);
                // Nobody waits for it in this very moment either.
                drop(end.send(diff));
            }
            None => {
                drop(slot);
                self.database.cancel(&session).await;
            }
        }
    }

    /// Takes a snapshot in which both generations are at one position.
    async fn meet<'s>(
        &self,
        projection: &str,
        [a, b]: [i64; 2],
        session: &'s mut Client,
    ) -> Result<(Transaction<'s>, Pair), GenerationError> {
        let settings = [("lock_timeout", LOCK_WAIT), ("statement_timeout", "20s")];
        let control = self.database.connect("barrier", &settings).await?;
        let barrier = Barrier {
            control,
            projection,
            generations: [a, b],
        };
        barrier.approach().await?;
        barrier.lock().await?;
        let begun = match barrier.hold().await {
            Ok((position, snapshot)) => begin(session, &snapshot)
                .await
                .map(|transaction| (transaction, Pair { a, b, position })),
            Err(error) => Err(error),
        };
        if let Err(error) = barrier.lift().await {
            let error = crate::db::describe(&error);
            tracing::warn!(projection, error, "a barrier cannot be lifted; it expires");
        }
        begun
    }
}

/// Begins a transaction that sees what the snapshot's own transaction sees, which is still open.
async fn begin<'s>(
    session: &'s mut Client,
    snapshot: &str,
) -> Result<Transaction<'s>, GenerationError> {
    let transaction = session
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    // Snapshots are named by the server: hexadecimal digits and dashes.
    transaction
        .batch_execute(&format!("set transaction snapshot '{snapshot}'"))
        .await?;
    Ok(transaction)
}

/// Two generations that are to be at one position.
struct Barrier<'p> {
    control: Client,
    projection: &'p str,
    generations: [i64; 2],
}

impl Barrier<'_> {
    /// Waits until they are so near each other that the one in front has to wait for a moment only.
    async fn approach(&self) -> Result<(), GenerationError> {
        let started = Instant::now();
        loop {
            let sides = sides(&self.control, self.projection, self.generations).await?;
            meeting_point(self.projection, &sides)?;
            let [a, b] = &sides;
            let apart = (a.position - b.position).abs();
            if apart <= NEAR && !a.bulk && !b.bulk {
                return Ok(());
            }
            if started.elapsed() > APPROACH {
                return Err(self.apart(&sides));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Two comparisons of one generation would lift each other's barriers. Taken in one order, so that no two wait for
    /// each other; the end of the session gives them back.
    async fn lock(&self) -> Result<(), GenerationError> {
        let mut generations = self.generations;
        generations.sort_unstable();
        for generation in generations {
            // Numbers that share a lock wait for each other without need, once in two billion.
            let key = (generation & i64::from(i32::MAX)) as i32;
            self.control
                .execute("select pg_advisory_lock($1, $2)", &[&BARRIERS, &key])
                .await?;
        }
        Ok(())
    }

    /// Keeps both where they meet. Gives the position, and a snapshot in which both are there; it lasts until they are let
    /// go. They may have to be let go when it fails, too.
    async fn hold(&self) -> Result<(Position, String), GenerationError> {
        let mut tried = 0;
        loop {
            tried += 1;
            if let Some(met) = self.try_hold().await? {
                return Ok(met);
            }
            self.lift().await?;
            if tried == TRIES {
                let sides = sides(&self.control, self.projection, self.generations).await?;
                return Err(self.apart(&sides));
            }
            tokio::time::sleep(RELEASE).await;
        }
    }

    async fn try_hold(&self) -> Result<Option<(Position, String)>, GenerationError> {
        let started = Instant::now();
        let mut held = None;
        while started.elapsed() < HOLD {
            let sides = sides(&self.control, self.projection, self.generations).await?;
            let meeting = meeting_point(self.projection, &sides)?;
            if held != Some(meeting) {
                self.set(meeting).await?;
                held = Some(meeting);
            }
            let are_there = sides.iter().all(|side| side.is_at(meeting));
            if are_there && let Some(snapshot) = self.snapshot(meeting).await? {
                return Ok(Some((meeting, snapshot)));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(None)
    }

    /// A snapshot in which both are at `position`; `None` if one of them had not heard of the barrier and is past it.
    async fn snapshot(&self, position: Position) -> Result<Option<String>, GenerationError> {
        self.control
            .batch_execute("begin isolation level repeatable read read only")
            .await?;
        // Not what was seen before counts, but what the snapshot shows.
        let sides = sides(&self.control, self.projection, self.generations).await?;
        if !sides.iter().all(|side| side.is_at(position)) {
            self.control.batch_execute("rollback").await?;
            return Ok(None);
        }
        let exported = self.control.query_one("select pg_export_snapshot()", &[]);
        Ok(Some(exported.await?.get(0)))
    }

    async fn set(&self, position: Position) -> Result<(), tokio_postgres::Error> {
        self.control
            .execute(
                "update gobo.generations set barrier = $2, barrier_expires = clock_timestamp() + make_interval(secs => $3) \
                  where id = any ($1)",
                &[&self.generations.as_slice(), &position, &EXPIRES],
            )
            .await?;
        tell(&self.control).await
    }

    /// Ends the snapshot, if there is one, and lets both go.
    async fn lift(&self) -> Result<(), tokio_postgres::Error> {
        self.control.batch_execute("rollback").await?;
        self.control
            .execute(
                "update gobo.generations set barrier = null, barrier_expires = null where id = any ($1)",
                &[&self.generations.as_slice()],
            )
            .await?;
        tell(&self.control).await
    }

    fn apart(&self, sides: &[Side; 2]) -> GenerationError {
        let [a, b] = sides;
        GenerationError::Conflict(format!(
            "generation {} is at position {} and generation {} at {}, and they do not meet: compare them when both have caught up \
             (gobo generations {})",
            a.generation, a.position, b.generation, b.position, self.projection
        ))
    }
}

impl Side {
    fn is_at(&self, position: Position) -> bool {
        self.position == position && !self.bulk
    }
}

/// The lowest position at which both can be. Refuses what will never be there.
fn meeting_point(projection: &str, sides: &[Side; 2]) -> Result<Position, GenerationError> {
    let meeting = sides[0].position.max(sides[1].position);
    for (side, other) in [(&sides[0], &sides[1]), (&sides[1], &sides[0])] {
        let end = if side.done {
            Some(side.position)
        } else {
            side.until
        };
        if let Some(end) = end.filter(|end| *end < meeting) {
            return Err(GenerationError::Conflict(format!(
                "generation {} ends at position {end}, and generation {} is past it, at {}: \
                 `gobo replay {projection} --until {end} --as NAME` computes the rows of that position with the live code",
                side.generation, other.generation, other.position
            )));
        }
    }
    Ok(meeting)
}

/// Both generations, in the order in which they are asked for. Refuses those that do not move although they should.
async fn sides(
    client: &impl GenericClient,
    projection: &str,
    [a, b]: [i64; 2],
) -> Result<[Side; 2], GenerationError> {
    let rows = client
        .query(include_str!("sides.sql"), &[&projection, &&[a, b][..]])
        .await?;
    let find = |generation: i64| -> Result<Side, GenerationError> {
        let row = rows.iter().find(|row| row.get::<_, i64>(0) == generation);
        let row = row.ok_or_else(|| GenerationError::NoGeneration {
            projection: projection.to_owned(),
            what: generation.to_string(),
        })?;
        side(projection, row)
    };
    Ok([find(a)?, find(b)?])
}

fn side(projection: &str, row: &tokio_postgres::Row) -> Result<Side, GenerationError> {
    let (generation, state): (i64, &str) = (row.get("id"), row.get("state"));
    let refuse = |why: String| {
        Err(GenerationError::Conflict(format!(
            "generation {generation} cannot be compared: {why}"
        )))
    };
    let done = state == "done";
    if state == "dropping" {
        return refuse("it was given up, and its tables are dropped".into());
    }
    if let Some(error) = row.get::<_, Option<&str>>("error") {
        return refuse(format!("it has stopped: {error}"));
    }
    if row.get("paused") && !done {
        return refuse(format!(
            "it is paused (gobo resume {projection} --generation {generation})"
        ));
    }
    Ok(Side {
        generation,
        position: row.get("position"),
        done,
        bulk: row.get("bulk"),
        until: row.get("until"),
    })
}
