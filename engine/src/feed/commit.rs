//! A commit as it is handed out: parsed once, shared by everybody who follows the read model.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What one commit changed, in order of nothing in particular: each row once.
#[derive(Debug)]
pub(super) struct Parsed {
    /// The revision that it made.
    pub revision: i64,
    /// The checkpoint after it.
    pub position: i64,
    /// As it was told.
    pub text: String,
    /// The same, row by row.
    pub changes: Vec<Change>,
}

/// A changed row.
#[derive(Debug)]
pub(super) struct Change {
    /// The key's values, as a JSON array.
    pub key: Box<RawValue>,
    /// The row before.
    pub before: Option<Row>,
    /// The row after.
    pub after: Option<Row>,
}

/// A row's values as PostgreSQL writes them in JSON.
#[derive(Debug)]
pub(super) struct Row(Vec<(Box<str>, Box<RawValue>)>);

impl Row {
    /// The value in this column; one that the row does not have yet is NULL.
    pub(super) fn value(&self, column: &str) -> &str {
        let found = self.0.iter().find(|(name, _)| **name == *column);
        found.map_or("null", |(_, value)| value.get())
    }
}

impl Parsed {
    /// Reads what a commit told.
    pub(super) fn read(
        revision: i64,
        position: i64,
        text: String,
    ) -> Result<Self, serde_json::Error> {
        let told: Vec<Told<'_>> = serde_json::from_str(&text)?;
        let changes = told.into_iter().map(|told| Change {
            key: told.k.to_owned(),
            before: told.b,
            after: told.a,
        });
        Ok(Self {
            revision,
            position,
            changes: changes.collect(),
            text,
        })
    }
}

#[derive(Deserialize)]
struct Told<'t> {
    #[serde(borrow)]
    k: &'t RawValue,
    b: Option<Row>,
    a: Option<Row>,
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Columns)
    }
}

struct Columns;

impl<'de> Visitor<'de> for Columns {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        let mut columns = Vec::new();
        while let Some((name, value)) = map.next_entry::<Cow<'de, str>, &RawValue>()? {
            columns.push((name.into(), value.to_owned()));
        }
        Ok(Row(columns))
    }
}
