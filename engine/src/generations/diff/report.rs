//! What a comparison says. Its JSON form is what `gobo diff --json` prints and what the API answers; members are only ever
//! added to it.
//!
//! ```json
//! {
//!   "a": 3, "b": 4, "position": 120, "columns": "declared",
//!   "read_models": [
//!     { "name": "orders",
//!       "shape": [ { "kind": "column_only_in", "side": "b", "column": "note", "type": "text", "nullable": true } ],
//!       "rows": {
//!         "kind": "matched", "a": 10, "b": 10, "added": 1, "removed": 1, "changed": 1,
//!         "key": ["order_id"],
//!         "columns": [ { "name": "price", "type": "numeric", "changed": 1 } ],
//!         "samples": {
//!           "added":   [ { "key": ["x"], "values": [ { "column": "price", "value": "1.50" } ] } ],
//!           "removed": [ { "key": ["y"], "values": [ { "column": "price", "value": null } ] } ],
//!           "changed": [ { "key": ["z"], "changes": [ { "column": "price", "a": "1.0", "b": "1.00" } ] } ] } } },
//!     { "name": "gone", "shape": [], "rows": { "kind": "only_in_a", "count": 7 } },
//!     { "name": "new", "shape": [], "rows": { "kind": "only_in_b", "count": 7 } },
//!     { "name": "other_key", "shape": [ { "kind": "key", "a": ["id"], "b": ["id", "day"] } ],
//!       "rows": { "kind": "unmatched", "a": 5, "b": 6 } } ]
//! }
//! ```
//!
//! A value is PostgreSQL's text of it in a JSON string, whatever its type, and NULL is `null`: so nothing is lost on the
//! way through a JSON reader (1.0 against 1.00, 20 digits, NULL against the JSON `null`). A text of more than 2,000
//! characters is cut, and says its length and its SHA-256, so that cut values that differ still look different.

use serde::{Deserialize, Serialize};

/// How two generations differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// The generation that was compared.
    pub a: i64,
    /// The generation that it was compared with.
    pub b: i64,
    /// The position at which both were.
    pub position: i64,
    /// Which columns were compared.
    pub columns: Columns,
    /// Every read model of either, in the order of their names, those without differences included.
    pub read_models: Vec<ModelDiff>,
}

/// Which columns are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Columns {
    /// Those that the projection declares.
    Declared,
    /// `_position`, `_updated_at` and `_stream_id` too, but never `_revision`, which counts commits.
    All,
}

/// One of the two generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The one that was compared.
    A,
    /// The one that it was compared with.
    B,
}

/// How a read model differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelDiff {
    /// Its name.
    pub name: String,
    /// How the tables differ. The order of columns does not count.
    pub shape: Vec<ShapeDifference>,
    /// How the rows differ.
    pub rows: RowDiff,
}

/// How two tables of one read model differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ShapeDifference {
    /// Only one of them has this column, which is not compared then.
    ColumnOnlyIn {
        /// Which one.
        side: Side,
        /// The column.
        column: String,
        /// Its type.
        r#type: String,
        /// Whether it may be NULL.
        nullable: bool,
    },
    /// The column has another type, and is not compared then.
    ColumnType {
        /// The column.
        column: String,
        /// Its type in A.
        a: String,
        /// Its type in B.
        b: String,
    },
    /// The column may be NULL in one of them only. It is compared nevertheless.
    ColumnNullable {
        /// The column.
        column: String,
        /// Which one.
        nullable_in: Side,
    },
    /// The keys are different columns, or the same ones in another order.
    Key {
        /// The key in A.
        a: Vec<String>,
        /// The key in B.
        b: Vec<String>,
    },
    /// Only one of them has this secondary index.
    IndexOnlyIn {
        /// Which one.
        side: Side,
        /// The index's columns.
        columns: Vec<String>,
    },
    /// Only one of them ties its rows to streams. Looked at with [`Columns::All`] only, since readers do not see it.
    PerStreamOnlyIn {
        /// Which one.
        side: Side,
    },
}

/// How the rows of a read model differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RowDiff {
    /// Rows were matched by their keys.
    Matched(Matched),
    /// Rows cannot be matched, since the keys differ: only counted.
    Unmatched {
        /// The rows in A.
        a: i64,
        /// The rows in B.
        b: i64,
    },
    /// B has no such read model.
    OnlyInA {
        /// The rows in A.
        count: i64,
    },
    /// A has no such read model.
    OnlyInB {
        /// The rows in B.
        count: i64,
    },
}

/// Rows that were matched by their keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matched {
    /// The rows in A.
    pub a: i64,
    /// The rows in B.
    pub b: i64,
    /// The rows that are in B only.
    pub added: i64,
    /// The rows that are in A only.
    pub removed: i64,
    /// The rows that are in both and differ in a column that was compared.
    pub changed: i64,
    /// The key's columns, in the order of A's key.
    pub key: Vec<String>,
    /// Every column that was compared, in A's order.
    pub columns: Vec<ColumnDiff>,
    /// The first rows of each kind, in the order of the key.
    pub samples: Samples,
}

/// A column that was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnDiff {
    /// Its name.
    pub name: String,
    /// Its type, as descriptors call it.
    pub r#type: String,
    /// In how many of the changed rows it differs.
    pub changed: i64,
}

/// The first rows of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    /// Rows that are in B only, with B's columns.
    pub added: Vec<Sample>,
    /// Rows that are in A only, with A's columns.
    pub removed: Vec<Sample>,
    /// Rows that differ.
    pub changed: Vec<ChangedRow>,
}

/// A row that one generation has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The key's values.
    pub key: Vec<String>,
    /// The other columns.
    pub values: Vec<Value>,
}

/// A column's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// The column.
    pub column: String,
    /// The value.
    pub value: Option<String>,
}

/// A row that both generations have, and that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedRow {
    /// The key's values.
    pub key: Vec<String>,
    /// The columns that differ.
    pub changes: Vec<Change>,
}

/// A column that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The column.
    pub column: String,
    /// Its value in A.
    pub a: Option<String>,
    /// Its value in B.
    pub b: Option<String>,
}

impl Diff {
    /// Whether nothing differs, neither rows nor shape.
    pub fn is_empty(&self) -> bool {
        self.read_models.iter().all(ModelDiff::is_empty)
    }
}

impl ModelDiff {
    /// Whether nothing differs, neither rows nor shape.
    pub fn is_empty(&self) -> bool {
        let same_rows = match &self.rows {
            RowDiff::Matched(rows) => rows.added + rows.removed + rows.changed == 0,
            RowDiff::Unmatched { .. } | RowDiff::OnlyInA { .. } | RowDiff::OnlyInB { .. } => false,
        };
        same_rows && self.shape.is_empty()
    }
}
