//! Rows and checkpoint, in one transaction that begins with the fence. The only module that moves a checkpoint.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::{HashMap, HashMapExt};
use futures_util::SinkExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::rows::{STABLE_PLANS, element_oid};
use super::unnest::{ArrayParam, push_fields};
use super::{ColumnType, ReadModel, Scalar, quote};
use crate::change::Change;
use crate::db::{Database, RawParam, describe, is_infrastructure};
use crate::event::{Batch, Micros, Position};
use crate::frame::{write_count, write_field};
use crate::host::PluginHash;

/// How far a generation has come, and who may move it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Everything up to here is settled.
    pub position: Position,
    /// Counts the transactions that changed rows.
    pub revision: i64,
    /// The owner's epoch.
    pub epoch: i64,
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
}

/// An event that could not be processed, or waits behind one.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The event's position.
    pub position: Position,
    /// Its stream.
    pub stream_id: String,
    /// Its type.
    pub kind: String,
    /// Its identity.
    pub event_id: Uuid,
    /// `failed`, `behind` or `skipped`.
    pub state: &'static str,
    /// Why.
    pub message: Option<String>,
}

/// A line that a plugin logged during the batch that ended at `position`.
#[derive(Debug, Clone)]
pub struct LogRecord {
    /// The last event of the batch.
    pub position: Position,
    /// The level's name.
    pub level: &'static str,
    /// The text.
    pub message: String,
}

/// What one transaction writes: the net change per row of one batch or several.
#[derive(Default)]
pub struct ChangeSet {
    /// Where the checkpoint moves to.
    pub through: Position,
    /// The last event that was handed to the plugin.
    pub applied: Option<(Position, Uuid)>,
    /// Events that could not be processed.
    pub dead_letters: Vec<DeadLetter>,
    /// Dead letters that have been processed now.
    pub settled: Vec<Position>,
    /// A dead letter was processed out of order, and rows may differ from a replay's.
    pub diverged: bool,
    /// Lines for the author.
    pub logs: Vec<LogRecord>,
    models: Vec<HashMap<Arc<[u8]>, RowChange>>,
    rows: usize,
    bytes: usize,
}

struct RowChange {
    row: Option<Arc<[u8]>>,
    position: Position,
    recorded_at: Micros,
    stream: Option<Arc<str>>,
}

/// A read model that is declared per stream has a row that two streams changed.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "a row of read model \"{model}\", which is declared per_stream, is changed by events of two streams ({streams}): remove per_stream, or put the stream into its key"
)]
pub struct TwoStreams {
    /// The event that made the second change, by its index in the batch.
    pub event: u32,
    model: String,
    streams: String,
}

impl ChangeSet {
    /// A set that changes nothing.
    pub fn new(models: usize) -> Self {
        Self {
            models: (0..models).map(|_| HashMap::new()).collect(),
            ..Self::default()
        }
    }

    /// Adds the changes that `batch` made; the last change of a row is the one that counts.
    pub fn add(
        &mut self,
        batch: &Batch,
        changes: &[Change],
        models: &[ReadModel],
    ) -> Result<(), TwoStreams> {
        for change in changes {
            let index = change.event as usize;
            let head = &batch.events()[index];
            let model = &models[change.model];
            let stream = model.per_stream.then(|| Arc::from(batch.stream_id(index)));
            let size = change.key.len() + change.row.as_ref().map_or(0, |row| row.len());
            let new = RowChange {
                row: change.row.clone(),
                position: head.position,
                recorded_at: head.recorded_at,
                stream,
            };
            match self.models[change.model].insert(change.key.clone(), new) {
                None => self.rows += 1,
                Some(old)
                    if old.stream.as_deref()
                        != model.per_stream.then(|| batch.stream_id(index)) =>
                {
                    return Err(TwoStreams {
                        event: change.event,
                        model: model.name.clone(),
                        streams: format!(
                            "\"{}\" and \"{}\"",
                            old.stream.as_deref().unwrap_or_default(),
                            batch.stream_id(index)
                        ),
                    });
                }
                Some(_) => {}
            }
            self.bytes += size;
        }
        Ok(())
    }

    /// Rows that will be written.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes that were added, an upper bound of what will be written.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is anything besides the checkpoint's position to write.
    pub fn has_effects(&self) -> bool {
        self.rows > 0
            || !self.dead_letters.is_empty()
            || !self.settled.is_empty()
            || !self.logs.is_empty()
            || self.diverged
    }
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
    /// The connection or the server failed. Whether it was written is to be seen from the checkpoint.
    #[error("the commit failed: {0}")]
    Infrastructure(String),
}

impl From<tokio_postgres::Error> for CommitError {
    fn from(error: tokio_postgres::Error) -> Self {
        let what = describe(&error);
        match error.code().map(|state| state.code()) {
            Some("GB010") => CommitError::Fenced,
            Some(_) if !is_infrastructure(&error) => CommitError::Refused(what),
            _ => CommitError::Infrastructure(what),
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

/// The statements that do not depend on a read model.
struct Statements {
    advance: Statement,
    dead_letters: Statement,
    settled: Statement,
    diverged: Statement,
    logs: Statement,
    trim_logs: Statement,
}

/// The statements of one read model.
struct Table {
    upsert: Statement,
    delete: Statement,
    /// Copies into a staging table, for read models with array columns: `unnest` would flatten the arrays.
    stage: Option<String>,
}

/// The changed rows of one read model as parameters.
struct Encoded {
    stage: Option<Bytes>,
    upsert: Option<Vec<RawParam>>,
    delete: Option<Vec<RawParam>>,
}

type Params<'a> = Vec<&'a (dyn ToSql + Sync)>;

impl Writer {
    /// Opens the session that commits for a generation; `purpose` names it in `pg_stat_activity`. `synchronous` decides
    /// whether a commit waits for the disk.
    pub async fn open(
        db: &Database,
        purpose: &str,
        synchronous: bool,
        target: Target,
        models: Arc<[ReadModel]>,
    ) -> Result<Self, tokio_postgres::Error> {
        let mut settings = STABLE_PLANS.to_vec();
        settings.push(("synchronous_commit", if synchronous { "on" } else { "off" }));
        settings.push(("idle_in_transaction_session_timeout", "5s"));
        let client = db.connect(purpose, &settings).await?;
        let mut tables = Vec::new();
        for (index, model) in models.iter().enumerate() {
            tables.push(Table::prepare(&client, &target.schema, index, model).await?);
        }
        Ok(Self {
            statements: Statements::prepare(&client).await?,
            client,
            target,
            models,
            tables,
        })
    }

    /// Where the generation stands, if `epoch` and the plugin still are the ones that may commit.
    pub async fn start(&self, epoch: i64) -> Result<Option<Start>, tokio_postgres::Error> {
        let row = self
            .client
            .query_opt(
                include_str!("sql/start.sql"),
                &[&self.target.generation, &epoch, &&self.target.hash.0[..]],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let applied: (Option<Position>, Option<Uuid>) = (row.try_get(2)?, row.try_get(3)?);
        let parked: Vec<String> = row.try_get(4)?;
        Ok(Some(Start {
            checkpoint: Checkpoint {
                position: row.try_get(0)?,
                revision: row.try_get(1)?,
                epoch,
            },
            applied: applied.0.zip(applied.1),
            parked: parked.into_iter().collect(),
        }))
    }

    /// The streams of which dead letters are to be retried.
    pub async fn retries(&self) -> Result<Vec<String>, tokio_postgres::Error> {
        let sql =
            "select distinct stream_id from gobo.dead_letters where generation = $1 and retry";
        let rows = self.client.query(sql, &[&self.target.generation]).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    /// A stream's dead letters that can be retried, in order.
    pub async fn dead_letters_of(
        &self,
        stream_id: &str,
    ) -> Result<Vec<Position>, tokio_postgres::Error> {
        let sql = "select position from gobo.dead_letters \
                   where generation = $1 and stream_id = $2 \
                     and (state in ('failed', 'behind') or retry and state = 'skipped') \
                   order by position";
        let rows = self
            .client
            .query(sql, &[&self.target.generation, &stream_id])
            .await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    /// The operator's wish for this stream has been attended to.
    pub async fn retried(&self, stream_id: &str) -> Result<(), tokio_postgres::Error> {
        let sql = "update gobo.dead_letters set retry = false where generation = $1 and stream_id = $2 and retry";
        self.client
            .execute(sql, &[&self.target.generation, &stream_id])
            .await?;
        Ok(())
    }

    /// Commits `set` on top of `from` and gives the new checkpoint. All statements travel in one go (those with array
    /// columns excepted, which are staged): a commit costs one round trip.
    pub async fn commit(
        &self,
        from: Checkpoint,
        set: &ChangeSet,
    ) -> Result<Checkpoint, CommitError> {
        let touched: Vec<&str> = (self.models.iter().zip(&set.models))
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(model, _)| model.name.as_str())
            .collect();
        let revision = from.revision + i64::from(!touched.is_empty());
        // What an operator decides or has to see must not be lost with the last moments before a crash.
        let durable = !set.dead_letters.is_empty() || !set.settled.is_empty() || set.diverged;
        let begin = match durable {
            true => "begin; set local synchronous_commit = on",
            false => "begin",
        };
        let (applied, event_id) = set.applied.unzip();
        let hash = &self.target.hash.0[..];
        let mut sequence: Vec<(&Statement, Params<'_>)> = vec![(
            &self.statements.advance,
            vec![
                &self.target.generation,
                &from.position,
                &from.revision,
                &from.epoch,
                &hash,
                &set.through,
                &applied,
                &event_id,
                &touched,
            ],
        )];
        let encoded = self.encode(set);
        let mut begun = false;
        if encoded.iter().any(|(_, rows)| rows.stage.is_some()) {
            let fence = run(&self.client, sequence.remove(0));
            in_order(vec![Box::pin(self.client.batch_execute(begin)), fence]).await?;
            begun = true;
            for (index, rows) in &encoded {
                self.stage(*index, rows).await?;
            }
        }
        let counts: Vec<i64> = (encoded.iter())
            .map(|(index, _)| {
                set.models[*index]
                    .values()
                    .filter(|change| change.row.is_some())
                    .count() as i64
            })
            .collect();
        for ((index, rows), count) in encoded.iter().zip(&counts) {
            self.push_rows(&mut sequence, *index, rows, &revision, count);
        }
        let notes = Notes::of(set);
        notes.push(&mut sequence, &self.statements, &self.target);
        let mut steps: Vec<Step<'_>> = Vec::new();
        if !begun {
            steps.push(Box::pin(self.client.batch_execute(begin)));
        }
        steps.extend(sequence.into_iter().map(|step| run(&self.client, step)));
        // After an error the server skips what follows, and this is a rollback.
        steps.push(Box::pin(self.client.batch_execute("commit")));
        in_order(steps).await?;
        Ok(Checkpoint {
            position: set.through,
            revision,
            ..from
        })
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

    fn push_rows<'a>(
        &'a self,
        sequence: &mut Vec<(&'a Statement, Params<'a>)>,
        index: usize,
        rows: &'a Encoded,
        revision: &'a i64,
        count: &'a i64,
    ) {
        let table = &self.tables[index];
        if let Some(arrays) = &rows.upsert {
            let mut params: Params<'a> = arrays.iter().map(|array| array as _).collect();
            params.push(revision);
            if self.models[index].per_stream {
                params.push(count);
            }
            sequence.push((&table.upsert, params));
        }
        if let Some(arrays) = &rows.delete {
            sequence.push((
                &table.delete,
                arrays.iter().map(|array| array as _).collect(),
            ));
        }
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

impl Encoded {
    fn new(model: &ReadModel, rows: &HashMap<Arc<[u8]>, RowChange>, staged: bool) -> Self {
        let checked = "rows were checked when they were decoded";
        let mut upserts: Vec<ArrayParam> = (model.columns.iter())
            .map(|column| ArrayParam::new(element_oid(column.kind)))
            .chain([
                ArrayParam::new(Scalar::Int8.oid()),
                ArrayParam::new(Scalar::Timestamptz.oid()),
            ])
            .collect();
        let mut streams = ArrayParam::new(Scalar::Text.oid());
        let mut deletes: Vec<ArrayParam> = (model.key_columns())
            .map(|column| ArrayParam::new(element_oid(column.kind)))
            .collect();
        let (mut upserted, mut deleted) = (false, false);
        let mut stage = Vec::new();
        let columns = model.columns.len();
        for (key, change) in rows {
            let Some(row) = &change.row else {
                push_fields(&mut deletes, key).expect(checked);
                deleted = true;
                continue;
            };
            upserted = true;
            if staged {
                write_staged(&mut stage, columns, row, change);
                continue;
            }
            push_fields(&mut upserts[..columns], row).expect(checked);
            upserts[columns].push(Some(&change.position.to_be_bytes()));
            upserts[columns + 1].push(Some(&change.recorded_at.to_be_bytes()));
            if let Some(stream) = &change.stream {
                streams.push(Some(stream.as_bytes()));
            }
        }
        if model.per_stream {
            upserts.push(streams);
        }
        let upsert = match staged {
            true => Vec::new(),
            false => upserts.into_iter().map(ArrayParam::finish).collect(),
        };
        Self {
            stage: (staged && upserted).then(|| finish_stage(stage)),
            upsert: upserted.then_some(upsert),
            delete: deleted.then(|| deletes.into_iter().map(ArrayParam::finish).collect()),
        }
    }
}

fn write_staged(stage: &mut Vec<u8>, columns: usize, row: &[u8], change: &RowChange) {
    if stage.is_empty() {
        stage.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    }
    // At most 200 columns (descriptor.rs) and three of the engine's.
    write_count(
        stage,
        (columns + 2 + usize::from(change.stream.is_some())) as i16,
    );
    stage.extend_from_slice(row);
    write_field(stage, Some(&change.position.to_be_bytes()));
    write_field(stage, Some(&change.recorded_at.to_be_bytes()));
    if let Some(stream) = &change.stream {
        write_field(stage, Some(stream.as_bytes()));
    }
}

fn finish_stage(mut stage: Vec<u8>) -> Bytes {
    stage.extend_from_slice(&(-1i16).to_be_bytes());
    stage.into()
}

/// Dead letters and log lines as parameters.
#[derive(Default)]
struct Notes<'a> {
    positions: Vec<Position>,
    streams: Vec<&'a str>,
    kinds: Vec<&'a str>,
    event_ids: Vec<Uuid>,
    states: Vec<&'a str>,
    messages: Vec<Option<&'a str>>,
    settled: Vec<Position>,
    diverged: bool,
    log_positions: Vec<Position>,
    levels: Vec<&'a str>,
    lines: Vec<&'a str>,
}

impl<'a> Notes<'a> {
    fn of(set: &'a ChangeSet) -> Self {
        let mut notes = Notes {
            settled: set.settled.clone(),
            diverged: set.diverged,
            ..Notes::default()
        };
        for letter in &set.dead_letters {
            notes.positions.push(letter.position);
            notes.streams.push(&letter.stream_id);
            notes.kinds.push(&letter.kind);
            notes.event_ids.push(letter.event_id);
            notes.states.push(letter.state);
            notes.messages.push(letter.message.as_deref());
        }
        for log in &set.logs {
            notes.log_positions.push(log.position);
            notes.levels.push(log.level);
            notes.lines.push(&log.message);
        }
        notes
    }

    fn push<'s>(
        &'s self,
        sequence: &mut Vec<(&'s Statement, Params<'s>)>,
        statements: &'s Statements,
        target: &'s Target,
    ) {
        let generation = &target.generation;
        if !self.positions.is_empty() {
            sequence.push((
                &statements.dead_letters,
                vec![
                    generation,
                    &self.positions,
                    &self.streams,
                    &self.kinds,
                    &self.event_ids,
                    &self.states,
                    &self.messages,
                ],
            ));
        }
        if !self.settled.is_empty() {
            sequence.push((&statements.settled, vec![generation, &self.settled]));
        }
        if self.diverged {
            sequence.push((&statements.diverged, vec![generation]));
        }
        if !self.lines.is_empty() {
            let projection = &target.projection;
            sequence.push((
                &statements.logs,
                vec![
                    projection,
                    generation,
                    &self.log_positions,
                    &self.levels,
                    &self.lines,
                ],
            ));
            sequence.push((&statements.trim_logs, vec![projection]));
        }
    }
}

impl Statements {
    async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            advance: client
                .prepare("select gobo.advance($1, $2, $3, $4, $5, $6, $7, $8, $9)")
                .await?,
            dead_letters: client.prepare(include_str!("sql/dead_letters.sql")).await?,
            settled: client
                .prepare(
                    "delete from gobo.dead_letters where generation = $1 and position = any ($2)",
                )
                .await?,
            diverged: client
                .prepare("update gobo.checkpoints set diverged = true where generation = $1")
                .await?,
            logs: client.prepare(include_str!("sql/plugin_logs.sql")).await?,
            trim_logs: client.prepare(include_str!("sql/trim_logs.sql")).await?,
        })
    }
}

impl Table {
    async fn prepare(
        client: &Client,
        schema: &str,
        index: usize,
        model: &ReadModel,
    ) -> Result<Self, tokio_postgres::Error> {
        let has_arrays =
            (model.columns.iter()).any(|column| matches!(column.kind, ColumnType::Array(_)));
        let stage = has_arrays.then(|| format!("pg_temp.stage_{index}"));
        if let Some(stage) = &stage {
            client.batch_execute(&stage_sql(stage, model)).await?;
        }
        let upsert = upsert_sql(schema, model, stage.as_deref());
        Ok(Self {
            upsert: client.prepare(&upsert).await?,
            delete: client.prepare(&delete_sql(schema, model)).await?,
            stage: stage.map(|stage| format!("copy {stage} from stdin (format binary)")),
        })
    }
}

/// The columns that are written besides the declared ones, the revision excepted, which is the same for all rows.
fn own_columns(model: &ReadModel) -> Vec<(&'static str, &'static str)> {
    let mut columns = vec![
        ("_position", "bigint"),
        ("_updated_at", "timestamp with time zone"),
    ];
    if model.per_stream {
        columns.push(("_stream_id", "text"));
    }
    columns
}

fn stage_sql(stage: &str, model: &ReadModel) -> String {
    let columns: Vec<_> = (model.columns.iter())
        .map(|column| format!("{} {}", quote(&column.name), column.kind.sql()))
        .chain(
            own_columns(model)
                .into_iter()
                .map(|(name, kind)| format!("{name} {kind}")),
        )
        .collect();
    format!(
        "create temp table {} ({}) on commit delete rows",
        stage.trim_start_matches("pg_temp."),
        columns.join(", ")
    )
}

/// Rows come as one array per column, or from the staging table. The last parameters are the revision and, for a read
/// model that is declared per stream, the number of rows: a row that belongs to another stream is not updated, and the
/// missing count gives it away.
fn upsert_sql(schema: &str, model: &ReadModel, stage: Option<&str>) -> String {
    let own = own_columns(model);
    let names: Vec<String> = (model.columns.iter().map(|column| quote(&column.name)))
        .chain(own.iter().map(|(name, _)| (*name).to_owned()))
        .collect();
    let kinds = (model.columns.iter().map(|column| column.kind.sql()))
        .chain(own.iter().map(|(_, kind)| (*kind).to_owned()));
    let arrays: Vec<String> = kinds
        .enumerate()
        .map(|(n, kind)| format!("${}::{kind}[]", n + 1))
        .collect();
    let (from, given) = match stage {
        Some(stage) => (stage.to_owned(), 0),
        None => (
            format!(
                "unnest({}) as changed({})",
                arrays.join(", "),
                names.join(", ")
            ),
            arrays.len(),
        ),
    };
    let key: Vec<_> = model
        .key_columns()
        .map(|column| quote(&column.name))
        .collect();
    let sets: Vec<_> = (names.iter().filter(|name| !key.contains(name)))
        .map(|name| format!("{name} = excluded.{name}"))
        .collect();
    let table = format!("{}.{}", quote(schema), quote(&model.name));
    let upsert = format!(
        "insert into {table} as t ({names}, _revision) select {names}, ${revision}::bigint from {from} \
         on conflict ({key}) do update set {sets}, _revision = excluded._revision",
        names = names.join(", "),
        revision = given + 1,
        key = key.join(", "),
        sets = sets.join(", "),
    );
    if !model.per_stream {
        return upsert;
    }
    format!(
        "with written as ({upsert} where t._stream_id = excluded._stream_id returning 1) \
         select case when count(*) = ${count}::bigint then 0 else gobo.refuse_foreign_stream('{name}') end from written",
        count = given + 2,
        name = model.name,
    )
}

fn delete_sql(schema: &str, model: &ReadModel) -> String {
    let arrays: Vec<_> = (model.key_columns().enumerate())
        .map(|(n, column)| format!("${}::{}[]", n + 1, column.kind.sql()))
        .collect();
    let names: Vec<_> = (1..=model.key.len()).map(|n| format!("k{n}")).collect();
    let matches: Vec<_> = (model.key_columns().zip(&names))
        .map(|(column, name)| format!("t.{} = gone.{name}", quote(&column.name)))
        .collect();
    format!(
        "delete from {}.{} t using unnest({}) as gone({}) where {}",
        quote(schema),
        quote(&model.name),
        arrays.join(", "),
        names.join(", "),
        matches.join(" and ")
    )
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
