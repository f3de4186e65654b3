//! The loop of one generation: read -> begin -> rows -> resume -> commit.
//!
//! [`run`] goes on until it is stopped, fenced off, or fails for good. It opens a [`Session`] and lets the pipeline run; when
//! a batch is in trouble it goes on carefully, event by event where it must, and applies the policy; when the
//! infrastructure fails it starts over from the checkpoint in the database.

mod batch;
mod dead_letter;
mod keep;
mod late;
mod pace;
mod pipeline;
mod policy;
pub mod rerun;
mod session;
mod stream;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::db::Database;
use crate::event::Position;
use crate::failure::Folder;
use crate::host::Plugin;
use crate::progress::Progress;
use crate::read_model::writer::Target;
use crate::source::Source;
use session::Session;
pub(crate) use session::writer_purpose;

/// What a loop works on.
#[derive(Clone)]
pub struct Job {
    /// Where rows and checkpoints are.
    pub db: Database,
    /// Where the events come from.
    pub source: Source,
    /// What turns them into changes.
    pub plugin: Plugin,
    /// Where the changes go.
    pub target: Target,
    /// The owner's epoch.
    pub epoch: i64,
    /// How it works.
    pub settings: Settings,
    /// Told of every commit.
    pub progress: Progress,
    /// Counts what was done.
    pub stats: Arc<Stats>,
    /// Where events that cannot be processed are kept as files.
    pub failures: Option<Folder>,
}

/// How a loop works. Sizes bound memory; they never change a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Events per batch.
    pub batch_events: usize,
    /// Bytes of events per batch; a batch has at least one event.
    pub batch_bytes: usize,
    /// Batches that are read, and begun, ahead.
    pub batches_ahead: usize,
    /// Bytes of rows that are kept between batches.
    pub row_cache_bytes: usize,
    /// Bytes of changed rows that a rebuild keeps in memory before it writes them.
    pub rebuild_bytes: usize,
    /// Rows per transaction, from which on no further batch joins it.
    pub commit_rows: usize,
    /// Bytes per transaction, from which on no further batch joins it.
    pub commit_bytes: usize,
    /// Whether a commit waits for the disk. Without, a crash of the server costs a little re-projection, never consistency.
    pub synchronous_commit: bool,
    /// What to do with an event that cannot be processed.
    pub policy: Policy,
    /// For how long events are collected before they are read. A reader that waits cuts it short.
    pub linger: Duration,
    /// Changed rows of a read model that one commit tells those who follow it; more are not told.
    pub most_told: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_events: 8_000,
            batch_bytes: 8 << 20,
            batches_ahead: 3,
            row_cache_bytes: 64 << 20,
            rebuild_bytes: 256 << 20,
            commit_rows: 20_000,
            commit_bytes: 32 << 20,
            synchronous_commit: false,
            policy: Policy::Stop,
            linger: Duration::ZERO,
            most_told: 1_000,
        }
    }
}

/// What to do with an event that cannot be processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Stop the projection before it.
    #[default]
    Stop,
    /// Keep it, and what follows in its stream, as dead letters; other streams go on.
    Park,
    /// Keep it as a dead letter and go on, its stream included.
    Skip,
}

/// Counters of one loop, for status and metrics.
#[derive(Debug, Default)]
pub struct Stats {
    events: AtomicU64,
    reached: AtomicI64,
    trouble: Mutex<Option<String>>,
}

impl Stats {
    /// Why the loop cannot go on at present, if it cannot: it tries again for ever.
    pub fn trouble(&self) -> Option<String> {
        self.lock_trouble().clone()
    }

    fn set_trouble(&self, why: Option<String>) {
        *self.lock_trouble() = why;
    }

    fn lock_trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events that were handed to the plugin and committed.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Up to where events were processed. A fast fill commits seldom: its checkpoint may lie far behind.
    pub fn reached(&self) -> Position {
        self.reached.load(Ordering::Relaxed)
    }

    fn reach(&self, through: Position) {
        self.reached.store(through, Ordering::Relaxed);
    }

    fn committed(&self, events: usize) {
        self.events.fetch_add(events as u64, Ordering::Relaxed);
        self.set_trouble(None);
    }
}

/// What a loop is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Control {
    /// Finish what is in flight and end.
    pub stop: bool,
    /// Process nothing after this position.
    pub until: Option<Position>,
    /// Rises when there may be something to do besides new events: dead letters to retry, a stream to rebuild.
    pub nudges: u64,
}

/// How a loop ended.
#[derive(Debug)]
pub enum Exit {
    /// It was told to stop.
    Stopped,
    /// Another owner or another plugin has taken over; nothing more can be committed.
    Fenced,
    /// It cannot go on: the error is stored with the checkpoint.
    Failed(StopError),
}

/// Why a projection stopped, as stored and shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StopError {
    /// What went wrong.
    pub message: String,
    /// The event that could not be processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// Its stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// Its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// How to mend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The file that `gobo replay --frame` runs the event again from, on the machine of the engine that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Why a session cannot be continued.
enum Interrupt {
    /// Something failed that has nothing to do with the events: start over from the checkpoint, for ever.
    Infrastructure(String),
    /// Another owner or plugin.
    Fenced,
    /// The projection cannot go on.
    Stop(Box<StopError>),
}

/// Runs the loop.
pub async fn run(job: Job, mut control: watch::Receiver<Control>) -> Exit {
    let mut backoff = Backoff::default();
    loop {
        let started = std::time::Instant::now();
        let why = match attempt(&job, &mut control).await {
            Ok(Attempt::Stopped) => return Exit::Stopped,
            Ok(Attempt::Moved | Attempt::Filled) => continue,
            Err(Interrupt::Fenced) => return Exit::Fenced,
            Err(Interrupt::Stop(error)) => match store_error(&job, &error).await {
                Ok(true) => return Exit::Failed(*error),
                Ok(false) => return Exit::Fenced,
                Err(why) => crate::db::describe(&why),
            },
            Err(Interrupt::Infrastructure(why)) => why,
        };
        if started.elapsed() > Duration::from_secs(10) {
            backoff = Backoff::default();
        }
        job.stats.set_trouble(Some(why.clone()));
        let wait = backoff.next();
        let projection = &job.target.projection;
        tracing::warn!(
            projection,
            generation = job.target.generation,
            why,
            ?wait,
            "interrupted; starting over from the checkpoint"
        );
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped(&mut control) => return Exit::Stopped,
        }
    }
}

/// Resolves when the loop is told to stop (or nobody is left who could).
async fn stopped(control: &mut watch::Receiver<Control>) {
    let _ = control.wait_for(|control| control.stop).await;
}

/// How a session ended that was not interrupted.
enum Attempt {
    /// It was told to stop.
    Stopped,
    /// The checkpoint is not where this session left it: a promotion takes a revision, or another owner has taken over.
    /// Opening the next session tells which.
    Moved,
    /// The fast fill is over: the next session goes on in the ordinary way.
    Filled,
}

async fn attempt(job: &Job, control: &mut watch::Receiver<Control>) -> Result<Attempt, Interrupt> {
    let mut session = Session::open(job).await?;
    match work(&mut session, control).await {
        Err(Interrupt::Fenced) => Ok(Attempt::Moved),
        ended => ended,
    }
}

async fn work(
    session: &mut Session<'_>,
    control: &mut watch::Receiver<Control>,
) -> Result<Attempt, Interrupt> {
    while !control.borrow_and_update().stop {
        dead_letter::retry(session).await?;
        stream::rebuild(session, control).await?;
        match pipeline::run(session, control).await? {
            pipeline::End::Told => {}
            pipeline::End::Trouble { through } => {
                policy::carefully(session, control, through).await?;
            }
            pipeline::End::Filled => {
                session.end_fill().await?;
                return Ok(Attempt::Filled);
            }
        }
    }
    Ok(Attempt::Stopped)
}

/// Stores why the projection stops, unless somebody else has taken over. Gives whether it did.
async fn store_error(job: &Job, error: &StopError) -> Result<bool, tokio_postgres::Error> {
    let projection = &job.target.projection;
    tracing::error!(
        projection,
        position = error.position,
        error = error.message,
        "the projection has stopped"
    );
    let client = job.db.connect("control", &[]).await?;
    let error = tokio_postgres::types::Json(error);
    let stored = client
        .execute(
            "update gobo.checkpoints set error = $1 where generation = $2 and epoch = $3 and plugin_hash = $4",
            &[&error, &job.target.generation, &job.epoch, &&job.target.hash.0[..]],
        )
        .await?;
    Ok(stored == 1)
}

/// Exponential, with jitter, so that many loops do not return in step.
#[derive(Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        self.failures += 1;
        let longest = 50 * 2u64.pow(self.failures.min(7));
        let jitter = u64::from(uuid::Uuid::new_v4().as_fields().0) % (longest / 2 + 1);
        Duration::from_millis(longest / 2 + jitter)
    }
}
