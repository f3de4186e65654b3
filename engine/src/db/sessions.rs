//! Sessions that many readers share: which statements they keep prepared, and what becomes of a statement whose reader
//! has gone.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Object, Pool, PoolError};
use scopeguard::ScopeGuard;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{CancelToken, Error, Row};

use super::{Cause, Tls, cause};

/// How many statements a session keeps, each of which takes the server some 200 kB.
const MOST_KEPT: usize = 32;
/// Bytes of a text beyond which it is not kept: such ones take far more.
const LONGEST_KEPT: usize = 16 * 1024;
/// How many texts are remembered as asked for.
const REMEMBERED: usize = 1_024;
/// How long a statement that nobody waits for any more may go on before it is cancelled.
const SOON: Duration = Duration::from_millis(50);
/// How many statements are cancelled at a time: each takes a connection of its own.
const CANCELS: usize = 4;
/// How long a cancel may take.
const CANCEL: Duration = Duration::from_secs(10);

/// A pool of sessions. Clones are the same.
#[derive(Clone, Debug)]
pub struct Sessions {
    pool: Pool,
    canceller: Canceller,
    cancels: Arc<Semaphore>,
    known: Arc<Mutex<Known>>,
}

/// Whether sessions keep a statement prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// If its text is asked again and again.
    Repeated,
    /// Never: its text will hardly come again.
    Nothing,
}

impl Sessions {
    pub(super) fn new(pool: Pool, canceller: Canceller) -> Self {
        Self {
            pool,
            canceller,
            cancels: Arc::new(Semaphore::new(CANCELS)),
            known: Arc::default(),
        }
    }

    /// How many sessions there are at most.
    pub fn max_size(&self) -> usize {
        self.pool.status().max_size
    }

    /// Runs a statement. When the future is dropped before it is done, the server is told to stop.
    ///
    /// The outer error is about getting a session, the inner one is the statement's.
    pub async fn rows(
        &self,
        text: &str,
        types: &[Type],
        values: &[&(dyn ToSql + Sync)],
        keep: Keep,
    ) -> Result<Result<Vec<Row>, Error>, PoolError> {
        let prepares = AtomicBool::new(false);
        let session = scopeguard::guard(self.pool.get().await?, |session| {
            self.left(session, prepares.load(Ordering::Relaxed));
        });
        let is_kept = keep == Keep::Repeated && self.known().keep(text, types, &self.pool);
        let rows = match is_kept {
            true => {
                self.prepared(&session, &prepares, text, types, values)
                    .await
            }
            false => {
                let typed: Vec<_> = values.iter().copied().zip(types.iter().cloned()).collect();
                session.query_typed(text, &typed).await
            }
        };
        // Back to the pool.
        drop(ScopeGuard::into_inner(session));
        Ok(rows)
    }

    async fn prepared(
        &self,
        session: &Object,
        prepares: &AtomicBool,
        text: &str,
        types: &[Type],
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        prepares.store(true, Ordering::Relaxed);
        let statement = session.prepare_typed_cached(text, types).await;
        prepares.store(false, Ordering::Relaxed);
        let rows = match statement {
            Ok(statement) => session.query(&statement, values).await,
            Err(error) => Err(error),
        };
        // Its tables may be gone for good. Another value may do.
        if (rows.as_ref()).is_err_and(|error| cause(error) == Cause::Statement) {
            self.known().forget(text, types, &self.pool);
        }
        rows
    }

    /// Takes care of a session whose reader has gone away in the middle of a statement, or of preparing one.
    fn left(&self, session: Object, prepares: bool) {
        // Without a runtime the process is ending, and the server ends what its sessions do.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(settle(
                session,
                prepares,
                self.canceller.clone(),
                self.cancels.clone(),
            ));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a session back to the pool if its statement ends by itself soon. If not, the statement is cancelled and the session
/// ends: a cancel that comes late would hit the statement of whoever has the session next. One that was left while it
/// prepared a statement ends, too: it may keep the statement, which nobody would ever use or close.
///
/// Until the cancel is sent the pool counts the session, so that readers who come and go make no more of them.
async fn settle(session: Object, prepares: bool, canceller: Canceller, cancels: Arc<Semaphore>) {
    let turn = async {
        tokio::time::sleep(SOON).await;
        cancels.acquire().await
    };
    // It is answered after everything else that the session was asked.
    let idle = session.simple_query("");
    let _turn = tokio::select! {
        biased;
        _ = idle => {
            if prepares {
                drop(Object::take(session));
            }
            return;
        }
        turn = turn => turn,
    };
    canceller.cancel(&session.cancel_token()).await;
    drop(Object::take(session));
}

/// Stops what sessions do. Clones are the same.
#[derive(Clone)]
pub(super) struct Canceller(pub(super) Tls);

impl Canceller {
    pub(super) async fn cancel(&self, token: &CancelToken) {
        // Without it the statement goes on to its end, which costs time and nothing else.
        let _ = tokio::time::timeout(CANCEL, token.cancel_query(self.0.clone())).await;
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}

/// Which statements were asked for.
#[derive(Debug)]
struct Known {
    /// Those that sessions keep, or may begin to keep; the one that was asked last is last.
    kept: VecDeque<(Box<str>, Box<[Type]>)>,
    /// Hashes of texts that were asked for lately: each has one place, which another one with the same place takes from it.
    asked: Vec<u64>,
    hasher: RandomState,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            kept: VecDeque::with_capacity(MOST_KEPT + 1),
            asked: vec![0; REMEMBERED],
            hasher: RandomState::new(),
        }
    }
}

impl Known {
    /// Notes that a statement is asked for, and says whether to keep it. The one that was not asked for the longest time
    /// makes room for it.
    fn keep(&mut self, text: &str, types: &[Type], pool: &Pool) -> bool {
        if text.len() > LONGEST_KEPT {
            return false;
        }
        if let Some(kept) = self.take(text, types) {
            self.kept.push_back(kept);
            return true;
        }
        if !self.is_asked_again(text) {
            return false;
        }
        self.kept.push_back((text.into(), types.into()));
        if self.kept.len() > MOST_KEPT
            && let Some((text, types)) = self.kept.pop_front()
        {
            pool.manager().statement_caches.remove(&text, &types);
        }
        true
    }

    fn forget(&mut self, text: &str, types: &[Type], pool: &Pool) {
        self.take(text, types);
        pool.manager().statement_caches.remove(text, types);
    }

    fn take(&mut self, text: &str, types: &[Type]) -> Option<(Box<str>, Box<[Type]>)> {
        let mut kept = self.kept.iter();
        let place = kept.position(|kept| *kept.0 == *text && *kept.1 == *types)?;
        self.kept.remove(place)
    }

    fn is_asked_again(&mut self, text: &str) -> bool {
        let hash = self.hasher.hash_one(text);
        let place = hash as usize % REMEMBERED;
        std::mem::replace(&mut self.asked[place], hash) == hash
    }
}
