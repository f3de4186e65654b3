//! Read models: typed columns, a key, and the tables that hold their rows.

pub mod column;
pub mod jsonb;
pub mod readable;
pub mod reference;
pub mod rows;
pub mod schema;
pub mod unnest;
pub mod value;
pub mod writer;

pub use column::{Column, ColumnType, Scalar};
pub use reference::Reference;

/// A table that a projection owns, as its descriptor declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadModel {
    /// Name of the table and of its public view.
    pub name: String,
    /// Becomes the SQL comment.
    pub comment: Option<String>,
    /// Whether the author declares that each row is touched by one stream only.
    pub per_stream: bool,
    /// The columns, in the order of fields in frames.
    pub columns: Vec<Column>,
    /// The key: indexes into `columns`.
    pub key: Vec<usize>,
    /// Secondary indexes: indexes into `columns`.
    pub indexes: Vec<Vec<usize>>,
    /// What its rows refer to.
    pub references: Vec<Reference>,
}

impl ReadModel {
    /// The key's columns, in order.
    pub fn key_columns(&self) -> impl ExactSizeIterator<Item = &Column> {
        self.key.iter().map(|&index| &self.columns[index])
    }

    /// The column called `name`.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// Columns that every row carries besides its own: the last event that changed it, the revision, and that event's
/// `recorded_at`.
pub const SYSTEM_COLUMNS: [(&str, &str); 3] = [
    ("_position", "bigint"),
    ("_revision", "bigint"),
    ("_updated_at", "timestamp with time zone"),
];

/// Quotes an identifier for SQL.
pub fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}
