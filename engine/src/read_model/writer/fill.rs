//! The fast fill of a generation: sets of changes of any size, streamed.
//!
//! The first one is copied into the tables themselves, which are empty and have no keys until then: neither an index nor an
//! older row is in the way. Later ones are copied into a stage, and merged from there. Secondary indexes come last.

use std::sync::Arc;

use bytes::Bytes;
use foldhash::HashMap;
use futures_util::SinkExt;
use tokio_postgres::{Statement, Transaction};

use super::absent::Absences;
use super::change_set::{ChangeSet, RowChange};
use super::encode::{COPY_END, Notes, copy_header, deletes, write_tuple};
use super::statements::Table;
use super::{Checkpoint, CommitError, Fence, Params, Phase, Writer};
use crate::read_model::ReadModel;
use crate::read_model::schema::{self, SchemaError};

/// Bytes of rows that are sent at once.
const CHUNK: usize = 256 << 10;
/// Rows that one statement deletes.
const DELETES: usize = 10_000;

impl From<SchemaError> for CommitError {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Database(error) => error.into(),
            other => CommitError::Broken(other.to_string()),
        }
    }
}

impl Writer {
    /// Commits `set` on top of `from` and gives the new checkpoint. The tables have their keys afterwards.
    pub(super) async fn commit_streamed(
        &mut self,
        from: Checkpoint,
        set: &ChangeSet,
    ) -> Result<Checkpoint, CommitError> {
        let fence = Fence::of(&self.target, &self.models, from, set);
        let revision = fence.to.revision;
        // Before the transaction begins: the server ends one that is idle for long.
        let sorted: Vec<Sorted<'_>> = set.models.iter().map(sorted).collect();
        let transaction = self.client.transaction().await?;
        if set.has_to_last() {
            let durable = "set local synchronous_commit = on";
            transaction.batch_execute(durable).await?;
        }
        transaction
            .execute(&self.statements.advance, &fence.params())
            .await?;
        for ((model, table), rows) in self.models.iter().zip(&self.tables).zip(&sorted) {
            match self.phase {
                Phase::Empty => {
                    copy(&transaction, &table.copy, model, rows, Some(revision)).await?;
                }
                Phase::Filling | Phase::Following => {
                    merge(&transaction, table, model, rows, revision).await?;
                }
            }
        }
        if self.phase == Phase::Empty {
            schema::create_keys(&transaction, self.target.generation, &self.models).await?;
        }
        let notes = Notes::of(set);
        let absences = Absences::of(set, &self.models);
        let mut sequence: Vec<(&Statement, Params<'_>)> = Vec::new();
        notes.push(&mut sequence, &self.statements, &self.target);
        absences.push(&mut sequence, &self.statements.absent_keys, &self.target);
        for (statement, params) in sequence {
            transaction.execute(statement, &params).await?;
        }
        transaction.commit().await?;
        if self.phase == Phase::Empty {
            self.phase = Phase::Filling;
        }
        Ok(fence.to)
    }

    /// Ends the fast fill: makes what the tables lack and lets every node know. To be opened anew afterwards, because it
    /// goes on to write as one that fills.
    pub async fn end_fill(&mut self, from: &Checkpoint) -> Result<(), CommitError> {
        let generation = self.target.generation;
        let transaction = self.client.transaction().await?;
        let fence = "select from gobo.checkpoints \
                     where generation = $1 and epoch = $2 and plugin_hash = $3 for share";
        let hash = &self.target.hash.0[..];
        let mine = transaction
            .query_opt(fence, &[&generation, &from.epoch, &hash])
            .await?;
        if mine.is_none() {
            return Err(CommitError::Fenced);
        }
        if self.phase == Phase::Empty {
            schema::create_keys(&transaction, generation, &self.models).await?;
        }
        schema::create_indexes(&transaction, generation, &self.models).await?;
        // Statistics, because queries come as soon as it is promoted.
        let tables = self.models.iter();
        let tables: Vec<_> = tables
            .map(|model| schema::table(generation, model))
            .collect();
        if !tables.is_empty() {
            let analyze = format!("analyze {}", tables.join(", "));
            transaction.batch_execute(&analyze).await?;
        }
        // Last, because whoever cancels the generation waits for this row.
        let filled = transaction
            .execute(include_str!("../sql/filled.sql"), &[&generation])
            .await?;
        if filled == 0 {
            let why = "the generation is about to be dropped";
            return Err(CommitError::Infrastructure(why.into()));
        }
        transaction
            .batch_execute(
                "set local synchronous_commit = on; select pg_notify('gobo_control', '')",
            )
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// The changed rows of one read model by key. Neighbours in the index are neighbours in the table then, for this set and
/// for those that are merged into it: a merge takes two thirds of the time.
type Sorted<'s> = Vec<(&'s Arc<[u8]>, &'s RowChange)>;

fn sorted(rows: &HashMap<Arc<[u8]>, RowChange>) -> Sorted<'_> {
    let mut sorted: Sorted<'_> = rows.iter().collect();
    sorted.sort_unstable_by_key(|(key, _)| *key);
    sorted
}

/// Deletes and upserts rows of a table that has its key.
async fn merge(
    transaction: &Transaction<'_>,
    table: &Table,
    model: &ReadModel,
    rows: &Sorted<'_>,
    revision: i64,
) -> Result<(), CommitError> {
    // A row that one stream deletes makes way for one that another inserts.
    let gone: Sorted<'_> = (rows.iter().copied())
        .filter(|(_, change)| change.deletes())
        .collect();
    for gone in gone.chunks(DELETES) {
        let params = deletes(model, gone);
        let params: Params<'_> = params.iter().map(|param| param as _).collect();
        transaction.execute(&table.delete, &params).await?;
    }
    let Some(stage) = &table.stage else {
        let why = format!("read model \"{}\" has no stage", model.name);
        return Err(CommitError::Broken(why));
    };
    let count = copy(transaction, stage, model, rows, None).await?;
    let mut params: Params<'_> = vec![&revision];
    if model.per_stream {
        params.push(&count);
    }
    if count > 0 {
        transaction.execute(&table.upsert, &params).await?;
    }
    Ok(())
}

/// Copies the rows that there are, and gives how many.
async fn copy(
    transaction: &Transaction<'_>,
    sql: &str,
    model: &ReadModel,
    rows: &Sorted<'_>,
    revision: Option<i64>,
) -> Result<i64, tokio_postgres::Error> {
    if rows.iter().all(|(_, change)| change.row.is_none()) {
        return Ok(0);
    }
    let sink = transaction.copy_in::<_, Bytes>(sql).await?;
    let mut sink = std::pin::pin!(sink);
    let mut chunk = copy_header();
    let mut count = 0;
    for (_, change) in rows {
        let Some(row) = &change.row else { continue };
        write_tuple(&mut chunk, model, row, change, revision);
        count += 1;
        if chunk.len() >= CHUNK {
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK + CHUNK / 8));
            sink.send(full.into()).await?;
        }
    }
    chunk.extend_from_slice(&COPY_END);
    sink.send(chunk.into()).await?;
    sink.as_mut().finish().await?;
    Ok(count)
}
