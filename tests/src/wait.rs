//! Waiting for a condition, with a deadline that says what was missing.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long a test waits for anything before it fails: long, because what a slow machine takes long for is no failure.
pub const PATIENCE: Duration = Duration::from_secs(300);

const PAUSE: Duration = Duration::from_millis(10);

/// Asks `look` again and again until it answers `Ok`, and returns that. `Err` holds what it saw
/// instead; the last one is shown when the patience ends.
pub fn wait_until<T, Seen: Debug>(what: &str, mut look: impl FnMut() -> Result<T, Seen>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if Instant::now() > deadline => give_up(what, &seen),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// The same for an asynchronous question; other tasks go on while it waits.
pub async fn wait_for<T, Seen: Debug>(
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, Seen>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() > deadline => give_up(what, &seen),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Does what asks the network, which fails now and then, up to three times. Gives up with what was wrong the last time.
pub(crate) fn try_thrice(mut attempt: impl FnMut() -> Result<(), String>) {
    for _ in 0..2 {
        match attempt() {
            Ok(()) => return,
            Err(wrong) => eprintln!("once more, since {wrong}"),
        }
    }
    attempt().unwrap_or_else(|wrong| panic!("{wrong}"));
}

fn give_up<Seen: Debug>(what: &str, seen: &Seen) -> ! {
    panic!("waited {PATIENCE:?} for {what}; last seen: {seen:#?}")
}
