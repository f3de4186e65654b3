//! The event store: appends, and reading back. What an append accepts is decided in one place, the SQL function
//! `gobo.append`, which every client may call within its own transaction.

pub mod redact;

use deadpool_postgres::{Object, Pool, PoolError};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::error::{DbError, SqlState};
use uuid::Uuid;

use crate::event::Position;

/// The most events of one append.
pub const MAX_EVENTS_PER_APPEND: usize = 10_000;
/// The most events of one page.
pub const MAX_PAGE: i64 = 1_000;
/// A page ends with the event that reaches this many bytes of data and metadata.
const PAGE_BYTES: i64 = 16 << 20;
/// How many positions are searched at most for events of certain types, before a page is answered as it is.
const SEARCHED_POSITIONS: i64 = 200_000;
/// How often an append is run again that met another writer in between.
const ATTEMPTS: u32 = 5;

/// Appends to and reads from the table `gobo.events`.
#[derive(Debug, Clone)]
pub struct Store {
    pool: Pool,
}

/// What a stream's version must be for an append to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExpectedVersion {
    /// Whatever it is.
    #[default]
    Any,
    /// The stream must not exist.
    None,
    /// The version of the stream's last event.
    Exact(i64),
}

/// A stored append: its events in order, never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// The stream.
    pub stream_id: String,
    /// The last event's position.
    pub position: Position,
    /// The last event's version.
    pub version: i64,
    /// Every event's place.
    pub events: Vec<Placed>,
}

/// Where an event was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Its identity, given or made.
    pub event_id: Uuid,
    /// Its place in its stream, from 0.
    pub version: i64,
    /// Its place in the global order.
    pub position: Position,
}

/// An event as it is read back; the JSON texts are those that were appended.
#[derive(Debug, Serialize)]
pub struct StoredEvent {
    /// Its place in the global order.
    pub position: Position,
    /// Its stream.
    pub stream_id: String,
    /// Its place in the stream, from 0.
    pub version: i64,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// What happened.
    pub data: Box<RawValue>,
    /// What its producer noted beside it.
    pub metadata: Option<Box<RawValue>>,
    /// Its identity.
    pub event_id: Uuid,
    /// When it happened, as its producer says: RFC 3339, UTC.
    pub occurred_at: String,
    /// When it was stored: RFC 3339, UTC.
    pub recorded_at: String,
}

/// Consecutive events, and where to go on.
#[derive(Debug)]
pub struct Page {
    /// The events, in order.
    pub events: Vec<StoredEvent>,
    /// What to pass as `after` for the next page; `None` when there is nothing more at present.
    pub next: Option<i64>,
}

/// Why an append did not happen.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The stream is at another version.
    #[error("{message}")]
    VersionConflict {
        /// Names the stream and its version.
        message: String,
        /// The version of its last event; `None` when there is no such stream.
        actual_version: Option<i64>,
    },
    /// Another event, or this one in other company, has the same identity.
    #[error("{message}")]
    EventIdConflict {
        /// Names the events.
        message: String,
        /// Some of them, at most ten.
        event_ids: Vec<Uuid>,
    },
    /// Something that could not be stored, or not be read back later.
    #[error("{message}")]
    Refused {
        /// Says what, and why.
        message: String,
        /// The event's index in the append, if it is about one.
        index: Option<u64>,
    },
    /// No session with the database.
    #[error("no database connection: {0}")]
    Pool(#[from] PoolError),
    /// The database did not answer, or failed.
    #[error("{}", crate::db::describe(.0))]
    Database(tokio_postgres::Error),
}

impl Store {
    /// A store that uses the sessions of `pool`.
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Appends `events`, the text of a JSON array, all or none.
    pub async fn append(
        &self,
        stream_id: &str,
        expected: ExpectedVersion,
        events: &str,
    ) -> Result<Appended, AppendError> {
        if stream_id.contains('\0') {
            return Err(AppendError::Refused {
                message: "a stream_id cannot contain NUL".to_owned(),
                index: None,
            });
        }
        let session = self.pool.get().await?;
        let mut attempt = 1;
        loop {
            match append_once(&session, stream_id, expected, events).await {
                Err(AppendError::Database(error)) if attempt < ATTEMPTS && met_another(&error) => {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// The version of a stream's last event; `None` when there is no such stream.
    pub async fn stream_version(&self, stream_id: &str) -> Result<Option<i64>, ReadError> {
        if stream_id.contains('\0') {
            return Ok(None);
        }
        let session = self.pool.get().await?;
        let statement = session
            .prepare_cached(include_str!("store/sql/stream_version.sql"))
            .await?;
        let row = session.query_opt(&statement, &[&stream_id]).await?;
        Ok(row.map(|row| row.get(0)))
    }

    /// The highest position that was drawn; events at or below it may still be on their way.
    pub async fn head(&self) -> Result<Position, ReadError> {
        let session = self.pool.get().await?;
        let statement = session
            .prepare_cached(include_str!("store/sql/head.sql"))
            .await?;
        Ok(session.query_one(&statement, &[]).await?.get(0))
    }

    /// Events of one stream after a version (-1: from its start), at most `limit`.
    pub async fn read_stream(
        &self,
        stream_id: &str,
        after: i64,
        limit: i64,
    ) -> Result<Page, ReadError> {
        let session = self.pool.get().await?;
        let statement = session
            .prepare_cached(include_str!("store/sql/read_stream.sql"))
            .await?;
        let rows = session
            .query(&statement, &[&stream_id, &after, &limit, &PAGE_BYTES])
            .await?;
        let (events, more) = events(&rows)?;
        let next = events.last().filter(|_| more).map(|event| event.version);
        Ok(Page { events, next })
    }

    /// Events of all streams after a position, at most `limit`, never beyond `safe`: above it one might still appear
    /// between two that are there. `types` leaves out all others when it is not empty; a page may then be empty
    /// although there is a next one.
    pub async fn read_all(
        &self,
        after: Position,
        safe: Position,
        types: &[String],
        limit: i64,
    ) -> Result<Page, ReadError> {
        let filter = (!types.is_empty()).then_some(types);
        let through = match filter {
            None => safe,
            Some(_) => safe.min(after.saturating_add(SEARCHED_POSITIONS)),
        };
        let session = self.pool.get().await?;
        let statement = session
            .prepare_cached(include_str!("store/sql/read_all.sql"))
            .await?;
        let rows = session
            .query(
                &statement,
                &[&after, &through, &filter, &limit, &PAGE_BYTES],
            )
            .await?;
        let (events, more) = events(&rows)?;
        let next = match events.last() {
            Some(last) if more => Some(last.position),
            _ if through < safe => Some(through),
            _ => None,
        };
        Ok(Page { events, next })
    }
}

/// Why events cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No session with the database.
    #[error("no database connection: {0}")]
    Pool(#[from] PoolError),
    /// The database did not answer, or failed.
    #[error("{}", crate::db::describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// A stored text is not JSON; PostgreSQL makes sure that this does not happen.
    #[error("an event's text is not JSON: {0}")]
    Json(#[from] serde_json::Error),
}

async fn append_once(
    session: &Object,
    stream_id: &str,
    expected: ExpectedVersion,
    events: &str,
) -> Result<Appended, AppendError> {
    let statement = session
        .prepare_cached(include_str!("store/sql/append.sql"))
        .await
        .map_err(AppendError::Database)?;
    let rows = session
        .query(&statement, &[&stream_id, &events, &expected.to_string()])
        .await
        .map_err(AppendError::from)?;
    let events: Vec<Placed> = rows
        .iter()
        .map(|row| Placed {
            event_id: row.get(0),
            version: row.get(1),
            position: row.get(2),
        })
        .collect();
    let last = events.last();
    Ok(Appended {
        stream_id: stream_id.to_owned(),
        position: last.map_or(0, |event| event.position),
        version: last.map_or(-1, |event| event.version),
        events,
    })
}

/// Whether the same statement may succeed when it is run again: another writer got in between.
fn met_another(error: &tokio_postgres::Error) -> bool {
    let again = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ];
    error.code().is_some_and(|code| again.contains(code))
}

fn events(rows: &[Row]) -> Result<(Vec<StoredEvent>, bool), ReadError> {
    let more = rows.last().is_some_and(|row| row.get(9));
    let events = rows.iter().map(stored_event).collect::<Result<_, _>>()?;
    Ok((events, more))
}

fn stored_event(row: &Row) -> Result<StoredEvent, ReadError> {
    let metadata: Option<String> = row.get(5);
    Ok(StoredEvent {
        position: row.get(0),
        stream_id: row.get(1),
        version: row.get(2),
        kind: row.get(3),
        data: RawValue::from_string(row.get(4))?,
        metadata: metadata.map(RawValue::from_string).transpose()?,
        event_id: row.get(6),
        occurred_at: row.get(7),
        recorded_at: row.get(8),
    })
}

impl From<tokio_postgres::Error> for AppendError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(raised) = error.as_db_error() else {
            return Self::Database(error);
        };
        let message = raised.message().to_owned();
        match raised.code().code() {
            "GB001" => Self::VersionConflict {
                message,
                actual_version: detail(raised, "actual_version").as_i64(),
            },
            "GB002" => Self::EventIdConflict {
                message,
                event_ids: serde_json::from_value(detail(raised, "event_ids")).unwrap_or_default(),
            },
            "GB003" => Self::Refused {
                message,
                index: detail(raised, "index").as_u64(),
            },
            // So deep that PostgreSQL's own parser gives up, or longer than a value can be.
            "54001" | "54000" => Self::Refused {
                message: format!("the events cannot be stored: {message}"),
                index: None,
            },
            _ => Self::Database(error),
        }
    }
}

/// One member of the JSON object that an error of ours has as its detail.
fn detail(raised: &DbError, member: &str) -> serde_json::Value {
    raised
        .detail()
        .and_then(|detail| serde_json::from_str::<serde_json::Value>(detail).ok())
        .and_then(|mut detail| detail.get_mut(member).map(serde_json::Value::take))
        .unwrap_or_default()
}

impl std::fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::None => f.write_str("none"),
            Self::Exact(version) => write!(f, "{version}"),
        }
    }
}

impl std::str::FromStr for ExpectedVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "any" => Ok(Self::Any),
            "none" => Ok(Self::None),
            _ => match text.parse() {
                Ok(version @ 0..=999_999_999_999_999_999) => Ok(Self::Exact(version)),
                _ => Err(format!(
                    "the expected version is any, none, or the version of the stream's last event, not {text:?}"
                )),
            },
        }
    }
}

impl<'de> Deserialize<'de> for ExpectedVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}
