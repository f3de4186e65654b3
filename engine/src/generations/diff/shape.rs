//! How two tables of one read model differ, apart from their rows.

use super::report::{Columns, ShapeDifference, Side};
use crate::read_model::ReadModel;

/// Columns first, in A's order and then B's; then the key, then indexes. The order of columns does not count: a column
/// that was added in place stands last, wherever the descriptor has it.
pub(super) fn differences(a: &ReadModel, b: &ReadModel, looked: Columns) -> Vec<ShapeDifference> {
    let mut found = Vec::new();
    for column in &a.columns {
        let name = || column.name.clone();
        let Some(other) = b.column(&column.name) else {
            found.push(only_in(Side::A, column));
            continue;
        };
        if column.kind != other.kind {
            found.push(ShapeDifference::ColumnType {
                column: name(),
                a: column.kind.to_string(),
                b: other.kind.to_string(),
            });
        }
        if column.nullable != other.nullable {
            found.push(ShapeDifference::ColumnNullable {
                column: name(),
                nullable_in: if column.nullable { Side::A } else { Side::B },
            });
        }
    }
    let added = b.columns.iter().filter(|c| a.column(&c.name).is_none());
    found.extend(added.map(|column| only_in(Side::B, column)));
    let (key_a, key_b) = (names(a, &a.key), names(b, &b.key));
    if key_a != key_b {
        found.push(ShapeDifference::Key { a: key_a, b: key_b });
    }
    found.extend(index_differences(a, b));
    if looked == Columns::All && a.per_stream != b.per_stream {
        found.push(ShapeDifference::PerStreamOnlyIn {
            side: if a.per_stream { Side::A } else { Side::B },
        });
    }
    found
}

fn only_in(side: Side, column: &crate::read_model::Column) -> ShapeDifference {
    ShapeDifference::ColumnOnlyIn {
        side,
        column: column.name.clone(),
        r#type: column.kind.to_string(),
        nullable: column.nullable,
    }
}

/// Indexes are told apart by their columns; the order in which they were declared does not count.
fn index_differences(a: &ReadModel, b: &ReadModel) -> Vec<ShapeDifference> {
    let all = |model: &ReadModel| -> Vec<Vec<String>> {
        let indexes = model.indexes.iter();
        indexes.map(|index| names(model, index)).collect()
    };
    let (in_a, mut only_b) = (all(a), all(b));
    let mut found = Vec::new();
    for columns in in_a {
        match only_b.iter().position(|other| *other == columns) {
            Some(place) => {
                only_b.remove(place);
            }
            None => found.push(ShapeDifference::IndexOnlyIn {
                side: Side::A,
                columns,
            }),
        }
    }
    let only_b = only_b.into_iter();
    found.extend(only_b.map(|columns| ShapeDifference::IndexOnlyIn {
        side: Side::B,
        columns,
    }));
    found
}

fn names(model: &ReadModel, columns: &[usize]) -> Vec<String> {
    let columns = columns.iter().map(|&place| &model.columns[place]);
    columns.map(|column| column.name.clone()).collect()
}
