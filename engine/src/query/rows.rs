//! Asking the database: one round trip and one snapshot per answer.

use std::error::Error as StdError;

use bytes::{Bytes, BytesMut};
use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Error, Row};

use super::plan::{Link, Plan};
use super::sql::{self, Bound, Count, Shape, Statement, Target};
use crate::db::{Keep, Sessions};

/// How many dead letters are named.
const NAMED: usize = 20;

/// How fresh a read model's rows are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// The position up to which the rows are complete, embedded ones too.
    pub position: i64,
    /// What a revision means does not outlive this: it changes when the server is started (a restored or promoted one has
    /// another history) and when it recovers from a crash, which may take unflushed commits back. Unknown just after one.
    pub incarnation: Option<String>,
    /// The read model's revision.
    pub revision: i64,
    /// The generations and revisions of embedded rows.
    pub embedded: Option<String>,
    /// Events that could not be applied; counted up to [`sql::MAX_DEAD_LETTERS`].
    pub dead_letters: i64,
    /// Positions of the first of them.
    pub dead_positions: Vec<i64>,
}

/// Rows, and how fresh they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How fresh the rows are.
    pub freshness: Freshness,
    /// The rows.
    pub page: Page,
}

/// A page of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// How many there are.
    pub count: u64,
    /// How many there are in all, pages aside, if that was asked for.
    pub total: Option<u64>,
    /// The rows: a JSON array, or CSV.
    pub body: Bytes,
    /// Continues after the last row, if there are more.
    pub next: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The generation's tables or its checkpoint do not exist (any more).
    #[error("the generation is gone")]
    Gone,
    /// PostgreSQL refuses a value.
    #[error("{message}")]
    Value {
        /// The column that it was compared with, where PostgreSQL says it.
        column: Option<String>,
        /// PostgreSQL's words.
        message: String,
        /// PostgreSQL's code.
        sqlstate: String,
    },
    /// The statement took longer than the session allows.
    #[error("the query took too long")]
    Timeout,
    /// The rows have more bytes than an answer may have.
    #[error("the rows have {bytes} bytes")]
    TooLarge {
        /// How many they have.
        bytes: i64,
    },
    /// The planner expects the statement to cost more than is allowed.
    #[error("the query is expected to cost more than the {most} that are allowed")]
    TooCostly {
        /// What it expects. Left out where rows are hidden from the reader: the planner's numbers are about them, too.
        cost: Option<u64>,
        /// What is allowed.
        most: u64,
    },
    /// Anything else that PostgreSQL says.
    #[error(transparent)]
    Database(Error),
    /// No session.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Runs a checked query, whose statement [`sql::rows`] has made.
pub async fn answer(
    sessions: &Sessions,
    statement: &Statement,
    plan: &Plan<'_>,
    target: Target<'_>,
    shape: Shape,
) -> Result<Answer, Failure> {
    if let Some(most) = plan.max_cost {
        affordable(sessions, statement, most, plan.hides_rows()).await?;
    }
    let row = one(sessions, statement, Keep::Repeated)
        .await?
        .ok_or(Failure::Gone)?;
    let read = || -> Result<_, Error> {
        let found: i64 = row.try_get("count")?;
        let bytes: i64 = row.try_get("bytes")?;
        let body: Option<String> = row.try_get("body")?;
        let last: Option<Vec<Option<String>>> = row.try_get("last")?;
        let total: Option<i64> = row.try_get("total")?;
        Ok((fresh(&row)?, found.unsigned_abs(), bytes, body, last, total))
    };
    let (freshness, found, bytes, body, last, total) = read().map_err(Failure::Database)?;
    let body = body.ok_or(Failure::TooLarge { bytes })?;
    let count = found.min(plan.limit);
    let counted = total.map(i64::unsigned_abs);
    let total = match shape.count {
        None | Some(Count::Exact) => counted,
        Some(Count::Estimated { above }) if counted.is_some_and(|total| total <= above) => counted,
        Some(Count::Planned | Count::Estimated { .. }) => {
            let planned = planned(sessions, plan, target).await?;
            // No estimate is less than what was seen.
            let seen = if count == 0 {
                0
            } else {
                plan.offset.unsigned_abs() + count
            };
            Some(planned.max(counted.unwrap_or(0)).max(seen))
        }
    };
    let is_more = found > plan.limit;
    let page = Page {
        count,
        total,
        body: body.into(),
        // Groups have no place to continue from, nor have rows that are sorted by embedded ones.
        next: last
            .filter(|_| is_more)
            .and_then(|values| plan.cursor(values)),
    };
    Ok(Answer { freshness, page })
}

/// Refuses a statement that the planner expects to cost more than `most`.
async fn affordable(
    sessions: &Sessions,
    statement: &Statement,
    most: u64,
    hides_rows: bool,
) -> Result<(), Failure> {
    let explain = Statement {
        text: format!("explain (format json) {}", statement.text),
        parameters: statement.parameters.clone(),
    };
    let row = one(sessions, &explain, Keep::Nothing)
        .await?
        .ok_or(Failure::Gone)?;
    let explained: serde_json::Value = row.try_get(0).map_err(Failure::Database)?;
    let cost = explained[0]["Plan"]["Total Cost"].as_f64().unwrap_or(0.0);
    // A cost is never negative, and one beyond all numbers is cut to the greatest.
    match cost.ceil() as u64 {
        cost if cost > most => Err(Failure::TooCostly {
            cost: (!hides_rows).then_some(cost),
            most,
        }),
        _ => Ok(()),
    }
}

/// How many rows the planner expects, pages aside.
async fn planned(sessions: &Sessions, plan: &Plan<'_>, target: Target<'_>) -> Result<u64, Failure> {
    let statement = sql::planned(plan, target);
    let row = one(sessions, &statement, Keep::Nothing)
        .await?
        .ok_or(Failure::Gone)?;
    let explained: serde_json::Value = row.try_get(0).map_err(Failure::Database)?;
    Ok(explained[0]["Plan"]["Plan Rows"].as_u64().unwrap_or(0))
}

/// Asks only how fresh a read model is.
pub async fn freshness(
    sessions: &Sessions,
    model: &str,
    target: Target<'_>,
    embedded: &[&Link<'_>],
) -> Result<Freshness, Failure> {
    let statement = sql::freshness(target, model, embedded);
    let row = one(sessions, &statement, Keep::Repeated)
        .await?
        .ok_or(Failure::Gone)?;
    fresh(&row).map_err(Failure::Database)
}

/// Which of these events a generation could not process.
pub(super) async fn dead_letters(
    sessions: &Sessions,
    generation: i64,
    positions: &[i64],
) -> Result<Vec<i64>, Failure> {
    let text = "select position from gobo.dead_letters \
        where generation = $1 and position = any ($2) and state <> 'discarded' order by position";
    let types = [Type::INT8, Type::INT8_ARRAY];
    let values: [&(dyn ToSql + Sync); 2] = [&generation, &positions];
    let rows = sessions.rows(text, &types, &values, Keep::Nothing).await?;
    let rows = rows.map_err(classify)?;
    let positions = rows.iter().map(|row| row.try_get(0));
    positions
        .collect::<Result<_, _>>()
        .map_err(Failure::Database)
}

fn fresh(row: &Row) -> Result<Freshness, Error> {
    let position: i64 = row.try_get("position")?;
    let others: Option<i64> = row.try_get("others_position")?;
    let dead_letters: Vec<i64> = row.try_get("dead_letters")?;
    Ok(Freshness {
        position: others.map_or(position, |others| others.min(position)),
        incarnation: row.try_get("incarnation")?,
        revision: row.try_get("revision")?,
        embedded: row.try_get("others")?,
        // At most a thousand.
        dead_letters: dead_letters.len() as i64 + row.try_get::<_, i64>("others_dead_letters")?,
        dead_positions: dead_letters.into_iter().take(NAMED).collect(),
    })
}

/// Every type of the contract is built in, so its oid is known.
fn type_of(bound: &Bound) -> Type {
    Type::from_oid(bound.oid).unwrap_or(Type::TEXT)
}

/// Runs a statement that gives one row at most.
pub(super) async fn one(
    sessions: &Sessions,
    statement: &Statement,
    keep: Keep,
) -> Result<Option<Row>, Failure> {
    let parameters = &statement.parameters;
    let types: Vec<Type> = parameters.iter().map(type_of).collect();
    let values: Vec<Text<'_>> = parameters.iter().map(|b| Text(b.text.as_deref())).collect();
    let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|v| v as _).collect();
    let rows = sessions
        .rows(&statement.text, &types, &values, keep)
        .await?;
    let rows = rows.map_err(|error| blame(classify(error), parameters))?;
    Ok(rows.into_iter().next())
}

fn classify(error: Error) -> Failure {
    let Some(db) = error.as_db_error() else {
        return Failure::Database(error);
    };
    let gone = [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_COLUMN,
        SqlState::INVALID_SCHEMA_NAME,
    ];
    match db.code() {
        code if gone.contains(code) => Failure::Gone,
        &SqlState::QUERY_CANCELED => Failure::Timeout,
        code if is_of_values(code, db.file()) => Failure::Value {
            // Only the number is read from the context here; `blame` knows what it stands for.
            column: db.where_().and_then(parameter_number),
            message: db.message().to_owned(),
            sqlstate: code.code().to_owned(),
        },
        _ => Failure::Database(error),
    }
}

/// Whether PostgreSQL refuses what it was given to work on: data, what exceeds its limits (a word to search for, the
/// nesting of a pattern), and what is searched for, whose syntax it calls what it calls SQL's own.
fn is_of_values(code: &SqlState, file: Option<&str>) -> bool {
    let class = code.code().get(..2);
    matches!(class, Some("22" | "54"))
        || code == &SqlState::SYNTAX_ERROR && file.is_some_and(is_of_search)
}

/// Whether a source file of PostgreSQL reads what is searched for: `tsquery.c`, and `tsvector_parser.c` for its words.
fn is_of_search(file: &str) -> bool {
    ["tsquery", "tsvector"]
        .iter()
        .any(|word| file.contains(word))
}

/// PostgreSQL names a value that it cannot read by its number: `unnamed portal parameter $4 = '...'`.
fn parameter_number(context: &str) -> Option<String> {
    let (_, rest) = context.split_once("parameter $")?;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    Some(rest[..digits].to_owned())
}

fn blame(failure: Failure, parameters: &[Bound]) -> Failure {
    match failure {
        Failure::Value {
            column,
            message,
            sqlstate,
        } => {
            let number = column.and_then(|number| number.parse::<usize>().ok());
            let bound = number.and_then(|number| parameters.get(number.checked_sub(1)?));
            Failure::Value {
                column: bound.map(|bound| bound.column.clone()),
                message,
                sqlstate,
            }
        }
        other => other,
    }
}

/// A parameter in text format, whatever its type.
#[derive(Debug)]
struct Text<'a>(Option<&'a str>);

impl ToSql for Text<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self.0 {
            None => Ok(IsNull::Yes),
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}
