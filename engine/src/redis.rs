//! Redis, which is optional everywhere: a second cache of answers, and a place for change feeds.
//!
//! Nothing waits for it longer than its time limit, and nothing is lost with it. One task keeps one connection; whoever
//! asks gets an answer, or at once the reason why there is none. After failures the connection is given up, and nobody
//! asks until a new one has answered a probe.

mod keeper;
mod url;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, ErrorKind, FromRedisValue, RedisError, Script, ServerErrorKind};
use tokio::sync::{Notify, watch};

pub(crate) use url::client;
pub use url::masked;

/// After so many commands in a row without an answer in time, nobody asks for a moment.
const FAILURES: u32 = 3;

/// Where Redis is, and how long it may take.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `redis://[user:password@]host[:port][/database]`, `rediss://` for TLS, or `redis+unix:///path`.
    pub url: String,
    /// How long one command may take.
    pub timeout: Duration,
    /// What every key begins with.
    pub prefix: String,
}

/// An address that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(String);

/// Why there is no answer. The text never holds the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// There is no connection, or nobody asks for a moment after failures. Nothing was sent.
    #[error("{0}")]
    Away(String),
    /// No answer in time. The command may still be carried out.
    #[error("no answer within {} ms", .0.as_millis())]
    Slow(Duration),
    /// The connection broke. The command may have been carried out.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// Redis answered that it does not do it.
    #[error("Redis refuses: {0}")]
    Refused(String),
}

/// A handle to one Redis server; clones share the connection, which [`Redis::run`] keeps.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    /// The address without its password, for messages.
    name: String,
    prefix: String,
    limit: Duration,
    link: watch::Sender<Link>,
    /// Wakes the keeper: the connection is of no use any more.
    broken: Notify,
    /// Commands in a row without an answer in time.
    failures: AtomicU32,
    counts: Counts,
    /// What does not work although the connection does, by who says so.
    complaints: Mutex<BTreeMap<String, String>>,
}

/// The connection, or why there is none.
#[derive(Clone)]
enum Link {
    Up(MultiplexedConnection),
    Down(String),
}

#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
}

/// What was seen of Redis since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Why it cannot be used now; `None` when it can.
    pub trouble: Option<String>,
    /// Commands that it answered.
    pub answered: u64,
    /// Commands without an answer, or refused.
    pub failed: u64,
    /// Commands that were not sent, because there was no connection.
    pub skipped: u64,
}

impl Redis {
    /// A handle without a connection yet: [`Redis::run`] makes it.
    pub fn new(settings: &Settings) -> Result<Self, Unusable> {
        let client = url::client(&settings.url)?;
        let name = masked(&settings.url);
        let link = watch::Sender::new(Link::Down("it has not been reached yet".to_owned()));
        Ok(Self {
            shared: Arc::new(Shared {
                client,
                name,
                prefix: settings.prefix.clone(),
                limit: settings.timeout,
                link,
                broken: Notify::new(),
                failures: AtomicU32::new(0),
                counts: Counts::default(),
                complaints: Mutex::default(),
            }),
        })
    }

    /// `rest` with the configured prefix before it: the key under which it is kept.
    pub fn key(&self, rest: &str) -> String {
        format!("{}{rest}", self.shared.prefix)
    }

    /// The value of a key (as [`Redis::key`] makes it); `None` when there is none.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Trouble> {
        self.ask(redis::cmd("GET").arg(key)).await
    }

    /// Keeps a value under a key for `ttl` (at least a millisecond), in place of what was there.
    pub async fn set(&self, key: &str, value: &[u8], ttl: Duration) -> Result<(), Trouble> {
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value).arg("PX").arg(ttl);
        self.ask(&command).await
    }

    /// Any command, within the time limit.
    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Trouble> {
        let answer = async |mut link: MultiplexedConnection| command.query_async(&mut link).await;
        self.bounded(answer).await
    }

    /// Runs a script with these keys and arguments, all or nothing, within the time limit.
    pub async fn run_script<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<T, Trouble> {
        let mut call = script.prepare_invoke();
        for key in keys {
            call.key(*key);
        }
        for argument in arguments {
            call.arg(*argument);
        }
        self.bounded(async |mut link| call.invoke_async(&mut link).await)
            .await
    }

    /// How Redis is doing.
    pub fn observed(&self) -> Observed {
        let counts = &self.shared.counts;
        Observed {
            trouble: match &*self.shared.link.borrow() {
                Link::Up(_) => self.shared.complaints().values().next().cloned(),
                Link::Down(why) => Some(why.clone()),
            },
            answered: counts.answered.load(Ordering::Relaxed),
            failed: counts.failed.load(Ordering::Relaxed),
            skipped: counts.skipped.load(Ordering::Relaxed),
        }
    }

    /// Notes (or takes back, with `None`) that something does not work although the server answers: it counts as trouble.
    pub fn complain(&self, who: &str, why: Option<String>) {
        let mut complaints = self.shared.complaints();
        match why {
            Some(why) => complaints.insert(who.to_owned(), why),
            None => complaints.remove(who),
        };
    }

    async fn bounded<T>(
        &self,
        answer: impl AsyncFnOnce(MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Trouble> {
        let Shared { counts, limit, .. } = &*self.shared;
        let link = match &*self.shared.link.borrow() {
            Link::Up(link) => link.clone(),
            Link::Down(why) => {
                counts.skipped.fetch_add(1, Ordering::Relaxed);
                return Err(Trouble::Away(why.clone()));
            }
        };
        let trouble = match tokio::time::timeout(*limit, answer(link)).await {
            Ok(Ok(value)) => {
                self.shared.failures.store(0, Ordering::Relaxed);
                counts.answered.fetch_add(1, Ordering::Relaxed);
                return Ok(value);
            }
            Ok(Err(error)) => trouble(&error),
            Err(_) => Trouble::Slow(*limit),
        };
        counts.failed.fetch_add(1, Ordering::Relaxed);
        self.shared.failed(&trouble);
        Err(trouble)
    }
}

impl Shared {
    fn complaints(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        // Nothing that holds the lock can leave the map half changed.
        self.complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the connection up when it is broken, or when Redis has not answered in time again and again.
    fn failed(&self, trouble: &Trouble) {
        let gone = match trouble {
            Trouble::Away(_) => false,
            Trouble::Lost(_) => true,
            Trouble::Slow(_) => self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES,
            Trouble::Refused(_) => {
                // It answers, and fast.
                self.failures.store(0, Ordering::Relaxed);
                false
            }
        };
        if gone {
            // Only a connection that is there can be given up; many may notice at the same time.
            let why = trouble.to_string();
            self.link.send_if_modified(|link| {
                let was_up = matches!(link, Link::Up(_));
                if was_up {
                    *link = Link::Down(why);
                }
                was_up
            });
            self.broken.notify_one();
        }
    }
}

/// What an error of the driver means.
fn trouble(error: &RedisError) -> Trouble {
    match is_away(error) {
        true => Trouble::Lost(error.to_string()),
        false => Trouble::Refused(error.to_string()),
    }
}

/// Whether an error means that the server is of no use now, and may be later: it is gone, loads its data, is a replica.
pub(crate) fn is_away(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::BusyLoading
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::ClusterDown,
        ) | ErrorKind::Io
            | ErrorKind::Parse
    )
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The client holds the password.
        f.debug_struct("Redis")
            .field("name", &self.shared.name)
            .finish_non_exhaustive()
    }
}
