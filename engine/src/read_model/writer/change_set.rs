//! What one transaction writes: the net change per row, dead letters, log lines.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use uuid::Uuid;

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
    /// A dead letter was processed out of order, and rows may differ from a replay's.
    pub diverged: bool,
    /// Lines for the author.
    pub logs: Vec<LogRecord>,
    pub(super) models: Vec<HashMap<Arc<[u8]>, RowChange>>,
    rows: usize,
    bytes: usize,
}

pub(super) struct RowChange {
    pub(super) row: Option<Arc<[u8]>>,
    pub(super) position: Position,
    pub(super) recorded_at: Micros,
    pub(super) stream: Option<Arc<str>>,
}

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

impl ChangeSet {
    /// A set that changes nothing.
    pub fn new(models: usize) -> Self {
        Self {
            models: (0..models).map(|_| HashMap::new()).collect(),
            ..Self::default()
        }
    }

    /// Adds the changes that `batch` made; the last change of a row is the one that counts.
    pub fn add(
        &mut self,
        batch: &Batch,
        changes: &[Change],
        models: &[ReadModel],
    ) -> Result<(), TwoStreams> {
        for change in changes {
            let index = change.event as usize;
            let head = &batch.events()[index];
            let model = &models[change.model];
            let stream = model.per_stream.then(|| Arc::from(batch.stream_id(index)));
            let size = change.key.len() + change.row.as_ref().map_or(0, |row| row.len());
            let new = RowChange {
                row: change.row.clone(),
                position: head.position,
                recorded_at: head.recorded_at,
                stream,
            };
            match self.models[change.model].insert(change.key.clone(), new) {
                None => self.rows += 1,
                Some(old)
                    if old.stream.as_deref()
                        != model.per_stream.then(|| batch.stream_id(index)) =>
                {
                    return Err(TwoStreams {
                        event: change.event,
                        model: model.name.clone(),
                        streams: format!(
                            "\"{}\" and \"{}\"",
                            old.stream.as_deref().unwrap_or_default(),
                            batch.stream_id(index)
                        ),
                    });
                }
                Some(_) => {}
            }
            self.bytes += size;
        }
        Ok(())
    }

    /// Rows that will be written.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes that were added, an upper bound of what will be written.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is anything besides the checkpoint's position to write.
    pub fn has_effects(&self) -> bool {
        self.rows > 0
            || !self.dead_letters.is_empty()
            || !self.settled.is_empty()
            || !self.logs.is_empty()
            || self.diverged
    }
}
