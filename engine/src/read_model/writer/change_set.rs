//! What one transaction writes: the net change per row, dead letters, log lines.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use std::collections::hash_map::Entry;
use uuid::Uuid;

use super::{AbsentKey, Rebuilt};
use crate::change::Change;
use crate::event::{Batch, Micros, Position};
use crate::read_model::ReadModel;

/// An event that could not be processed, or waits behind one.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The event's position.
    pub position: Position,
    /// Its stream.
    pub stream_id: String,
    /// Its type.
    pub kind: String,
    /// Its identity.
    pub event_id: Uuid,
    /// `failed`, `behind` or `skipped`.
    pub state: &'static str,
    /// Why.
    pub message: Option<String>,
}

/// A line that a plugin logged during the batch that ended at `position`.
#[derive(Debug, Clone)]
pub struct LogRecord {
    /// The last event of the batch.
    pub position: Position,
    /// The level's name.
    pub level: &'static str,
    /// The text.
    pub message: String,
}

/// What one transaction writes: the net change per row of one batch or several.
#[derive(Default)]
pub struct ChangeSet {
    /// Where the checkpoint moves to.
    pub through: Position,
    /// The last event that was handed to the plugin.
    pub applied: Option<(Position, Uuid)>,
    /// Events that could not be processed.
    pub dead_letters: Vec<DeadLetter>,
    /// Dead letters that have been processed now.
    pub settled: Vec<Position>,
    /// Rows may differ from a replay's from now on.
    pub diverged: bool,
    /// Keys at which there is no row, to be kept while a stream waits, and whether one may have been deleted there.
    pub absent: HashMap<AbsentKey, bool>,
    /// The last event that found or left no row there.
    pub absent_at: Position,
    /// The stream whose dead letter is being retried.
    pub retried: Option<String>,
    /// The stream whose rows are replaced.
    pub rebuilt: Option<Rebuilt>,
    /// Lines for the author.
    pub logs: Vec<LogRecord>,
    pub(super) models: Vec<HashMap<Arc<[u8]>, RowChange>>,
    pub(super) rows: usize,
    bytes: usize,
}

pub(super) struct RowChange {
    pub(super) row: Option<Arc<[u8]>>,
    pub(super) position: Position,
    pub(super) recorded_at: Micros,
    /// The stream of the last change: the row is its own from now on.
    pub(super) stream: Option<Arc<str>>,
    /// The stream of the first change: if the table has a row, it has to be this one's.
    pub(super) owner: Option<Arc<str>>,
}

impl RowChange {
    /// Whether the row that the table may have is to be deleted: without another in its place, or before another stream's.
    pub(super) fn deletes(&self) -> bool {
        self.row.is_none() || self.owner != self.stream
    }

    fn bytes(&self) -> usize {
        let stream = self.stream.as_ref().map_or(0, |stream| stream.len());
        self.row.as_ref().map_or(0, |row| row.len()) + stream
    }
}

/// What a row costs besides its bytes, here and in the row cache: two slots in tables that are full by two thirds on
/// average, and three counted allocations.
const ROW: usize = 320;
/// About what a dead letter, a line of the log, a key without row costs.
const NOTE: usize = 512;

/// A read model that is declared per stream has a row that two streams changed.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "a row of read model \"{model}\", which is declared per_stream, is changed by events of two streams ({streams}): remove per_stream, or put the stream into its key"
)]
pub struct TwoStreams {
    /// The event that made the second change, by its index in the batch.
    pub event: u32,
    model: String,
    streams: String,
}

impl TwoStreams {
    fn new(event: u32, model: &ReadModel, changes: [&RowChange; 2]) -> Self {
        let [first, second] = changes.map(|change| change.stream.as_deref().unwrap_or_default());
        Self {
            event,
            model: model.name.clone(),
            streams: format!("\"{first}\" and \"{second}\""),
        }
    }
}

impl ChangeSet {
    /// A set that changes nothing.
    pub fn new(models: usize) -> Self {
        Self {
            models: (0..models).map(|_| HashMap::new()).collect(),
            ..Self::default()
        }
    }

    /// Adds a change that an event of `batch` made; the last change of a row is the one that counts. `stream` is the
    /// event's, where the read model is declared per stream: there, a row belongs to the stream that inserted it for as
    /// long as it exists.
    pub fn add(
        &mut self,
        batch: &Batch,
        change: &Change,
        model: &ReadModel,
        stream: Option<Arc<str>>,
    ) -> Result<(), TwoStreams> {
        let head = &batch.events()[change.event as usize];
        let new = RowChange {
            row: change.row.clone(),
            position: head.position,
            recorded_at: head.recorded_at,
            owner: stream.clone(),
            stream,
        };
        match self.models[change.model].entry(change.key.clone()) {
            Entry::Vacant(entry) => {
                self.bytes += ROW + change.key.len() + new.bytes();
                entry.insert(new);
                self.rows += 1;
            }
            Entry::Occupied(mut entry) => {
                let old = entry.get_mut();
                if old.row.is_some() && old.stream != new.stream {
                    return Err(TwoStreams::new(change.event, model, [old, &new]));
                }
                self.bytes = self.bytes + new.bytes() - old.bytes();
                let owner = old.owner.take();
                *old = RowChange { owner, ..new };
            }
        }
        Ok(())
    }

    /// Says that rows may differ from a replay's, and why, once.
    pub fn diverge(&mut self, position: Position, reason: &str) {
        if !self.diverged {
            self.diverged = true;
            self.logs.push(LogRecord {
                position,
                level: "warn",
                message: format!(
                    "the generation has diverged: {reason}; a replay may give other rows"
                ),
            });
        }
    }

    /// Rows that will be written.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// About what it takes in memory, and in the row cache, which holds the same rows until they are committed.
    pub fn bytes(&self) -> usize {
        let notes = self.dead_letters.len() + self.logs.len() + self.absent.len();
        self.bytes + notes * NOTE
    }

    /// Whether it holds what an operator decides or has to see: that must not be lost with the last moments before a crash.
    pub(super) fn has_to_last(&self) -> bool {
        !self.dead_letters.is_empty()
            || !self.settled.is_empty()
            || self.diverged
            || self.rebuilt.is_some()
    }

    /// Whether there is anything besides the checkpoint's position to write.
    pub fn has_effects(&self) -> bool {
        self.rows > 0
            || !self.dead_letters.is_empty()
            || !self.settled.is_empty()
            || !self.logs.is_empty()
            || self.diverged
            || !self.absent.is_empty()
    }
}
