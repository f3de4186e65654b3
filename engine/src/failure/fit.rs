//! The rows of a file for a plugin whose read models may have changed since.

use std::sync::Arc;

use super::Answer;
use super::key_json;
use super::read::Recorded;
use crate::change::Need;
use crate::frame::{Field, Reader, write_field};
use crate::read_model::ReadModel;

/// What a file knows of a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The row.
    Row(Arc<[u8]>),
    /// There was none.
    Absent,
    /// PostgreSQL did not take the key.
    Refused,
    /// Nothing, for this reason.
    Unknown(String),
}

impl Recorded {
    /// What the file has for a key of `model`, which is the plugin's own idea of that read model.
    pub fn find(&self, need: &Need, model: &ReadModel) -> Found {
        let name = &model.name;
        let known = (self.models.iter()).position(|known| known.name == *name);
        let Some(index) = known else {
            return Found::Unknown(format!(
                "the plugin that failed had no read model \"{name}\""
            ));
        };
        let from = &self.models[index];
        let shape = |model: &ReadModel| -> Vec<_> {
            let columns = model.key_columns();
            columns.map(|c| (c.name.clone(), c.kind)).collect()
        };
        if shape(from) != shape(model) {
            return Found::Unknown(format!("read model \"{name}\" has another key now"));
        }
        match self.rows.get(&(index, need.key.clone())) {
            Some(Answer::Row(row)) => match fitted(row, from, model) {
                Ok(row) => Found::Row(row),
                Err(why) => Found::Unknown(format!("read model \"{name}\": {why}")),
            },
            Some(Answer::Absent) => Found::Absent,
            Some(Answer::Refused) => Found::Refused,
            None => {
                let key = key_json(model, &need.key);
                Found::Unknown(format!("row {key} of read model \"{name}\""))
            }
        }
    }
}

/// A row in the order and with the columns of another shape of its read model.
fn fitted(row: &Arc<[u8]>, from: &ReadModel, to: &ReadModel) -> Result<Arc<[u8]>, String> {
    let mut reader = Reader::new(row);
    let mut fields: Vec<Field<'_>> = Vec::with_capacity(from.columns.len());
    for _ in &from.columns {
        fields.push(reader.field().map_err(|error| error.to_string())?);
    }
    let mut fitted = Vec::with_capacity(row.len());
    for column in &to.columns {
        let same =
            |old: &crate::read_model::Column| old.name == column.name && old.kind == column.kind;
        let field = (from.columns.iter().position(same)).and_then(|place| fields[place]);
        if field.is_none() && !column.nullable {
            return Err(format!(
                "column \"{}\" ({}) is not in the recorded rows",
                column.name, column.kind
            ));
        }
        write_field(&mut fitted, field);
    }
    Ok(fitted.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_model::Column;

    fn model(columns: &[(&str, &str, bool)]) -> ReadModel {
        let column = |&(name, kind, nullable): &(&str, &str, bool)| Column {
            name: name.into(),
            kind: kind.parse().unwrap(),
            nullable,
            comment: None,
        };
        ReadModel {
            name: "m".into(),
            comment: None,
            per_stream: false,
            columns: columns.iter().map(column).collect(),
            key: vec![0],
            indexes: Vec::new(),
            references: Vec::new(),
        }
    }

    fn row(fields: &[Field<'_>]) -> Arc<[u8]> {
        let mut row = Vec::new();
        fields
            .iter()
            .for_each(|field| write_field(&mut row, *field));
        row.into()
    }

    #[test]
    fn rows_are_fitted_by_the_names_and_types_of_columns() {
        let from = model(&[("id", "text", false), ("n", "int2", false)]);
        let recorded = row(&[Some(b"a"), Some(&[0, 1])]);
        type Case<'c> = (
            &'c [(&'c str, &'c str, bool)],
            Result<Vec<Field<'c>>, &'c str>,
        );
        let cases: [Case<'_>; 4] = [
            (
                &[("id", "text", false), ("n", "int2", false)],
                Ok(vec![Some(b"a"), Some(&[0, 1])]),
            ),
            (
                &[
                    ("n", "int2", false),
                    ("new", "text", true),
                    ("id", "text", false),
                ],
                Ok(vec![Some(&[0, 1]), None, Some(b"a")]),
            ),
            (
                &[("id", "text", false), ("n", "int4", false)],
                Err("column \"n\" (int4) is not in the recorded rows"),
            ),
            (&[("id", "text", false)], Ok(vec![Some(b"a")])),
        ];
        for (columns, expected) in cases {
            let found = fitted(&recorded, &from, &model(columns));
            let expected = expected.map(|fields| row(&fields)).map_err(str::to_owned);
            assert_eq!(found, expected, "{columns:?}");
        }
    }
}
