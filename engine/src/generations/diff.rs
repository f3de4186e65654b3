//! Two generations at one position: which rows of their read models differ.
//!
//! PostgreSQL does the comparing, in one pass per read model: a full join on the key, merged over the keys' indexes or
//! hashed with spilling, whose rows that differ are kept in a spilling store, counted, and sampled. The session needs a few
//! times its `work_mem` whatever the number of rows, and this process holds only counts and samples.
//!
//! **What is equal**: two values whose bytes in PostgreSQL's own format are equal. So 1.0 and 1.00 differ (readers see
//! them differ), as do 0.0 and -0.0, NULL and a JSON `null`, `{"a":1}` and `{"a": 1}` in a `json` column (but not in a
//! `jsonb` one), and two NaN of which the bits differ. NULL equals NULL, and NaN with the same bits equals itself.

mod report;
mod shape;
mod statement;

pub use report::{
    Change, ChangedRow, ColumnDiff, Columns, Diff, Matched, ModelDiff, RowDiff, Sample, Samples,
    ShapeDifference, Side, Value,
};

use std::collections::BTreeMap;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Row, Transaction};

use crate::read_model::ReadModel;
use crate::read_model::schema::{self, SchemaError};
use statement::Comparison;

/// Samples per kind of difference when nobody says how many.
pub const SAMPLES: u32 = 10;
/// The largest number of samples per kind of difference; more are not given.
pub const MAX_SAMPLES: u32 = 1_000;

/// Two generations, and the position at which both of them stand in the transaction's snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The generation that is compared: the live one, for a preview.
    pub a: i64,
    /// The generation that it is compared with: the candidate, for a preview.
    pub b: i64,
    /// Where their checkpoints stand.
    pub position: i64,
}

/// How to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Which columns count.
    pub columns: Columns,
    /// How many rows of each kind to show, at most [`MAX_SAMPLES`].
    pub samples: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            columns: Columns::Declared,
            samples: SAMPLES,
        }
    }
}

/// A read model that is about to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'a> {
    /// Its name.
    pub read_model: &'a str,
    /// How many were compared before it.
    pub done: usize,
    /// How many there are, on either side.
    pub of: usize,
}

/// Why two generations cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// A generation has no tables (any more).
    #[error("generation {generation} has no tables: it was dropped, or never started")]
    Gone {
        /// Which one.
        generation: i64,
    },
    /// A table went away in the midst of it.
    #[error("read model \"{read_model}\" was dropped while generations {a} and {b} were compared")]
    Dropped {
        /// The read model.
        read_model: String,
        /// The one generation.
        a: i64,
        /// The other one.
        b: i64,
    },
    /// The tables cannot be read from the catalogue.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The database did not do it.
    #[error("read model \"{read_model}\" cannot be compared: {}", crate::db::describe(.source))]
    Database {
        /// The read model.
        read_model: String,
        /// What the database says.
        source: tokio_postgres::Error,
    },
    /// The database answers what this module does not understand.
    #[error("read model \"{read_model}\" cannot be compared: {source}")]
    Answer {
        /// The read model.
        read_model: String,
        /// What is wrong with the answer.
        source: serde_json::Error,
    },
}

/// Compares two generations read model by read model, in the order of their names. `progress` is told each of them before
/// it is compared.
///
/// The transaction must be REPEATABLE READ, and its snapshot must show both generations at `pair.position`: every
/// statement here reads in it. It may be READ ONLY. Values are shown as the session writes them, so it should be one of
/// [`crate::db::Database`], which fixes time zone and formats.
pub async fn compare(
    transaction: &Transaction<'_>,
    pair: Pair,
    options: &Options,
    mut progress: impl FnMut(Step<'_>),
) -> Result<Diff, DiffError> {
    let mut sides: BTreeMap<String, [Option<ReadModel>; 2]> = BTreeMap::new();
    for (place, generation) in [pair.a, pair.b].into_iter().enumerate() {
        let models = schema::read_tables(transaction, generation).await?;
        if models.is_empty() {
            return Err(DiffError::Gone { generation });
        }
        for model in models {
            let sides = sides.entry(model.name.clone()).or_default();
            sides[place] = Some(model);
        }
    }
    let of = sides.len();
    let mut read_models = Vec::with_capacity(of);
    for (done, (name, models)) in sides.into_iter().enumerate() {
        progress(Step {
            read_model: &name,
            done,
            of,
        });
        let (shape, rows) = match &models {
            [Some(a), Some(b)] => {
                let shape = shape::differences(a, b, options.columns);
                (shape, compare_rows(transaction, pair, a, b, options).await?)
            }
            [Some(only), None] => {
                let count = count(transaction, pair, pair.a, only).await?;
                (Vec::new(), RowDiff::OnlyInA { count })
            }
            [_, only] => {
                let count = match only {
                    Some(only) => count(transaction, pair, pair.b, only).await?,
                    None => 0,
                };
                (Vec::new(), RowDiff::OnlyInB { count })
            }
        };
        read_models.push(ModelDiff { name, shape, rows });
    }
    Ok(Diff {
        a: pair.a,
        b: pair.b,
        position: pair.position,
        columns: options.columns,
        read_models,
    })
}

async fn compare_rows(
    transaction: &Transaction<'_>,
    pair: Pair,
    a: &ReadModel,
    b: &ReadModel,
    options: &Options,
) -> Result<RowDiff, DiffError> {
    let count_a = count(transaction, pair, pair.a, a).await?;
    let Some(comparison) = Comparison::new(pair, a, b, options) else {
        let count_b = count(transaction, pair, pair.b, b).await?;
        return Ok(RowDiff::Unmatched {
            a: count_a,
            b: count_b,
        });
    };
    let row = transaction
        .query_one(&comparison.sql(), &[])
        .await
        .map_err(|error| failure(error, pair, &a.name))?;
    matched(&comparison, count_a, &row, pair, &a.name).map(RowDiff::Matched)
}

/// Reads the one row that the comparison gives.
fn matched(
    comparison: &Comparison<'_>,
    count_a: i64,
    row: &Row,
    pair: Pair,
    name: &str,
) -> Result<Matched, DiffError> {
    let database = |error| failure(error, pair, name);
    let counts: Vec<i64> = row.try_get("counts").map_err(database)?;
    let (rows, columns) = counts.split_at(counts.len().min(3));
    let sample = |column: &str| row.try_get::<_, String>(column).map_err(database);
    let answer = |source| DiffError::Answer {
        read_model: name.to_owned(),
        source,
    };
    let samples = Samples {
        added: comparison
            .rows(Side::B, &sample("added")?)
            .map_err(answer)?,
        removed: comparison
            .rows(Side::A, &sample("removed")?)
            .map_err(answer)?,
        changed: comparison.changes(&sample("changed")?).map_err(answer)?,
    };
    let kind = |place: usize| rows.get(place).copied().unwrap_or(0);
    let (added, removed, changed) = (kind(0), kind(1), kind(2));
    Ok(Matched {
        a: count_a,
        b: count_a - removed + added,
        added,
        removed,
        changed,
        key: comparison.key(),
        columns: comparison.columns(columns),
        samples,
    })
}

async fn count(
    transaction: &Transaction<'_>,
    pair: Pair,
    generation: i64,
    model: &ReadModel,
) -> Result<i64, DiffError> {
    let sql = format!("select count(*) from {}", schema::table(generation, model));
    let row = transaction.query_one(&sql, &[]).await;
    row.and_then(|row| row.try_get(0))
        .map_err(|error| failure(error, pair, &model.name))
}

fn failure(error: tokio_postgres::Error, pair: Pair, read_model: &str) -> DiffError {
    let read_model = read_model.to_owned();
    match error.code() {
        Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME) => DiffError::Dropped {
            read_model,
            a: pair.a,
            b: pair.b,
        },
        _ => DiffError::Database {
            read_model,
            source: error,
        },
    }
}
