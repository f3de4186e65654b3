//! How old the oldest event is that rows do not have: asked of the source, and remembered for a moment, because every
//! answer says it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::query::catalog::Upstream;

/// For how long an event is taken for the oldest one after its position: one that is not settled may turn out not to be.
const REMEMBERED: Duration = Duration::from_secs(1);

/// What a source has said last.
#[derive(Debug, Default)]
pub(super) struct Lag {
    told: Mutex<Option<Told>>,
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    at: Instant,
    position: i64,
    /// The age of the oldest event after the position at that moment, if there was one.
    age: Option<Duration>,
}

impl Lag {
    /// The lag of rows at `position`, by what this process knows of the source; `None` if it does not answer.
    pub(super) async fn at(&self, upstream: &Upstream, position: i64) -> Option<Duration> {
        if position >= upstream.head.borrow().safe {
            return Some(Duration::ZERO);
        }
        let known = || {
            let told = (*self.told())?;
            let elapsed = told.at.elapsed();
            let fits = told.position == position && elapsed < REMEMBERED;
            told.age.filter(|_| fits).map(|age| age + elapsed)
        };
        if let Some(lag) = known() {
            return Some(lag);
        }
        let _asking = self.asking.lock().await;
        if let Some(lag) = known() {
            return Some(lag);
        }
        let told = self.ask(upstream, position).await?;
        Some(told.age.unwrap_or_default())
    }

    /// Whether rows at `position` lag by no more than `most`, for who asked at that moment.
    pub(super) async fn is_within(
        &self,
        upstream: &Upstream,
        position: i64,
        most: Duration,
        asked: Instant,
    ) -> bool {
        let proven = |told: Told| {
            // Rows that are further on do not lag by more.
            told.position <= position && told.bound(asked) <= most
        };
        if self.told().is_some_and(proven) {
            return true;
        }
        let _asking = self.asking.lock().await;
        if self.told().is_some_and(proven) {
            return true;
        }
        match self.ask(upstream, position).await {
            Some(told) => told.bound(asked) <= most,
            None => false,
        }
    }

    async fn ask(&self, upstream: &Upstream, position: i64) -> Option<Told> {
        let at = Instant::now();
        let age = match (upstream.age_after)(position).await {
            Ok(age) => age,
            Err(error) => {
                tracing::debug!(%error, "the lag is unknown");
                return None;
            }
        };
        let told = Told { at, position, age };
        *self.told() = Some(told);
        Some(told)
    }

    fn told(&self) -> MutexGuard<'_, Option<Told>> {
        // A plain value: it cannot be half changed.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// The most by which rows at this position, or beyond it, can lag for who asked at that moment.
    fn bound(&self, asked: Instant) -> Duration {
        match self.age {
            Some(age) => age + self.at.elapsed(),
            // Everything was applied then; an event may have come right after.
            None => asked.saturating_duration_since(self.at),
        }
    }
}
