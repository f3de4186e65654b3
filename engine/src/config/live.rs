//! `[live]`

use serde::{Deserialize, Serialize};

use super::read::ConfigError;
use super::validate::within;

/// `[live]`: the change feed, and those who follow it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Live {
    /// Changed rows of a read model that one commit tells. Whoever follows it has to read it anew after a larger one.
    pub max_changes: usize,
    /// For how long what was told is kept, so that whoever was away can catch up.
    pub keep_minutes: u32,
    /// The last commits of a projection whose changes are kept, however young the others are.
    pub keep_commits: u32,
    /// Streams and long polls at the same time; more are answered with 503.
    pub max_subscribers: usize,
    /// How many of them may be one reader's, by token or subject of a JWT; whoever has neither is counted by address.
    /// Administrators, and everybody where access is not controlled, are not counted.
    pub max_subscribers_each: usize,
    /// Bytes that wait for one subscriber who reads too slowly, before it is dropped.
    pub queue_bytes: usize,
    /// After how long without an event a comment is sent, so that nobody on the way takes the stream for dead.
    pub heartbeat_ms: u64,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            max_changes: 1_000,
            keep_minutes: 10,
            keep_commits: 100_000,
            max_subscribers: 3_000,
            max_subscribers_each: 1_000,
            queue_bytes: 1 << 20,
            heartbeat_ms: 15_000,
        }
    }
}

impl Live {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("live.max_changes", self.max_changes, 0..=100_000)?;
        within("live.keep_minutes", self.keep_minutes, 1..=10_080)?;
        within("live.keep_commits", self.keep_commits, 1..=10_000_000)?;
        within("live.max_subscribers", self.max_subscribers, 0..=1_000_000)?;
        let each = self.max_subscribers_each;
        within("live.max_subscribers_each", each, 0..=1_000_000)?;
        within("live.queue_bytes", self.queue_bytes, 4 << 10..=1 << 30)?;
        within("live.heartbeat_ms", self.heartbeat_ms, 100..=600_000)
    }
}
