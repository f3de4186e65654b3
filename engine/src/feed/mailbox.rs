//! What waits for one subscriber, bounded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// What one commit is to those who ask the same.
#[derive(Debug)]
pub struct Event {
    /// The revision that it made.
    pub revision: i64,
    /// As a server-sent event, its id included.
    pub frame: Bytes,
    /// Its data alone: JSON.
    pub data: Bytes,
}

/// Why nothing follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The rows have to be read anew.
    Refetch(Reason),
    /// Something is too slow; going on from the last id leaves nothing out.
    Dropped(Slow),
    /// This engine ends: another one goes on.
    Closed,
}

/// Why changes alone do not lead to the rows as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Another generation is live: a promotion or a rollback.
    Generation,
    /// The database server was started anew, restored or replaced: revisions mean something else.
    Incarnation,
    /// What has happened since is not kept any more, or was not told as changes.
    Gone,
    /// A commit changed more rows than are told.
    TooManyChanges,
    /// The id is not one of this read model's.
    UnknownId,
    /// The query fails on a changed row. How is for the log: it may tell of a row that this subscriber must not see.
    Failed,
}

/// Who cannot keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slow {
    /// The subscriber.
    Subscriber,
    /// The database, with judging the query.
    Query,
    /// The database, with anything.
    Database,
}

impl Reason {
    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Reason::Generation => "generation",
            Reason::Incarnation => "incarnation",
            Reason::Gone => "gone",
            Reason::TooManyChanges => "too_many_changes",
            Reason::UnknownId => "unknown_id",
            Reason::Failed => "failed",
        }
    }

    /// A sentence for people.
    pub fn text(&self) -> &'static str {
        match self {
            Reason::Generation => "another generation of the projection is live now",
            Reason::Incarnation => "the database was restarted, restored or replaced meanwhile",
            Reason::Gone => {
                "the changes since then are not kept any more, or the rows were changed as a whole"
            }
            Reason::TooManyChanges => "a commit changed more rows than are told (live.max_changes)",
            Reason::UnknownId => "this id does not belong to what is read here",
            Reason::Failed => "the query failed on a changed row; the log says how",
        }
    }
}

impl Slow {
    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Slow::Subscriber | Slow::Query => "too_slow",
            Slow::Database => "unavailable",
        }
    }

    /// A sentence for people.
    pub fn text(&self) -> &'static str {
        match self {
            Slow::Subscriber => "events are not read as fast as they come (live.queue_bytes)",
            Slow::Query => {
                "the query takes longer than commits take to come: filter by equality, or change less at once"
            }
            Slow::Database => "the database does not answer",
        }
    }
}

/// Between the hub, which never waits for a subscriber, and a subscriber who takes its time.
#[derive(Debug)]
pub(super) struct Mailbox {
    inner: Mutex<Inner>,
    arrived: Notify,
    /// Bytes that may wait.
    most: usize,
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    end: Option<End>,
}

impl Mailbox {
    pub(super) fn new(most: usize) -> Self {
        Self {
            inner: Mutex::default(),
            arrived: Notify::new(),
            most,
        }
    }

    /// Adds an event; a subscriber for whom too much waits already gets none of it.
    pub(super) fn push(&self, event: &Arc<Event>) {
        let mut inner = self.lock();
        if inner.end.is_some() {
            return;
        }
        // One event alone always fits: how large it is does not depend on the subscriber.
        if inner.bytes > 0 && inner.bytes + event.frame.len() > self.most {
            inner.events.clear();
            inner.bytes = 0;
            inner.end = Some(End::Dropped(Slow::Subscriber));
        } else {
            inner.bytes += event.frame.len();
            inner.events.push_back(event.clone());
        }
        drop(inner);
        self.arrived.notify_one();
    }

    /// Says that nothing follows what waits already. Only the first end counts.
    pub(super) fn end(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.arrived.notify_one();
    }

    /// The next event, or the end. Safe to cancel.
    pub(super) async fn next(&self) -> Result<Arc<Event>, End> {
        loop {
            let arrived = self.arrived.notified();
            if let Some(next) = self.try_next() {
                return next;
            }
            arrived.await;
        }
    }

    pub(super) fn try_next(&self) -> Option<Result<Arc<Event>, End>> {
        let mut inner = self.lock();
        if let Some(event) = inner.events.pop_front() {
            inner.bytes -= event.frame.len();
            return Some(Ok(event));
        }
        inner.end.clone().map(Err)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that holds the lock can leave it half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
