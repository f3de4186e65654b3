//! The second level: Redis, which the nodes share. It may be away, slow, empty or somebody else's: then answers come from
//! PostgreSQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::{Key, wire};
use crate::query::Page;
use crate::redis::Redis;

/// Values that are on their way to Redis at the same time; more are not sent.
const SENDING: usize = 64;
/// The largest body that is sent there: fetching a larger one takes longer than the query.
const LARGEST: usize = 1 << 20;

/// Pages in Redis.
#[derive(Debug)]
pub(super) struct Far {
    redis: Redis,
    /// Databases that were copied from each other give the same names to other rows.
    database: String,
    keep: Duration,
    sending: Arc<Semaphore>,
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) odd: AtomicU64,
}

impl Far {
    pub(super) fn new(redis: Redis, database: &str, keep: Duration) -> Self {
        Self {
            redis,
            database: database.to_owned(),
            keep,
            sending: Arc::new(Semaphore::new(SENDING)),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            odd: AtomicU64::new(0),
        }
    }

    pub(super) async fn get(&self, key: &Key) -> Option<Page> {
        let key = self.key(key);
        // Why it does not answer is counted and told by the client.
        let Ok(Some(value)) = self.redis.get(&key).await else {
            self.misses.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let page = wire::decode(&key, value);
        let count = if page.is_some() {
            &self.hits
        } else {
            &self.odd
        };
        count.fetch_add(1, Ordering::Relaxed);
        page
    }

    /// Sends a page there, and waits for nothing.
    pub(super) fn put(&self, key: &Key, page: &Arc<Page>) {
        if page.body.len() > LARGEST {
            return;
        }
        let Ok(permit) = self.sending.clone().try_acquire_owned() else {
            return;
        };
        let (redis, keep) = (self.redis.clone(), self.keep);
        let (key, page) = (self.key(key), page.clone());
        tokio::spawn(async move {
            let value = wire::encode(&key, &page);
            // It is a copy: nothing is lost.
            let _ = redis.set(&key, &value, keep).await;
            drop(permit);
        });
    }

    fn key(&self, key: &Key) -> String {
        let hash: String = key.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        self.redis.key(&format!("page:{}:{hash}", self.database))
    }
}
