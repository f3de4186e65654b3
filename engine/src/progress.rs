//! Who waits for a generation to move, and the hint that one did.
//!
//! The checkpoint in the database is the state; everything here is a hint within this process. A reader may wait for a
//! generation that another process runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Shared between the loops that commit and the readers that wait. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    commits: watch::Sender<u64>,
    /// Entries stay: there are as many as generations that were ever read or run.
    generations: Mutex<HashMap<i64, Generation>>,
}

#[derive(Debug, Default)]
struct Generation {
    /// How many readers wait for it.
    waiting: watch::Sender<usize>,
    /// How often it is known to have moved.
    moves: u64,
}

impl Progress {
    /// Nobody waits, nothing moved.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that a generation's checkpoint moved. What was seen of it before is old from now on.
    pub fn committed(&self, generation: i64) {
        self.generations().entry(generation).or_default().moves += 1;
        self.shared.commits.send_modify(|commits| *commits += 1);
    }

    /// How often a generation's checkpoint is known to have moved.
    pub fn moves(&self, generation: i64) -> u64 {
        self.generations()
            .get(&generation)
            .map_or(0, |generation| generation.moves)
    }

    /// Changes with every [`committed`](Self::committed).
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.shared.commits.subscribe()
    }

    /// Registers a reader that waits for `generation`, until the guard is dropped.
    pub fn wait_for(&self, generation: i64) -> Waiting {
        let count = self.count(generation);
        count.send_modify(|readers| *readers += 1);
        Waiting { count }
    }

    /// Whether a reader waits for `generation`: its checkpoint should then be persisted with every step.
    pub fn is_awaited(&self, generation: i64) -> bool {
        *self.count(generation).borrow() > 0
    }

    /// Ends when a reader waits for `generation`; at once if one does already.
    pub async fn awaited(&self, generation: i64) {
        let mut readers = self.count(generation).subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = readers.wait_for(|&readers| readers > 0).await;
    }

    fn count(&self, generation: i64) -> watch::Sender<usize> {
        let mut generations = self.generations();
        generations.entry(generation).or_default().waiting.clone()
    }

    fn generations(&self) -> MutexGuard<'_, HashMap<i64, Generation>> {
        // Nothing that holds the lock can leave the map half changed.
        self.shared
            .generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader that waits for a generation.
#[derive(Debug)]
pub struct Waiting {
    count: watch::Sender<usize>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.count.send_modify(|readers| *readers -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loop_notices_a_reader_that_waits_for_its_generation_only() {
        let progress = Progress::new();
        let other = progress.wait_for(1);
        assert!(!progress.is_awaited(2));
        let noticed = tokio::spawn({
            let progress = progress.clone();
            async move { progress.awaited(2).await }
        });
        let mine = progress.wait_for(2);
        noticed.await.unwrap();
        assert!(progress.is_awaited(2));
        drop(mine);
        assert!(!progress.is_awaited(2));
        assert!(progress.is_awaited(1));
        drop(other);
        assert!(!progress.is_awaited(1));
    }

    #[tokio::test]
    async fn a_commit_is_seen_by_everybody_who_subscribed_before_it() {
        let progress = Progress::new();
        let (mut a, mut b) = (progress.commits(), progress.commits());
        progress.committed(1);
        a.changed().await.unwrap();
        b.changed().await.unwrap();
        assert_eq!((progress.moves(1), progress.moves(2)), (1, 0));
    }
}
