//! A source's table as the server knows it: found, checked, and turned into the statements that read it.

use std::fmt::Write as _;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use super::{Columns, Fence, Field, SourceConfig, SourceError};
use crate::db;
use crate::event::Position;

/// A table that has been found fit to be a source.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) oid: u32,
    pub(super) sequence_oid: u32,
    pub(super) sequence: String,
    /// The session that looked, as `pg_stat_activity` names it.
    pub(super) backend: Backend,
    name: String,
    role: String,
    position: String,
    stream_id: String,
    /// The column behind it, if it is one.
    stream_column: Option<String>,
    kind: String,
    recorded_at: String,
    event_id: String,
    fields: String,
}

/// Which events a statement reads: those in `(after, through]` that `only` lets through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection<'a> {
    pub(super) after: Position,
    pub(super) through: Position,
    pub(super) only: Only<'a>,
}

/// A filter on events.
#[derive(Debug, Clone, Copy)]
pub(super) enum Only<'a> {
    /// Those of these types; all of them without any list.
    Types(Option<&'a [String]>),
    /// Those of one stream, by this path.
    Stream(&'a str, Path),
}

/// By which index a stream's events are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// One that begins with the stream, and has the position next: nothing is looked at in vain, nothing sorted.
    StreamAndPosition,
    /// One that begins with the stream: all of its events are looked at.
    Stream,
    /// That on the position: the events of all streams are looked at.
    Position,
}

/// A server process, never confused with a later one of the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) pid: i32,
    pub(super) started: String,
}

impl Table {
    /// Finds the table and refuses it, with the reason, if its events could not be read without loss.
    pub(super) async fn find(client: &Client, config: &SourceConfig) -> Result<Self, SourceError> {
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&config.table, &config.columns.position, &config.sequence];
        let row = client
            .query_one(include_str!("sql/describe.sql"), &parameters)
            .await
            .map_err(|e| failed(&e, &format!("the source's table {}", config.table)))?;
        let table = Self::checked(&row, config)?;
        table.check_fields(client).await?;
        table.check_positions(client).await?;
        Ok(table)
    }

    fn checked(row: &Row, config: &SourceConfig) -> Result<Self, SourceError> {
        check_server(row)?;
        let wanted = &config.table;
        let name = row.get::<_, Option<String>>("table_name").ok_or_else(|| {
            refused(format!(
                "there is no table {wanted} (name it with its schema, as SQL writes it)"
            ))
        })?;
        check_table(row, &name, &config.columns.position)?;
        let sequence = check_sequence(row, &name, config)?;
        let columns = &config.columns;
        Ok(Self {
            oid: row.get("table_oid"),
            sequence_oid: row.get("sequence_oid"),
            sequence,
            backend: Backend {
                pid: row.get("pid"),
                started: row.get("backend_start"),
            },
            name,
            role: row.get("role"),
            position: quoted(&columns.position),
            stream_id: cast(&columns.stream_id, "text"),
            stream_column: match &columns.stream_id {
                Field::Column(name) => Some(quoted(name)),
                Field::Expression(_) => None,
            },
            kind: cast(&columns.kind, "text"),
            recorded_at: cast(&columns.recorded_at, "timestamptz"),
            event_id: cast(&columns.event_id, "uuid"),
            fields: fields(columns),
        })
    }

    /// Runs the reading statement over nothing: it fails as the real one would for want of a column, a cast or a grant.
    async fn check_fields(&self, client: &Client) -> Result<(), SourceError> {
        let sql = format!("select {} from {} where false", self.fields, self.name);
        match client.query(&sql, &[]).await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                Err(refused(format!(
                    "{}; run: grant select on {} to {}",
                    db::describe(&error),
                    self.name,
                    quoted(&self.role)
                )))
            }
            Err(error) => Err(failed(&error, &format!("the columns of {}", self.name))),
        }
    }

    /// Rows beyond the sequence were not numbered by it: whatever it gives next may fall among them.
    async fn check_positions(&self, client: &Client) -> Result<(), SourceError> {
        // In this order: whatever is drawn in between only raises the sequence.
        let sql = format!(
            "select coalesce(max({}), 0)::int8 from {}",
            self.position, self.name
        );
        let highest: Position = client
            .query_one(&sql, &[])
            .await
            .map_err(|e| failed(&e, &self.name))?
            .get(0);
        let head = self.head(client).await?;
        if highest > head {
            return Err(refused(format!(
                "{} holds position {highest}, but its sequence {} has only reached {head}: its positions do not come \
                 from that sequence, or it was set back",
                self.name, self.sequence
            )));
        }
        Ok(())
    }

    /// The sequence's last value, read from the sequence itself; 0 when none was drawn yet.
    pub(super) async fn head(&self, client: &Client) -> Result<Position, SourceError> {
        let row = client
            .query_one(&self.head_sql(), &[])
            .await
            .map_err(|e| failed(&e, &self.sequence))?;
        Ok(row.get(0))
    }

    /// Its name with its schema, quoted.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn head_sql(&self) -> String {
        format!(
            "select case when is_called then last_value else 0 end from {}",
            self.sequence
        )
    }

    /// The last of the positions that follow `$1` without a hole, looking at no more than `$2` of them.
    pub(super) fn prefix_sql(&self) -> String {
        let Self { name, position, .. } = self;
        format!(
            "select coalesce(max(p), $1::int8) from (select p, row_number() over (order by p) as n from (\
             select {position}::int8 as p from {name} where {position} > $1::int8 order by {position} limit $2) as next) \
             as numbered where p = $1 + n"
        )
    }

    /// Reads at most `limit` of the selected events as binary tuples, in order.
    pub(super) fn copy_sql(&self, selection: Selection<'_>, limit: usize) -> String {
        let query = self.select_sql(&self.fields, selection, limit);
        format!("copy ({query}) to stdout (format binary)")
    }

    /// Says how the server would read the selected events.
    pub(super) fn explain_sql(&self, selection: Selection<'_>, limit: usize) -> String {
        let query = self.select_sql(&self.fields, selection, limit);
        format!("explain (format json) {query}")
    }

    fn select_sql(&self, fields: &str, selection: Selection<'_>, limit: usize) -> String {
        let Selection {
            after,
            through,
            only,
        } = selection;
        let Self { name, .. } = self;
        let mut position = self.position.clone();
        let filter = match only {
            Only::Types(None) => String::new(),
            Only::Types(Some(types)) => self.kind_filter(types),
            Only::Stream(stream, path) => {
                if path == Path::Stream {
                    // Not what the index on the position holds, which would look at every event in between.
                    position.push_str(" + 0");
                }
                self.stream_filter(stream, path)
            }
        };
        format!(
            "select {fields} from {name} where {position} > {after} and {position} <= {through}{filter} \
             order by {position} limit {limit}"
        )
    }

    fn stream_filter(&self, stream: &str, path: Path) -> String {
        if stream.contains('\0') {
            return " and false".into();
        }
        let literal = stream.replace('\'', "''");
        let mut filter = format!(" and {} = '{literal}'", self.stream_id);
        if let (Some(column), Path::Stream | Path::StreamAndPosition) = (&self.stream_column, path)
        {
            // An index on a uuid, say, is of use only to who compares with a uuid.
            let _ = write!(filter, " and {column} = '{literal}'");
        }
        filter
    }

    fn kind_filter(&self, types: &[String]) -> String {
        // A text cannot hold U+0000, so no event has such a type.
        let literals: Vec<String> = types
            .iter()
            .filter(|name| !name.contains('\0'))
            .map(|name| format!("'{}'", name.replace('\'', "''")))
            .collect();
        format!(
            " and {} = any(array[{}]::text[])",
            self.kind,
            literals.join(", ")
        )
    }

    /// The first position after `$1`, and when that event was stored.
    pub(super) fn oldest_sql(&self) -> String {
        let Self {
            name,
            position,
            recorded_at,
            ..
        } = self;
        format!(
            "select {recorded_at} from {name} where {position} > $1::int8 order by {position} limit 1"
        )
    }

    /// The identity of the event at `$1`.
    pub(super) fn identity_sql(&self) -> String {
        let Self {
            name,
            position,
            event_id,
            ..
        } = self;
        format!("select {event_id} from {name} where {position} = $1::int8")
    }

    /// The first position that is selected.
    pub(super) fn first_sql(&self, selection: Selection<'_>) -> String {
        self.select_sql(&format!("{}::int8", self.position), selection, 1)
    }

    /// The first position in `($1, $2]` of an event that was stored after `$3`.
    pub(super) fn later_sql(&self) -> String {
        let Self {
            name,
            position,
            recorded_at,
            ..
        } = self;
        format!(
            "select {position}::int8 from {name} where {position} > $1::int8 and {position} <= $2::int8 \
             and {recorded_at} > $3::timestamptz order by {position} limit 1"
        )
    }
}

fn check_server(row: &Row) -> Result<(), SourceError> {
    if row.get("standby") {
        return Err(refused(
            "the server is a standby: it does not show the locks of the primary's writers; name the primary".into(),
        ));
    }
    let encoding: String = row.get("encoding");
    if encoding != "UTF8" {
        return Err(refused(format!(
            "the database's encoding is {encoding}, not UTF8"
        )));
    }
    Ok(())
}

fn check_table(row: &Row, name: &str, position: &str) -> Result<(), SourceError> {
    let kind: String = row.get("kind");
    if !matches!(kind.as_str(), "r" | "p") {
        return Err(refused(format!(
            "{name} is not a table: name the table that events are inserted into"
        )));
    }
    let not_logged: Vec<String> = row.get("not_logged");
    if let Some(table) = not_logged.first() {
        return Err(refused(format!(
            "{table} is not logged, so a crash would empty it; run: alter table {table} set logged"
        )));
    }
    if row.get("row_security") {
        return Err(refused(format!(
            "row-level security may hide events of {name} from this role; use the table's owner or a role with bypassrls"
        )));
    }
    let position_type: Option<String> = row.get("position_type");
    match position_type.as_deref() {
        None => {
            return Err(refused(format!(
                "{name} has no column {} for the position",
                quoted(position)
            )));
        }
        Some("bigint" | "integer" | "smallint") => {}
        Some(other) => {
            return Err(refused(format!(
                "{name}.{} is {other}; a position is an integer",
                quoted(position)
            )));
        }
    }
    let not_indexed: Vec<String> = row.get("not_indexed");
    if let Some(table) = not_indexed.first() {
        return Err(refused(format!(
            "{table} has no index on its position; run: create index on {table} ({})",
            quoted(position)
        )));
    }
    Ok(())
}

fn check_sequence(row: &Row, name: &str, config: &SourceConfig) -> Result<String, SourceError> {
    let column = quoted(&config.columns.position);
    let Some(sequence) = row.get::<_, Option<String>>("sequence_name") else {
        return Err(refused(match &config.sequence {
            Some(wanted) => format!("there is no sequence {wanted} (name it with its schema)"),
            None => format!(
                "the default of {name}.{column} draws from no sequence; name the one that positions come from"
            ),
        }));
    };
    if !row.get::<_, bool>("sequence_readable") {
        let role: String = row.get("role");
        return Err(refused(format!(
            "the sequence {sequence} cannot be read; run: grant select on sequence {sequence} to {}",
            quoted(&role)
        )));
    }
    if !row.get::<_, bool>("sequence_logged") {
        return Err(refused(format!(
            "the sequence {sequence} is not logged, so a crash would reset it"
        )));
    }
    if config.fence == Fence::Table {
        let others: Vec<String> = row.get("other_default");
        let culprit = match others.into_iter().next() {
            Some(table) => Some(table),
            None if row.get("sequence_is_default") => None,
            None => Some(name.to_owned()),
        };
        if let Some(table) = culprit {
            return Err(refused(format!(
                "the default of {table}.{column} is not nextval of {sequence}, so a position may be drawn before the \
                 table is locked; use fence = \"transaction\""
            )));
        }
    }
    Ok(sequence)
}

fn fields(columns: &Columns) -> String {
    let Columns {
        position,
        stream_id,
        version,
        kind,
        data,
        metadata,
        event_id,
        occurred_at,
        recorded_at,
    } = columns;
    [
        format!("{}::int8", quoted(position)),
        cast(stream_id, "text"),
        cast(version, "int8"),
        cast(kind, "text"),
        cast(data, "json"),
        cast(metadata, "json"),
        cast(event_id, "uuid"),
        cast(occurred_at, "timestamptz"),
        cast(recorded_at, "timestamptz"),
    ]
    .join(", ")
}

fn cast(field: &Field, wire: &str) -> String {
    match field {
        Field::Column(name) => format!("{}::{wire}", quoted(name)),
        Field::Expression(expression) => format!("({})::{wire}", expression.sql),
    }
}

/// An identifier as SQL writes it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn refused(reason: String) -> SourceError {
    SourceError::Refused(reason)
}

/// What a failed statement about `subject` means: try again, or a reason to stop.
pub(super) fn failed(error: &tokio_postgres::Error, subject: &str) -> SourceError {
    let said = db::describe(error);
    if db::is_infrastructure(error) {
        return SourceError::Infrastructure(said);
    }
    let advice = match error.code() {
        Some(state) if *state == SqlState::INSUFFICIENT_PRIVILEGE => {
            "; grant usage on the schema and select on the table and its sequence"
        }
        _ => "",
    };
    refused(format!("{subject}: {said}{advice}"))
}
