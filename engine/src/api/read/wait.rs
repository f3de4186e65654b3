//! Waiting for a position: the checkpoint in the database decides, hints only say when to look.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use deadpool_postgres::Pool;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Problem, Shared, Stop};
use crate::query::catalog::Readable;
use crate::query::{Failure, checkpoint};

/// How often a reader looks without any hint: the generation may be run by another process.
const LOOK: Duration = Duration::from_millis(20);

impl Shared {
    /// Waits until every one of them is at `position`; `false` when one of them is not within `wait`.
    pub(super) async fn reach_all(
        &self,
        all: &[&Readable],
        position: i64,
        wait: Duration,
    ) -> Result<bool, Stop> {
        let deadline = Instant::now() + wait;
        for one in all {
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.reach(one, position, left).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until the generation's checkpoint is at `position`; `false` when it is not within `wait`.
    pub(super) async fn reach(
        &self,
        live: &Readable,
        position: i64,
        wait: Duration,
    ) -> Result<bool, Stop> {
        let deadline = Instant::now() + wait;
        let mut commits = self.progress.commits();
        if self.at(live.generation).await? >= position {
            return Ok(true);
        }
        let _permit = self.waiters.try_acquire().map_err(|_| {
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_waiters",
                format!("{} readers wait already", self.limits.waiters),
            )
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
        })?;
        let _waiting = self.progress.wait_for(live.generation);
        (live.upstream.poke)();
        loop {
            let now = Instant::now();
            if now >= deadline {
                return Ok(false);
            }
            // A generation that is not live any more may never move again.
            let models = self.catalog.models();
            let now_live = models.live.get(&live.model.name).map(|now| now.generation);
            if now_live != Some(live.generation) {
                return Err(Failure::Gone.into());
            }
            commits.borrow_and_update();
            if self.at(live.generation).await? >= position {
                return Ok(true);
            }
            let look = deadline.min(Instant::now() + LOOK);
            tokio::select! {
                _ = commits.changed() => {}
                () = tokio::time::sleep_until(look) => {}
            }
        }
    }

    async fn at(&self, generation: i64) -> Result<i64, Failure> {
        self.checkpoints.look(&self.pool, generation).await
    }
}

/// Checkpoints as they were seen last. Any number of readers that wait for a generation share one look.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    seen: SyncMutex<HashMap<i64, Arc<Mutex<Option<Seen>>>>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    asked: Instant,
    position: i64,
}

impl Checkpoints {
    /// The checkpoint, no older than this call.
    async fn look(&self, pool: &Pool, generation: i64) -> Result<i64, Failure> {
        let called = Instant::now();
        let seen = {
            // Nothing that holds the lock can leave the map half changed.
            let mut map = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            map.entry(generation).or_default().clone()
        };
        let mut seen = seen.lock().await;
        if let Some(seen) = seen.filter(|seen| seen.asked >= called) {
            return Ok(seen.position);
        }
        let asked = Instant::now();
        let position = checkpoint(pool, generation).await?;
        *seen = Some(Seen { asked, position });
        Ok(position)
    }
}
