//! Taking an event's content back, while its place among the others stays.

use tokio_postgres::Transaction;
use uuid::Uuid;

use crate::event::Position;

/// The SQLSTATE of what could not have been appended either.
const REFUSED: &str = "GB003";

/// Where copies may be that no transaction reaches.
pub const ELSEWHERE: [&str; 7] = [
    "files of batches that failed (engine.failures_dir), on each of the engine's machines",
    "files that events were imported from, dumps, base backups and archived WAL",
    "dead row versions, until the table is vacuumed: vacuum gobo.events",
    "answers kept in memory and in Redis: until cache.keep_seconds after the rows were computed anew",
    "changes of rows in gobo.feed, for those who follow them: until live.keep_minutes after their commit",
    "Redis Streams of read models with feed = \"redis\": delete them, they begin anew with a refetch",
    "whatever readers of the read models, of their changes and of /events have copied",
];

/// Which events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The one at this position.
    Position(Position),
    /// The one with this identity.
    EventId(Uuid),
    /// Every one of this stream.
    Stream(String),
}

/// An event that is, or is to be, taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its place in the global order.
    pub position: Position,
    /// The type that it was appended with.
    pub kind: String,
}

/// Why nothing was taken back.
#[derive(Debug, thiserror::Error)]
pub enum RedactError {
    /// The replacement could not have been appended either.
    #[error("{0}")]
    Refused(String),
    /// The database did not do it.
    #[error("{}", crate::db::describe(.0))]
    Database(tokio_postgres::Error),
}

/// The events, in order.
pub async fn find(
    transaction: &Transaction<'_>,
    which: &Which,
) -> Result<Vec<Found>, tokio_postgres::Error> {
    let (position, event_id, stream_id) = match which {
        Which::Position(position) => (Some(*position), None, None),
        Which::EventId(id) => (None, Some(*id), None),
        Which::Stream(stream_id) => (None, None, Some(stream_id)),
    };
    let rows = transaction
        .query(
            include_str!("sql/redactable.sql"),
            &[&position, &event_id, &stream_id],
        )
        .await?;
    let found = rows.iter().map(|row| Found {
        position: row.get(0),
        kind: row.get(1),
    });
    Ok(found.collect())
}

/// Takes the events at `positions` back; `data`, the text of a JSON value, takes the place of theirs. Gives those that were
/// changed: not those that were taken back before.
pub async fn redact(
    transaction: &Transaction<'_>,
    positions: &[Position],
    reason: &str,
    data: Option<&str>,
) -> Result<Vec<Position>, RedactError> {
    let rows = transaction
        .query(
            "select position from gobo.redact($1, $2, $3::text::json)",
            &[&positions, &reason, &data],
        )
        .await
        .map_err(|error| match error.as_db_error() {
            Some(db) if db.code().code() == REFUSED => RedactError::Refused(db.message().into()),
            _ => RedactError::Database(error),
        })?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Remembers which generations had read them.
pub async fn note_readers(
    transaction: &Transaction<'_>,
    positions: &[Position],
    generations: &[i64],
) -> Result<(), tokio_postgres::Error> {
    transaction
        .execute(
            "update gobo.redactions set generations = $2 where position = any ($1)",
            &[&positions, &generations],
        )
        .await
        .map(drop)
}
