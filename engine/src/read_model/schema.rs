//! The tables of a generation, and the public views over them.
//!
//! Each generation has a schema of its own, `gobo_g<id>`, with one table per read model. Readers go through one view per
//! read model in a schema that never changes its name, so that another generation can take over without their noticing.
//! Nothing here ever says CASCADE: what other people built on a view is theirs.

use tokio_postgres::error::SqlState;
use tokio_postgres::{GenericClient, Transaction};

use super::{Column, ColumnType, ReadModel, SYSTEM_COLUMNS, Scalar, quote};

/// The column that ties a row of a read model which is declared `per_stream` to its stream.
pub const STREAM_COLUMN: &str = "_stream_id";

/// Why tables or views cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The view's name is in use by something that is not ours.
    #[error(
        "\"{schema}\".\"{name}\" exists already and does not belong to gobo, so read model \"{name}\" cannot be published there"
    )]
    Taken {
        /// The schema of the views.
        schema: String,
        /// The read model's name.
        name: String,
    },
    /// Something was built on what is to be dropped.
    #[error("{view} has to be dropped, but something was built on it: {what}")]
    Dependents {
        /// What is to be dropped.
        view: String,
        /// What was built on it.
        what: String,
    },
    /// The role may not create what is needed.
    #[error("the engine's role may not do that: {0}")]
    Privilege(String),
    /// The database did not do it.
    #[error("{}", crate::db::describe(.0))]
    Database(#[from] tokio_postgres::Error),
}

/// The schema that holds a generation's tables.
pub fn generation_schema(generation: i64) -> String {
    format!("gobo_g{generation}")
}

/// The qualified and quoted name of a read model's table in a generation.
pub fn table(generation: i64, model: &ReadModel) -> String {
    format!("gobo_g{generation}.{}", quote(&model.name))
}

/// Creates a generation's schema and tables; without their keys if they are to be filled in bulk, see [`create_keys`].
/// Secondary indexes are a step of their own: a rebuild makes them last.
pub async fn create_tables(
    transaction: &Transaction<'_>,
    generation: i64,
    models: &[ReadModel],
    bulk: bool,
) -> Result<(), SchemaError> {
    let mut sql = format!("create schema {};\n", generation_schema(generation));
    for (place, model) in models.iter().enumerate() {
        sql.push_str(&table_sql(generation, place, model, !bulk));
    }
    transaction.batch_execute(&sql).await.map_err(privilege)
}

/// Creates the keys of tables that were made without.
pub async fn create_keys(
    transaction: &Transaction<'_>,
    generation: i64,
    models: &[ReadModel],
) -> Result<(), SchemaError> {
    let mut sql = String::new();
    for (place, model) in models.iter().enumerate() {
        sql.push_str(&format!(
            "alter table {} add {};\n",
            table(generation, model),
            key_sql(place, model)
        ));
    }
    transaction.batch_execute(&sql).await.map_err(privilege)
}

/// Creates the secondary indexes of a generation.
pub async fn create_indexes(
    transaction: &Transaction<'_>,
    generation: i64,
    models: &[ReadModel],
) -> Result<(), SchemaError> {
    let mut sql = String::new();
    for (place, model) in models.iter().enumerate() {
        for (nth, columns) in model.indexes.iter().enumerate() {
            sql.push_str(&index_sql(generation, place, nth, model, columns));
        }
    }
    transaction.batch_execute(&sql).await.map_err(privilege)
}

/// Makes the public views in `schema` show the tables of a generation. The schema is created when it is missing.
///
/// A view that is there keeps its columns in their order, new ones behind them, so that it need not be dropped: what was
/// granted on it and what was built on it stays. Where a column is gone or has another type, the view is dropped, which
/// fails if something else was built on it, and made anew with the same grants. `gone` are views that go.
pub async fn switch_views(
    transaction: &Transaction<'_>,
    schema: &str,
    generation: i64,
    models: &[ReadModel],
    gone: &[String],
) -> Result<(), SchemaError> {
    // Looked up first: "if not exists" asks for the privilege to create schemas even when there is nothing to create.
    let there = transaction
        .query_opt("select from pg_namespace where nspname = $1", &[&schema])
        .await?;
    if there.is_none() {
        transaction
            .batch_execute(&format!("create schema {}", quote(schema)))
            .await
            .map_err(privilege)?;
    }
    for name in gone {
        if find_view(transaction, schema, name).await?.is_some() {
            drop_view(transaction, schema, name).await?;
        }
    }
    for model in models {
        switch_view(transaction, schema, generation, model).await?;
    }
    write_comments(transaction, schema, models).await
}

async fn switch_view(
    transaction: &Transaction<'_>,
    schema: &str,
    generation: i64,
    model: &ReadModel,
) -> Result<(), SchemaError> {
    let columns = view_columns(model);
    let create = |verb: &str, columns: &[&str]| {
        let columns: Vec<String> = columns.iter().map(|name| quote(name)).collect();
        format!(
            "{verb} view {} as select {} from {}",
            view(schema, &model.name),
            columns.join(", "),
            table(generation, model)
        )
    };
    let plain: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    let Some(found) = find_view(transaction, schema, &model.name).await? else {
        return match transaction.batch_execute(&create("create", &plain)).await {
            Err(error) if error.code() == Some(&SqlState::DUPLICATE_TABLE) => {
                Err(SchemaError::Taken {
                    schema: schema.to_owned(),
                    name: model.name.clone(),
                })
            }
            other => other.map_err(privilege),
        };
    };
    if found.columns.iter().all(|column| columns.contains(column)) {
        let mut order: Vec<&str> = found
            .columns
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        let new: Vec<&str> = (plain.iter().copied())
            .filter(|name| !order.contains(name))
            .collect();
        order.extend(new);
        return transaction
            .batch_execute(&create("create or replace", &order))
            .await
            .map_err(privilege);
    }
    drop_view(transaction, schema, &model.name).await?;
    let mut sql = create("create", &plain);
    for (column, grant) in &found.grants {
        // A grant on a column that is gone goes with it.
        if column
            .as_ref()
            .is_none_or(|name| plain.contains(&name.as_str()))
        {
            sql.push_str(&format!(";\n{grant}"));
        }
    }
    transaction.batch_execute(&sql).await.map_err(privilege)
}

/// A public view as it is.
struct View {
    /// Names and types.
    columns: Vec<(String, u32)>,
    /// The statements that grant what is granted on it, with the column if it is on one.
    grants: Vec<(Option<String>, String)>,
}

async fn find_view(
    transaction: &Transaction<'_>,
    schema: &str,
    name: &str,
) -> Result<Option<View>, SchemaError> {
    let row = transaction
        .query_opt(include_str!("sql/view.sql"), &[&schema, &name])
        .await?;
    let Some(row) = row else { return Ok(None) };
    if !row.get::<_, bool>("ours") {
        return Err(SchemaError::Taken {
            schema: schema.to_owned(),
            name: name.to_owned(),
        });
    }
    let names: Vec<String> = row.get("columns");
    let types: Vec<u32> = row.get("types");
    let granted: Vec<Option<String>> = row.get("granted_on");
    let grants: Vec<String> = row.get("grants");
    Ok(Some(View {
        columns: names.into_iter().zip(types).collect(),
        grants: granted.into_iter().zip(grants).collect(),
    }))
}

/// Whether there is a view of this name, and it shows a generation's table.
pub async fn is_our_view(
    client: &impl GenericClient,
    schema: &str,
    name: &str,
) -> Result<bool, tokio_postgres::Error> {
    let row = client
        .query_opt(include_str!("sql/view.sql"), &[&schema, &name])
        .await?;
    Ok(row.is_some_and(|row| row.get("ours")))
}

/// Drops a public view. Refused when something was built on it.
pub async fn drop_view(
    transaction: &Transaction<'_>,
    schema: &str,
    name: &str,
) -> Result<(), SchemaError> {
    let dropped = transaction
        .batch_execute(&format!("drop view {}", view(schema, name)))
        .await;
    dropped.map_err(|error| match (error.code(), error.as_db_error()) {
        (Some(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST), Some(db)) => SchemaError::Dependents {
            view: format!("\"{schema}\".\"{name}\""),
            what: db.detail().unwrap_or_default().replace('\n', "; "),
        },
        _ => privilege(error),
    })
}

/// The names and types of a view's columns.
fn view_columns(model: &ReadModel) -> Vec<(String, u32)> {
    let own = (model.columns.iter()).map(|column| (column.name.clone(), column.kind.oid()));
    let system = [("_position", 20), ("_revision", 20), ("_updated_at", 1184)];
    own.chain(system.map(|(name, oid)| (name.to_owned(), oid)))
        .collect()
}

fn view(schema: &str, name: &str) -> String {
    format!("{}.{}", quote(schema), quote(name))
}

/// Drops a generation's tables and its schema. Refused when something was built on them; nothing to do when they are gone.
pub async fn drop_tables(
    transaction: &Transaction<'_>,
    generation: i64,
) -> Result<(), SchemaError> {
    let schema = generation_schema(generation);
    let rows = transaction
        .query(
            "select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
              where n.nspname = $1 and c.relkind = 'r'",
            &[&schema],
        )
        .await?;
    let mut sql = String::new();
    for row in &rows {
        sql.push_str(&format!("drop table {schema}.{};\n", quote(row.get(0))));
    }
    sql.push_str(&format!("drop schema if exists {schema}"));
    let dropped = transaction.batch_execute(&sql).await;
    dropped.map_err(|error| match (error.code(), error.as_db_error()) {
        (Some(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST), Some(db)) => SchemaError::Dependents {
            view: format!("schema {schema}"),
            what: db.detail().unwrap_or_default().replace('\n', "; "),
        },
        _ => privilege(error),
    })
}

/// Writes the comments of a generation's tables.
pub async fn comment_tables(
    transaction: &Transaction<'_>,
    generation: i64,
    models: &[ReadModel],
) -> Result<(), SchemaError> {
    let mut sql = String::new();
    for model in models {
        comments(&mut sql, "table", &table(generation, model), model);
    }
    transaction.batch_execute(&sql).await.map_err(privilege)
}

/// Writes the comments of the public views.
pub async fn write_comments(
    transaction: &Transaction<'_>,
    schema: &str,
    models: &[ReadModel],
) -> Result<(), SchemaError> {
    let mut sql = String::new();
    for model in models {
        comments(&mut sql, "view", &view(schema, &model.name), model);
    }
    transaction.batch_execute(&sql).await.map_err(privilege)
}

fn comments(sql: &mut String, kind: &str, relation: &str, model: &ReadModel) {
    let about = comment(model.comment.as_deref());
    sql.push_str(&format!("comment on {kind} {relation} is {about};\n"));
    for column in &model.columns {
        let about = comment(column.comment.as_deref());
        let name = quote(&column.name);
        sql.push_str(&format!(
            "comment on column {relation}.{name} is {about};\n"
        ));
    }
    for (name, about) in SYSTEM_COMMENTS {
        let about = comment(Some(about));
        sql.push_str(&format!(
            "comment on column {relation}.{} is {about};\n",
            quote(name)
        ));
    }
}

/// Adds what a plugin that goes on in place needs: a nullable column, an index, a whole read model.
pub async fn add(
    transaction: &Transaction<'_>,
    generation: i64,
    place: usize,
    model: &ReadModel,
    what: &Addition<'_>,
) -> Result<(), SchemaError> {
    let table = table(generation, model);
    let sql = match what {
        Addition::Column(column) => {
            format!("alter table {table} add column {}", column_sql(column))
        }
        Addition::Null(column) => format!(
            "alter table {table} alter column {} drop not null",
            quote(&column.name)
        ),
        // Behind the numbers that a new generation of this plugin would give.
        Addition::Index(nth, columns) => index_sql(generation, place, 1_000 + nth, model, columns),
        Addition::Model => {
            let mut sql = table_sql(generation, place, model, true);
            for (nth, columns) in model.indexes.iter().enumerate() {
                sql.push_str(&index_sql(generation, place, nth, model, columns));
            }
            sql
        }
    };
    transaction.batch_execute(&sql).await.map_err(privilege)
}

/// A change of tables that leaves their rows as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addition<'m> {
    /// A nullable column.
    Column(&'m Column),
    /// A column that may be NULL from now on.
    Null(&'m Column),
    /// An index, with a number that none of its table has.
    Index(usize, &'m [usize]),
    /// A whole read model.
    Model,
}

/// Reads a generation's tables back from the database's own catalogue. This is what is really there, whichever engine
/// made it, so that comparing needs neither the old plugin nor an old descriptor. Comments are left out.
pub async fn read_tables(
    client: &impl GenericClient,
    generation: i64,
) -> Result<Vec<ReadModel>, SchemaError> {
    let rows = client
        .query(
            include_str!("sql/tables.sql"),
            &[&generation_schema(generation)],
        )
        .await?;
    let mut models = Vec::new();
    for row in rows {
        let names: Vec<String> = row.get("columns");
        let kinds: Vec<u32> = row.get("types");
        let required: Vec<bool> = row.get("required");
        let columns: Vec<Column> = names
            .iter()
            .zip(kinds)
            .zip(required)
            .filter(|((name, _), _)| !name.starts_with('_'))
            .filter_map(|((name, oid), required)| {
                Some(Column {
                    name: name.clone(),
                    kind: ColumnType::from_oid(oid)?,
                    nullable: !required,
                    comment: None,
                })
            })
            .collect();
        // Columns that were added later stand behind the engine's own.
        let place = |name: &String| columns.iter().position(|column| column.name == *name);
        let key: Vec<String> = row.get("key");
        let indexes: Vec<String> = row.get("indexes");
        models.push(ReadModel {
            name: row.get("name"),
            comment: None,
            per_stream: names.iter().any(|name| name == STREAM_COLUMN),
            key: key.iter().filter_map(place).collect(),
            indexes: indexes
                .iter()
                .map(|index| {
                    index
                        .split(',')
                        .map(str::to_owned)
                        .filter_map(|name| place(&name))
                        .collect()
                })
                .collect(),
            references: Vec::new(),
            columns,
        });
    }
    Ok(models)
}

const SYSTEM_COMMENTS: [(&str, &str); 3] = [
    ("_position", "The last event that changed this row."),
    (
        "_revision",
        "The revision of the read model at which this row was last written.",
    ),
    (
        "_updated_at",
        "When the last event that changed this row was recorded.",
    ),
];

/// `place` keeps the names of keys and indexes apart even when they are cut to PostgreSQL's 63 bytes; the leading
/// underscore keeps them apart from tables, which share one space of names with them.
fn object_name(kind: &str, model: &str) -> String {
    let mut name = format!("_{kind}_{model}");
    name.truncate(63);
    name
}

fn index_sql(
    generation: i64,
    place: usize,
    nth: usize,
    model: &ReadModel,
    columns: &[usize],
) -> String {
    format!(
        "create index {} on {} ({});\n",
        quote(&object_name(&format!("index{place}_{nth}"), &model.name)),
        table(generation, model),
        names(model, columns)
    )
}

fn key_sql(place: usize, model: &ReadModel) -> String {
    format!(
        "constraint {} primary key ({})",
        quote(&object_name(&format!("key{place}"), &model.name)),
        names(model, &model.key)
    )
}

fn table_sql(generation: i64, place: usize, model: &ReadModel, keyed: bool) -> String {
    let mut lines: Vec<String> = model.columns.iter().map(column_sql).collect();
    if model.per_stream {
        lines.push(format!("{STREAM_COLUMN} text collate \"C\" not null"));
    }
    for (name, kind) in SYSTEM_COLUMNS {
        lines.push(format!("{name} {kind} not null"));
    }
    if keyed {
        lines.push(key_sql(place, model));
    }
    // Rows are updated again and again: room on the page lets PostgreSQL do it without touching the indexes.
    format!(
        "create table {} (\n    {}\n) with (fillfactor = 90);\n",
        table(generation, model),
        lines.join(",\n    ")
    )
}

fn column_sql(column: &Column) -> String {
    // "C" compares bytes: equal means equal bytes, in the row cache as in the index, and sorting is fast.
    let collation = match column.kind {
        ColumnType::Scalar(Scalar::Text) | ColumnType::Array(Scalar::Text) => " collate \"C\"",
        _ => "",
    };
    let null = if column.nullable { "" } else { " not null" };
    format!(
        "{} {}{collation}{null}",
        quote(&column.name),
        column.kind.sql()
    )
}

fn names(model: &ReadModel, columns: &[usize]) -> String {
    let names: Vec<String> = columns
        .iter()
        .map(|&column| quote(&model.columns[column].name))
        .collect();
    names.join(", ")
}

/// A comment as a literal. A plain literal is enough: sessions run with `standard_conforming_strings` on.
fn comment(text: Option<&str>) -> String {
    text.map_or("null".to_owned(), |text| {
        format!("'{}'", text.replace('\'', "''"))
    })
}

fn privilege(error: tokio_postgres::Error) -> SchemaError {
    match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            SchemaError::Privilege(crate::db::describe(&error))
        }
        _ => SchemaError::Database(error),
    }
}
