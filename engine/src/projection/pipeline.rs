//! The steady state: while one transaction commits, the next batch runs, the one after is begun, the one after is read.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::batch::{Begun, begin};
use super::late::Lookout;
use super::pace::Pace;
use super::session::{Session, split_parked};
use super::{Control, Interrupt, Job};
use crate::event::Position;
use crate::read_model::ReadModel;
use crate::read_model::rows::Rows;
use crate::read_model::writer::{ChangeSet, Checkpoint, CommitError, DeadLetter, Writer};
use crate::source::{Limits, Reader};

/// Why the pipeline ended. Everything that was processed before is committed.
pub(super) enum End {
    /// It was told to stop, or that there is something else to do.
    Told,
    /// An event at or below `through` is in trouble.
    Trouble { through: Position },
    /// In the fast fill: there is nothing more to read at present.
    Filled,
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
    let (ahead_in, ahead_out) = mpsc::channel(session.pace.batches_ahead(&job.settings));
    let (commit_in, commit_out) = mpsc::channel(1);
    let (done_in, done_out) = mpsc::channel(1);
    let read = Feed {
        job,
        reader: &mut session.reader,
        models: &session.models,
        parked: &session.parked,
        pace: session.pace,
        after: session.checkpoint.position,
        until: control.borrow().until,
    }
    .run(ahead_in);
    let commit = commit(&mut session.writer, commit_out, done_in);
    let process = Processor {
        job,
        models: &session.models,
        parked: &session.parked,
        rows: &mut session.rows,
        checkpoint: &mut session.checkpoint,
        commits: &mut session.commits,
        pace: session.pace,
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

/// What is read ahead.
struct Feed<'s> {
    job: &'s Job,
    reader: &'s mut Reader,
    models: &'s Arc<[ReadModel]>,
    parked: &'s HashSet<String>,
    pace: Pace,
    after: Position,
    until: Option<Position>,
}

impl Feed<'_> {
    /// Reads batches and hands each to a worker. Ends only with an error. A fast fill is told by `None` that there is no
    /// more.
    async fn run(mut self, ahead: mpsc::Sender<Option<Ahead>>) -> Interrupt {
        let types = self.job.plugin.descriptor.event_types.as_deref();
        let limits = Limits {
            max_events: self.job.settings.batch_events,
            max_bytes: self.job.settings.batch_bytes,
            upto: self.until,
        };
        loop {
            // Waiting for a place first bounds what is in memory.
            let Ok(place) = ahead.reserve().await else {
                return Interrupt::Infrastructure("the processor ended".into());
            };
            let batch = match self.reader.next_batch(self.after, types, limits).await {
                Ok(batch) => batch,
                Err(error) => return error.into(),
            };
            if batch.through <= self.after {
                if (self.pace).is_filled(&self.job.source, self.after, self.until) {
                    place.send(None);
                    return std::future::pending().await;
                }
                drop(place);
                if self.until.is_some_and(|until| self.after >= until) {
                    // Whoever set the end lifts it, or ends the loop.
                    return std::future::pending().await;
                }
                if let Err(error) = self.job.source.wait_past(self.after).await {
                    return error.into();
                }
                self.linger().await;
                continue;
            }
            self.after = batch.through;
            let (batch, waiting) = split_parked(batch, self.parked);
            let (plugin, models) = (self.job.plugin.clone(), self.models.clone());
            let slot = plugin.slot().await;
            place.send(Some(Ahead {
                begun: tokio::task::spawn_blocking(move || begin(&plugin, slot, &models, batch)),
                waiting,
                through: self.after,
            }));
        }
    }

    /// Lets more events come in, so that they are processed together; not while a reader waits.
    async fn linger(&self) {
        if self.job.settings.linger.is_zero() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(self.job.settings.linger) => {}
            () = self.job.progress.awaited(self.job.target.generation) => {}
        }
    }
}

/// Commits one set after the other.
async fn commit(writer: &mut Writer, mut sets: mpsc::Receiver<Commit>, ends: mpsc::Sender<Done>) {
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
    pace: Pace,
    pending: Pending,
    in_flight: bool,
    persisted: Instant,
    commit: mpsc::Sender<Commit>,
    done: mpsc::Receiver<Done>,
}

impl Processor<'_> {
    async fn run(
        mut self,
        mut ahead: mpsc::Receiver<Option<Ahead>>,
        control: &mut watch::Receiver<Control>,
    ) -> Result<End, Interrupt> {
        let (generation, pace) = (self.job.target.generation, self.pace);
        let end = loop {
            let until = control.borrow().until;
            self.start_commit(until).await;
            let waits = self.pending.set.through > self.checkpoint.position && !self.in_flight;
            let awaitable = waits && pace.heeds_readers();
            let room = pace.has_room(&self.pending.set);
            let troubled = tokio::select! {
                biased;
                done = self.done.recv() => self.finish_commit(done)?,
                _ = control.changed() => break End::Told,
                () = tokio::time::sleep_until(self.persisted + pace.patience()), if waits => {
                    self.send_commit().await;
                    None
                }
                () = self.job.progress.awaited(generation), if awaitable => {
                    self.send_commit().await;
                    None
                }
                Some(next) = ahead.recv(), if room => match next {
                    Some(next) => self.process(next).await?,
                    None => break End::Filled,
                },
            };
            if let Some(through) = troubled {
                self.flush().await?;
                return Ok(End::Trouble { through });
            }
        };
        Ok(match self.flush().await? {
            Some(through) => End::Trouble { through },
            None => end,
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
        self.job.stats.reach(next.through);
        Ok(None)
    }

    /// Starts a transaction, if none is in flight and there is something that must not wait.
    async fn start_commit(&mut self, until: Option<Position>) {
        let set = &self.pending.set;
        // Somebody waits for the checkpoint to be there.
        let is_at_end = until == Some(set.through) && set.through > self.checkpoint.position;
        if !self.in_flight && (self.pace.is_due(set) || is_at_end) {
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
                let generation = self.job.target.generation;
                self.job.progress.committed(generation);
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
