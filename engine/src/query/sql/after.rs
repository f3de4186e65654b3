//! Where a page continues: the rows that sort after the one that a cursor names.

use std::fmt::Write;

use super::Builder;
use super::condition::column;
use crate::query::parse::{Direction, Nulls};
use crate::query::plan::Sort;

impl Builder {
    /// The rows after one with these values: the first column that differs decides.
    pub(super) fn after(&mut self, sort: &[Sort<'_>], values: &[Option<String>]) -> String {
        let bound: Vec<Option<String>> = sort
            .iter()
            .zip(values)
            .map(|(sort, value)| {
                let text = value.clone()?;
                Some(self.bind(sort.field, sort.field.kind.oid(), text))
            })
            .collect();
        if let Some(row) = row_comparison(sort, &bound) {
            return row;
        }
        let mut ways = Vec::new();
        let mut equal = String::new();
        for (sort, value) in sort.iter().zip(&bound) {
            if let Some(beyond) = beyond(sort, value.as_deref()) {
                ways.push(format!("({equal}{beyond})"));
            }
            let column = column(sort.field);
            // Writing to a String cannot fail.
            let _ = match value {
                Some(value) => write!(equal, "{column} = {value} and "),
                None => write!(equal, "{column} is null and "),
            };
        }
        let ways = format!("({})", ways.join(" or "));
        // The same again for the first column alone, in a form that an index on it can serve.
        match (sort.first(), bound.first()) {
            (Some(first), Some(Some(value))) if !first.field.nullable => {
                let operator = match first.direction {
                    Direction::Ascending => ">=",
                    Direction::Descending => "<=",
                };
                format!("({} {operator} {value} and {ways})", column(first.field))
            }
            _ => ways,
        }
    }
}

/// `(a, b) > ($1, $2)`, which an index can serve: for columns without NULLs that all sort in one direction.
fn row_comparison(sort: &[Sort<'_>], values: &[Option<String>]) -> Option<String> {
    let first = sort.first()?;
    let plain = |sort: &Sort<'_>| !sort.field.nullable && sort.direction == first.direction;
    if !sort.iter().all(plain) {
        return None;
    }
    let columns: Vec<String> = sort.iter().map(|sort| column(sort.field)).collect();
    let values: Option<Vec<&str>> = values.iter().map(Option::as_deref).collect();
    let operator = match first.direction {
        Direction::Ascending => ">",
        Direction::Descending => "<",
    };
    Some(format!(
        "(({}) {operator} ({}))",
        columns.join(", "),
        values?.join(", ")
    ))
}

/// The values of one column that sort after this one; `None` when there can be none.
fn beyond(sort: &Sort<'_>, value: Option<&str>) -> Option<String> {
    let column = column(sort.field);
    let operator = match sort.direction {
        Direction::Ascending => ">",
        Direction::Descending => "<",
    };
    match (value, sort.nulls) {
        (None, Nulls::First) => Some(format!("{column} is not null")),
        (None, Nulls::Last) => None,
        (Some(value), Nulls::Last) if sort.field.nullable => {
            Some(format!("({column} {operator} {value} or {column} is null)"))
        }
        (Some(value), _) => Some(format!("{column} {operator} {value}")),
    }
}
