//! What was seen last of each read model's freshness, so that any number of readers share one look at the database.
//!
//! A look is one statement, so that position, revision and incarnation belong together. A reader who asks for nothing
//! more takes what was seen within the last [`Looks::max_age`], unless this process has moved the generation since. A
//! reader who asks for a position or a lag is answered from a look that began after it asked. What is seen never goes
//! back: whichever look ends first, the later state stays.

mod lag;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::catalog::Readable;
use super::rows::{dead_letters, freshness};
use super::sql::Target;
use super::{Failure, Freshness};
use crate::db::Sessions;
use crate::progress::Progress;

/// How often a reader who waits looks without any hint: the generation may be run by another process.
const LOOK: Duration = Duration::from_millis(20);

/// How looks are shared, and how many may wait.
#[derive(Debug, Clone, Copy)]
pub struct Looks {
    /// For how long what was seen is good enough for a reader who asks for nothing more.
    pub max_age: Duration,
    /// Requests that may wait at the same time.
    pub waiters: usize,
}

/// Looks at checkpoints. Clones are the same.
#[derive(Debug, Clone)]
pub struct Board {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    sessions: Sessions,
    progress: Progress,
    looks: Looks,
    waiters: Arc<Semaphore>,
    asked: AtomicU64,
    reused: AtomicU64,
}

/// What was seen of one read model of one generation.
#[derive(Debug, Default)]
pub struct Slot {
    seen: Mutex<Option<Seen>>,
    looking: tokio::sync::Mutex<()>,
    lag: lag::Lag,
}

#[derive(Debug, Clone)]
struct Seen {
    /// The state is no older than this.
    at: Instant,
    /// Nor than so many moves of its generation.
    moves: u64,
    fresh: Arc<Freshness>,
}

/// When a look has to have begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// A moment ago is early enough.
    Lately,
    /// When it was asked for, at the earliest.
    Now,
}

/// What a reader waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Goal {
    /// The position that the rows must have reached.
    pub position: Option<i64>,
    /// How old the oldest event may be that the rows do not have.
    pub lag: Option<Duration>,
}

/// One request's place among those who wait. It is taken once something has to be waited for, and then serves for all that the
/// request waits for.
#[derive(Debug, Default)]
pub struct Place(OnceLock<Option<OwnedSemaphorePermit>>);

impl Place {
    /// Whether there is one.
    fn take(&self, waiters: &Arc<Semaphore>) -> bool {
        let taken = || waiters.clone().try_acquire_owned().ok();
        self.0.get_or_init(taken).is_some()
    }
}

/// How waiting came out.
#[derive(Debug)]
pub struct Waited {
    /// What was seen last; the look began after the wait did.
    pub fresh: Arc<Freshness>,
    /// Whether the goal was not reached in time.
    pub is_late: bool,
}

/// Why nobody waits.
#[derive(Debug, thiserror::Error)]
pub enum NoWait {
    /// So many wait already.
    #[error("{0} readers wait already")]
    Full(usize),
    /// The database does not say.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// How often a look was asked for, and how often an earlier one was good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Looks that were asked for.
    pub asked: u64,
    /// Those of them that did not reach the database.
    pub reused: u64,
}

impl Board {
    /// `sessions` can read.
    pub fn new(sessions: Sessions, progress: Progress, looks: Looks) -> Self {
        Self {
            shared: Arc::new(Shared {
                waiters: Arc::new(Semaphore::new(looks.waiters)),
                sessions,
                progress,
                looks,
                asked: AtomicU64::new(0),
                reused: AtomicU64::new(0),
            }),
        }
    }

    /// How fresh a read model is. Fails with [`Failure::Gone`] when the generation has lost its standing.
    pub async fn look(&self, model: &Readable, since: Since) -> Result<Arc<Freshness>, Failure> {
        let shared = &*self.shared;
        shared.asked.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let found = || match since {
            Since::Now => model.slot.found(now, None),
            Since::Lately if shared.looks.max_age.is_zero() => model.slot.found(now, None),
            Since::Lately => {
                let moves = shared.progress.moves(model.generation);
                let earliest = now.checked_sub(shared.looks.max_age).unwrap_or(now);
                model.slot.found(earliest, Some(moves))
            }
        };
        if let Some(fresh) = found() {
            shared.reused.fetch_add(1, Ordering::Relaxed);
            return Ok(fresh);
        }
        // Whoever comes while somebody looks waits for the next look, which all of them share.
        let _looking = model.slot.looking.lock().await;
        if let Some(fresh) = found() {
            shared.reused.fetch_add(1, Ordering::Relaxed);
            return Ok(fresh);
        }
        let began = self.begin(model);
        let fresh = freshness(&shared.sessions, &model.model.name, model.target(), &[]).await?;
        Ok(self.saw(model, began, Arc::new(fresh)))
    }

    /// To be called before a statement that reads a read model's freshness along with its rows.
    pub fn begin(&self, model: &Readable) -> Began {
        Began {
            moves: self.shared.progress.moves(model.generation),
            at: Instant::now(),
        }
    }

    /// Notes what such a statement saw, and gives the latest that was seen by anybody.
    pub fn saw(&self, model: &Readable, began: Began, fresh: Arc<Freshness>) -> Arc<Freshness> {
        model.slot.saw(began, fresh)
    }

    /// Waits until a read model is as fresh as that, for `patience` at most. `place` is the request's.
    pub async fn wait(
        &self,
        place: &Place,
        model: &Readable,
        goal: Goal,
        patience: Duration,
    ) -> Result<Waited, NoWait> {
        let shared = &*self.shared;
        let asked = Instant::now();
        let deadline = asked + patience;
        let mut commits = shared.progress.commits();
        let fresh = self.look(model, Since::Now).await?;
        let reached = |fresh| Waited {
            fresh,
            is_late: false,
        };
        if self.is_reached(model, &fresh, goal, asked).await {
            return Ok(reached(fresh));
        }
        if !place.take(&shared.waiters) {
            return Err(NoWait::Full(shared.looks.waiters));
        }
        let _waiting = shared.progress.wait_for(model.generation);
        (model.upstream.poke)();
        let mut fresh = fresh;
        loop {
            if Instant::now() >= deadline {
                return Ok(Waited {
                    fresh,
                    is_late: true,
                });
            }
            commits.borrow_and_update();
            fresh = self.look(model, Since::Now).await?;
            if self.is_reached(model, &fresh, goal, asked).await {
                return Ok(reached(fresh));
            }
            let look = deadline.min(Instant::now() + LOOK);
            tokio::select! {
                _ = commits.changed() => {}
                () = tokio::time::sleep_until(look) => {}
            }
        }
    }

    /// Whether rows that are so fresh are fresh enough for who asked at that moment.
    pub async fn is_reached(
        &self,
        model: &Readable,
        fresh: &Freshness,
        goal: Goal,
        asked: Instant,
    ) -> bool {
        if goal.position.is_some_and(|goal| fresh.position < goal) {
            return false;
        }
        match goal.lag {
            None => true,
            Some(lag) => {
                let (slot, upstream) = (&model.slot, &model.upstream);
                slot.lag
                    .is_within(upstream, fresh.position, lag, asked)
                    .await
            }
        }
    }

    /// Which of these events a read model's generation could not process.
    pub async fn dead_letters(
        &self,
        model: &Readable,
        positions: &[i64],
    ) -> Result<Vec<i64>, Failure> {
        dead_letters(&self.shared.sessions, model.generation, positions).await
    }

    /// Says that this process has learnt that a generation is at a new position, so that its readers look again.
    pub fn moved(&self, generation: i64) {
        self.shared.progress.committed(generation);
    }

    /// How often looks were asked for and reused.
    pub fn counts(&self) -> Counts {
        Counts {
            asked: self.shared.asked.load(Ordering::Relaxed),
            reused: self.shared.reused.load(Ordering::Relaxed),
        }
    }
}

/// The moment before a statement was sent.
#[derive(Debug, Clone, Copy)]
pub struct Began {
    at: Instant,
    moves: u64,
}

impl Slot {
    /// Seconds by which the oldest event is old that is not applied at `position`; `None` if the source does not answer.
    pub async fn lag(&self, model: &Readable, position: i64) -> Option<Duration> {
        self.lag.at(&model.upstream, position).await
    }

    /// What was seen, if that is not older.
    fn found(&self, earliest: Instant, moves: Option<u64>) -> Option<Arc<Freshness>> {
        let seen = self.seen();
        let seen = seen.as_ref()?;
        let is_current = moves.is_none_or(|moves| seen.moves >= moves);
        (seen.at >= earliest && is_current).then(|| seen.fresh.clone())
    }

    fn saw(&self, began: Began, fresh: Arc<Freshness>) -> Arc<Freshness> {
        let mut seen = self.seen();
        let Some(old) = seen.as_mut() else {
            return seen.insert(Seen::new(began, fresh)).fresh.clone();
        };
        if old.fresh.incarnation != fresh.incarnation {
            // Histories of two incarnations cannot be compared; whichever was asked for later is the present one.
            if began.at > old.at {
                *old = Seen::new(began, fresh);
            }
            return old.fresh.clone();
        }
        // States of one history follow each other, so the later one is no older than what either look says.
        let state = |fresh: &Freshness| (fresh.position, fresh.revision);
        let is_later = state(&fresh) > state(&old.fresh);
        let is_newer = state(&fresh) == state(&old.fresh) && began.at >= old.at;
        if is_later || is_newer {
            old.fresh = fresh;
        }
        old.at = old.at.max(began.at);
        old.moves = old.moves.max(began.moves);
        old.fresh.clone()
    }

    fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        // Nothing that holds the lock can leave it half changed.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn new(began: Began, fresh: Arc<Freshness>) -> Self {
        Self {
            at: began.at,
            moves: began.moves,
            fresh,
        }
    }
}

impl Readable {
    /// Where its rows are read from.
    fn target(&self) -> Target<'_> {
        Target {
            generation: self.generation,
            standing: self.standing,
            schema: &self.schema,
            answer_bytes: 0,
        }
    }
}

#[cfg(test)]
mod tests;
