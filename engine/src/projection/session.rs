//! What a loop holds while its connections last: the checkpoint, the writer, the rows, the reader, the parked streams.

use std::collections::HashSet;
use std::sync::Arc;

use super::batch::{Executed, Trouble, TroubleKind};
use super::late::Lookout;
use super::pace::Pace;
use super::{Interrupt, Job, StopError, batch};
use crate::db::{Cause, cause, describe};
use crate::event::{Batch, Position};
use crate::failure::Evidence;
use crate::read_model::ReadModel;
use crate::read_model::rows::Rows;
use crate::read_model::writer::{
    ChangeSet, Checkpoint, CommitError, DeadLetter, Manner, Phase, Writer,
};
use crate::source::{Limits, Reader, SourceError};

pub(super) struct Session<'j> {
    pub(super) job: &'j Job,
    pub(super) models: Arc<[ReadModel]>,
    pub(super) checkpoint: Checkpoint,
    pub(super) writer: Writer,
    pub(super) rows: Rows,
    pub(super) reader: Reader,
    /// Streams that wait behind an event that could not be processed.
    pub(super) parked: HashSet<String>,
    /// When changes are committed.
    pub(super) pace: Pace,
    /// Numbers the transactions of this session, for the row cache.
    pub(super) commits: u64,
}

impl<'j> Session<'j> {
    pub(super) async fn open(job: &'j Job) -> Result<Self, Interrupt> {
        let models: Arc<[ReadModel]> = job.plugin.descriptor.read_models.clone().into();
        let purpose = writer_purpose(job.target.generation);
        let settings = &job.settings;
        let manner = Manner {
            synchronous: settings.synchronous_commit,
            most_told: settings.most_told,
        };
        let opened = Writer::open(
            &job.db,
            &purpose,
            manner,
            job.target.clone(),
            models.clone(),
            job.epoch,
        )
        .await?;
        let (writer, start) = opened.ok_or(Interrupt::Fenced)?;
        let pace = Pace::new(settings, start.phase);
        let rows = Rows::open(
            &job.db,
            &job.target.schema,
            models.clone(),
            pace.cache_bytes(settings),
            start.phase == Phase::Empty,
        )
        .await?;
        // Whoever took events back has fenced off every loop that was still before them: those come by here.
        job.source.forget_before(writer.last_redaction().await?);
        // Those that are filled at the same time share what they read.
        let mut reader = match start.phase {
            Phase::Following => job.source.reader(),
            Phase::Empty | Phase::Filling => job.source.rebuilding_reader(),
        };
        if let Err(error) = reader
            .verify_resume(start.checkpoint.position, start.applied)
            .await
        {
            // Read once more before a refusal is believed: the server may have crashed in between.
            let again = writer.start(job.epoch).await?.ok_or(Interrupt::Fenced)?;
            match again.checkpoint == start.checkpoint {
                true => return Err(error.into()),
                false => {
                    return Err(Interrupt::Infrastructure(
                        "the checkpoint changed meanwhile".into(),
                    ));
                }
            }
        }
        if start.parked.is_empty() {
            writer.forget_absent(&start.checkpoint).await?;
        }
        Ok(Self {
            job,
            models,
            checkpoint: start.checkpoint,
            writer,
            rows,
            reader,
            parked: start.parked,
            pace,
            commits: 0,
        })
    }

    /// How much the next batch may hold.
    pub(super) fn limits(&self, max_events: usize, upto: Option<Position>) -> Limits {
        Limits {
            max_events,
            max_bytes: self.job.settings.batch_bytes,
            upto,
        }
    }

    /// A set of changes for this generation.
    pub(super) fn change_set(&self) -> ChangeSet {
        let mut set = ChangeSet::new(self.models.len());
        set.through = self.checkpoint.position;
        set
    }

    /// Runs one batch on its own, from `begin` to its changes: new events, or the dead letter `retried`, given by its
    /// stream and position.
    pub(super) async fn execute(
        &mut self,
        batch: Batch,
        retried: Option<(&str, Position)>,
    ) -> Result<Result<Executed, Trouble>, Interrupt> {
        let begun =
            batch::begin_on_worker(self.job.plugin.clone(), self.models.clone(), batch).await?;
        let diverged = self.checkpoint.diverged;
        batch::finish(
            begun,
            &mut self.rows,
            &self.models,
            self.job.plugin.limits(),
            Lookout::new(&self.models, &self.parked, retried, diverged),
        )
        .await
    }

    /// Adds what a batch did to `set`, and lets later batches see it.
    pub(super) fn take_over(
        &mut self,
        executed: &Executed,
        set: &mut ChangeSet,
    ) -> Result<(), Box<Trouble>> {
        executed
            .add_to(set, &mut self.rows, &self.models, self.commits + 1)
            .map_err(|error| {
                Box::new(Trouble {
                    batch: executed.batch.clone(),
                    event: Some(error.event),
                    kind: TroubleKind::Blamed,
                    message: error.to_string(),
                    logs: Vec::new(),
                    evidence: Evidence::default(),
                })
            })
    }

    /// Commits `set` on its own. A refusal by PostgreSQL is given back as its text.
    pub(super) async fn commit(
        &mut self,
        set: &ChangeSet,
        events: usize,
    ) -> Result<Result<(), String>, Interrupt> {
        let result = self.writer.commit(self.checkpoint, set).await;
        Ok(match result {
            Ok(checkpoint) => {
                self.checkpoint = checkpoint;
                self.commits += 1;
                self.rows.committed(self.commits);
                self.job.stats.committed(events);
                let generation = self.job.target.generation;
                self.job.progress.committed(generation);
                Ok(())
            }
            Err(CommitError::Refused(why)) => Err(why),
            Err(error) => return Err(error.into()),
        })
    }

    /// Ends the fast fill. The session is of no use afterwards.
    pub(super) async fn end_fill(&mut self) -> Result<(), Interrupt> {
        let started = std::time::Instant::now();
        self.writer.end_fill(&self.checkpoint).await?;
        tracing::info!(
            projection = self.job.target.projection,
            generation = self.job.target.generation,
            position = self.checkpoint.position,
            indexes = ?started.elapsed(),
            "filled; following from here"
        );
        Ok(())
    }
}

/// The writer's session of a generation, by which a new owner finds and ends that of an owner which does not answer.
pub(crate) fn writer_purpose(generation: i64) -> String {
    format!("writer of generation {generation}")
}

/// Takes the events of parked streams out of a batch: they wait as dead letters.
pub(super) fn split_parked(batch: Batch, parked: &HashSet<String>) -> (Batch, Vec<DeadLetter>) {
    if parked.is_empty() || !(0..batch.len()).any(|index| parked.contains(batch.stream_id(index))) {
        return (batch, Vec::new());
    }
    let mut rest = Batch::empty(batch.through);
    let mut waiting = Vec::new();
    for index in 0..batch.len() {
        match parked.contains(batch.stream_id(index)) {
            true => waiting.push(dead_letter(&batch, index, "behind", None)),
            false => rest.push_from(&batch, index),
        }
    }
    (rest, waiting)
}

/// Event `index` of `batch` as a dead letter.
pub(super) fn dead_letter(
    batch: &Batch,
    index: usize,
    state: &'static str,
    message: Option<String>,
) -> DeadLetter {
    let head = &batch.events()[index];
    DeadLetter {
        position: head.position,
        stream_id: batch.stream_id(index).to_owned(),
        kind: batch.kind(index).to_owned(),
        event_id: head.event_id,
        state,
        message,
    }
}

impl From<tokio_postgres::Error> for Interrupt {
    fn from(error: tokio_postgres::Error) -> Self {
        let why = describe(&error);
        match cause(&error) {
            Cause::Infrastructure => Interrupt::Infrastructure(why),
            Cause::Value | Cause::Statement => broken(why),
        }
    }
}

impl From<CommitError> for Interrupt {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Fenced => Interrupt::Fenced,
            CommitError::Infrastructure(why) => Interrupt::Infrastructure(why),
            CommitError::Refused(why) | CommitError::Broken(why) => broken(why),
        }
    }
}

/// No event is to blame, so no policy applies: somebody has to mend the tables.
fn broken(why: String) -> Interrupt {
    stop(
        why,
        "the engine's own tables are not as it made them: mend them, then run `gobo restart` for the projection",
    )
}

fn stop(message: String, hint: &str) -> Interrupt {
    Interrupt::Stop(Box::new(StopError {
        message,
        position: None,
        stream_id: None,
        event_type: None,
        hint: Some(hint.into()),
        file: None,
    }))
}

impl From<SourceError> for Interrupt {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Infrastructure(why) => Interrupt::Infrastructure(why),
            SourceError::Refused(why) => stop(
                why,
                "mend the source, then run `gobo restart` for the projection",
            ),
        }
    }
}
