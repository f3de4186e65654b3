//! Where a source's events are, and how they are read: what a user may configure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An event table, its columns, and who may still add events below the highest position.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceConfig {
    /// The table's name with its schema, as SQL writes it: `gobo.events`, `"Sales"."Events"`.
    pub table: String,
    /// The sequence that positions are drawn from, with its schema; by default the position column's own.
    pub sequence: Option<String>,
    /// How it is known that nothing can appear any more below a position.
    pub fence: Fence,
    /// The channel on which writers notify, if they do.
    pub notify: Option<String>,
    /// Where each field of an event comes from.
    pub columns: Columns,
}

impl Default for SourceConfig {
    /// Gobo's own event store.
    fn default() -> Self {
        Self {
            table: "gobo.events".into(),
            sequence: None,
            fence: Fence::default(),
            notify: Some("gobo_events".into()),
            columns: Columns::default(),
        }
    }
}

/// Which transactions may still make an event appear at or below a position that was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fence {
    /// Those that write to the table: exact when every position comes from the column's default.
    Table,
    /// Those that write to the table or have drawn a value from its sequence: exact when every position is drawn in
    /// the transaction that inserts the event, be it by the default, by a trigger or by the client beforehand.
    #[default]
    Transaction,
    /// Whoever drew a position less than this many milliseconds ago. *Not exact*: a writer that takes longer loses its
    /// events. The only fence for writers that draw the position in an earlier transaction.
    #[serde(rename = "timeout_ms")]
    Timeout(u64),
}

impl Fence {
    /// Whether no event can ever be skipped under this fence.
    pub fn is_exact(self) -> bool {
        !matches!(self, Self::Timeout(_))
    }
}

/// Where each field of an event comes from. By default the column of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Columns {
    /// The global order: a column (no expression), indexed, of an integer type.
    pub position: String,
    /// The event's stream.
    pub stream_id: Field,
    /// The event's number within its stream.
    pub version: Field,
    /// The event's type.
    #[serde(rename = "type")]
    pub kind: Field,
    /// What happened, castable to json.
    pub data: Field,
    /// About the event, castable to json; may be NULL.
    pub metadata: Field,
    /// The event's identity, castable to uuid.
    pub event_id: Field,
    /// When it happened.
    pub occurred_at: Field,
    /// When it was stored.
    pub recorded_at: Field,
}

impl Default for Columns {
    fn default() -> Self {
        let column = |name: &str| Field::Column(name.into());
        Self {
            position: "position".into(),
            stream_id: column("stream_id"),
            version: column("version"),
            kind: column("type"),
            data: column("data"),
            metadata: column("metadata"),
            event_id: column("event_id"),
            occurred_at: column("occurred_at"),
            recorded_at: column("recorded_at"),
        }
    }
}

/// A field of an event in the source's table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Field {
    /// A column's name, as it is (neither quoted nor folded).
    Column(String),
    /// An expression over the table's columns.
    Expression(Expression),
}

/// An SQL expression.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Expression {
    /// Its text. Functions outside `pg_catalog` are named with their schema.
    pub sql: String,
}

/// How often a source looks for new events when nobody tells it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Polling {
    /// The pause after new events; it doubles up to `idle` while there are none.
    pub busy: Duration,
    /// The longest pause while there is nothing new: how late an event is at worst when every notification is lost.
    pub idle: Duration,
    /// The first pause while a writer is waited for; it doubles up to `pending_longest`.
    pub pending: Duration,
    /// The longest pause while a writer is waited for.
    pub pending_longest: Duration,
    /// How many bytes of the newest events are kept for all readers; and as many of older ones for those that rebuild
    /// together.
    pub ring_bytes: usize,
}

impl Default for Polling {
    fn default() -> Self {
        Self {
            busy: Duration::from_millis(10),
            idle: Duration::from_secs(1),
            pending: Duration::from_millis(2),
            pending_longest: Duration::from_millis(50),
            ring_bytes: 32 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SourceConfig, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn an_empty_configuration_is_the_own_store() {
        assert_eq!(parse("").unwrap(), SourceConfig::default());
    }

    #[test]
    fn a_foreign_table_names_columns_and_expressions() {
        let config = parse(
            "table = 'message_store.messages'\nfence = { timeout_ms = 500 }\n[columns]\nposition = 'global_position'\n\
             metadata = { sql = 'null' }",
        )
        .unwrap();
        assert_eq!(config.fence, Fence::Timeout(500));
        assert!(!config.fence.is_exact());
        assert_eq!(config.columns.position, "global_position");
        let null = Expression { sql: "null".into() };
        assert_eq!(config.columns.metadata, Field::Expression(null));
        assert_eq!(parse("fence = 'table'").unwrap().fence, Fence::Table);
    }

    #[test]
    fn unknown_keys_are_refused() {
        for text in [
            "tabel = 'x'",
            "[columns]\nstream = 'x'",
            "[columns]\ndata = { sql = 'x', y = 1 }",
            "fence = 'none'",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
