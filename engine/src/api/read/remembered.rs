//! Queries that were asked before: what answers need of them besides the rows, so that a query whose rows are in memory is
//! not parsed, checked and written as SQL again.
//!
//! Remembered is what depends on the request's own text and on the read model alone. That leaves out what a row rule
//! makes of a query, which depends on the reader, and embedded rows, which depend on other read models.

use std::sync::{Arc, Weak};
use std::time::Duration;

use moka::sync::Cache;

use super::prefer::Count;
use super::range::Items;
use super::{Ask, Asked};
use crate::cache::Representation;
use crate::query::catalog::Readable;
use crate::query::sql::Lines;

/// Bytes that may be remembered, about.
const MOST: u64 = 4 << 20;
/// What a query takes besides its text, about.
const OVERHEAD: usize = 256;
/// For how long a query is remembered that nobody asks.
const IDLE: Duration = Duration::from_secs(600);

/// What an answer needs of its query besides the rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outline {
    /// Which rows they are, and in which form.
    pub(super) shown: Representation,
    /// At most so many rows.
    pub(super) limit: u64,
    /// Where the page begins; after a cursor, nobody knows.
    pub(super) offset: Option<u64>,
}

impl Outline {
    pub(super) fn of(asked: &Asked<'_>, shown: Representation) -> Self {
        let plan = &asked.plan;
        Self {
            shown,
            limit: plan.limit,
            offset: match (&plan.after, plan.limit) {
                (Some(_), _) => None,
                // Nothing begins anywhere.
                (None, 0) => Some(0),
                (None, _) => Some(plan.offset.unsigned_abs()),
            },
        }
    }
}

/// A request, as far as its query depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    /// A text of its own: the address of a request holds on to all that was read from its connection.
    path: Box<str>,
    range: Option<Items>,
    lines: Lines,
    count: Option<Count>,
}

#[derive(Debug, Clone)]
struct Known {
    /// No other one can have its address while this is there.
    model: Weak<Readable>,
    outline: Outline,
}

/// Remembers queries, the most asked ones of those that fit.
#[derive(Debug)]
pub(super) struct Memory(Cache<Key, Known>);

impl Default for Memory {
    fn default() -> Self {
        let weight = |key: &Key| u32::try_from(key.path.len() + OVERHEAD);
        let memory = Cache::builder()
            .max_capacity(MOST)
            .weigher(move |key, _| weight(key).unwrap_or(u32::MAX))
            .time_to_idle(IDLE);
        Self(memory.build())
    }
}

impl Ask<'_> {
    /// What is remembered of the query for exactly this read model of this generation.
    pub(super) fn remembered(&self, model: &Arc<Readable>) -> Option<Outline> {
        // Whoever sees some rows only has another query.
        let sight = self.shared.rules.sight(&model.model.name, self.viewer);
        if sight.is_restricted() || self.names_position() {
            return None;
        }
        let known = self.shared.memory.0.get(&self.remembered_as()?)?;
        let is_same = Weak::as_ptr(&known.model) == Arc::as_ptr(model);
        is_same.then_some(known.outline)
    }

    /// Remembers a query if nothing else decides what it means.
    pub(super) fn remember(&self, model: &Arc<Readable>, asked: &Asked<'_>, outline: Outline) {
        let request = &asked.request;
        let waits = request.min_position.is_some() || request.max_lag.is_some();
        if waits || asked.plan.hides_rows() || asked.plan.embeds_rows() {
            return;
        }
        let Some(key) = self.remembered_as() else {
            return;
        };
        let model = Arc::downgrade(model);
        self.shared.memory.0.insert(key, Known { model, outline });
    }

    fn remembered_as(&self) -> Option<Key> {
        Some(Key {
            path: self.uri.path_and_query()?.as_str().into(),
            range: self.range,
            lines: self.format.lines,
            count: self.preferences.count,
        })
    }
}
