//! When changes are committed: at once while a generation follows the events, as late as memory allows while it is filled.

use std::num::NonZero;
use std::time::Duration;

use super::Settings;
use crate::event::Position;
use crate::read_model::writer::{ChangeSet, Phase};
use crate::source::Source;

/// How long a checkpoint that moved over unwanted events may stay in memory.
const LAZY: Duration = Duration::from_secs(1);
/// How long a fast fill commits nothing at most: so much may have to be done again after a crash.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a session paces its commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// What changes shows as soon as possible.
    Following {
        /// No further batch joins a transaction with so many rows,
        rows: usize,
        /// or with so many bytes.
        bytes: usize,
    },
    /// The fast fill: nobody reads the rows yet, and the fewer commits, the more changes of one row become one. While one
    /// set is committed the next one grows, so each has half of the memory.
    Filling {
        /// A set of so many bytes is committed.
        bytes: usize,
        /// Up to what distance from the head it makes no difference any more.
        near: i64,
    },
}

impl Pace {
    pub(super) fn new(settings: &Settings, phase: Phase) -> Self {
        match phase {
            Phase::Following => Self::Following {
                rows: settings.commit_rows,
                bytes: settings.commit_bytes,
            },
            Phase::Empty | Phase::Filling => Self::Filling {
                bytes: settings.rebuild_bytes / 2,
                near: i64::try_from(settings.batch_events).unwrap_or(i64::MAX),
            },
        }
    }

    /// Whether `set` is to be committed as soon as no other one is in flight.
    pub(super) fn is_due(self, set: &ChangeSet) -> bool {
        match self {
            Self::Following { .. } => set.has_effects(),
            Self::Filling { bytes, .. } => set.bytes() >= bytes,
        }
    }

    /// Whether another batch may join `set`.
    pub(super) fn has_room(self, set: &ChangeSet) -> bool {
        match self {
            Self::Following { rows, bytes } => set.rows() < rows && set.bytes() < bytes,
            Self::Filling { bytes, .. } => set.bytes() < bytes,
        }
    }

    /// For how long a set may wait that is not due.
    pub(super) fn patience(self) -> Duration {
        match self {
            Self::Following { .. } => LAZY,
            Self::Filling { .. } => PATIENCE,
        }
    }

    /// Whether somebody may wait for a position.
    pub(super) fn heeds_readers(self) -> bool {
        matches!(self, Self::Following { .. })
    }

    /// Whether a fast fill is over, now that nothing can be read after `after`. What is held up behind a writer that is not
    /// done is waited for: it may be most of the events.
    pub(super) fn is_filled(
        self,
        source: &Source,
        after: Position,
        until: Option<Position>,
    ) -> bool {
        let Self::Filling { near, .. } = self else {
            return false;
        };
        let head = source.safe_head().borrow().head;
        until.is_some_and(|until| after >= until) || head - after < near
    }

    /// How many batches are read, and begun, ahead.
    pub(super) fn batches_ahead(self, settings: &Settings) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        match self {
            Self::Following { .. } => settings.batches_ahead.max(1),
            Self::Filling { .. } => settings.batches_ahead.max(cores + 1),
        }
    }

    /// For how many bytes of rows the cache has room, those included that wait for their commit.
    pub(super) fn cache_bytes(self, settings: &Settings) -> usize {
        match self {
            Self::Following { .. } => settings.row_cache_bytes,
            Self::Filling { .. } => settings.row_cache_bytes.max(settings.rebuild_bytes),
        }
    }
}
