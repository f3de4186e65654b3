//! Where a page continues: the rows that sort after the one that a cursor names.

use std::fmt::Write;

use super::Builder;
use crate::query::parse::{Direction, Nulls};
use crate::query::plan::Sort;

/// One sort column, and its value in the row after which to continue.
struct Place<'s, 'm> {
    sort: &'s Sort<'m>,
    column: String,
    value: Option<String>,
}

impl Builder {
    /// The rows after one with these values: the first column that differs decides. Sorts by outputs have no such rows.
    pub(super) fn after(
        &mut self,
        alias: &str,
        sort: &[Sort<'_>],
        values: &[Option<String>],
    ) -> String {
        let mut places = Vec::new();
        for (sort, value) in sort.iter().zip(values) {
            let Some(by) = sort.value() else { continue };
            let column = self.expression(alias, by);
            let value = value
                .as_ref()
                .map(|text| self.bind(by.field.name, by.kind().oid(), text.clone()));
            places.push(Place {
                sort,
                column,
                value,
            });
        }
        if let Some(row) = row_comparison(&places) {
            return row;
        }
        let mut ways = Vec::new();
        let mut equal = String::new();
        for place in &places {
            if let Some(beyond) = place.beyond() {
                ways.push(format!("({equal}{beyond})"));
            }
            let column = &place.column;
            // Writing to a String cannot fail.
            let _ = match &place.value {
                Some(value) => write!(equal, "{column} = {value} and "),
                None => write!(equal, "{column} is null and "),
            };
        }
        let ways = format!("({})", ways.join(" or "));
        // The same again for the first column alone, in a form that an index on it can serve.
        match places.first() {
            Some(Place {
                sort,
                column,
                value: Some(value),
            }) if !sort.nullable() => {
                let operator = match sort.direction {
                    Direction::Ascending => ">=",
                    Direction::Descending => "<=",
                };
                format!("({column} {operator} {value} and {ways})")
            }
            _ => ways,
        }
    }
}

impl Place<'_, '_> {
    /// The values of this column that sort after this one; `None` when there can be none.
    fn beyond(&self) -> Option<String> {
        let column = &self.column;
        let operator = match self.sort.direction {
            Direction::Ascending => ">",
            Direction::Descending => "<",
        };
        match (&self.value, self.sort.nulls) {
            (None, Nulls::First) => Some(format!("{column} is not null")),
            (None, Nulls::Last) => None,
            (Some(value), Nulls::Last) if self.sort.nullable() => {
                Some(format!("({column} {operator} {value} or {column} is null)"))
            }
            (Some(value), _) => Some(format!("{column} {operator} {value}")),
        }
    }
}

/// `(a, b) > ($1, $2)`, which an index can serve: for columns without NULLs that all sort in one direction.
fn row_comparison(places: &[Place<'_, '_>]) -> Option<String> {
    let first = places.first()?;
    let plain = |place: &Place<'_, '_>| {
        !place.sort.nullable() && place.sort.direction == first.sort.direction
    };
    if !places.iter().all(plain) {
        return None;
    }
    let columns: Vec<&str> = places.iter().map(|place| place.column.as_str()).collect();
    let values: Option<Vec<&str>> = places.iter().map(|place| place.value.as_deref()).collect();
    let operator = match first.sort.direction {
        Direction::Ascending => ">",
        Direction::Descending => "<",
    };
    Some(format!(
        "(({}) {operator} ({}))",
        columns.join(", "),
        values?.join(", ")
    ))
}
