//! One reader per read model and node, however many follow it.
//!
//! A subscriber goes through the same three steps whether it begins or comes back: it reads the commits after the revision
//! that it has by itself ([`Subscription::catch_up`]), joins, reads once more what has come in between, and from then on
//! takes what the hub puts into its mailbox.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deadpool_postgres::Pool;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::mailbox::{End, Event, Mailbox, Reason};
use super::query::{Question, Realm};
use super::stats::Stats;
use super::topic::{Seat, Topic};
use super::{Page, flush, read};
use crate::progress::Progress;
use crate::query::Failure;
use crate::shutdown::Shutdown;

/// Commits that are read at once.
pub(super) const AT_ONCE: i64 = 64;

/// What subscribers may use.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How many there may be.
    pub subscribers: usize,
    /// Bytes that may wait for each.
    pub queue_bytes: usize,
}

/// Everybody who follows a read model on this node. Clones are the same.
#[derive(Debug, Clone)]
pub struct Hub {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    /// Sessions that can write, to wait for the disk.
    pub(super) feed: Pool,
    /// Sessions that can only read, to judge rows.
    pub(super) readers: Pool,
    pub(super) progress: Progress,
    pub(super) shutdown: Shutdown,
    pub(super) stats: Stats,
    bounds: Bounds,
    places: Arc<Semaphore>,
    topics: Mutex<HashMap<String, Arc<Topic>>>,
}

/// Why a subscription does not go on.
#[derive(Debug)]
pub enum Stop {
    /// As the feed has it.
    End(End),
    /// The database does not answer.
    Failed(Failure),
}

impl From<tokio_postgres::Error> for Stop {
    fn from(error: tokio_postgres::Error) -> Self {
        Stop::Failed(Failure::Database(error))
    }
}

impl From<deadpool_postgres::PoolError> for Stop {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        Stop::Failed(Failure::Pool(error))
    }
}

impl Hub {
    /// `feed` has sessions that can write, `readers` sessions that cannot.
    pub fn new(
        feed: Pool,
        readers: Pool,
        progress: Progress,
        bounds: Bounds,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                feed,
                readers,
                progress,
                shutdown,
                stats: Stats::default(),
                places: Arc::new(Semaphore::new(bounds.subscribers)),
                bounds,
                topics: Mutex::default(),
            }),
        }
    }

    /// What was done so far.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// A place for one more subscriber, if there is one.
    pub fn place(&self) -> Option<Place> {
        let permit = self.shared.places.clone().try_acquire_owned().ok()?;
        self.shared.stats.subscribers.add(1);
        Some(Place {
            shared: self.shared.clone(),
            _permit: permit,
        })
    }

    /// Waits until everything that can be seen now is on the server's disk.
    pub async fn flushed(&self) -> Result<(), Failure> {
        let client = self.shared.feed.get().await?;
        flush(&**client).await.map_err(Failure::Database)
    }

    /// Where a read model stands; what it stands for is on the server's disk.
    pub async fn present(&self, read_model: &str) -> Result<Option<Page>, Failure> {
        let client = self.shared.feed.get().await?;
        let page = read(&**client, read_model, i64::MAX, 1).await;
        flush(&**client).await.map_err(Failure::Database)?;
        page.map_err(Failure::Database)
    }

    /// Ended when this engine ends.
    pub fn shutdown(&self) -> Shutdown {
        self.shared.shutdown.clone()
    }

    pub(super) fn topics(&self) -> MutexGuard<'_, HashMap<String, Arc<Topic>>> {
        self.shared
            .topics
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The read model's topic; its task is started with the first who follows.
    fn topic(&self, read_model: &str) -> Arc<Topic> {
        let mut topics = self.topics();
        let topic = topics.entry(read_model.to_owned()).or_insert_with(|| {
            let topic = Arc::new(Topic::new(read_model));
            tokio::spawn(topic.clone().run(self.clone()));
            topic
        });
        topic.enter();
        topic.clone()
    }
}

/// One subscriber's place; it ends with this.
#[derive(Debug)]
pub struct Place {
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.stats.subscribers.sub(1);
    }
}

/// One who follows a read model.
#[derive(Debug)]
pub struct Subscription {
    hub: Hub,
    place: Place,
    read_model: String,
    question: Question,
    realm: Realm,
    /// Everything up to this revision has been handed out.
    at: i64,
    /// What is left of the commits that were read last.
    ahead: Ahead,
    joined: Option<Joined>,
}

#[derive(Debug)]
enum Ahead {
    /// There may be more.
    Unknown,
    /// The last look found nothing.
    Nothing,
}

#[derive(Debug)]
struct Joined {
    seat: Seat,
    mailbox: Arc<Mailbox>,
    /// What came before it joined, or while it did, has been read.
    is_complete: bool,
}

impl Subscription {
    /// Follows a read model from revision `at` on, which has a meaning in `realm`.
    pub fn new(
        hub: Hub,
        place: Place,
        read_model: &str,
        question: Question,
        realm: Realm,
        at: i64,
    ) -> Self {
        Self {
            hub,
            place,
            read_model: read_model.to_owned(),
            question,
            realm,
            at,
            ahead: Ahead::Unknown,
            joined: None,
        }
    }

    /// The id that stands for everything that was handed out, and for what did not concern this subscriber.
    pub fn id(&self) -> String {
        self.realm.id(self.at)
    }

    /// Looks for the next events: at least one, or none if there is nothing at the moment to be read from the database, and
    /// then [`next`](Self::next) waits. Moves the id on.
    pub async fn catch_up(&mut self) -> Result<Vec<Arc<Event>>, Stop> {
        loop {
            let events = self.read_on().await?;
            if !events.is_empty() {
                return Ok(events);
            }
            match (&self.ahead, &mut self.joined) {
                (Ahead::Unknown, _) => {}
                (Ahead::Nothing, Some(joined)) => {
                    joined.is_complete = true;
                    return Ok(Vec::new());
                }
                (Ahead::Nothing, None) => self.join().await?,
            }
        }
    }

    /// Whether [`next`](Self::next) can be waited for.
    pub fn has_caught_up(&self) -> bool {
        self.joined
            .as_ref()
            .is_some_and(|joined| joined.is_complete)
    }

    /// Waits for the next event. Safe to cancel.
    pub async fn next(&mut self) -> Result<Arc<Event>, End> {
        loop {
            let Some(joined) = &self.joined else {
                return Err(End::Closed);
            };
            let event = joined.mailbox.next().await?;
            if self.at < event.revision {
                self.at = event.revision;
                return Ok(event);
            }
        }
    }

    /// Another event, if there is one already.
    pub fn try_next(&mut self) -> Option<Result<Arc<Event>, End>> {
        loop {
            match self.joined.as_ref()?.mailbox.try_next()? {
                Ok(event) if event.revision <= self.at => {}
                Ok(event) => {
                    self.at = event.revision;
                    return Some(Ok(event));
                }
                Err(end) => return Some(Err(end)),
            }
        }
    }

    /// Moves the id past what did not concern this subscriber. Gives whether it moved, or the event that comes first.
    pub fn move_on(&mut self) -> Option<Result<Arc<Event>, End>> {
        let seen = self.joined.as_ref().map_or(0, |joined| joined.seat.seen());
        // What was put into the mailbox before `seen` was read has to be handed out first.
        let next = self.try_next();
        if next.is_none() {
            self.at = self.at.max(seen);
        }
        next
    }

    async fn read_on(&mut self) -> Result<Vec<Arc<Event>>, Stop> {
        let shared = &self.hub.shared;
        let page = {
            let client = shared.feed.get().await?;
            let page = read(&**client, &self.read_model, self.at, AT_ONCE).await?;
            if let Some(page) = page.as_ref().filter(|page| !page.is_flushed)
                && !page.commits.is_empty()
            {
                flush(&**client).await?;
            }
            page
        };
        let page = page.ok_or_else(|| refetch(Reason::Gone))?;
        checked(&self.realm, self.at, &page).map_err(refetch)?;
        self.ahead = match page.commits.is_empty() {
            true => Ahead::Nothing,
            false => Ahead::Unknown,
        };
        let mut events = Vec::new();
        for commit in page.commits {
            let commit = commit.parsed().map_err(refetch)?;
            let judged = self.question.judge(&shared.readers, &commit).await;
            if let Some(changes) = judged.map_err(Stop::Failed)? {
                events.push(Arc::new(self.realm.event(&commit, &changes)));
            }
            self.at = commit.revision;
        }
        Ok(events)
    }

    async fn join(&mut self) -> Result<(), Stop> {
        let mailbox = Arc::new(Mailbox::new(self.hub.shared.bounds.queue_bytes));
        let topic = self.hub.topic(&self.read_model);
        let seat = Seat::take(
            &self.hub,
            topic,
            &self.question,
            &self.realm,
            mailbox.clone(),
        )
        .await;
        let seat = seat.map_err(Stop::End)?;
        self.joined = Some(Joined {
            seat,
            mailbox,
            is_complete: false,
        });
        self.ahead = Ahead::Unknown;
        Ok(())
    }

    /// Gives the place back.
    pub fn into_place(self) -> Place {
        self.place
    }
}

fn refetch(reason: Reason) -> Stop {
    Stop::End(End::Refetch(reason))
}

/// Whether a page of commits after revision `at` leads on from there.
pub(super) fn checked(realm: &Realm, at: i64, page: &Page) -> Result<(), Reason> {
    if page.incarnation.as_deref() != Some(&realm.incarnation) {
        return Err(Reason::Incarnation);
    }
    if page.generation != realm.generation {
        return Err(Reason::Generation);
    }
    if page.revision < at {
        return Err(Reason::UnknownId);
    }
    let mut at = at;
    for commit in &page.commits {
        if commit.previous != at || commit.generation != realm.generation {
            return Err(Reason::Gone);
        }
        at = commit.revision;
    }
    let is_whole = (page.commits.len() as i64) < AT_ONCE;
    match is_whole && at != page.revision {
        true => Err(Reason::Gone),
        false => Ok(()),
    }
}
