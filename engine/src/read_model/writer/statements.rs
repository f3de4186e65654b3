//! The SQL of one generation.

use tokio_postgres::{Client, Statement};

use super::Phase;
use super::feed::Feed;
use crate::read_model::{ColumnType, ReadModel, quote};

/// The statements that do not depend on a read model.
pub(super) struct Statements {
    pub(super) advance: Statement,
    pub(super) dead_letters: Statement,
    pub(super) settled: Statement,
    pub(super) diverged: Statement,
    pub(super) logs: Statement,
    pub(super) trim_logs: Statement,
    pub(super) absent_keys: Statement,
    pub(super) stream_rebuilt: Statement,
}

/// The statements of one read model.
pub(super) struct Table {
    pub(super) upsert: Statement,
    pub(super) delete: Statement,
    /// Copies into a staging table: in the fast fill, and for read models with array columns, which `unnest` would flatten.
    pub(super) stage: Option<String>,
    /// Copies into the table itself.
    pub(super) copy: String,
    /// Tells what changes.
    pub(super) feed: Feed,
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            advance: client
                .prepare("select gobo.advance($1, $2, $3, $4, $5, $6, $7, $8, $9)")
                .await?,
            dead_letters: client
                .prepare(include_str!("../sql/dead_letters.sql"))
                .await?,
            settled: client
                .prepare(
                    "delete from gobo.dead_letters where generation = $1 and position = any ($2)",
                )
                .await?,
            diverged: client
                .prepare("update gobo.checkpoints set diverged = true where generation = $1")
                .await?,
            logs: client
                .prepare(include_str!("../sql/plugin_logs.sql"))
                .await?,
            trim_logs: client.prepare(include_str!("../sql/trim_logs.sql")).await?,
            absent_keys: client
                .prepare(include_str!("../sql/absent_keys.sql"))
                .await?,
            stream_rebuilt: client
                .prepare(include_str!("../sql/stream_rebuilt.sql"))
                .await?,
        })
    }
}

impl Table {
    pub(super) async fn prepare(
        client: &Client,
        schema: &str,
        index: usize,
        model: &ReadModel,
        phase: Phase,
    ) -> Result<Self, tokio_postgres::Error> {
        let has_arrays =
            (model.columns.iter()).any(|column| matches!(column.kind, ColumnType::Array(_)));
        let stage =
            (has_arrays || phase != Phase::Following).then(|| format!("pg_temp.stage_{index}"));
        if let Some(stage) = &stage {
            client.batch_execute(&stage_sql(stage, model)).await?;
        }
        let upsert = upsert_sql(schema, model, stage.as_deref());
        let feed = Feed::prepare(client, schema, model, stage.as_deref()).await?;
        Ok(Self {
            upsert: client.prepare(&upsert).await?,
            delete: client.prepare(&delete_sql(schema, model)).await?,
            stage: stage.map(|stage| format!("copy {stage} from stdin (format binary)")),
            copy: copy_sql(schema, model),
            feed,
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

/// The declared columns, quoted, and those of [`own_columns`].
fn names(model: &ReadModel) -> Vec<String> {
    let own = own_columns(model)
        .into_iter()
        .map(|(name, _)| name.to_owned());
    (model.columns.iter().map(|column| quote(&column.name)))
        .chain(own)
        .collect()
}

/// The revision comes last.
fn copy_sql(schema: &str, model: &ReadModel) -> String {
    format!(
        "copy {}.{} ({}, _revision) from stdin (format binary)",
        quote(schema),
        quote(&model.name),
        names(model).join(", ")
    )
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
    let names = names(model);
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

/// Rows to delete come as one array per key column and, for a read model that is declared per stream, one of streams: a row
/// that belongs to another one gives itself away.
fn delete_sql(schema: &str, model: &ReadModel) -> String {
    let mut arrays: Vec<_> = (model.key_columns().enumerate())
        .map(|(n, column)| format!("${}::{}[]", n + 1, column.kind.sql()))
        .collect();
    let mut names: Vec<_> = (1..=model.key.len()).map(|n| format!("k{n}")).collect();
    let matches: Vec<_> = (model.key_columns().zip(&names))
        .map(|(column, name)| format!("t.{} = gone.{name}", quote(&column.name)))
        .collect();
    let matches = matches.join(" and ");
    let table = format!("{}.{}", quote(schema), quote(&model.name));
    if !model.per_stream {
        return format!(
            "delete from {table} t using unnest({}) as gone({}) where {matches}",
            arrays.join(", "),
            names.join(", "),
        );
    }
    arrays.push(format!("${}::text[]", arrays.len() + 1));
    names.push("stream".to_owned());
    format!(
        "with gone as (select * from unnest({arrays}) as gone({names})), \
              deleted as (delete from {table} t using gone where {matches} and t._stream_id = gone.stream) \
         select case when exists (select from {table} t join gone on {matches} where t._stream_id <> gone.stream) \
                then gobo.refuse_foreign_stream('{name}') end",
        arrays = arrays.join(", "),
        names = names.join(", "),
        name = model.name,
    )
}
