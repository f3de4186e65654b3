//! Entries of a Redis Stream become events: read by a consumer group, stored, and acknowledged only once they are durable.
//!
//! The event id follows from the entry's id, so an entry that is read again is found to be stored, and only acknowledged.
//! One process per group is at work, the holder of a lock of the database session that it stores with; it first takes
//! over what others have left unacknowledged. So the entries become events in the order of the stream, whoever ends when.

mod entry;
mod group;

use std::time::Duration;

use redis::{Client, RedisError};
use tokio_postgres::Client as Session;
use uuid::Uuid;

use crate::db::{Database, describe, is_infrastructure};
use crate::import::{Chunk, ImportError, Known, Parser, Writer};
use crate::redis::Unusable;
use crate::shutdown::Shutdown;
use entry::Entry;
pub use entry::Fields;
use group::Group;

/// How many entries are stored together, unless told otherwise.
pub const DEFAULT_BATCH: usize = 1_000;
/// UUID version 5 of "gobo:ingest:redis" among URLs. An entry without an event id gets one made from this, the name of
/// the ingestion and the entry's id.
const NAMESPACE: Uuid = Uuid::from_u128(0xe3f9_a086_ffbe_54ad_bc15_3de6_f422_db37);
/// Pauses while Redis or the database is away.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often it is tried to become the one that is at work.
const TURN_EVERY: Duration = Duration::from_millis(250);

/// What to ingest, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where Redis is.
    pub redis_url: String,
    /// The stream's key.
    pub stream: String,
    /// The consumer group, made when it is not there.
    pub group: String,
    /// The name in the group.
    pub consumer: String,
    /// Where a group begins that is made now: `0`, `$`, or the id of the last entry to leave out.
    pub from: String,
    /// Made event ids depend on it.
    pub name: String,
    /// Which fields of an entry hold what.
    pub fields: Fields,
    /// Entries that are stored together.
    pub batch: usize,
    /// What becomes of entries that cannot be stored.
    pub on_bad: OnBad,
    /// Whether to end when there is nothing more to read.
    pub once: bool,
}

/// What becomes of an entry that cannot be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBad {
    /// The ingestion ends in front of it.
    Stop,
    /// It is moved to the stream `{stream}:refused`, with the reason.
    Skip,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events that were stored.
    pub stored: u64,
    /// Entries whose events were stored before.
    pub present: u64,
    /// Entries that were set aside.
    pub refused: u64,
    /// Entries that were deleted from the stream after they had been handed out, and before they were stored.
    pub lost: u64,
}

/// What happens on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Entries are being read.
    Reading,
    /// Another process is at work for this group; this one takes its place when it ends.
    StandingBy,
    /// A batch is stored.
    Stored(Summary),
    /// Something is away; it is tried again.
    Waiting(String),
}

/// Why an ingestion ended early. What is stored is acknowledged or will be, and it goes on where it was.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// An entry that cannot be stored.
    #[error("entry {id} of stream \"{stream}\" cannot be stored: {reason}")]
    Bad {
        /// The entry's id.
        id: String,
        /// The stream's key.
        stream: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The address of Redis is none.
    #[error("the address of Redis: {0}")]
    Address(#[from] Unusable),
    /// Redis does not do what it must.
    #[error("Redis refuses: {0}")]
    Redis(String),
    /// The database refuses.
    #[error("the database refuses: {0}")]
    Database(String),
}

/// Why an attempt ended.
enum Halt {
    /// Redis or the database is away: try again.
    Away(String),
    /// Trying again would not help.
    Failed(IngestError),
}

/// Ingests until `shutdown`, or the end of the stream if that is wanted. A batch that is being stored is finished.
pub async fn ingest(
    database: &Database,
    options: &Options,
    mut shutdown: Shutdown,
    mut seen: impl FnMut(Seen),
) -> Result<Summary, IngestError> {
    let client = crate::redis::client(&options.redis_url)?;
    let mut done = Summary::default();
    let mut pause = SHORTEST_PAUSE;
    while !shutdown.is_requested() {
        let mut attempt = Attempt {
            options,
            client: &client,
            shutdown: shutdown.clone(),
            done: &mut done,
            seen: &mut seen,
        };
        let before = attempt.done.stored + attempt.done.present;
        match attempt.run(database).await {
            Ok(()) => break,
            Err(Halt::Failed(error)) => return Err(error),
            Err(Halt::Away(why)) => {
                if done.stored + done.present > before {
                    pause = SHORTEST_PAUSE;
                }
                seen(Seen::Waiting(why));
            }
        }
        tokio::select! {
            () = shutdown.requested() => {}
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
    Ok(done)
}

/// One session with the database and one connection to Redis, until one of them fails.
struct Attempt<'a, S> {
    options: &'a Options,
    client: &'a Client,
    shutdown: Shutdown,
    done: &'a mut Summary,
    seen: &'a mut S,
}

impl<S: FnMut(Seen)> Attempt<'_, S> {
    async fn run(&mut self, database: &Database) -> Result<(), Halt> {
        // An entry is acknowledged because its event is durable, so the commit waits for the disk.
        let settings = [("synchronous_commit", "on")];
        let mut session = database.connect("ingest", &settings).await?;
        if !self.take_turn(&session).await? {
            return Ok(());
        }
        let mut group = Group::join(self.client, self.options).await?;
        (self.seen)(Seen::Reading);
        let mut writer = Writer::untracked(&mut session).await?;
        self.take_over(&mut group, &mut writer).await?;
        while !self.shutdown.is_requested() {
            let entries = tokio::select! {
                biased;
                () = self.shutdown.requested() => break,
                entries = group.read(!self.options.once) => entries?,
            };
            if entries.is_empty() && self.options.once {
                break;
            }
            self.store(&mut group, &mut writer, entries).await?;
        }
        Ok(())
    }

    /// Waits until no other process is at work for this group; false when the end is asked for first. The lock ends with
    /// the session, and without the session nothing can be stored.
    async fn take_turn(&mut self, session: &Session) -> Result<bool, Halt> {
        let sql = "select pg_try_advisory_lock(hashtextextended(concat_ws(E'\\n', 'gobo ingest', $1::text, $2::text), 7265696))";
        let Options { stream, group, .. } = self.options;
        let mut told = false;
        loop {
            let row = session.query_one(sql, &[stream, group]).await?;
            if row.get(0) {
                return Ok(true);
            }
            if !std::mem::replace(&mut told, true) {
                (self.seen)(Seen::StandingBy);
            }
            tokio::select! {
                () = self.shutdown.requested() => return Ok(false),
                () = tokio::time::sleep(TURN_EVERY) => {}
            }
        }
    }

    /// Stores what was handed out before and not acknowledged, to whomever: it comes before everything new.
    async fn take_over(
        &mut self,
        group: &mut Group<'_>,
        writer: &mut Writer<'_>,
    ) -> Result<(), Halt> {
        let mut after = "0-0".to_owned();
        while !self.shutdown.is_requested() {
            let left = group.orphans(&after).await?;
            self.done.lost += left.lost;
            self.store(group, writer, left.entries).await?;
            match left.next {
                Some(next) => after = next,
                None => break,
            }
        }
        Ok(())
    }

    /// Stores a batch, and acknowledges it.
    async fn store(
        &mut self,
        group: &mut Group<'_>,
        writer: &mut Writer<'_>,
        mut entries: Vec<Entry>,
    ) -> Result<(), Halt> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut refused = Vec::new();
        loop {
            let found = match self.try_store(writer, &entries).await? {
                Ok(()) => break,
                Err(bad) => bad,
            };
            match self.options.on_bad {
                OnBad::Skip => {
                    refused.push((entries.remove(found.index), found.reason));
                }
                OnBad::Stop if found.index == 0 => {
                    return Err(Halt::Failed(IngestError::Bad {
                        id: entries.swap_remove(0).id,
                        stream: self.options.stream.clone(),
                        reason: found.reason,
                    }));
                }
                // First what comes before it.
                OnBad::Stop => {
                    let rest = entries.split_off(found.index);
                    Box::pin(self.store(group, writer, entries)).await?;
                    entries = rest;
                }
            }
        }
        group.acknowledge(&entries).await?;
        // Mistakes are not found in the order of the stream.
        refused.sort_by_key(|(entry, _)| entry.place());
        for (entry, reason) in refused {
            group.set_aside(&entry, &reason).await?;
            self.done.refused += 1;
        }
        (self.seen)(Seen::Stored(*self.done));
        Ok(())
    }

    /// Stores all of `entries` or none: then it says which one is to blame.
    async fn try_store(
        &mut self,
        writer: &mut Writer<'_>,
        entries: &[Entry],
    ) -> Result<Result<(), BadEntry>, Halt> {
        let Options { fields, name, .. } = self.options;
        let namespace = Uuid::new_v5(&NAMESPACE, name.as_bytes());
        let mut lines = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            match entry.line(fields, &namespace) {
                Ok(line) => lines.push(line),
                Err(reason) => return Ok(Err(BadEntry { index, reason })),
            }
        }
        let parser = Parser::new(name, crate::event::now_micros());
        let (mut chunk, mut known) = (Chunk::default(), Known::new());
        for (index, (line, entry)) in lines.iter().zip(entries).enumerate() {
            let added = parser.line(&mut chunk, &mut known, line, index as u64, entry.moment());
            if let Err(reason) = added {
                return Ok(Err(BadEntry { index, reason }));
            }
        }
        match writer.store(chunk).await {
            Ok(stored) => {
                self.done.stored += stored.stored;
                self.done.present += stored.present;
                Ok(Ok(()))
            }
            Err(ImportError::Line { line, reason }) => Ok(Err(BadEntry {
                index: usize::try_from(line).unwrap_or_default(),
                reason,
            })),
            Err(ImportError::Database(error)) => Err(error.into()),
            // Others write to the same streams all the time.
            Err(error) => Err(Halt::Away(error.to_string())),
        }
    }
}

/// An entry that cannot be stored.
struct BadEntry {
    index: usize,
    reason: String,
}

impl From<tokio_postgres::Error> for Halt {
    fn from(error: tokio_postgres::Error) -> Self {
        match is_infrastructure(&error) {
            true => Self::Away(format!("the database: {}", describe(&error))),
            false => Self::Failed(IngestError::Database(describe(&error))),
        }
    }
}

impl From<RedisError> for Halt {
    fn from(error: RedisError) -> Self {
        // Out of memory, or of disk, or of replicas.
        let full = matches!(error.code(), Some("OOM" | "MISCONF" | "NOREPLICAS"));
        match full || crate::redis::is_away(&error) {
            true => Self::Away(format!("Redis: {error}")),
            false => Self::Failed(IngestError::Redis(error.to_string())),
        }
    }
}
