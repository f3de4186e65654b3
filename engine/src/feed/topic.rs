//! The reader of one read model's commits, for everybody on this node who follows it. It works while somebody does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::Page;
use super::commit::Parsed;
use super::hub::{Hub, checked};
use super::mailbox::{End, Mailbox, Reason, Slow};
use super::query::{Followed, Judges, Pace, Question, Realm};
use crate::query::Failure;
use crate::query::sql::Statement;

/// How often it looks without any hint: the generation may be run by another process.
const LOOK: Duration = Duration::from_millis(25);
/// After commits it waits for as long as they took before it looks again, within these bounds: the busier the machine is, the
/// more commits are read, and flushed, at once.
const GATHER: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(20));
/// How long it waits before it asks a database that did not answer again.
const PAUSE: Duration = Duration::from_millis(500);
/// Commits that may wait for a query that is asked of the database.
const BEHIND: usize = 256;
/// Bytes that they may have told.
const BYTES_BEHIND: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct Topic {
    read_model: String,
    state: Mutex<State>,
    /// How often it has begun at a revision.
    begun: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Who is here, or about to take a seat.
    guests: usize,
    at: Option<(Realm, i64)>,
    followed: HashMap<Statement, Table>,
}

/// Where those sit who ask the same.
#[derive(Debug, Clone)]
struct Table {
    followed: Arc<Followed>,
    /// To the task that asks the database; none where that is not needed.
    asker: Option<Asker>,
}

/// The way to a task that asks the database.
#[derive(Debug, Clone)]
struct Asker {
    commits: mpsc::Sender<(Arc<Parsed>, OwnedSemaphorePermit)>,
    /// Bytes that may still wait.
    room: Arc<Semaphore>,
    /// Ends with the last way to it, whatever waits: nobody wants to know.
    _task: Arc<JoinSet<()>>,
}

impl Asker {
    /// Gives whether there was room.
    fn give(&self, commit: &Arc<Parsed>) -> bool {
        // What is larger than all of the room waits alone.
        let bytes = commit.text.len().clamp(1, BYTES_BEHIND);
        let room = u32::try_from(bytes).ok();
        let room = room.and_then(|bytes| self.room.clone().try_acquire_many_owned(bytes).ok());
        room.is_some_and(|room| self.commits.try_send((commit.clone(), room)).is_ok())
    }
}

impl Topic {
    pub(super) fn new(read_model: &str) -> Self {
        Self {
            read_model: read_model.to_owned(),
            state: Mutex::default(),
            begun: watch::Sender::default(),
        }
    }

    /// Keeps it awake until [`leave`](Self::leave). Called with the hub's lock, as the end of its task is decided.
    pub(super) fn enter(&self) {
        self.state().guests += 1;
    }

    fn leave(&self) {
        self.state().guests -= 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads on until nobody follows any more, or the engine ends.
    pub(super) async fn run(self: Arc<Self>, hub: Hub) {
        let mut shutdown = hub.shutdown();
        let mut commits = hub.shared.progress.commits();
        loop {
            if self.ends(&hub) {
                return;
            }
            commits.borrow_and_update();
            let began = Instant::now();
            let (pause, hears) = match self.look(&hub).await {
                Ok(0) => (LOOK, true),
                Ok(_) => (began.elapsed().clamp(GATHER.0, GATHER.1), false),
                Err(error) => {
                    tracing::warn!(read_model = self.read_model, %error, "its changes cannot be read");
                    (PAUSE, false)
                }
            };
            tokio::select! {
                () = shutdown.requested() => {
                    self.end(&End::Closed);
                    return;
                }
                _ = commits.changed(), if hears => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn ends(&self, hub: &Hub) -> bool {
        let mut topics = hub.topics();
        let is_empty = self.state().guests == 0;
        if is_empty {
            topics.remove(&self.read_model);
        }
        is_empty
    }

    /// Reads commits and hands them out. Gives how many.
    async fn look(&self, hub: &Hub) -> Result<usize, Failure> {
        let at = self.state().at.clone();
        let after = at.as_ref().map_or(i64::MAX, |(_, revision)| *revision);
        let Some(page) = hub.page(&self.read_model, after).await? else {
            self.end(&End::Refetch(Reason::Gone));
            return Ok(0);
        };
        match at {
            Some((realm, after)) => match checked(&realm, after, &page) {
                Ok(()) => self.hand_out(&realm, page).await,
                Err(reason) => {
                    self.end(&End::Refetch(reason));
                    self.begin(&page);
                    Ok(0)
                }
            },
            None => {
                self.begin(&page);
                Ok(0)
            }
        }
    }

    async fn hand_out(&self, realm: &Realm, page: Page) -> Result<usize, Failure> {
        let count = page.commits.len();
        for commit in page.commits {
            let revision = commit.revision;
            let tables: Vec<Table> = {
                let mut state = self.state();
                // From here on whoever joins has to have read this commit by itself.
                state.at = Some((realm.clone(), revision));
                state.followed.values().cloned().collect()
            };
            if tables.is_empty() {
                continue;
            }
            match commit.parsed() {
                Ok(parsed) => self.give(&tables, Arc::new(parsed)).await,
                Err(reason) => self.end(&End::Refetch(reason)),
            }
        }
        Ok(count)
    }

    async fn give(&self, tables: &[Table], commit: Arc<Parsed>) {
        let mut pace = Pace::begin();
        for Table { followed, asker } in tables {
            pace.keep().await;
            match asker {
                None => followed.take(&commit).await,
                Some(asker) => {
                    if !asker.give(&commit) {
                        followed.end(&End::Dropped(Slow::Query));
                    }
                }
            }
        }
    }

    fn begin(&self, page: &Page) {
        let Some(incarnation) = page.incarnation.clone() else {
            // Just after a crash of the server: known as soon as somebody has written it.
            self.state().at = None;
            return;
        };
        let realm = Realm {
            incarnation,
            generation: page.generation,
        };
        self.state().at = Some((realm, page.revision));
        self.begun.send_modify(|times| *times += 1);
    }

    /// Ends everybody who follows.
    fn end(&self, end: &End) {
        let followed = std::mem::take(&mut self.state().followed);
        for table in followed.values() {
            table.followed.end(end);
        }
    }
}

/// A subscriber's place in a topic. It is given back with this.
#[derive(Debug)]
pub(super) struct Seat {
    topic: Arc<Topic>,
    followed: Option<Arc<Followed>>,
    mailbox: Arc<Mailbox>,
}

impl Seat {
    /// Sits down in a topic that was entered, as soon as that knows where it is. Gives the revision after which everything
    /// comes into the mailbox.
    pub(super) async fn take(
        hub: &Hub,
        topic: Arc<Topic>,
        question: &Question,
        judges: &Judges,
        realm: &Realm,
        mailbox: Arc<Mailbox>,
    ) -> Result<(Self, i64), End> {
        let mut begun = topic.begun.subscribe();
        let mut seat = Self {
            topic,
            followed: None,
            mailbox,
        };
        let mut shutdown = hub.shutdown();
        loop {
            let there = seat.topic.state().at.clone();
            match there {
                Some((there, _)) if there == *realm => {}
                Some((there, _)) if there.incarnation != realm.incarnation => {
                    return Err(End::Refetch(Reason::Incarnation));
                }
                Some(_) => return Err(End::Refetch(Reason::Generation)),
                None => {
                    tokio::select! {
                        () = shutdown.requested() => return Err(End::Closed),
                        _ = begun.changed() => continue,
                    }
                }
            }
            if let Some(from) = seat.sit(question, judges, realm) {
                return Ok((seat, from));
            }
        }
    }

    /// Everything up to this revision is in the mailbox.
    pub(super) fn seen(&self) -> i64 {
        self.followed.as_ref().map_or(0, |followed| followed.seen())
    }

    fn sit(&mut self, question: &Question, judges: &Judges, realm: &Realm) -> Option<i64> {
        let mut state = self.topic.state();
        let (_, at) = state.at.clone().filter(|(there, _)| there == realm)?;
        let entry = state.followed.entry(question.statement.clone());
        let table = entry.or_insert_with(|| {
            let followed = Followed::new(question.clone(), judges.clone(), realm.clone(), at);
            let followed = Arc::new(followed);
            let asker = question.matcher.is_none().then(|| ask(followed.clone()));
            Table { followed, asker }
        });
        table.followed.join(self.mailbox.clone());
        self.followed = Some(table.followed.clone());
        Some(at)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(followed) = &self.followed {
            let mut state = self.topic.state();
            let is_empty = followed.leave(&self.mailbox);
            let statement = &followed.question.statement;
            let is_there = (state.followed.get(statement))
                .is_some_and(|table| Arc::ptr_eq(&table.followed, followed));
            if is_empty && is_there {
                state.followed.remove(statement);
            }
        }
        self.topic.leave();
    }
}

/// Starts the task that asks the database for a query, one commit after the other. It ends with the table, and so does the
/// statement that runs.
fn ask(followed: Arc<Followed>) -> Asker {
    let (commits, mut waiting) = mpsc::channel::<(Arc<Parsed>, _)>(BEHIND);
    let mut task = JoinSet::new();
    task.spawn(async move {
        while let Some((commit, _room)) = waiting.recv().await {
            followed.take(&commit).await;
        }
    });
    Asker {
        commits,
        room: Arc::new(Semaphore::new(BYTES_BEHIND)),
        _task: Arc::new(task),
    }
}
