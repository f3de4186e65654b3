//! One reader per read model and node, however many follow it.
//!
//! A subscriber goes through the same three steps whether it begins or comes back: it reads the commits after the revision
//! that it has by itself ([`Subscription::catch_up`]), joins, reads once more what has come in between, and from then on
//! takes what the hub puts into its mailbox.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deadpool_postgres::Pool;
use tokio::sync::{Mutex as Queue, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

use super::mailbox::{End, Event, Mailbox, Reason, Slow};
use super::query::{Judges, Question, Realm};
use super::stats::Stats;
use super::topic::{Seat, Topic};
use super::turns::Turns;
use super::{Page, flush, is_flushed, look};
use crate::db::Sessions;
use crate::progress::Progress;
use crate::query::Failure;
use crate::shutdown::Shutdown;

/// Commits that are read at once.
const AT_ONCE: i64 = 64;
/// Subscribers that read commits by themselves at the same time; the others wait. Those whom the database has to tell what
/// concerns them take long, and so wait for each other alone.
const CATCHING_UP: usize = 8;
/// After so long the next one has the turn, and whoever had it waits again for the rest.
const TURN: Duration = Duration::from_secs(1);

/// Events that wait already are handed out together, up to about so many bytes.
const TOGETHER: usize = 64 << 10;

/// What subscribers may use.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How many there may be.
    pub subscribers: usize,
    /// How many of them may be the same reader.
    pub each: usize,
    /// Bytes that may wait for each.
    pub queue_bytes: usize,
}

/// Where sessions come from.
#[derive(Debug, Clone)]
pub struct Pools {
    /// What all who follow wait for: reading what comes, and the disk. They can write.
    pub topics: Pool,
    /// Those who begin or come back, who may be many.
    pub subscribers: Pool,
    /// Readers: sessions that cannot write, a few of which judge rows.
    pub readers: Sessions,
}

/// Everybody who follows a read model on this node. Clones are the same.
#[derive(Debug, Clone)]
pub struct Hub {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    topics_sessions: Pool,
    subscribers_sessions: Pool,
    /// When the last wait for the disk began. Whoever waits for the disk has it, the others line up.
    flushed: Queue<Option<Instant>>,
    judges: Judges,
    /// Subscribers that may read commits by themselves at the same time: each has a page in memory.
    catching_up: Turns,
    /// The same for those for whom the database judges.
    catching_up_slowly: Turns,
    pub(super) progress: Progress,
    pub(super) shutdown: Shutdown,
    pub(super) stats: Stats,
    bounds: Bounds,
    places: Arc<Semaphore>,
    /// What each reader has who has a place.
    readers: Mutex<HashMap<String, Reader>>,
    topics: Mutex<HashMap<String, Arc<Topic>>>,
}

/// What is one reader's.
#[derive(Debug)]
struct Reader {
    places: usize,
    judges: Judges,
    catching_up_slowly: Turns,
}

impl Hub {
    /// Nobody follows yet.
    pub fn new(pools: Pools, progress: Progress, bounds: Bounds, shutdown: Shutdown) -> Self {
        Self {
            shared: Arc::new(Shared {
                topics_sessions: pools.topics,
                subscribers_sessions: pools.subscribers,
                flushed: Queue::default(),
                judges: Judges::new(pools.readers),
                catching_up: Turns::new(CATCHING_UP),
                catching_up_slowly: Turns::new(CATCHING_UP),
                progress,
                shutdown,
                stats: Stats::default(),
                places: Arc::new(Semaphore::new(bounds.subscribers)),
                bounds,
                readers: Mutex::default(),
                topics: Mutex::default(),
            }),
        }
    }

    /// What was done so far.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// A place for one more subscriber; of those of the same `reader`, if it has a name.
    pub fn place(&self, reader: Option<&str>) -> Result<Place, Full> {
        let permit = self.shared.places.clone().try_acquire_owned();
        let mut place = Place {
            _permit: permit.map_err(|_| Full::Everybody)?,
            shared: self.shared.clone(),
            judges: self.shared.judges.clone(),
            catching_up_slowly: self.shared.catching_up_slowly.clone(),
            reader: None,
        };
        self.shared.stats.subscribers.add(1);
        if let Some(reader) = reader {
            let mut readers = self.shared.readers();
            let own = (readers.entry(reader.to_owned())).or_insert_with(|| Reader {
                places: 0,
                judges: self.shared.judges.of_one(),
                catching_up_slowly: self.shared.catching_up_slowly.of_one(),
            });
            if own.places >= self.shared.bounds.each {
                return Err(Full::Reader);
            }
            own.places += 1;
            place.judges = own.judges.clone();
            place.catching_up_slowly = own.catching_up_slowly.clone();
            place.reader = Some(reader.to_owned());
        }
        Ok(place)
    }

    /// Waits until everything that can be seen now is on the server's disk. Those who ask while one waits are done with the
    /// next wait together.
    pub async fn flushed(&self) -> Result<(), Failure> {
        self.wait_for_disk(false).await
    }

    /// The same; `is_behind` when a look has just said that something is not on the disk.
    async fn wait_for_disk(&self, is_behind: bool) -> Result<(), Failure> {
        let asked = Instant::now();
        let (mut last, is_behind) = match self.shared.flushed.try_lock() {
            Ok(last) => (last, is_behind),
            // Whoever is waited for may have it written as well.
            Err(_) => (self.shared.flushed.lock().await, false),
        };
        if last.is_some_and(|began| began > asked) {
            return Ok(());
        }
        let began = Instant::now();
        let client = self.shared.topics_sessions.get().await?;
        let client = &**client;
        if is_behind || !is_flushed(client).await.map_err(Failure::Database)? {
            flush(client).await.map_err(Failure::Database)?;
        }
        *last = Some(began);
        Ok(())
    }

    /// Where a read model stands; what it stands for is on the server's disk.
    pub async fn present(&self, read_model: &str) -> Result<Option<Page>, Failure> {
        self.page_over(&self.shared.subscribers_sessions, read_model, i64::MAX)
            .await
    }

    /// The next commits after a revision, for all who follow.
    pub(super) async fn page(&self, read_model: &str, after: i64) -> Result<Option<Page>, Failure> {
        self.page_over(&self.shared.topics_sessions, read_model, after)
            .await
    }

    async fn page_over(
        &self,
        sessions: &Pool,
        read_model: &str,
        after: i64,
    ) -> Result<Option<Page>, Failure> {
        let client = sessions.get().await?;
        let found = look(&**client, read_model, after, AT_ONCE).await;
        // Others may have the session while this waits for the disk.
        drop(client);
        let Some((page, is_flushed)) = found.map_err(Failure::Database)? else {
            return Ok(None);
        };
        if !is_flushed {
            self.wait_for_disk(true).await?;
        }
        Ok(Some(page))
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

impl Shared {
    fn readers(&self) -> MutexGuard<'_, HashMap<String, Reader>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// As many follow as may.
    Everybody,
    /// This reader has as many places as one may have.
    Reader,
}

/// One subscriber's place; it ends with this.
#[derive(Debug)]
pub struct Place {
    shared: Arc<Shared>,
    judges: Judges,
    catching_up_slowly: Turns,
    /// With whose places it counts.
    reader: Option<String>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.stats.subscribers.sub(1);
        if let Some(reader) = &self.reader {
            let mut readers = self.shared.readers();
            if let Some(own) = readers.get_mut(reader) {
                own.places -= 1;
                if own.places == 0 {
                    readers.remove(reader);
                }
            }
        }
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
    /// That was everything there was.
    is_near: bool,
    joined: Option<Joined>,
}

#[derive(Debug)]
struct Joined {
    seat: Seat,
    mailbox: Arc<Mailbox>,
    /// What comes after this revision comes into the mailbox.
    from: i64,
    /// What came before has been read.
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
            is_near: false,
            joined: None,
        }
    }

    /// The id that stands for everything that was handed out, and for what did not concern this subscriber.
    pub fn id(&self) -> String {
        self.realm.id(self.at)
    }

    /// The next events: what the database has first, however long that takes, and then what comes until `deadline`, with all
    /// that waits by then, up to about [`TOGETHER`] bytes. None if nothing comes; the id has moved past what did not concern
    /// this subscriber. Safe to cancel.
    pub async fn events(&mut self, deadline: Instant) -> Result<Vec<Arc<Event>>, End> {
        while !self.has_caught_up() {
            let events = self.catch_up().await?;
            if !events.is_empty() {
                return Ok(events);
            }
        }
        let first = match timeout_at(deadline.into(), self.next()).await {
            Ok(event) => event?,
            Err(_) => match self.move_on() {
                Some(event) => event?,
                None => return Ok(Vec::new()),
            },
        };
        let mut bytes = first.frame.len();
        let mut events = vec![first];
        // An end that waits comes next.
        while bytes < TOGETHER
            && let Some(Ok(event)) = self.try_next()
        {
            bytes += event.frame.len();
            events.push(event);
        }
        Ok(events)
    }

    /// Looks for the next events in the database: at least one, or none once whatever comes is handed out by the hub, and
    /// then [`next`](Self::next) waits. Moves the id on. Safe to cancel.
    pub async fn catch_up(&mut self) -> Result<Vec<Arc<Event>>, End> {
        loop {
            match &mut self.joined {
                Some(joined) if joined.from <= self.at => {
                    joined.is_complete = true;
                    return Ok(Vec::new());
                }
                // What is there has been read once. While commits keep coming, there is never nothing more.
                None if self.is_near => self.join().await?,
                _ => {
                    let events = self.read_on().await?;
                    if !events.is_empty() {
                        return Ok(events);
                    }
                }
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

    /// What the next commits are to this subscriber.
    async fn read_on(&mut self) -> Result<Vec<Arc<Event>>, End> {
        let shared = &self.hub.shared;
        let turns = match self.question.matcher {
            Some(_) => &shared.catching_up,
            None => &self.place.catching_up_slowly,
        };
        let _turn = turns.take().await;
        let began = Instant::now();
        let sessions = &shared.subscribers_sessions;
        let page = self.hub.page_over(sessions, &self.read_model, self.at);
        let page = page.await;
        let page = page.map_err(|failure| {
            tracing::warn!(read_model = self.read_model, %failure, "a subscriber cannot catch up");
            End::Dropped(Slow::Database)
        })?;
        let page = page.ok_or(End::Refetch(Reason::Gone))?;
        checked(&self.realm, self.at, &page).map_err(End::Refetch)?;
        let mut events = Vec::new();
        let mut at = self.at;
        for commit in page.commits {
            let commit = commit.parsed().map_err(End::Refetch)?;
            if let Some(changes) = self.question.judge(&self.place.judges, &commit).await? {
                events.push(Arc::new(self.realm.event(&commit, &changes)));
            }
            at = commit.revision;
            // Each commit is complete by itself.
            if began.elapsed() >= TURN {
                break;
            }
        }
        // All that was judged or none: the id of whom this ends for must not pass what was not handed out.
        self.at = at;
        self.is_near = at == page.revision;
        Ok(events)
    }

    async fn join(&mut self) -> Result<(), End> {
        let mailbox = Arc::new(Mailbox::new(self.hub.shared.bounds.queue_bytes));
        let topic = self.hub.topic(&self.read_model);
        let (seat, from) = Seat::take(
            &self.hub,
            topic,
            &self.question,
            &self.place.judges,
            &self.realm,
            mailbox.clone(),
        )
        .await?;
        self.joined = Some(Joined {
            seat,
            mailbox,
            from,
            is_complete: false,
        });
        Ok(())
    }
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
    match page.is_whole && at != page.revision {
        true => Err(Reason::Gone),
        false => Ok(()),
    }
}
