//! Reading: the query string of a URL -> a checked, typed query -> one SQL statement -> rows, as JSON that PostgreSQL
//! builds.
//!
//! The grammar is PostgREST's. [`parse`] knows the grammar and no read model; [`plan`] looks every name up in the read
//! model and checks every value against its column's type; [`sql`] writes the statement, in which every value is a bind
//! parameter; [`answer`] asks the database. Rows and what says how fresh they are come from one statement, so from one
//! snapshot.

pub mod as_of;
pub mod board;
pub mod catalog;
mod cursor;
pub mod live;
mod nearest;
pub mod parse;
pub mod past;
pub mod plan;
mod refusal;
pub mod relations;
mod rows;
pub mod rules;
pub mod scan;
pub mod sql;
mod value;

use std::time::Duration;

pub use nearest::nearest;
pub use refusal::{Place, Refusal};
pub use rows::{Answer, Failure, Freshness, Page, answer, freshness};

/// What a query may ask for at most. Everything beyond is refused with the limit's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the query string.
    pub query_bytes: usize,
    /// Comparisons in one query.
    pub filters: usize,
    /// Elements of one list or array.
    pub list: usize,
    /// Nesting of `and` and `or`.
    pub depth: usize,
    /// Nesting of embeds.
    pub embed_depth: usize,
    /// Tests of embeds, counted again wherever the embed that they belong to is itself tested.
    pub embed_tests: usize,
    /// Values in one `select`, columns in one `order`.
    pub outputs: usize,
    /// Characters of one pattern, or of what is searched for.
    pub pattern: usize,
    /// The planner's estimate of a query's cost beyond which it is not run.
    pub cost: Option<u64>,
    /// Rows of one answer: what `limit` is cut to, and what applies without it.
    pub rows: u64,
    /// Bytes of one answer's rows.
    pub answer_bytes: u64,
    /// How long a reader may wait for a position.
    pub wait: Duration,
    /// How long it waits when it does not say.
    pub default_wait: Duration,
    /// Readers that may wait at the same time.
    pub waiters: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            query_bytes: 32 * 1024,
            filters: 100,
            list: 1_000,
            depth: 10,
            embed_depth: 4,
            embed_tests: 100,
            outputs: 300,
            pattern: 1_000,
            cost: None,
            rows: 1_000,
            answer_bytes: 64 * 1024 * 1024,
            wait: Duration::from_secs(60),
            default_wait: Duration::from_secs(5),
            waiters: 1_000,
        }
    }
}
