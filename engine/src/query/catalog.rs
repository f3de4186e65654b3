//! What can be read right now: the live generation of every read model, and the complete ones of the past.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};

use super::board::Slot;
use crate::event::{Micros, Position};
use crate::read_model::ReadModel;

/// A read model with the generation that serves it.
#[derive(Debug)]
pub struct Readable {
    /// Its columns and key.
    pub model: ReadModel,
    /// The projection that owns it.
    pub projection: String,
    /// The generation.
    pub generation: i64,
    /// Who sees it.
    pub standing: Standing,
    /// The schema of that generation's tables.
    pub schema: String,
    /// The name of its source.
    pub source: String,
    /// Where the projection's events come from.
    pub upstream: Upstream,
    /// How fresh it was when somebody looked last.
    pub slot: Slot,
}

/// Who sees a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Everybody.
    Live,
    /// Who asks for that point in the past. The generation never changes.
    Past,
}

/// What readers know of a source, and ask of it.
#[derive(Clone)]
pub struct Upstream {
    /// How far events go.
    pub head: watch::Receiver<Head>,
    /// The age of the oldest event after a position, by the database's clock; `None` when there is none.
    pub age_after: AgeAfter,
    /// Where the source was at a time.
    pub position_at: PositionAt,
    /// Makes the source look for events now.
    pub poke: Arc<dyn Fn() + Send + Sync>,
}

/// Asks a source for the age of its oldest event after a position.
pub type AgeAfter =
    Arc<dyn Fn(i64) -> BoxFuture<'static, Result<Option<Duration>, Away>> + Send + Sync>;

/// Asks a source for its last position before the first event that was stored after a time.
pub type PositionAt =
    Arc<dyn Fn(Micros) -> BoxFuture<'static, Result<Position, Away>> + Send + Sync>;

/// Why a source does not answer.
pub type Away = Box<dyn Error + Send + Sync>;

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("head", &*self.head.borrow())
            .finish_non_exhaustive()
    }
}

/// How far a source's events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The highest position below which nothing can still appear.
    pub safe: i64,
    /// The highest allocated position.
    pub head: i64,
}

/// Read models by name.
pub type ByName = HashMap<String, Arc<Readable>>;

/// Everything that can be read.
#[derive(Debug, Default)]
pub struct Published {
    /// What everybody sees.
    pub live: ByName,
    /// Generations at a point in the past, by number.
    pub past: HashMap<i64, ByName>,
}

impl Published {
    /// The read models that `readable` can be related to: those of today, or those of its generation.
    pub fn around(&self, readable: &Readable) -> &ByName {
        static NOTHING: LazyLock<ByName> = LazyLock::new(ByName::new);
        match readable.standing {
            Standing::Live => &self.live,
            Standing::Past => self.past.get(&readable.generation).unwrap_or(&NOTHING),
        }
    }
}

/// The same, as it is handed out.
pub type Models = Arc<Published>;

/// Looks read models up. Whoever deploys sends new ones.
#[derive(Debug, Clone)]
pub struct Catalog {
    models: watch::Receiver<Models>,
    refresh: Arc<Notify>,
}

/// How long a reader waits for newer models when its generation is gone.
const REFRESH: Duration = Duration::from_secs(2);

impl Catalog {
    /// `refresh` is notified when a reader found a generation gone: whoever sends the models should look again.
    pub fn new(models: watch::Receiver<Models>, refresh: Arc<Notify>) -> Self {
        Self { models, refresh }
    }

    /// All read models.
    pub fn models(&self) -> Models {
        self.models.borrow().clone()
    }

    /// Ends when there are other read models than when it was asked last; `false` when there never will be.
    pub async fn changed(&mut self) -> bool {
        self.models.changed().await.is_ok()
    }

    /// Waits, bounded, until the models are others than those that `gone` came from.
    pub async fn refreshed(&self, gone: &Arc<Readable>) {
        let mut models = self.models.clone();
        let is_other = |models: &Models| {
            let now = models.live.get(&gone.model.name);
            now.is_none_or(|now| !Arc::ptr_eq(now, gone))
        };
        self.refresh.notify_one();
        // Nobody left to refresh, or too slow: the retry fails as the first attempt did, and says so.
        let _ = tokio::time::timeout(REFRESH, models.wait_for(is_other)).await;
    }

    /// Waits, bounded, until one of the models is another than it was.
    pub async fn other_than(&self, old: &Models) {
        let mut models = self.models.clone();
        let is_other = |models: &Models| {
            models.live.len() != old.live.len()
                || (models.live.iter())
                    .any(|(name, now)| !old.live.get(name).is_some_and(|old| Arc::ptr_eq(old, now)))
        };
        self.refresh.notify_one();
        // As in `refreshed`.
        let _ = tokio::time::timeout(REFRESH, models.wait_for(is_other)).await;
    }

    /// The read models of a generation at a point in the past. One that is new is waited for, bounded.
    pub async fn past(&self, generation: i64) -> Option<Models> {
        let mut models = self.models.clone();
        let is_there = |models: &Models| models.past.contains_key(&generation);
        if !is_there(&models.borrow()) {
            self.refresh.notify_one();
        }
        let found = tokio::time::timeout(REFRESH, models.wait_for(is_there)).await;
        Some(found.ok()?.ok()?.clone())
    }
}
