//! What a commit tells those who follow a read model: each changed row as it was and as it will be, one line per commit.
//!
//! Only the live generation tells, and the statement itself decides whether this one is: the fence has locked the
//! checkpoint, so a promotion comes before it or after the commit. For any other generation it looks at nothing.

use std::sync::Arc;

use foldhash::HashMap;
use tokio_postgres::{Client, Statement};

use super::change_set::RowChange;
use super::encode::{Encoded, keys};
use super::{Params, Target};
use crate::db::RawParam;
use crate::event::Position;
use crate::read_model::{ReadModel, SYSTEM_COLUMNS, quote};

/// The statements of one read model.
pub(super) struct Feed {
    changes: Statement,
    /// For a commit that changes too much.
    silence: Statement,
}

impl Feed {
    pub(super) async fn prepare(
        client: &Client,
        schema: &str,
        model: &ReadModel,
        stage: Option<&str>,
    ) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            changes: client.prepare(&changes_sql(schema, model, stage)).await?,
            silence: client.prepare(&line_sql("null")).await?,
        })
    }
}

/// What one commit tells of one read model.
pub(super) struct Told<'a> {
    name: &'a str,
    statement: &'a Statement,
    /// The changed rows, as the upsert has them; none when they are staged, or not told.
    rows: &'a [RawParam],
    /// The keys of the rows that are gone.
    gone: Vec<RawParam>,
}

impl<'a> Told<'a> {
    /// `most` changed rows are told, more are not.
    pub(super) fn new(
        model: &'a ReadModel,
        feed: &'a Feed,
        changes: &HashMap<Arc<[u8]>, RowChange>,
        encoded: &'a Encoded,
        most: usize,
    ) -> Self {
        if changes.len() > most {
            return Self {
                name: &model.name,
                statement: &feed.silence,
                rows: &[],
                gone: Vec::new(),
            };
        }
        // Not those that make way for another stream's row with the same key: such a row is changed.
        let gone = changes.iter().filter(|(_, change)| change.row.is_none());
        Self {
            name: &model.name,
            statement: &feed.changes,
            rows: &encoded.arrays,
            gone: keys(model, gone.map(|(key, _)| key)),
        }
    }

    pub(super) fn push<'s>(
        &'s self,
        sequence: &mut Vec<(&'s Statement, Params<'s>)>,
        target: &'s Target,
        position: &'s Position,
    ) {
        let mut params: Params<'s> = vec![&self.name, &target.generation, position];
        for array in self.rows.iter().chain(&self.gone) {
            params.push(array);
        }
        sequence.push((self.statement, params));
    }
}

/// Parameters of every statement: the read model's name, the generation, the position.
const GIVEN: usize = 3;

fn line_sql(changes: &str) -> String {
    format!(
        "insert into gobo.feed (read_model, revision, previous, generation, position, changes) \
         select m.name, m.revision, m.previous, $2::bigint, $3::bigint, {changes} \
           from gobo.read_models m join gobo.projections p on p.name = m.projection \
          where m.name = $1::text and p.live = $2::bigint"
    )
}

/// Rows come as in the upsert, and keys of deleted rows as one array per key column behind them.
fn changes_sql(schema: &str, model: &ReadModel, stage: Option<&str>) -> String {
    let mut given = GIVEN;
    let mut next = |kind: &str| {
        given += 1;
        format!("${given}::{kind}[]")
    };
    let columns: Vec<(String, String)> = (model.columns.iter())
        .map(|column| (quote(&column.name), column.kind.sql()))
        .chain(
            (SYSTEM_COLUMNS.iter())
                .filter(|(name, _)| *name != "_revision")
                .map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())),
        )
        .collect();
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    let changed = match stage {
        Some(stage) => format!("{stage} as c"),
        None => {
            let arrays: Vec<String> = columns.iter().map(|(_, kind)| next(kind)).collect();
            format!("unnest({}) as c({})", arrays.join(", "), names.join(", "))
        }
    };
    let key: Vec<String> = model.key_columns().map(|c| quote(&c.name)).collect();
    let gone: Vec<String> = (model.key_columns())
        .map(|column| next(&column.kind.sql()))
        .collect();
    let table = format!("{}.{}", quote(schema), quote(&model.name));
    line_sql(&format!(
        "coalesce((select '[' || string_agg(line, ',') || ']' from (\
           select '{{\"k\":' || {changed_key} || ',\"b\":' || \
                  case when t._position is null then 'null' else {before} end || ',\"a\":' || {after} || '}}' as line \
             from {changed} left join {table} t on {changed_is} \
           union all \
           select '{{\"k\":' || {gone_key} || ',\"b\":' || {before} || ',\"a\":null}}' \
             from unnest({gone}) as g({key}) join {table} t on {gone_is}\
         ) as lines), '[]')::json",
        changed_key = key_text("c", &key),
        gone_key = key_text("g", &key),
        before = row_text("t", model, "t._revision"),
        after = row_text("c", model, "m.revision"),
        changed_is = matches("c", &key),
        gone_is = matches("g", &key),
        gone = gone.join(", "),
        key = key.join(", "),
    ))
}

fn matches(alias: &str, key: &[String]) -> String {
    let pairs: Vec<String> = (key.iter())
        .map(|name| format!("t.{name} = {alias}.{name}"))
        .collect();
    pairs.join(" and ")
}

fn key_text(alias: &str, key: &[String]) -> String {
    let parts: Vec<String> = key.iter().map(|name| format!("{alias}.{name}")).collect();
    format!("json_build_array({})::text", parts.join(", "))
}

/// A row as readers see it: its own columns, then those that every row has.
fn row_text(alias: &str, model: &ReadModel, revision: &str) -> String {
    let own = model.columns.iter().map(|column| quote(&column.name));
    let own = own.map(|name| format!("{alias}.{name}"));
    let system = SYSTEM_COLUMNS.iter().map(|(name, _)| match *name {
        "_revision" => format!("{revision} as _revision"),
        name => format!("{alias}.{name}"),
    });
    let columns: Vec<String> = own.chain(system).collect();
    format!(
        "(select row_to_json(shown)::text from (select {}) as shown)",
        columns.join(", ")
    )
}
