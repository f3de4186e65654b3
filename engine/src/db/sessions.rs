//! Sessions that many readers share: which statements they keep prepared, and what becomes of a statement whose reader
//! has gone.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use deadpool_postgres::{Object, Pool, PoolError};
use tokio::runtime::Handle;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{CancelToken, Error, Row};

use super::Tls;

/// How many statements a session keeps. Beyond, it forgets all of them: what is asked often is soon there again.
const MOST_PREPARED: usize = 64;
/// How many texts are remembered as asked for.
const REMEMBERED: usize = 1_024;

/// A pool of sessions. Clones are the same.
#[derive(Clone, Debug)]
pub struct Sessions {
    pool: Pool,
    canceller: Canceller,
    asked: Arc<Asked>,
}

impl Deref for Sessions {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.pool
    }
}

impl Sessions {
    pub(super) fn new(pool: Pool, canceller: Canceller) -> Self {
        Self {
            pool,
            canceller,
            asked: Arc::default(),
        }
    }

    /// Runs a statement that gives one row at most. What is asked again and again is kept prepared. When the future is
    /// dropped before it is done, the server is told to stop.
    pub async fn one(
        &self,
        text: &str,
        types: &[Type],
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Result<Option<Row>, Error>, PoolError> {
        let mut guard = Guard {
            session: Some(self.pool.get().await?),
            canceller: &self.canceller,
        };
        let Some(session) = &guard.session else {
            return Ok(Ok(None));
        };
        let row = match self.asked.again(text) {
            true => prepared(session, text, types, values).await,
            false => {
                let typed: Vec<_> = values.iter().copied().zip(types.iter().cloned()).collect();
                session.query_typed_opt(text, &typed).await
            }
        };
        // Back to the pool.
        guard.session = None;
        Ok(row)
    }
}

async fn prepared(
    session: &Object,
    text: &str,
    types: &[Type],
    values: &[&(dyn ToSql + Sync)],
) -> Result<Option<Row>, Error> {
    let kept = &session.statement_cache;
    let row = match session.prepare_typed_cached(text, types).await {
        Ok(statement) => session.query_opt(&statement, values).await,
        Err(error) => Err(error),
    };
    if kept.size() > MOST_PREPARED {
        kept.clear();
    } else if row.is_err() {
        // Its tables may be gone for good.
        kept.remove(text, types);
    }
    row
}

/// Watches over a session while it runs a statement.
///
/// When its reader goes away in the middle, the statement is cancelled, and the session goes too: a cancel that comes late
/// would hit the statement of whoever has the session next.
struct Guard<'c> {
    session: Option<Object>,
    canceller: &'c Canceller,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        let session = Object::take(session);
        // Without a runtime the process is ending, and the server ends what its sessions do.
        if let Ok(runtime) = Handle::try_current() {
            let canceller = self.canceller.clone();
            runtime.spawn(async move { canceller.cancel(&session.cancel_token()).await });
        }
    }
}

/// Stops what sessions do. Clones are the same.
#[derive(Clone)]
pub(super) struct Canceller(pub(super) Tls);

impl Canceller {
    pub(super) async fn cancel(&self, token: &CancelToken) {
        // Without it the statement goes on to its end, which costs time and nothing else.
        let _ = token.cancel_query(self.0.clone()).await;
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}

/// Which texts were asked for lately: each has one place, which another one with the same place takes from it.
#[derive(Debug)]
struct Asked {
    places: Vec<AtomicU64>,
    hasher: RandomState,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            places: (0..REMEMBERED).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Asked {
    /// Notes that a text is asked for, and says whether it was before.
    fn again(&self, text: &str) -> bool {
        let hash = self.hasher.hash_one(text);
        let place = usize::try_from(hash).unwrap_or_default() % REMEMBERED;
        (self.places.get(place)).is_some_and(|place| place.swap(hash, Ordering::Relaxed) == hash)
    }
}
