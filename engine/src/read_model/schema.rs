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

/// Creates a generation's schema and tables. Secondary indexes are a step of their own: a rebuild makes them last.
pub async fn create_tables(
    transaction: &Transaction<'_>,
    generation: i64,
    models: &[ReadModel],
) -> Result<(), SchemaError> {
    let mut sql = format!("create schema {};\n", generation_schema(generation));
    for (place, model) in models.iter().enumerate() {
        sql.push_str(&table_sql(generation, place, model));
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
            sql.push_str(&format!(
                "create index {} on {} ({});\n",
                quote(&object_name(&format!("index{place}_{nth}"), &model.name)),
                table(generation, model),
                names(model, columns)
            ));
        }
    }
    transaction.batch_execute(&sql).await.map_err(privilege)
}

/// Creates the public views of a new projection in `schema`, which is created when it is missing.
pub async fn create_views(
    transaction: &Transaction<'_>,
    schema: &str,
    generation: i64,
    models: &[ReadModel],
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
    for model in models {
        let taken = || SchemaError::Taken {
            schema: schema.to_owned(),
            name: model.name.clone(),
        };
        let found = transaction
            .query_opt(
                "select from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                  where n.nspname = $1 and c.relname = $2",
                &[&schema, &model.name],
            )
            .await?;
        if found.is_some() {
            return Err(taken());
        }
        match transaction
            .batch_execute(&view_sql(schema, generation, model))
            .await
        {
            Err(error) if error.code() == Some(&SqlState::DUPLICATE_TABLE) => return Err(taken()),
            other => other.map_err(privilege)?,
        }
    }
    Ok(())
}

/// Writes the comments of tables, columns and views.
pub async fn write_comments(
    transaction: &Transaction<'_>,
    schema: &str,
    generation: i64,
    models: &[ReadModel],
) -> Result<(), SchemaError> {
    let mut sql = String::new();
    for model in models {
        let view = format!("{}.{}", quote(schema), quote(&model.name));
        let about = comment(model.comment.as_deref());
        for (kind, relation) in [("table", table(generation, model)), ("view", view)] {
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
    }
    transaction.batch_execute(&sql).await.map_err(privilege)
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
        let place = |name: &String| names.iter().position(|other| other == name);
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
        let key: Vec<String> = row.get("key");
        let indexes: Vec<String> = row.get("indexes");
        models.push(ReadModel {
            name: row.get("name"),
            comment: None,
            per_stream: names.iter().any(|name| name == STREAM_COLUMN),
            columns,
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

fn table_sql(generation: i64, place: usize, model: &ReadModel) -> String {
    let mut lines: Vec<String> = model.columns.iter().map(column_sql).collect();
    if model.per_stream {
        lines.push(format!("{STREAM_COLUMN} text collate \"C\" not null"));
    }
    for (name, kind) in SYSTEM_COLUMNS {
        lines.push(format!("{name} {kind} not null"));
    }
    lines.push(format!(
        "constraint {} primary key ({})",
        quote(&object_name(&format!("key{place}"), &model.name)),
        names(model, &model.key)
    ));
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

fn view_sql(schema: &str, generation: i64, model: &ReadModel) -> String {
    let columns: Vec<String> = model
        .columns
        .iter()
        .map(|column| quote(&column.name))
        .chain(SYSTEM_COLUMNS.iter().map(|(name, _)| (*name).to_owned()))
        .collect();
    format!(
        "create view {}.{} as select {} from {}",
        quote(schema),
        quote(&model.name),
        columns.join(", "),
        table(generation, model)
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
