//! Rows and checkpoint, in one transaction that begins with the fence. The only module that moves a checkpoint.

mod absent;
mod change_set;
pub(crate) mod copy;
mod encode;
mod feed;
mod fill;
mod statements;
mod stream;

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::ReadModel;
use super::rows::STABLE_PLANS;
use crate::db::{Cause, Database, cause, describe};
use crate::event::Position;
use crate::host::PluginHash;
use absent::Absences;
pub use absent::AbsentKey;
pub use change_set::{ChangeSet, DeadLetter, LogRecord, TwoStreams};
use encode::{Encoded, Notes};
use feed::Told;
use statements::{Statements, Table};
pub use stream::{Rebuilt, StreamLetter, StreamWish};

/// How far a generation has come, and who may move it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Everything up to here is settled.
    pub position: Position,
    /// Counts the transactions that changed rows.
    pub revision: i64,
    /// The owner's epoch.
    pub epoch: i64,
    /// Whether rows may differ from a replay's.
    pub diverged: bool,
}

/// Where a loop starts.
#[derive(Debug, Clone)]
pub struct Start {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The last event that was handed to the plugin.
    pub applied: Option<(Position, Uuid)>,
    /// Streams that wait behind an event that could not be processed.
    pub parked: HashSet<String>,
    /// How the tables are written.
    pub phase: Phase,
}

/// How far the tables of a generation are made, and so how they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// In the fast fill, before its first commit: the tables are empty and have no keys.
    Empty,
    /// In the fast fill: the tables have their keys, but no secondary indexes.
    Filling,
    /// The tables are complete.
    Following,
}

/// Why a transaction did not commit.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another owner or another plugin has taken over. Nothing was written.
    #[error("the generation was taken over or its plugin was replaced")]
    Fenced,
    /// PostgreSQL refuses what is to be written. Nothing was written.
    #[error("PostgreSQL refuses a row: {0}")]
    Refused(String),
    /// The generation's tables are not what they should be. Nothing was written, and no event is to blame.
    #[error("the read model's tables cannot be written: {0}")]
    Broken(String),
    /// The connection or the server failed. Whether it was written is to be seen from the checkpoint.
    #[error("the commit failed: {0}")]
    Infrastructure(String),
}

impl From<tokio_postgres::Error> for CommitError {
    fn from(error: tokio_postgres::Error) -> Self {
        let what = describe(&error);
        match error.code().map(|state| state.code()) {
            Some("GB010") => CommitError::Fenced,
            _ => match cause(&error) {
                Cause::Infrastructure => CommitError::Infrastructure(what),
                Cause::Value => CommitError::Refused(what),
                Cause::Statement => CommitError::Broken(what),
            },
        }
    }
}

/// Writes the rows of one generation.
pub struct Writer {
    client: Client,
    target: Target,
    models: Arc<[ReadModel]>,
    statements: Statements,
    tables: Vec<Table>,
    phase: Phase,
    /// Changed rows of a read model that one commit tells; more are not told.
    most_told: usize,
}

/// What a writer writes to.
#[derive(Debug, Clone)]
pub struct Target {
    /// The projection's name.
    pub projection: String,
    /// Its generation.
    pub generation: i64,
    /// The schema of the generation's tables.
    pub schema: String,
    /// The plugin that may commit.
    pub hash: PluginHash,
}

/// How a writer commits.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Whether a commit waits for the disk.
    pub synchronous: bool,
    /// Changed rows of a read model that one commit tells those who follow it; more are not told.
    pub most_told: usize,
}

type Params<'a> = Vec<&'a (dyn ToSql + Sync)>;

impl Writer {
    /// Opens the session that commits for a generation, and tells where the generation stands; `None` if `epoch` and the
    /// plugin are not the ones that may commit. `purpose` names the session in `pg_stat_activity`.
    pub async fn open(
        db: &Database,
        purpose: &str,
        manner: Manner,
        target: Target,
        models: Arc<[ReadModel]>,
        epoch: i64,
    ) -> Result<Option<(Self, Start)>, tokio_postgres::Error> {
        let mut settings = STABLE_PLANS.to_vec();
        settings.push((
            "synchronous_commit",
            if manner.synchronous { "on" } else { "off" },
        ));
        settings.push(("idle_in_transaction_session_timeout", "5s"));
        let client = db.connect(purpose, &settings).await?;
        let mut writer = Self {
            statements: Statements::prepare(&client).await?,
            client,
            target,
            models,
            tables: Vec::new(),
            phase: Phase::Following,
            most_told: manner.most_told,
        };
        let Some(start) = writer.start(epoch).await? else {
            return Ok(None);
        };
        writer.phase = start.phase;
        for (index, model) in writer.models.iter().enumerate() {
            let (client, schema) = (&writer.client, &writer.target.schema);
            let table = Table::prepare(client, schema, index, model, start.phase).await?;
            writer.tables.push(table);
        }
        Ok(Some((writer, start)))
    }

    /// Where the generation stands, if `epoch` and the plugin still are the ones that may commit.
    pub async fn start(&self, epoch: i64) -> Result<Option<Start>, tokio_postgres::Error> {
        let row = self
            .client
            .query_opt(
                include_str!("sql/start.sql"),
                &[
                    &self.target.generation,
                    &epoch,
                    &&self.target.hash.0[..],
                    &self.target.schema,
                ],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let applied: (Option<Position>, Option<Uuid>) = (row.try_get(2)?, row.try_get(3)?);
        let parked: Vec<String> = row.try_get(4)?;
        let (is_filled_fast, has_keys): (bool, bool) = (row.try_get(6)?, row.try_get(7)?);
        Ok(Some(Start {
            checkpoint: Checkpoint {
                position: row.try_get(0)?,
                revision: row.try_get(1)?,
                epoch,
                diverged: row.try_get(5)?,
            },
            applied: applied.0.zip(applied.1),
            parked: parked.into_iter().collect(),
            phase: match (is_filled_fast, has_keys) {
                (true, false) => Phase::Empty,
                (true, true) => Phase::Filling,
                (false, _) => Phase::Following,
            },
        }))
    }

    /// The last change of events that were stored already; 0 if there was none.
    pub async fn last_redaction(&self) -> Result<i64, tokio_postgres::Error> {
        let sql = "select coalesce(max(id), 0) from gobo.redactions";
        self.client.query_one(sql, &[]).await?.try_get(0)
    }

    /// The streams of which dead letters are to be retried.
    pub async fn retries(&self) -> Result<Vec<String>, tokio_postgres::Error> {
        let sql =
            "select distinct stream_id from gobo.dead_letters where generation = $1 and retry";
        let rows = self.client.query(sql, &[&self.target.generation]).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    /// A stream's dead letters that can be retried, in order, and whether each was skipped.
    pub async fn dead_letters_of(
        &self,
        stream_id: &str,
    ) -> Result<Vec<(Position, bool)>, tokio_postgres::Error> {
        let sql = "select position, state = 'skipped' from gobo.dead_letters \
                   where generation = $1 and stream_id = $2 \
                     and (state in ('failed', 'behind') or retry and state = 'skipped') \
                   order by position";
        let rows = self
            .client
            .query(sql, &[&self.target.generation, &stream_id])
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect()
    }

    /// The operator's wish for this stream has been attended to.
    pub async fn retried(&self, stream_id: &str) -> Result<(), tokio_postgres::Error> {
        let sql = "update gobo.dead_letters set retry = false where generation = $1 and stream_id = $2 and retry";
        self.client
            .execute(sql, &[&self.target.generation, &stream_id])
            .await?;
        Ok(())
    }

    /// Commits `set` on top of `from` and gives the new checkpoint.
    pub async fn commit(
        &mut self,
        from: Checkpoint,
        set: &ChangeSet,
    ) -> Result<Checkpoint, CommitError> {
        match self.phase {
            Phase::Empty | Phase::Filling => self.commit_streamed(from, set).await,
            Phase::Following => self.commit_at_once(from, set).await,
        }
    }

    /// All statements travel in one go (those with array columns excepted, which are staged): a commit costs one round trip.
    async fn commit_at_once(
        &self,
        from: Checkpoint,
        set: &ChangeSet,
    ) -> Result<Checkpoint, CommitError> {
        let fence = Fence::of(&self.target, &self.models, from, set);
        let revision = fence.to.revision;
        let begin = match set.has_to_last() {
            true => "begin; set local synchronous_commit = on",
            false => "begin",
        };
        let mut sequence: Vec<(&Statement, Params<'_>)> =
            vec![(&self.statements.advance, fence.params())];
        let encoded = self.encode(set);
        let mut begun = false;
        if encoded.iter().any(|(_, rows)| rows.stage.is_some()) {
            let fence = run(&self.client, sequence.remove(0));
            if let Err(error) = self.begin_staged(begin, fence, &encoded).await {
                // The session goes on to be used: without this every later transaction would find this one, aborted.
                self.client.batch_execute("rollback").await?;
                return Err(error.into());
            }
            begun = true;
        }
        let counts: Vec<i64> = (encoded.iter())
            .map(|(index, _)| {
                set.models[*index]
                    .values()
                    .filter(|change| change.row.is_some())
                    .count() as i64
            })
            .collect();
        let told = self.told(set, &encoded);
        // Before the rows: what they were is read from the tables.
        for told in &told {
            told.push(&mut sequence, &self.target, &fence.to.position);
        }
        for ((index, rows), count) in encoded.iter().zip(&counts) {
            self.push_rows(&mut sequence, *index, rows, &revision, count);
        }
        let notes = Notes::of(set);
        notes.push(&mut sequence, &self.statements, &self.target);
        let absences = Absences::of(set, &self.models);
        absences.push(&mut sequence, &self.statements.absent_keys, &self.target);
        if let Some(Rebuilt { wish, rows }) = &set.rebuilt {
            let generation = &self.target.generation;
            sequence.push((
                &self.statements.stream_rebuilt,
                vec![generation, &wish.stream_id, &wish.asked, rows],
            ));
        }
        let mut steps: Vec<Step<'_>> = Vec::new();
        if !begun {
            steps.push(Box::pin(self.client.batch_execute(begin)));
        }
        steps.extend(sequence.into_iter().map(|step| run(&self.client, step)));
        // After an error the server skips what follows, and this is a rollback.
        steps.push(Box::pin(self.client.batch_execute("commit")));
        in_order(steps).await?;
        Ok(fence.to)
    }

    fn encode(&self, set: &ChangeSet) -> Vec<(usize, Encoded)> {
        (set.models.iter().enumerate())
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(index, rows)| {
                let staged = self.tables[index].stage.is_some();
                (index, Encoded::new(&self.models[index], rows, staged))
            })
            .collect()
    }

    /// What those who follow the read models are told.
    fn told<'a>(&'a self, set: &ChangeSet, encoded: &'a [(usize, Encoded)]) -> Vec<Told<'a>> {
        let told = encoded.iter().map(|(index, rows)| {
            let changes = &set.models[*index];
            let (model, table) = (&self.models[*index], &self.tables[*index]);
            Told::new(model, &table.feed, changes, rows, self.most_told)
        });
        told.collect()
    }

    fn push_rows<'a>(
        &'a self,
        sequence: &mut Vec<(&'a Statement, Params<'a>)>,
        index: usize,
        rows: &'a Encoded,
        revision: &'a i64,
        count: &'a i64,
    ) {
        let table = &self.tables[index];
        // A row that one stream deletes makes way for one that another inserts.
        if let Some(arrays) = &rows.delete {
            sequence.push((
                &table.delete,
                arrays.iter().map(|array| array as _).collect(),
            ));
        }
        if rows.upserts {
            let arrays = rows.arrays.iter().chain(&rows.streams);
            let mut params: Params<'a> = arrays.map(|array| array as _).collect();
            params.push(revision);
            if self.models[index].per_stream {
                params.push(count);
            }
            sequence.push((&table.upsert, params));
        }
    }

    async fn begin_staged(
        &self,
        begin: &str,
        fence: Step<'_>,
        encoded: &[(usize, Encoded)],
    ) -> Result<(), tokio_postgres::Error> {
        in_order(vec![Box::pin(self.client.batch_execute(begin)), fence]).await?;
        for (index, rows) in encoded {
            self.stage(*index, rows).await?;
        }
        Ok(())
    }

    async fn stage(&self, index: usize, rows: &Encoded) -> Result<(), tokio_postgres::Error> {
        let (Some(copy), Some(tuples)) = (&self.tables[index].stage, &rows.stage) else {
            return Ok(());
        };
        let sink = self.client.copy_in::<_, Bytes>(copy).await?;
        let mut sink = std::pin::pin!(sink);
        sink.send(tuples.clone()).await?;
        sink.as_mut().finish().await?;
        Ok(())
    }
}

/// The first statement of every transaction: it moves the checkpoint if nobody else has.
struct Fence<'a> {
    generation: &'a i64,
    hash: &'a [u8],
    from: Checkpoint,
    to: Checkpoint,
    applied: Option<Position>,
    event_id: Option<Uuid>,
    touched: Vec<&'a str>,
}

impl<'a> Fence<'a> {
    fn of(target: &'a Target, models: &'a [ReadModel], from: Checkpoint, set: &ChangeSet) -> Self {
        let touched: Vec<&str> = (models.iter().zip(&set.models))
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(model, _)| model.name.as_str())
            .collect();
        let (applied, event_id) = set.applied.unzip();
        Self {
            generation: &target.generation,
            hash: &target.hash.0[..],
            from,
            to: Checkpoint {
                position: set.through,
                revision: from.revision + i64::from(!touched.is_empty()),
                diverged: from.diverged || set.diverged,
                ..from
            },
            applied,
            event_id,
            touched,
        }
    }

    fn params(&self) -> Params<'_> {
        vec![
            self.generation,
            &self.from.position,
            &self.from.revision,
            &self.from.epoch,
            &self.hash,
            &self.to.position,
            &self.applied,
            &self.event_id,
            &self.touched,
        ]
    }
}

type Step<'a> = Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send + 'a>>;

fn run<'a>(client: &'a Client, (statement, params): (&'a Statement, Params<'a>)) -> Step<'a> {
    Box::pin(async move { client.execute(statement, &params).await.map(|_| ()) })
}

/// Sends all statements at once, in this order, and waits for all answers. Gives the first error.
async fn in_order(steps: Vec<Step<'_>>) -> Result<(), tokio_postgres::Error> {
    let mut steps: Vec<_> = steps.into_iter().map(|step| (step, None)).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        // A statement is sent when its future is first polled, so one pass over all of them sends all, in order.
        for (step, result) in &mut steps {
            if result.is_none() {
                match step.as_mut().poll(cx) {
                    std::task::Poll::Ready(done) => *result = Some(done),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        match pending {
            true => std::task::Poll::Pending,
            false => std::task::Poll::Ready(()),
        }
    })
    .await;
    steps.into_iter().filter_map(|(_, result)| result).collect()
}
