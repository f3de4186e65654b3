//! Publishes what commits changed to Redis Streams: one stream per read model and generation.
//!
//! The publisher keeps no state of its own: what a stream ends with says where to go on. Ids follow from revision and place,
//! and a script adds entries only to a stream that still ends as it was seen, so any number of nodes may publish the same,
//! and none of them can leave something out, repeat it, or overtake another. Only what is on the database's disk is told.

mod plan;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Pool, PoolError};
use redis::Script;
use tokio::sync::watch;

use super::{Page, read};
use crate::db::describe_pool;
use crate::redis::{Redis, Trouble};
use crate::shutdown::Shutdown;
use plan::{Entry, Id, Step, Why, refetch_fields, step};

/// How often it is looked without a hint: other nodes commit without one.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The shortest pause between two looks: what is committed meanwhile is published together.
const PACE: Duration = Duration::from_millis(5);
/// Commits that are published in one go.
const AT_ONCE: i64 = 200;

static LOOK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("publish/look.lua")));
static APPEND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("publish/append.lua")));
static BEGIN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("publish/begin.lua")));

/// How streams are kept.
#[derive(Debug, Clone, Copy)]
pub struct Streams {
    /// Entries that a stream keeps, about.
    pub entries: usize,
    /// For how long the stream of a generation is kept that is live no longer.
    pub retired: Duration,
}

/// Publishes the changes of some read models.
#[derive(Debug)]
pub struct Publisher {
    redis: Redis,
    front: Redis,
    pool: Pool,
    read_models: Vec<String>,
    streams: Streams,
    published: Published,
}

/// What was published, for the metrics; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Published {
    feeds: Arc<Mutex<BTreeMap<String, Feed>>>,
}

/// What is known of the feed of one read model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Feed {
    /// The revision up to which its stream is complete.
    pub revision: Option<i64>,
    /// Entries that this process has added.
    pub entries: u64,
    /// How many of them told consumers to read the rows anew.
    pub refetches: u64,
    /// Why it does not go on.
    pub trouble: Option<String>,
}

/// Why a feed does not go on now.
#[derive(Debug, thiserror::Error)]
enum Halt {
    #[error("Redis: {0}")]
    Redis(#[from] Trouble),
    #[error("the database: {}", describe_pool(.0))]
    Database(#[from] PoolError),
    #[error("the stream \"{0}\" ends with the id {1}, which is not one of a feed")]
    Foreign(String, String),
}

impl From<tokio_postgres::Error> for Halt {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(PoolError::Backend(error))
    }
}

/// Where a feed stands.
struct Seen {
    /// The current stream; empty if there is none.
    stream: String,
    /// What it ends with; empty if there is no such stream.
    last: String,
}

impl Publisher {
    /// Publishes over `redis`, which is not to be used for anything that has to be fast; tells `front` of trouble; reads and
    /// flushes over `pool`.
    pub fn new(
        redis: Redis,
        front: Redis,
        pool: Pool,
        read_models: Vec<String>,
        streams: Streams,
    ) -> Self {
        let published = Published::default();
        for name in &read_models {
            published.note(name, |_| {});
        }
        Self {
            redis,
            front,
            pool,
            read_models,
            streams,
            published,
        }
    }

    /// What was published, as it will be at any time.
    pub fn published(&self) -> Published {
        self.published.clone()
    }

    /// Publishes until the end: at once when `commits` changes, and now and then.
    pub async fn run(self, mut commits: watch::Receiver<u64>, mut shutdown: Shutdown) {
        loop {
            commits.borrow_and_update();
            tokio::select! {
                () = shutdown.requested() => return,
                // Cut off anywhere, it has told what it has told.
                () = self.run_once() => {}
            }
            tokio::time::sleep(PACE).await;
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
                // The hint's sender lives as long as the loops do.
                Ok(()) = commits.changed() => {}
            }
        }
    }

    /// Brings every stream up to date, as far as that is possible now.
    pub async fn run_once(&self) {
        for name in &self.read_models {
            let trouble = self.publish(name).await.err().map(|halt| halt.to_string());
            let is_news = self.published.note(name, |feed| {
                std::mem::replace(&mut feed.trouble, trouble.clone()) != trouble
            });
            if is_news {
                match &trouble {
                    Some(why) => tracing::warn!(read_model = name, why, "its feed waits"),
                    None => tracing::info!(read_model = name, "its feed goes on"),
                }
                let why = trouble.map(|why| format!("the feed of {name} waits: {why}"));
                self.front.complain(name, why);
            }
        }
    }

    async fn publish(&self, name: &str) -> Result<(), Halt> {
        let pointer = self.redis.key(&format!("feed:{name}"));
        loop {
            // Redis first: what the database has afterwards is at least what the stream was told from.
            let seen = self.look(&pointer).await?;
            let client = self.pool.get().await?;
            let last: Option<Id> = match seen.last.is_empty() {
                true => None,
                false => Some(
                    seen.last
                        .parse()
                        .map_err(|()| Halt::Foreign(seen.stream.clone(), seen.last.clone()))?,
                ),
            };
            let told = last.map_or(0, |id| id.revision);
            let sql = "select left(token::text, 8) from gobo.incarnation";
            let Some(token) = client.query_opt(sql, &[]).await? else {
                // Just after a crash of the server; it is made anew.
                return Ok(());
            };
            let Some(page) = read(&**client, name, told, AT_ONCE).await? else {
                return Ok(());
            };
            let token: String = token.get(0);
            let stream = format!("{pointer}:{}-{token}", page.generation);
            let goes_on = match last {
                Some(last) if seen.stream == stream => {
                    self.go_on(name, &pointer, &seen, last, page).await?
                }
                _ => {
                    self.begin(name, &pointer, &stream, &seen, &page).await?;
                    true
                }
            };
            if !goes_on {
                return Ok(());
            }
        }
    }

    async fn look(&self, pointer: &str) -> Result<Seen, Halt> {
        let found: Vec<String> = self.redis.run_script(&LOOK, &[pointer], &[]).await?;
        let mut found = found.into_iter();
        Ok(Seen {
            stream: found.next().unwrap_or_default(),
            last: found.next().unwrap_or_default(),
        })
    }

    /// Adds what the current stream lacks; false when it lacks nothing more.
    async fn go_on(
        &self,
        name: &str,
        pointer: &str,
        seen: &Seen,
        last: Id,
        mut page: Page,
    ) -> Result<bool, Halt> {
        let mut told = last.revision;
        loop {
            match step(last, told, &page) {
                Step::Anew => {
                    tracing::error!(
                        read_model = name,
                        stream = seen.stream,
                        "its stream tells of revisions that the database does not have; it is begun anew"
                    );
                    self.begin(name, pointer, &seen.stream, seen, &page).await?;
                    return Ok(true);
                }
                Step::Append(entries, through) => {
                    if self.append(pointer, seen, &entries).await? {
                        self.note_entries(name, &entries, through);
                    }
                    // If somebody else was faster, it is looked again.
                    return Ok(true);
                }
                Step::Nothing(through) => {
                    self.published
                        .note(name, |feed| feed.revision = Some(through));
                    if page.is_whole {
                        return Ok(false);
                    }
                    // Nothing but commits that changed no row.
                    told = through;
                }
            }
            let client = self.pool.get().await?;
            page = match read(&**client, name, told, AT_ONCE).await? {
                Some(page) => page,
                None => return Ok(false),
            };
        }
    }

    async fn append(&self, pointer: &str, seen: &Seen, entries: &[Entry]) -> Result<bool, Halt> {
        let kept = self.streams.entries.to_string();
        let mut arguments: Vec<Vec<u8>> = vec![seen.last.clone().into(), kept.into()];
        for entry in entries {
            arguments.push(entry.id.to_string().into());
            arguments.push((entry.fields.len() * 2).to_string().into());
            for (field, value) in &entry.fields {
                arguments.push((*field).into());
                arguments.push(value.clone().into());
            }
        }
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        let keys = [pointer, &seen.stream];
        let added: i64 = self.redis.run_script(&APPEND, &keys, &arguments).await?;
        Ok(added == 1)
    }

    /// Makes `stream` the current one, unless somebody else was faster.
    async fn begin(
        &self,
        name: &str,
        pointer: &str,
        stream: &str,
        seen: &Seen,
        page: &Page,
    ) -> Result<(), Halt> {
        let before = match seen.stream.is_empty() {
            true => stream,
            false => &seen.stream,
        };
        let kept = self.streams.retired.as_millis().to_string();
        let revision = page.revision.to_string();
        let fields = refetch_fields(page.revision, page.generation, page.position, Why::Begun);
        let mut arguments = vec![seen.stream.as_str(), &seen.last, &revision, &kept];
        for (field, value) in &fields {
            arguments.extend([*field, value.as_str()]);
        }
        let arguments: Vec<&[u8]> = arguments.into_iter().map(str::as_bytes).collect();
        let keys = [pointer, stream, before];
        let begun: Option<String> = self.redis.run_script(&BEGIN, &keys, &arguments).await?;
        if begun.is_some() {
            tracing::info!(read_model = name, stream, "its feed begins a stream");
            self.published.note(name, |feed| {
                feed.entries += 1;
                feed.refetches += 1;
                feed.revision = Some(page.revision);
            });
        }
        Ok(())
    }

    fn note_entries(&self, name: &str, entries: &[Entry], through: i64) {
        let refetches = entries.iter().filter(|entry| entry.is_refetch()).count() as u64;
        if refetches > 0 {
            tracing::warn!(
                read_model = name,
                through,
                "not every change could be published: consumers of its feed are told to read the rows anew"
            );
        }
        self.published.note(name, |feed| {
            feed.entries += entries.len() as u64;
            feed.refetches += refetches;
            feed.revision = Some(through);
        });
    }
}

impl Published {
    /// Every read model that is published, by name.
    pub fn feeds(&self) -> BTreeMap<String, Feed> {
        let feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.clone()
    }

    fn note<T>(&self, name: &str, change: impl FnOnce(&mut Feed) -> T) -> T {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        change(feeds.entry(name.to_owned()).or_default())
    }
}
