//! One batch through the plugin: `begin`, and as many rounds of rows and `resume` as it asks for.

use std::sync::Arc;

use super::Interrupt;
use super::late::{Lookout, Seen};
use crate::change::{Change, Invalid, Need, decode_changes, decode_needs};
use crate::db::{Cause, cause, describe};
use crate::event::Batch;
use crate::failure::{Evidence, Given};
use crate::host::{CallError, Instance, Limits, LogLine, Plugin, Slot, Step};
use crate::read_model::ReadModel;
use crate::read_model::rows::{Owner, Row, Rows};
use crate::read_model::writer::{ChangeSet, LogRecord, TwoStreams};

/// A batch after `begin`, which needs no row and so may run ahead of the batches before it.
pub(super) struct Begun {
    pub(super) batch: Batch,
    pub(super) instance: Option<Instance>,
    pub(super) next: Result<Next, Failure>,
}

/// What a call of the plugin led to, decoded and checked.
pub(super) enum Next {
    Need(Vec<Need>),
    Done(Vec<Change>),
}

/// Why there is no next step.
pub(super) enum Failure {
    Call(CallError),
    Invalid(Invalid),
    Exceeded(String),
    /// PostgreSQL does not take a key that the plugin asks for.
    Key(String),
}

/// A batch that was processed.
pub(super) struct Executed {
    pub(super) batch: Batch,
    pub(super) changes: Vec<Change>,
    pub(super) logs: Vec<LogRecord>,
    pub(super) seen: Seen,
    pub(super) given: Given,
}

impl Executed {
    /// What it is when PostgreSQL refuses its rows.
    pub(super) fn refused(self, message: String) -> Trouble {
        Trouble {
            batch: self.batch,
            event: None,
            kind: TroubleKind::Blamed,
            message,
            logs: self.logs,
            evidence: Evidence {
                backtrace: Vec::new(),
                given: self.given,
                changes: Some(self.changes),
            },
        }
    }

    /// Adds what the batch did to `set`, and lets later batches see it: its rows are pinned until commit number `commit`.
    /// After an error `set` and `rows` hold a part of the batch: the one is to be dropped, the other cleared.
    pub(super) fn add_to(
        &self,
        set: &mut ChangeSet,
        rows: &mut Rows,
        models: &[ReadModel],
        commit: u64,
    ) -> Result<(), TwoStreams> {
        for change in &self.changes {
            let (model, event) = (&models[change.model], change.event as usize);
            let owner = model.per_stream.then(|| Owner {
                stream: self.batch.stream_id(event).into(),
                position: self.batch.events()[event].position,
            });
            let stream = owner.as_ref().map(|owner| owner.stream.clone());
            set.add(&self.batch, change, model, stream)?;
            rows.apply(change, owner, commit);
        }
        if let Some(last) = self.batch.events().last() {
            set.applied = Some((last.position, last.event_id));
            self.seen.note(last.position, &self.changes, models, set);
        }
        set.through = set.through.max(self.batch.through);
        set.logs.extend(self.logs.iter().cloned());
        Ok(())
    }
}

/// A batch that could not be processed.
pub(super) struct Trouble {
    pub(super) batch: Batch,
    /// The event to blame, by its index, if that is known.
    pub(super) event: Option<u32>,
    pub(super) kind: TroubleKind,
    pub(super) message: String,
    pub(super) logs: Vec<LogRecord>,
    pub(super) evidence: Evidence,
}

impl Trouble {
    /// How many events to try next, to find the one: those before the blamed one, then that one alone; or half of them, when
    /// nobody is blamed.
    pub(super) fn fewer(&self) -> usize {
        match self.event {
            Some(0) => 1,
            Some(event) => event as usize,
            None => self.batch.len() / 2,
        }
    }
}

/// How certain it is that an event is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TroubleKind {
    /// The same call would fail again.
    Blamed,
    /// A limit was met, which on a busy machine may be chance: try again before blaming an event.
    Limit,
}

/// Runs `begin` on a worker thread.
pub(super) async fn begin_on_worker(
    plugin: Plugin,
    models: Arc<[ReadModel]>,
    batch: Batch,
) -> Result<Begun, Interrupt> {
    let slot = plugin.slot().await;
    let work = tokio::task::spawn_blocking(move || begin(&plugin, slot, &models, batch));
    work.await
        .map_err(|error| Interrupt::Infrastructure(format!("a worker failed: {error}")))
}

/// Runs `begin` and decodes what it leads to. Blocks.
pub(super) fn begin(plugin: &Plugin, slot: Slot, models: &[ReadModel], batch: Batch) -> Begun {
    if batch.is_empty() {
        let next = Ok(Next::Done(Vec::new()));
        return Begun {
            batch,
            instance: None,
            next,
        };
    }
    let (instance, step) = plugin.begin(slot, batch.frame());
    let next = decode(step, models, batch.len());
    Begun {
        batch,
        instance,
        next,
    }
}

pub(super) fn decode(
    step: Result<Step, CallError>,
    models: &[ReadModel],
    events: usize,
) -> Result<Next, Failure> {
    match step.map_err(Failure::Call)? {
        Step::Need(keys) => decode_needs(&keys, models).map(Next::Need),
        Step::Done(changes) => decode_changes(&changes, models, events).map(Next::Done),
    }
    .map_err(Failure::Invalid)
}

/// Answers the plugin's needs until it is done.
pub(super) async fn finish(
    begun: Begun,
    rows: &mut Rows,
    models: &Arc<[ReadModel]>,
    limits: &Limits,
    mut lookout: Lookout<'_>,
) -> Result<Result<Executed, Trouble>, Interrupt> {
    let Begun {
        batch,
        mut instance,
        mut next,
    } = begun;
    let (mut rounds, mut keys) = (0, 0);
    let mut given = Given::new(batch.len());
    loop {
        let needs = match next {
            Ok(Next::Done(changes)) => {
                let logs = take_logs(instance, &batch);
                return Ok(Ok(Executed {
                    batch,
                    changes,
                    logs,
                    seen: lookout.end(),
                    given,
                }));
            }
            Ok(Next::Need(needs)) => needs,
            Err(failure) => return trouble(failure, instance, batch, given).map(Err),
        };
        rounds += 1;
        keys += needs.len();
        if let Some(exceeded) = exceeded(rounds, keys, limits) {
            next = Err(exceeded);
            continue;
        }
        let saw = |need: &Need, row: Option<&Row>| {
            given.note(need, row.map(|row| &row.fields));
            lookout.saw(need, row);
        };
        let answer = match rows.answer(&needs, limits.memory_bytes, saw).await {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                given.cut();
                next = Err(too_many_bytes(limits));
                continue;
            }
            Err(error) if cause(&error) == Cause::Value => {
                given.refuse(&needs);
                next = Err(Failure::Key(describe(&error)));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let Some(mut running) = instance.take() else {
            return Err(Interrupt::Infrastructure(
                "a batch lost its instance".into(),
            ));
        };
        let models = models.clone();
        let events = batch.len();
        let call = tokio::task::spawn_blocking(move || {
            let step = running.resume(&answer);
            (running, decode(step, &models, events))
        });
        let (running, decoded) = call
            .await
            .map_err(|error| Interrupt::Infrastructure(format!("a worker failed: {error}")))?;
        instance = Some(running);
        next = decoded;
    }
}

pub(super) fn too_many_bytes(limits: &Limits) -> Failure {
    Failure::Exceeded(format!(
        "the rows that the plugin asked for in one batch do not fit into its memory of {} bytes (limits.memory_bytes)",
        limits.memory_bytes
    ))
}

pub(super) fn exceeded(rounds: usize, keys: usize, limits: &Limits) -> Option<Failure> {
    if keys > limits.keys_per_batch {
        return Some(Failure::Exceeded(format!(
            "the plugin asked for more than {} rows in one batch (limits.keys_per_batch)",
            limits.keys_per_batch
        )));
    }
    (rounds > limits.rounds).then(|| {
        Failure::Exceeded(format!(
            "the plugin asked for rows more than {} times in one batch (limits.rounds)",
            limits.rounds
        ))
    })
}

pub(super) fn trouble(
    failure: Failure,
    mut instance: Option<Instance>,
    batch: Batch,
    given: Given,
) -> Result<Trouble, Interrupt> {
    let evidence = Evidence {
        backtrace: (instance.as_mut()).map_or_else(Vec::new, Instance::take_backtrace),
        given,
        changes: None,
    };
    let logs = take_logs(instance, &batch);
    let (event, kind, message) = match failure {
        Failure::Call(CallError::Host(why)) => return Err(Interrupt::Infrastructure(why)),
        Failure::Call(CallError::Failure { event, message }) => {
            (Some(event), TroubleKind::Blamed, message)
        }
        Failure::Call(
            error @ (CallError::Timeout { .. }
            | CallError::Memory { .. }
            | CallError::Output { .. }),
        ) => (None, TroubleKind::Limit, error.to_string()),
        Failure::Call(error @ CallError::Trap { .. }) => {
            (None, TroubleKind::Blamed, error.to_string())
        }
        Failure::Invalid(invalid) => (invalid.event, TroubleKind::Blamed, invalid.to_string()),
        Failure::Exceeded(message) => (None, TroubleKind::Limit, message),
        Failure::Key(why) => (
            None,
            TroubleKind::Blamed,
            format!("PostgreSQL refuses a key that the plugin asks for: {why}"),
        ),
    };
    Ok(Trouble {
        event: event.filter(|&event| (event as usize) < batch.len()),
        batch,
        kind,
        message,
        logs,
        evidence,
    })
}

pub(super) fn take_logs(instance: Option<Instance>, batch: &Batch) -> Vec<LogRecord> {
    let (lines, dropped) = instance.map_or((Vec::new(), 0), |mut instance| instance.take_logs());
    let position = batch
        .events()
        .last()
        .map_or(batch.through, |event| event.position);
    let record = |line: LogLine| LogRecord {
        position,
        level: line.level.name(),
        message: line.message,
    };
    let mut logs: Vec<_> = lines.into_iter().map(record).collect();
    if dropped > 0 {
        logs.push(LogRecord {
            position,
            level: "warn",
            message: format!("{dropped} more lines of this batch were dropped (limits.log_lines)"),
        });
    }
    logs
}
