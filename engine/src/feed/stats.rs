//! What the hub counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Raises it.
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Lowers it.
    pub(super) fn sub(&self, by: u64) {
        self.0.fetch_sub(by, Ordering::Relaxed);
    }
}

/// What happened on this node since it started, and who follows now.
#[derive(Debug, Default)]
pub struct Stats {
    /// Who follows now.
    pub subscribers: Number,
    /// Events sent.
    pub events: Number,
    /// Subscribers who were dropped, because they or their queries were too slow.
    pub dropped: Number,
    /// Subscribers who were told to read the rows anew.
    pub refetches: Number,
}
