//! What can be read right now: the live generation of every read model.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};

use crate::read_model::ReadModel;

/// A read model with the generation that serves it.
#[derive(Debug)]
pub struct LiveModel {
    /// Its columns and key.
    pub model: ReadModel,
    /// The projection that owns it.
    pub projection: String,
    /// The live generation.
    pub generation: i64,
    /// The schema of that generation's tables.
    pub schema: String,
    /// Where the projection's events come from.
    pub upstream: Upstream,
}

/// What readers know of a source, and ask of it.
#[derive(Clone)]
pub struct Upstream {
    /// How far events go.
    pub head: watch::Receiver<Head>,
    /// The age of the oldest event after a position, by the database's clock; `None` when there is none.
    pub age_after: AgeAfter,
    /// Makes the source look for events now.
    pub poke: Arc<dyn Fn() + Send + Sync>,
}

/// Asks a source for the age of its oldest event after a position.
pub type AgeAfter =
    Arc<dyn Fn(i64) -> BoxFuture<'static, Result<Option<Duration>, Away>> + Send + Sync>;

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

/// Live read models by name.
pub type Models = Arc<HashMap<String, Arc<LiveModel>>>;

/// Looks live read models up. Whoever deploys sends new ones.
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

    /// All live read models.
    pub fn models(&self) -> Models {
        self.models.borrow().clone()
    }

    /// Waits, bounded, until the models are others than those that `gone` came from.
    pub async fn refreshed(&self, gone: &Arc<LiveModel>) {
        let mut models = self.models.clone();
        let is_other = |models: &Models| {
            let now = models.get(&gone.model.name);
            now.is_none_or(|now| !Arc::ptr_eq(now, gone))
        };
        self.refresh.notify_one();
        // Nobody left to refresh, or too slow: the retry fails as the first attempt did, and says so.
        let _ = tokio::time::timeout(REFRESH, models.wait_for(is_other)).await;
    }
}
