//! When the tail looks again: a notification and a poke are only hints, the pauses in between are what counts.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::Notification;

use super::{Polling, Shared};

/// Hints shorten a pause to this, so that many small commits do not become as many looks.
const SHORTEST: Duration = Duration::from_millis(2);

/// What the last look said about the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The safe head moved.
    News,
    /// Nothing new.
    Nothing,
    /// Nothing new, and a writer is waited for.
    Pending,
}

/// The pauses between looks.
#[derive(Debug)]
pub(super) struct Pauses {
    polling: Polling,
    next: Duration,
    pending: bool,
}

impl Pauses {
    pub(super) fn new(polling: Polling) -> Self {
        Self {
            polling,
            next: polling.busy,
            pending: false,
        }
    }

    /// The pause after a look.
    pub(super) fn after(&mut self, found: Found) -> Duration {
        let Polling {
            busy,
            idle,
            pending,
            pending_longest,
            ..
        } = self.polling;
        let was_pending = std::mem::replace(&mut self.pending, found == Found::Pending);
        self.next = match found {
            Found::News => busy,
            Found::Nothing if was_pending => busy,
            Found::Nothing => (self.next * 2).min(idle),
            Found::Pending if !was_pending => pending,
            Found::Pending => (self.next * 2).min(pending_longest),
        };
        self.next
    }
}

/// Waits for a hint, or for the pause to end. `started` is when the last look began. False when the connection that
/// notifications come from is lost.
pub(super) async fn wait(
    shared: &Shared,
    notifications: &mut mpsc::Receiver<Notification>,
    started: Instant,
    pause: Duration,
) -> bool {
    let connected = tokio::select! {
        hint = notifications.recv() => hint.is_some(),
        () = shared.poked.notified() => true,
        () = sleep_until(Instant::now() + pause) => true,
    };
    sleep_until(started + SHORTEST).await;
    // One look answers all the hints that came before it.
    while notifications.try_recv().is_ok() {}
    connected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_nothing_happens_and_start_over_with_news() {
        let mut pauses = Pauses::new(Polling::default());
        let mut milliseconds = |found| pauses.after(found).as_millis();
        let sequence = [
            (Found::News, 10),
            (Found::Nothing, 20),
            (Found::Nothing, 40),
            (Found::Pending, 2),
            (Found::Pending, 4),
            (Found::Nothing, 10),
            (Found::Pending, 2),
            (Found::News, 10),
        ];
        for (found, expected) in sequence {
            assert_eq!(milliseconds(found), expected, "{found:?}");
        }
        for _ in 0..20 {
            milliseconds(Found::Nothing);
        }
        assert_eq!(milliseconds(Found::Nothing), 1000);
    }
}
