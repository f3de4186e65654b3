//! Judging changed rows by a query: which of them it holds, and what it shows of them.
//!
//! PostgreSQL can always be asked ([`statement`], [`judge`]). Where the engine comes to the same answer by itself, it does
//! ([`Matcher`]): equality of types whose values have one spelling each in JSON, the order of whole numbers, NULL.

use std::collections::HashSet;
use std::ops::Range;

use super::Refusal;
use super::parse::{Comparator, Keyword};
use super::plan::{Condition, Expression, Plan, Source};
use super::rows::{Failure, one};
pub use super::sql::changes as statement;
use super::sql::{Bound, Statement};
use crate::db::{Keep, Sessions};
use crate::read_model::{ColumnType, Scalar};

/// Values that the lists of a filter may have together: they are kept for as long as somebody follows.
const MOST_LISTED: usize = 1_000;

/// Refuses a filter that takes too much for being kept and judged again and again.
pub fn check(plan: &Plan<'_>) -> Result<(), Refusal> {
    match plan.conditions.iter().map(listed).sum::<usize>() > MOST_LISTED {
        true => Err(Refusal::new(
            "query_too_large",
            format!("the lists of a live query have more than {MOST_LISTED} values together"),
            "follow with several streams of fewer values, or filter by a range",
        )),
        false => Ok(()),
    }
}

fn listed(condition: &Condition<'_>) -> usize {
    match condition {
        Condition::All(conditions) | Condition::Any(conditions) => {
            conditions.iter().map(listed).sum()
        }
        Condition::Not(condition) | Condition::Seen(condition) => listed(condition),
        Condition::In(_, values) => values.len(),
        Condition::Compare(..)
        | Condition::Each(..)
        | Condition::Is(..)
        | Condition::Search(..)
        | Condition::Related(_) => 0,
    }
}

/// Runs a [`statement`] over changes as the feed has them. Gives a JSON array of what becomes of the query's rows; nothing
/// if nothing does.
pub async fn judge(
    sessions: &Sessions,
    statement: &Statement,
    changes: &str,
) -> Result<Option<String>, Failure> {
    let mut statement = statement.clone();
    if let Some(first) = statement.parameters.first_mut() {
        first.text = Some(changes.to_owned());
    }
    match one(sessions, &statement, Keep::Nothing).await? {
        Some(row) => row.try_get(0).map_err(Failure::Database),
        None => Ok(None),
    }
}

/// A query that is judged without the database.
#[derive(Debug)]
#[cfg_attr(test, derive(Default))]
pub struct Matcher {
    conditions: Vec<Test<Spelt>>,
    /// Names as JSON strings, and columns.
    shown: Vec<(String, String)>,
}

/// Values as JSON.
type Spelt = HashSet<Box<str>>;
/// Values whose spelling is yet to be asked for, by their places in a [`Draft`].
type Places = Range<usize>;

#[derive(Debug)]
enum Test<Values> {
    All(Vec<Test<Values>>),
    Any(Vec<Test<Values>>),
    Not(Box<Test<Values>>),
    /// One of these values.
    Is(String, Values),
    /// Is above or below a whole number.
    Order(String, Order, i64),
    Null(String),
    True(String),
    False(String),
    /// Holds, and is not merely unknown to.
    Known(Box<Test<Values>>),
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Above,
    Below,
}

impl Matcher {
    /// Makes one, if this query can do without the database from now on. Asks it how it spells the query's values.
    pub async fn of(plan: &Plan<'_>, sessions: &Sessions) -> Result<Option<Self>, Failure> {
        let mut draft = Draft::default();
        let (Some(conditions), Some(shown)) = (draft.tests(&plan.conditions), shown(plan)) else {
            return Ok(None);
        };
        let spelt = draft.spelt(sessions).await?;
        // Were a value left without a spelling, PostgreSQL would be asked.
        let conditions = spell(conditions, &spelt);
        Ok(conditions.map(|conditions| Self { conditions, shown }))
    }

    /// Whether a row fulfils the query; `value` gives a column's value in JSON.
    pub fn holds<'r>(&self, value: &impl Fn(&str) -> &'r str) -> bool {
        self.conditions
            .iter()
            .all(|test| test.judge(value) == Some(true))
    }

    /// Writes what the query shows of a row.
    pub fn show<'r>(&self, out: &mut String, value: &impl Fn(&str) -> &'r str) {
        let mut before = '{';
        for (name, column) in &self.shown {
            out.push(before);
            out.push_str(name);
            out.push(':');
            out.push_str(value(column));
            before = ',';
        }
        if before == '{' {
            out.push('{');
        }
        out.push('}');
    }
}

/// Columns as they are; anything else is PostgreSQL's to compute.
fn shown(plan: &Plan<'_>) -> Option<Vec<(String, String)>> {
    let columns = plan.select.iter().map(|output| {
        let Source::Value(value) = &output.source else {
            return None;
        };
        let name = serde_json::Value::from(output.name.as_str()).to_string();
        Some((name, value.column()?.name.to_owned()))
    });
    columns.collect()
}

/// Values whose spelling is yet to be asked for.
#[derive(Default)]
struct Draft {
    values: Vec<(Scalar, String)>,
}

impl Draft {
    fn tests(&mut self, conditions: &[Condition<'_>]) -> Option<Vec<Test<Places>>> {
        conditions
            .iter()
            .map(|condition| self.test(condition))
            .collect()
    }

    fn test(&mut self, condition: &Condition<'_>) -> Option<Test<Places>> {
        Some(match condition {
            Condition::All(conditions) => Test::All(self.tests(conditions)?),
            Condition::Any(conditions) => Test::Any(self.tests(conditions)?),
            Condition::Not(condition) => Test::Not(Box::new(self.test(condition)?)),
            Condition::Seen(rule) => self.test(rule)?,
            Condition::Compare(left, comparator, text) => self.compare(left, *comparator, text)?,
            Condition::In(left, values) => {
                let (column, scalar) = exact(left)?;
                Test::Is(column, self.places(scalar, values))
            }
            Condition::Is(left, keyword) => is(left, *keyword)?,
            Condition::Each(..) | Condition::Search(..) | Condition::Related(_) => return None,
        })
    }

    fn compare(
        &mut self,
        left: &Expression<'_>,
        comparator: Comparator,
        text: &str,
    ) -> Option<Test<Places>> {
        let (column, scalar) = exact(left)?;
        let number = || match scalar {
            Scalar::Int2 | Scalar::Int4 | Scalar::Int8 => text.parse::<i64>().ok(),
            _ => None,
        };
        Some(match comparator {
            Comparator::Eq => Test::Is(column, self.places(scalar, [text])),
            Comparator::Neq => Test::Not(Box::new(Test::Is(column, self.places(scalar, [text])))),
            Comparator::IsDistinct => {
                let is = Test::Is(column, self.places(scalar, [text]));
                Test::Not(Box::new(Test::Known(Box::new(is))))
            }
            Comparator::Gt => Test::Order(column, Order::Above, number()?),
            Comparator::Gte => Test::Not(Box::new(Test::Order(column, Order::Below, number()?))),
            Comparator::Lt => Test::Order(column, Order::Below, number()?),
            Comparator::Lte => Test::Not(Box::new(Test::Order(column, Order::Above, number()?))),
            _ => return None,
        })
    }

    fn places(
        &mut self,
        scalar: Scalar,
        values: impl IntoIterator<Item = impl Into<String>>,
    ) -> Places {
        let first = self.values.len();
        let values = values.into_iter().map(|text| (scalar, text.into()));
        self.values.extend(values);
        first..self.values.len()
    }

    async fn spelt(self, sessions: &Sessions) -> Result<Vec<String>, Failure> {
        if self.values.is_empty() {
            return Ok(Vec::new());
        }
        let places = 1..=self.values.len();
        let spelt: Vec<String> = places.map(|n| format!("to_json(${n})::text")).collect();
        let values = self.values.into_iter();
        let statement = Statement {
            text: format!("select array[{}]", spelt.join(", ")),
            parameters: values
                .map(|(scalar, text)| Bound {
                    column: String::new(),
                    oid: scalar.oid(),
                    text: Some(text),
                })
                .collect(),
        };
        match one(sessions, &statement, Keep::Nothing).await? {
            Some(row) => row.try_get(0).map_err(Failure::Database),
            None => Ok(Vec::new()),
        }
    }
}

/// The column and its type, if two of its values are equal where their JSON is, and only there.
fn exact(left: &Expression<'_>) -> Option<(String, Scalar)> {
    let column = left.column()?;
    match column.kind {
        ColumnType::Scalar(
            scalar @ (Scalar::Bool
            | Scalar::Int2
            | Scalar::Int4
            | Scalar::Int8
            | Scalar::Text
            | Scalar::Uuid
            | Scalar::Date
            | Scalar::Timestamptz),
        ) => Some((column.name.to_owned(), scalar)),
        ColumnType::Scalar(_) | ColumnType::Array(_) => None,
    }
}

fn is(left: &Expression<'_>, keyword: Keyword) -> Option<Test<Places>> {
    let column = left.column()?.name.to_owned();
    Some(match keyword {
        Keyword::Null | Keyword::Unknown => Test::Null(column),
        Keyword::NotNull => Test::Not(Box::new(Test::Null(column))),
        Keyword::True => Test::Known(Box::new(Test::True(column))),
        Keyword::False => Test::Known(Box::new(Test::False(column))),
    })
}

fn spell(tests: Vec<Test<Places>>, spelt: &[String]) -> Option<Vec<Test<Spelt>>> {
    tests.into_iter().map(|test| test.spell(spelt)).collect()
}

impl Test<Places> {
    /// Puts values into their places; `None` if one is missing.
    fn spell(self, spelt: &[String]) -> Option<Test<Spelt>> {
        Some(match self {
            Test::All(tests) => Test::All(spell(tests, spelt)?),
            Test::Any(tests) => Test::Any(spell(tests, spelt)?),
            Test::Not(test) => Test::Not(Box::new(test.spell(spelt)?)),
            Test::Known(test) => Test::Known(Box::new(test.spell(spelt)?)),
            Test::Is(column, places) => {
                let values = spelt.get(places)?.iter();
                Test::Is(column, values.map(|value| value.as_str().into()).collect())
            }
            Test::Order(column, order, other) => Test::Order(column, order, other),
            Test::Null(column) => Test::Null(column),
            Test::True(column) => Test::True(column),
            Test::False(column) => Test::False(column),
        })
    }
}

impl Test<Spelt> {
    /// As SQL does: `None` is neither true nor false.
    fn judge<'r>(&self, value: &impl Fn(&str) -> &'r str) -> Option<bool> {
        let known = |column: &str| Some(value(column)).filter(|value| *value != "null");
        match self {
            Test::All(tests) => {
                let judged = tests.iter().map(|test| test.judge(value));
                joined(judged, false)
            }
            Test::Any(tests) => {
                let judged = tests.iter().map(|test| test.judge(value));
                joined(judged, true)
            }
            Test::Not(test) => test.judge(value).map(|holds| !holds),
            // No value is in an empty list, and not even NULL is unknown to be.
            Test::Is(_, values) if values.is_empty() => Some(false),
            Test::Is(column, values) => known(column).map(|value| values.contains(value)),
            Test::Order(column, order, other) => {
                let value: i64 = known(column)?.parse().ok()?;
                Some(match order {
                    Order::Above => value > *other,
                    Order::Below => value < *other,
                })
            }
            Test::Null(column) => Some(known(column).is_none()),
            Test::True(column) => known(column).map(|value| value == "true"),
            Test::False(column) => known(column).map(|value| value == "false"),
            Test::Known(test) => Some(test.judge(value) == Some(true)),
        }
    }
}

/// `or` where one `decides` by being true, `and` where one does by being false.
fn joined(judged: impl Iterator<Item = Option<bool>>, decides: bool) -> Option<bool> {
    let mut result = Some(!decides);
    for one in judged {
        match one {
            Some(holds) if holds == decides => return Some(decides),
            Some(_) => {}
            None => result = None,
        }
    }
    result
}
