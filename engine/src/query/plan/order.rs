//! The order of rows: what was asked for, completed so that no two rows are equal in it.

use std::fmt;

use super::embed::{self, Embeds, Related};
use super::expression::{Expression, Field, JSON, expression};
use super::output::{Output, Source};
use super::{find, twice};
use crate::query::parse::{Direction, Nulls, Request, Term};
use crate::query::{Limits, Refusal};
use crate::read_model::ReadModel;

/// What to do about a column that is named twice.
const ONCE: &str =
    "name it once: rows that are equal in it stay so when they are sorted by it again";

/// One column of a complete order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sort<'m> {
    /// What to sort by.
    pub by: By<'m>,
    /// The direction.
    pub direction: Direction,
    /// Where NULLs go; without meaning for a value that is never NULL.
    pub nulls: Nulls,
}

/// What to sort by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By<'m> {
    /// A value of the row.
    Value(Expression<'m>),
    /// The output with this index: a group has no other values.
    Output(usize),
    /// A value of the only row that an embed has for a row.
    Related(Box<Related<'m>>, Expression<'m>),
}

impl<'m> Sort<'m> {
    /// The value of the row, unless it is a group's.
    pub fn value(&self) -> Option<&Expression<'m>> {
        match &self.by {
            By::Value(value) => Some(value),
            By::Output(_) | By::Related(..) => None,
        }
    }

    /// Whether a cursor can say where a row stands in it. A comparison with a cast could fail, and so tell of hidden rows.
    pub(super) fn has_place(&self, hides_rows: bool) -> bool {
        self.value()
            .is_some_and(|value| !hides_rows || value.column().is_some())
    }

    /// Whether it may be NULL.
    pub fn nullable(&self) -> bool {
        self.value().is_none_or(Expression::nullable)
    }

    fn new(by: By<'m>, term: &Term) -> Self {
        Self {
            by,
            direction: term.direction,
            nulls: term.nulls.unwrap_or(match term.direction {
                Direction::Ascending => Nulls::Last,
                Direction::Descending => Nulls::First,
            }),
        }
    }
}

impl fmt::Display for Sort<'_> {
    /// The term as `order` would say it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Ascending => "asc",
            Direction::Descending => "desc",
        };
        match &self.by {
            By::Value(value) => write!(f, "{value}.{direction}")?,
            By::Output(index) => write!(f, "{index}.{direction}")?,
            By::Related(related, value) => {
                write!(f, "{}({value}).{direction}", related.link.model.name)?;
            }
        }
        match (self.nullable(), self.nulls) {
            (false, _) => Ok(()),
            (true, Nulls::First) => f.write_str(".nullsfirst"),
            (true, Nulls::Last) => f.write_str(".nullslast"),
        }
    }
}

pub(super) fn order<'m>(
    model: &'m ReadModel,
    request: &Request,
    outputs: &[Output<'m>],
    embeds: &Embeds<'m>,
    limits: &Limits,
) -> Result<Vec<Sort<'m>>, Refusal> {
    match outputs.iter().any(Output::is_aggregate) {
        true => of_groups(model, request, outputs, limits),
        false => of_rows(model, request, outputs, embeds, limits),
    }
}

fn of_rows<'m>(
    model: &'m ReadModel,
    request: &Request,
    outputs: &[Output<'m>],
    embeds: &Embeds<'m>,
    limits: &Limits,
) -> Result<Vec<Sort<'m>>, Refusal> {
    let mut sort: Vec<Sort<'m>> = Vec::new();
    for term in &request.order {
        let (related, value) = match &term.relation {
            None => (None, by_value(model, term, outputs, limits)?),
            Some(relation) => {
                let (related, value) = embed::sorted(model, embeds, relation, term, limits)?;
                (Some(Box::new(related)), value)
            }
        };
        if value.kind() == JSON {
            return Err(Refusal::new(
                "invalid_order",
                format!("{value} has type json, which has no order"),
                "declare the column as jsonb, or sort by a text in it: data->>key",
            )
            .at(&term.path.name.place));
        }
        let shown = value.to_string();
        let by = match related {
            None => By::Value(value),
            Some(related) => By::Related(related, value),
        };
        if sort.iter().any(|sort| sort.by == by) {
            return Err(twice("invalid_order", &shown, &term.path.name.place, ONCE));
        }
        sort.push(Sort::new(by, term));
    }
    // In the last direction, so that an index on (a, key) serves order=a.desc when it is read backwards.
    let direction = sort.last().map(|sort| sort.direction).unwrap_or_default();
    for column in model.key_columns() {
        let key = Field {
            name: &column.name,
            kind: column.kind,
            nullable: false,
        };
        let is_key = |sort: &Sort<'_>| {
            let column = sort.value().and_then(Expression::column);
            column.is_some_and(|column| column.name == key.name)
        };
        if !sort.iter().any(is_key) {
            sort.push(Sort {
                by: By::Value(Expression::of(key)),
                direction,
                nulls: Nulls::Last,
            });
        }
    }
    Ok(sort)
}

/// A column, or else what is shown under that name.
fn by_value<'m>(
    model: &'m ReadModel,
    term: &Term,
    outputs: &[Output<'m>],
    limits: &Limits,
) -> Result<Expression<'m>, Refusal> {
    let name = &term.path.name.text;
    if find(model, name).is_none() && term.path.steps.is_empty() {
        for output in outputs.iter().filter(|output| output.name == *name) {
            if let Source::Value(value) = &output.source {
                return Ok(value.clone());
            }
        }
    }
    expression(model, &term.path, limits)
}

fn of_groups<'m>(
    model: &'m ReadModel,
    request: &Request,
    outputs: &[Output<'m>],
    limits: &Limits,
) -> Result<Vec<Sort<'m>>, Refusal> {
    let mut sort: Vec<Sort<'m>> = Vec::new();
    for term in &request.order {
        let name = &term.path.name.text;
        let named = |output: &Output<'_>| term.path.steps.is_empty() && output.name == *name;
        if let Some(relation) = &term.relation {
            let message = "groups of rows cannot be sorted by embedded rows";
            let hint = "sort by something that is selected, or by the name it is given there";
            return Err(Refusal::new("not_supported", message, hint).at(&relation.place));
        }
        let found =
            match by_value(model, term, &[], limits) {
                Ok(value) => outputs
                    .iter()
                    .position(|output| output.source == Source::Value(value.clone()))
                    .or_else(|| outputs.iter().position(named))
                    .ok_or_else(|| {
                        Refusal::new(
                        "invalid_order",
                        format!(
                            "groups of rows cannot be sorted by {value}, in which their rows differ"
                        ), "sort by something that is selected, or by the name it is given there")
                    .at(&term.path.name.place)
                    })?,
                Err(refusal) => outputs.iter().position(named).ok_or(refusal)?,
            };
        if sort.iter().any(|sort| sort.by == By::Output(found)) {
            return Err(twice("invalid_order", name, &term.path.name.place, ONCE));
        }
        sort.push(Sort::new(By::Output(found), term));
    }
    let values = outputs.iter().enumerate().filter(|o| !o.1.is_aggregate());
    for (index, _) in values {
        if !sort.iter().any(|sort| sort.by == By::Output(index)) {
            sort.push(Sort {
                by: By::Output(index),
                direction: Direction::Ascending,
                nulls: Nulls::Last,
            });
        }
    }
    Ok(sort)
}
