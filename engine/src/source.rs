//! The next events after a position, none skipped, none twice.
//!
//! One [`Source`] per event table. Its tail task holds one session: it listens, computes the safe head (see
//! `safe_head.rs` for the rule), and reads new events once into a ring for all readers. A [`Reader`] is served from the
//! ring at the head, and reads on a connection of its own when it is behind. Those that rebuild read together, when they
//! are at about the same place (see `convoy.rs`).
//!
//! A notification, a poll and [`Source::poke`] all mean the same: look. What is found never depends on why.

mod columns;
mod config;
mod convoy;
mod lookup;
mod reader;
mod ring;
mod safe_head;
mod scan;
mod tail;
mod wake;

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::db::Database;
use crate::event::Position;
use columns::Table;
pub use config::{Columns, Expression, Fence, Field, Polling, SourceConfig};
use convoy::Convoys;
pub use reader::Reader;
use ring::Ring;

/// Why events cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The connection or the server; to be tried again.
    #[error("{0}")]
    Infrastructure(String),
    /// Something that somebody has to decide or to correct; nothing may be read on.
    #[error("{0}")]
    Refused(String),
}

/// What is known of a source's head.
#[derive(Debug, Clone)]
pub struct SafeHead {
    /// Nothing can appear any more at or below this position.
    pub position: Position,
    /// The highest position that was drawn.
    pub head: Position,
    /// Whether the other fields are up to date.
    pub state: State,
    /// Whether no event can ever be skipped: false under a fence by time.
    pub exact: bool,
    /// Counts the tail's sessions: nothing is carried over from one to the next.
    epoch: u64,
    table: Option<Arc<Table>>,
}

/// Whether a source can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing is known yet.
    Starting,
    /// All is well.
    Ok,
    /// The database cannot be reached for this reason; tried again for ever.
    Unreachable(String),
    /// The events must not be read for this reason.
    Refused(String),
}

/// How much a batch may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// At most so many events.
    pub max_events: usize,
    /// No further event once there are so many bytes; a single event may be larger.
    pub max_bytes: usize,
    /// No event after this position.
    pub upto: Option<Position>,
}

/// A handle on a source; cheap to clone. Its tail ends with the last handle and reader.
#[derive(Debug, Clone)]
pub struct Source {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    database: Database,
    shared: Arc<Shared>,
    tail: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tail.abort();
    }
}

/// What the tail and the handles share.
#[derive(Debug)]
struct Shared {
    head: watch::Sender<SafeHead>,
    poked: Notify,
    readers: AtomicUsize,
    ring: Mutex<Ring>,
    convoys: Mutex<Convoys>,
    /// Something changed in the convoys that somebody may wait for.
    moved: Notify,
    /// A checkpoint that was verified, and in which epoch.
    verified: Mutex<(u64, Position)>,
    /// The first epoch that may be served: what was read before it may have been changed since.
    oldest_epoch: AtomicU64,
    /// The last redaction that was taken into account.
    redaction: AtomicI64,
}

impl Source {
    /// Starts looking at the table that `config` names. Has to be called within a runtime.
    ///
    /// Never fails: what is wrong is told by [`Source::safe_head`], and tried again (a lost connection for ever, a
    /// table that was refused every few seconds; only a sequence that broke the rules while it was read stays refused).
    pub fn start(
        database: Database,
        name: impl Into<String>,
        config: SourceConfig,
        polling: Polling,
    ) -> Self {
        let shared = Arc::new(Shared {
            head: watch::Sender::new(SafeHead {
                position: 0,
                head: 0,
                state: State::Starting,
                exact: config.fence.is_exact(),
                epoch: 0,
                table: None,
            }),
            poked: Notify::new(),
            readers: AtomicUsize::new(0),
            ring: Mutex::new(Ring::new(polling.ring_bytes)),
            convoys: Mutex::new(Convoys::new(polling.ring_bytes)),
            moved: Notify::new(),
            verified: Mutex::new((0, 0)),
            oldest_epoch: AtomicU64::new(0),
            redaction: AtomicI64::new(0),
        });
        let tail = tail::Tail::new(database.clone(), config, polling, shared.clone());
        let tail = tokio::spawn(tail.run()).abort_handle();
        Self {
            inner: Arc::new(Inner {
                name: name.into(),
                database,
                shared,
                tail,
            }),
        }
    }

    /// The source's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// What is known of the head, now and whenever it changes. After a lost connection the position may fall: it tells
    /// what is known, not what was.
    pub fn safe_head(&self) -> watch::Receiver<SafeHead> {
        self.inner.shared.head.subscribe()
    }

    /// Asks the tail to look now.
    pub fn poke(&self) {
        self.inner.shared.poked.notify_one();
    }

    /// A reader of this source.
    pub fn reader(&self) -> Reader {
        Reader::new(self.clone(), None)
    }

    /// A reader that has a long way to go: with others of its kind that are at about the same place it shares one scan of
    /// the events. What it gives is what any other reader gives.
    pub fn rebuilding_reader(&self) -> Reader {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Reader::new(self.clone(), Some(LAST.fetch_add(1, Ordering::Relaxed)))
    }

    /// Waits until something may be read after `after`, however long the database is away. Fails only when the source
    /// is refused.
    pub async fn wait_past(&self, after: Position) -> Result<(), SourceError> {
        let mut heads = self.safe_head();
        let head = heads
            .wait_for(|head| match &head.state {
                State::Ok => head.position > after,
                State::Refused(_) => true,
                State::Starting | State::Unreachable(_) => false,
            })
            .await;
        match head.as_deref().map(|head| &head.state) {
            Ok(State::Refused(reason)) => Err(SourceError::Refused(reason.clone())),
            Ok(_) => Ok(()),
            Err(_) => Err(SourceError::Infrastructure("the source has stopped".into())),
        }
    }

    /// Forgets every event that was read, if events were changed since: `redaction` is the last change that the database
    /// tells of. Readers wait until the tail has begun anew.
    pub fn forget_before(&self, redaction: i64) {
        let shared = &self.inner.shared;
        if shared.redaction.fetch_max(redaction, Ordering::SeqCst) < redaction {
            let epoch = self.safe_head().borrow().epoch;
            shared.oldest_epoch.fetch_max(epoch + 1, Ordering::SeqCst);
            self.poke();
        }
    }

    fn database(&self) -> &Database {
        &self.inner.database
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.inner.shared.ring()
    }

    fn count_reader(&self, change: isize) {
        let readers = &self.inner.shared.readers;
        readers.fetch_add(change.cast_unsigned(), Ordering::Relaxed);
    }

    /// The highest checkpoint that was verified in this epoch: everything up to it is settled, even where the tail does
    /// not know better yet.
    fn verified(&self, epoch: u64) -> Position {
        match *locked(&self.inner.shared.verified) {
            (of, position) if of == epoch => position,
            _ => 0,
        }
    }

    /// Tells the tail of a checkpoint that was verified in this epoch.
    fn raise(&self, epoch: u64, position: Position) {
        let mut verified = locked(&self.inner.shared.verified);
        if epoch > verified.0 || (epoch == verified.0 && position > verified.1) {
            *verified = (epoch, position);
            self.poke();
        }
    }
}

impl Shared {
    /// Whether what was read in this epoch may be served.
    fn is_current(&self, epoch: u64) -> bool {
        epoch >= self.oldest_epoch.load(Ordering::SeqCst)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        locked(&self.ring)
    }

    fn convoys(&self) -> MutexGuard<'_, Convoys> {
        locked(&self.convoys)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks leaves anything half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
