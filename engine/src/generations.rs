//! Generations: begun beside the live one, promoted, rolled back, kept, dropped.
//!
//! Every decision is one transaction under one lock, so that a crash leaves either the state before it or the state after
//! it. What takes time (filling tables, following events) is the loop's; what has to happen when a loop has come far enough
//! is the [`service`]'s, on whichever node notices first.

mod begin;
mod collect;
pub mod compare;
pub mod diff;
mod operate;
pub mod past;
mod promote;
mod remove;
pub mod service;
mod settings;
pub mod stream;
mod verify;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use deadpool_postgres::{Pool, PoolError};
use tokio_postgres::Transaction;

use crate::config::Config;
use crate::db::describe;
use crate::host::PluginHash;
use crate::read_model::schema::SchemaError;
use crate::registry::{LoadStoredError, Registry, tell};
pub(crate) use begin::{Plan, begin, begin_beside, cancel_candidate, record, reserve_names};
pub use operate::Decision;
pub(crate) use operate::{Known, find};
pub use promote::Promoted;
pub use remove::{Removal, Removed};
pub use settings::{Origin, Setting};

/// Deploys, promotions and the like of one database wait for each other.
pub(crate) const LOCK: i64 = 0x676f_626f_0002;

/// Decides about generations in one database. Clones are the same.
#[derive(Clone)]
pub struct Generations {
    pool: Pool,
    registry: Registry,
    config: Arc<Config>,
    /// Since when each candidate is waited for.
    tried: Arc<Mutex<HashMap<i64, Instant>>>,
}

/// Why nothing was done. The text names the cause and the fix.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// There is no such projection.
    #[error("there is no projection \"{0}\"")]
    NoProjection(String),
    /// The projection has no such generation.
    #[error("projection \"{projection}\" has no generation {what}")]
    NoGeneration {
        /// The projection.
        projection: String,
        /// Which one was asked for.
        what: String,
    },
    /// It cannot be done in the state that things are in.
    #[error("{0}")]
    Conflict(String),
    /// The candidate is not as far as the live generation, which was held up for it.
    #[error("{0}")]
    Behind(String),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A read model of this name belongs to another projection.
    #[error(
        "read model \"{read_model}\" belongs to projection \"{owner}\": names of read models are unique in a database, give this one another name"
    )]
    ReadModelTaken {
        /// The read model.
        read_model: String,
        /// The projection that has it.
        owner: String,
    },
    /// The plugin cannot be loaded.
    #[error(transparent)]
    Plugin(#[from] LoadStoredError),
    /// Tables or views cannot be made.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The events cannot be looked at.
    #[error("{0}")]
    Source(String),
    /// The database is not there.
    #[error("{}", crate::db::describe_pool(.0))]
    Pool(#[from] PoolError),
    /// The database did not do it.
    #[error("{}", describe(.0))]
    Database(#[from] tokio_postgres::Error),
}

impl Generations {
    /// Decides for the database behind `pool`.
    pub fn new(pool: Pool, registry: Registry, config: Arc<Config>) -> Self {
        Self {
            pool,
            registry,
            config,
            tried: Arc::default(),
        }
    }

    /// Loads the code of what is live and of what is on its way to be, so that whoever then decides finds it in memory: a
    /// compile with the lock of decisions held would hold up all others.
    async fn load_ahead(&self, projection: &str) -> Result<(), GenerationError> {
        let known = self.known_now(projection).await?;
        self.registry.load_stored(known.hash).await?;
        if let Some((_, candidate)) = known.candidate {
            self.registry.load_stored(candidate).await?;
        }
        Ok(())
    }

    /// Since when this node tries to promote a candidate.
    fn tried_since(&self, candidate: i64) -> Instant {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        *tried.entry(candidate).or_insert_with(Instant::now)
    }

    /// Forgets the candidates that are none any more.
    fn still_tried(&self, is_candidate: impl Fn(i64) -> bool) {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        tried.retain(|candidate, _| is_candidate(*candidate));
    }
}

/// Makes the transaction one that decides: whoever is told of it finds it done, also after a crash, and no other one
/// decides meanwhile.
pub(crate) async fn decide(transaction: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    transaction
        .batch_execute("set local synchronous_commit = on; set local lock_timeout = '10s'")
        .await?;
    transaction
        .execute("select pg_advisory_xact_lock($1)", &[&LOCK])
        .await
        .map(drop)
}

/// A hash as the database gives it. What is no hash was not written by an engine.
pub(crate) fn hash_of(bytes: &[u8]) -> PluginHash {
    PluginHash(bytes.try_into().unwrap_or_default())
}
