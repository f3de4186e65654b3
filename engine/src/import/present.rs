//! Which events of a chunk are stored already, so that importing them again changes nothing.

use std::collections::{HashMap, HashSet};

use tokio_postgres::{Statement, Transaction};
use uuid::Uuid;

use super::chunk::Chunk;
use super::writer::Failure;
use crate::frame::Reader;

/// The statements that find and compare stored events.
#[derive(Debug)]
pub(super) struct Statements {
    /// Finds events by their ids.
    pub(super) present: Statement,
    /// Compares their content.
    pub(super) same: Statement,
}

/// The records that need not be stored because they are: in the table, or earlier in this chunk. One with the event_id of
/// an event that is different fails.
pub(super) async fn present(
    transaction: &Transaction<'_>,
    statements: &Statements,
    chunk: &Chunk,
) -> Result<HashSet<usize>, Failure> {
    let mut present = repeated(chunk)?;
    let ids: Vec<Uuid> = chunk.records.iter().map(|r| r.event_id).collect();
    let rows = transaction.query(&statements.present, &[&ids]).await?;
    let found: Vec<(usize, i64)> = rows
        .iter()
        .map(|row| {
            let index = usize::try_from(row.get::<_, i64>(0)).unwrap_or_default();
            (index, row.get(1))
        })
        .collect();
    if found.is_empty() {
        return Ok(present);
    }
    let same = same(transaction, statements, chunk, &found).await?;
    for ((index, version), same) in found.into_iter().zip(same) {
        let record = &chunk.records[index];
        let other_version = record.version.is_some_and(|given| given != version);
        if !same || other_version {
            return Err(Failure::Line {
                line: record.line,
                reason: format!(
                    "its event_id {} is stored already, with other content",
                    record.event_id
                ),
            });
        }
        present.insert(index);
    }
    Ok(present)
}

/// The records that repeat one before them in the chunk.
fn repeated(chunk: &Chunk) -> Result<HashSet<usize>, Failure> {
    let mut repeated = HashSet::new();
    let mut first_of: HashMap<Uuid, usize> = HashMap::with_capacity(chunk.records.len());
    for (index, record) in chunk.records.iter().enumerate() {
        let first = *first_of.entry(record.event_id).or_insert(index);
        if first == index {
            continue;
        }
        let other = &chunk.records[first];
        if record.version != other.version || !chunk.same_content(index, first) {
            return Err(Failure::Line {
                line: record.line,
                reason: format!(
                    "its event_id {} is that of line {}, with other content",
                    record.event_id, other.line
                ),
            });
        }
        repeated.insert(index);
    }
    Ok(repeated)
}

/// Whether each record of `found` has the content that is stored under its event_id.
async fn same(
    transaction: &Transaction<'_>,
    statements: &Statements,
    chunk: &Chunk,
    found: &[(usize, i64)],
) -> Result<Vec<bool>, tokio_postgres::Error> {
    let (mut ids, mut streams, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    let (mut datas, mut metadatas, mut moments) = (Vec::new(), Vec::new(), Vec::new());
    let mut fields = Vec::new();
    for &(index, _) in found {
        let record = &chunk.records[index];
        let tuple = &chunk.tuples[record.tuple.clone()];
        // Written by ourselves, from text.
        if Reader::new(tuple).tuple(&mut fields).is_err() {
            continue;
        }
        let text = |field: usize| {
            fields[field].map(|bytes| std::str::from_utf8(bytes).unwrap_or_default())
        };
        ids.push(record.event_id);
        streams.push(text(0));
        kinds.push(text(2));
        datas.push(text(3));
        metadatas.push(text(4));
        moments.push(record.occurred_at);
    }
    let rows = transaction
        .query(
            &statements.same,
            &[&ids, &streams, &kinds, &datas, &metadatas, &moments],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
