//! Chunks into the table: versions, COPY, and how far the import has come, in one transaction.
//!
//! At first no stream is locked and little is looked up: the table's unique constraints tell when an assumption was wrong
//! or somebody else was there. Then the chunk is stored again, with ever more care.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::time::Instant;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement, Transaction};

use super::chunk::{COLUMNS, Chunk, Mark};
use super::{ImportError, Timing, present};
use crate::event::{Micros, Position};

/// The start of a binary COPY: signature, flags, no header extension (PostgreSQL's manual, COPY).
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const COPY_TRAILER: &[u8] = &[0xff, 0xff];
const COPY_PIECE: usize = 256 << 10;
/// How often a chunk is tried that met other writers.
const ATTEMPTS: u32 = 6;
/// Streams whose last version is remembered from chunk to chunk.
const REMEMBERED_STREAMS: usize = 500_000;

/// PostgreSQL's table of locks is bounded, and shared by all.
const MOST_LOCKS: usize = 1_000;

/// How much is made sure of before a chunk is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Care {
    /// Versions are as they were left, new streams are new, and no event is there yet.
    Assuming,
    /// All of that is looked up.
    LookingUp,
    /// And nobody else may append to the chunk's streams meanwhile.
    Locking,
}

/// Stores the chunks of one import, in order.
#[derive(Debug)]
pub(crate) struct Writer<'c> {
    client: &'c mut Client,
    /// The import's name, if its progress is kept.
    name: Option<String>,
    statements: Statements,
    /// The last versions of streams that this import wrote to. They can be outdated, then only too low.
    versions: HashMap<String, i64>,
    care: Care,
    now: Micros,
    last_position: Position,
    timing: Timing,
}

#[derive(Debug)]
struct Statements {
    lock_streams: Statement,
    versions: Statement,
    stored: present::Statements,
    record: Statement,
    copy: Statement,
}

impl Statements {
    async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            lock_streams: client.prepare(include_str!("sql/lock_streams.sql")).await?,
            versions: client.prepare(include_str!("sql/versions.sql")).await?,
            stored: present::Statements {
                present: client.prepare(include_str!("sql/present.sql")).await?,
                same: client.prepare(include_str!("sql/same.sql")).await?,
            },
            record: client.prepare(include_str!("sql/record.sql")).await?,
            copy: client
                .prepare(&format!(
                    "copy gobo.events ({COLUMNS}) from stdin (format binary)"
                ))
                .await?,
        })
    }
}

/// What became of a chunk.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(super) end: Mark,
    /// Events that are stored now.
    pub(crate) stored: u64,
    /// Events that were stored before, with the same content.
    pub(crate) present: u64,
}

impl<'c> Writer<'c> {
    /// Takes the import's name, and says how far earlier runs came.
    pub(super) async fn begin(
        client: &'c mut Client,
        name: &str,
    ) -> Result<(Self, Mark), ImportError> {
        pin_plans(client).await?;
        take_name(client, name).await?;
        let sql =
            "select (extract(epoch from clock_timestamp()) * 1000000)::int8 - 946684800000000";
        let now = client.query_one(sql, &[]).await?.get(0);
        let sql =
            "select bytes, lines, prefix_sha256, last_position from gobo.imports where name = $1";
        let row = client.query_opt(sql, &[&name]).await?;
        let done = match &row {
            None => Mark::nothing(),
            Some(row) => Mark {
                bytes: row.get::<_, i64>(0).unsigned_abs(),
                lines: row.get::<_, i64>(1).unsigned_abs(),
                prefix: row.get::<_, &[u8]>(2).try_into().unwrap_or_default(),
            },
        };
        let statements = Statements::prepare(client).await?;
        let writer = Self {
            client,
            name: Some(name.to_owned()),
            statements,
            versions: HashMap::new(),
            care: Care::Assuming,
            now,
            last_position: row.map_or(0, |row| row.get(3)),
            timing: Timing::default(),
        };
        Ok((writer, done))
    }

    /// A writer that keeps no progress: whoever reads the events knows which ones are stored, or asks again.
    pub(crate) async fn untracked(client: &'c mut Client) -> Result<Self, tokio_postgres::Error> {
        pin_plans(client).await?;
        let statements = Statements::prepare(client).await?;
        Ok(Self {
            client,
            name: None,
            statements,
            versions: HashMap::new(),
            // Events that are there already are nothing unusual, and others write to the same streams.
            care: Care::LookingUp,
            now: 0,
            last_position: 0,
            timing: Timing::default(),
        })
    }

    /// The server's time when the import began.
    pub(super) fn now(&self) -> Micros {
        self.now
    }

    pub(super) fn last_position(&self) -> Position {
        self.last_position
    }

    pub(super) fn timing(&self) -> Timing {
        self.timing
    }

    /// Stores one chunk, all or none.
    pub(crate) async fn store(&mut self, mut chunk: Chunk) -> Result<Stored, ImportError> {
        for _ in 1..=ATTEMPTS {
            let failure = match self.try_store(&mut chunk).await {
                Ok(stored) => {
                    self.care = match self.care {
                        Care::Locking => Care::Locking,
                        _ if stored.present > 0 || self.name.is_none() => Care::LookingUp,
                        _ => Care::Assuming,
                    };
                    return Ok(stored);
                }
                Err(failure) => failure,
            };
            let enough = match failure {
                // What was assumed may be wrong; what was looked up is not.
                Failure::Line { line, reason } if self.care >= Care::LookingUp => {
                    return Err(ImportError::Line { line, reason });
                }
                Failure::Database(error) if !is_conflict(&error) => return Err(error.into()),
                Failure::Database(error) if is_about_versions(&error) => Care::Locking,
                Failure::Line { .. } | Failure::Database(_) => Care::LookingUp,
            };
            self.care = self.care.max(enough);
        }
        Err(ImportError::Crowded {
            first: chunk.records.first().map_or(0, |record| record.line),
            last: chunk.records.last().map_or(0, |record| record.line),
        })
    }

    /// Notes that there is no more to come, and gives the name back.
    pub(super) async fn end(self, complete: bool) -> Result<(), ImportError> {
        if complete {
            let sql = "update gobo.imports set finished_at = clock_timestamp() where name = $1 and finished_at is null";
            self.client.execute(sql, &[&self.name]).await?;
        }
        let sql = "select pg_advisory_unlock(hashtextextended('gobo import ' || $1, 7265696))";
        self.client.execute(sql, &[&self.name]).await?;
        Ok(())
    }

    async fn try_store(&mut self, chunk: &mut Chunk) -> Result<Stored, Failure> {
        let began = Instant::now();
        if self.care >= Care::LookingUp {
            self.versions.clear();
        }
        let transaction = self.client.transaction().await?;
        let statements = &self.statements;
        if self.care == Care::Locking && chunk.streams.len() <= MOST_LOCKS {
            transaction
                .execute(&statements.lock_streams, &[&chunk.streams])
                .await?;
        }
        let present = if self.care >= Care::LookingUp {
            present::present(&transaction, &statements.stored, chunk).await?
        } else {
            HashSet::new()
        };
        let mut versions = versions(
            &transaction,
            statements,
            chunk,
            &self.versions,
            self.care == Care::Assuming,
        )
        .await?;
        assign_versions(chunk, &present, &mut versions)?;
        let copying = Instant::now();
        let stored = copy(&transaction, statements, chunk, &present).await?;
        let copied = copying.elapsed();
        let record = match &self.name {
            None => None,
            Some(name) => {
                let (bytes, lines) = (signed(chunk.end.bytes), signed(chunk.end.lines));
                let prefix = chunk.end.prefix.as_slice();
                let values: [&(dyn ToSql + Sync); 5] =
                    [name, &bytes, &lines, &prefix, &(stored > 0)];
                Some(transaction.query_one(&statements.record, &values).await?)
            }
        };
        transaction.commit().await?;

        if let Some(record) = record {
            self.last_position = record.get(0);
        }
        if self.versions.len() > REMEMBERED_STREAMS {
            self.versions.clear();
        }
        for (stream, version) in chunk.streams.drain(..).zip(versions) {
            self.versions.insert(stream, version);
        }
        self.timing.copying += copied;
        self.timing.committing += began.elapsed().saturating_sub(copied);
        Ok(Stored {
            end: chunk.end,
            stored,
            present: present.len() as u64,
        })
    }
}

/// The plans stay those for a large table, though it may be empty when they are made.
async fn pin_plans(client: &Client) -> Result<(), tokio_postgres::Error> {
    let settings = "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off; \
                    set plan_cache_mode = force_generic_plan";
    client.batch_execute(settings).await
}

/// Locks the import's name until the end of the session. Waits a moment: the session of a run that has just ended may
/// still be ending.
async fn take_name(client: &Client, name: &str) -> Result<(), ImportError> {
    client.batch_execute("set lock_timeout = '2s'").await?;
    let sql = "select pg_advisory_lock(hashtextextended('gobo import ' || $1, 7265696))";
    match client.execute(sql, &[&name]).await {
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            return Err(ImportError::Busy(name.to_owned()));
        }
        result => result?,
    };
    client.batch_execute("reset lock_timeout").await?;
    Ok(())
}

/// Why a chunk was not stored this time.
pub(super) enum Failure {
    Line { line: u64, reason: String },
    Database(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

fn is_conflict(error: &tokio_postgres::Error) -> bool {
    let conflicts = [
        SqlState::UNIQUE_VIOLATION,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ];
    error.code().is_some_and(|code| conflicts.contains(code))
}

/// Whether somebody else has written to one of the streams.
fn is_about_versions(error: &tokio_postgres::Error) -> bool {
    let constraint = error.as_db_error().and_then(|raised| raised.constraint());
    constraint.is_none_or(|name| name == "events_stream_version")
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The last version of each of the chunk's streams: remembered, or looked up. With `assume`, a stream whose first line
/// here says version 0 is taken to be new: if it is not, its version 0 is there, and the COPY fails.
async fn versions(
    transaction: &Transaction<'_>,
    statements: &Statements,
    chunk: &Chunk,
    remembered: &HashMap<String, i64>,
    assume: bool,
) -> Result<Vec<i64>, tokio_postgres::Error> {
    let mut versions: Vec<Option<i64>> = chunk
        .streams
        .iter()
        .map(|stream| remembered.get(stream).copied())
        .collect();
    if assume {
        let mut seen = vec![false; versions.len()];
        for record in &chunk.records {
            let first = !std::mem::replace(&mut seen[record.stream], true);
            if first && record.version == Some(0) && versions[record.stream].is_none() {
                versions[record.stream] = Some(-1);
            }
        }
    }
    let unknown: Vec<usize> = (0..versions.len())
        .filter(|&stream| versions[stream].is_none())
        .collect();
    if !unknown.is_empty() {
        let names: Vec<&str> = unknown
            .iter()
            .map(|&stream| chunk.streams[stream].as_str())
            .collect();
        let rows = transaction.query(&statements.versions, &[&names]).await?;
        for (stream, row) in unknown.into_iter().zip(rows) {
            versions[stream] = Some(row.get(0));
        }
    }
    Ok(versions
        .into_iter()
        .map(|version| version.unwrap_or(-1))
        .collect())
}

/// Gives every record that is not stored yet the next version of its stream; `last` holds the last ones.
fn assign_versions(
    chunk: &mut Chunk,
    present: &HashSet<usize>,
    last: &mut [i64],
) -> Result<(), Failure> {
    for index in 0..chunk.records.len() {
        if present.contains(&index) {
            continue;
        }
        let record = &chunk.records[index];
        let next = last[record.stream] + 1;
        if let Some(given) = record.version.filter(|&given| given != next) {
            let stream = &chunk.streams[record.stream];
            return Err(Failure::Line {
                line: record.line,
                reason: match next {
                    0 => format!("its version is {given}, but stream {stream:?} begins at 0"),
                    _ => format!(
                        "its version is {given}, but stream {stream:?} is at {}, so the next one is {next}",
                        next - 1
                    ),
                },
            });
        }
        last[record.stream] = next;
        chunk.set_version(index, next);
    }
    Ok(())
}

/// Sends the records that are not present already; returns how many.
async fn copy(
    transaction: &Transaction<'_>,
    statements: &Statements,
    chunk: &Chunk,
    present: &HashSet<usize>,
) -> Result<u64, Failure> {
    if present.len() == chunk.records.len() {
        return Ok(0);
    }
    let mut sink = pin!(transaction.copy_in::<_, Bytes>(&statements.copy).await?);
    sink.feed(Bytes::from_static(COPY_HEADER)).await?;
    if present.is_empty() {
        for piece in chunk.tuples.chunks(COPY_PIECE) {
            sink.feed(Bytes::copy_from_slice(piece)).await?;
        }
    } else {
        let left = (0..chunk.records.len()).filter(|index| !present.contains(index));
        let mut tuples = Vec::new();
        for index in left {
            tuples.extend_from_slice(&chunk.tuples[chunk.records[index].tuple.clone()]);
        }
        sink.feed(Bytes::from(tuples)).await?;
    }
    sink.feed(Bytes::from_static(COPY_TRAILER)).await?;
    sink.finish()
        .await
        .map_err(|error| at_fault(error, chunk, present))
}

/// Names the line of a record that the database itself refuses, for a reason that was not foreseen here.
fn at_fault(error: tokio_postgres::Error, chunk: &Chunk, present: &HashSet<usize>) -> Failure {
    let refused = error
        .code()
        .is_some_and(|code| code.code().starts_with("22") || code == &SqlState::CHECK_VIOLATION);
    let tuple: Option<usize> = error.as_db_error().and_then(|raised| {
        raised
            .where_()?
            .split_once("line ")?
            .1
            .split([',', ':', '\n'])
            .next()?
            .parse()
            .ok()
    });
    let record = tuple.filter(|_| refused).and_then(|tuple| {
        let mut sent = (0..chunk.records.len()).filter(|index| !present.contains(index));
        sent.nth(tuple.checked_sub(1)?)
    });
    match record {
        Some(index) => Failure::Line {
            line: chunk.records[index].line,
            reason: crate::db::describe(&error),
        },
        None => Failure::Database(error),
    }
}
