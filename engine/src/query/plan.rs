//! The check: what is asked for + the read model -> a query in which every name is a column and every value fits its
//! type.

mod cast;
mod condition;
mod expression;
mod order;
mod output;

pub use condition::Condition;
pub use expression::{Expression, Field};
pub use order::{By, Sort};
pub use output::{Aggregate, Output, Source};

use super::parse::{self, Comparator, Literal, Request, Target, What};
use super::scan::{self, Parameter, Plus};
use super::{Limits, Place, Refusal, cursor, nearest};
use crate::read_model::ReadModel;
use expression::{fields, find};

/// A checked query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<'m> {
    /// What is read.
    pub model: &'m ReadModel,
    /// Conditions that must all hold.
    pub conditions: Vec<Condition<'m>>,
    /// The members of an answer's rows.
    pub select: Vec<Output<'m>>,
    /// A total order: the key completes what was asked for. Empty for a single row.
    pub sort: Vec<Sort<'m>>,
    /// The sort columns' values of the row after which to continue.
    pub after: Option<Vec<Option<String>>>,
    /// At most so many rows.
    pub limit: u64,
    /// So many rows are skipped.
    pub offset: i64,
}

impl Plan<'_> {
    /// The names of an answer's columns.
    pub fn columns(&self) -> Vec<&str> {
        self.select.iter().map(|o| o.name.as_str()).collect()
    }

    /// The cursor that continues after the row with these values of the sort columns.
    pub fn cursor(&self, values: Vec<Option<String>>) -> String {
        cursor::encode(&self.model.name, &self.sort, values)
    }

    /// Whether an answer's rows are groups of the read model's rows.
    pub fn is_grouped(&self) -> bool {
        self.select.iter().any(Output::is_aggregate)
    }
}

/// Checks that every parameter is known: one of the grammar's, or a column. Comes before parsing, so that a misspelt
/// parameter is not taken for a malformed filter.
pub fn check_names(parameters: &[Parameter<'_>], model: &ReadModel) -> Result<(), Refusal> {
    for parameter in parameters {
        let name = parameter.name.as_str();
        if parse::is_reserved(name) {
            continue;
        }
        let target = Target::read(name)?;
        if let Some(relation) = target.relations.first() {
            return Err(output::unrelated(model, relation));
        }
        let What::Path(path) = target.what else {
            continue;
        };
        let name = path.name.text.as_str();
        if find(model, name).is_some() {
            continue;
        }
        let place = Place {
            parameter: name.chars().take(80).collect(),
            at: 1,
        };
        let known = fields(model).map(|field| field.name);
        let mut refusal = expression::unknown(model, name, &place);
        if let Some(near) = nearest(name, known.chain(parse::PARAMETERS)) {
            refusal = refusal.hint(format!("did you mean \"{near}\"?"));
        }
        return Err(refusal);
    }
    Ok(())
}

/// Checks a query of many rows.
pub fn rows<'m>(
    model: &'m ReadModel,
    request: &Request,
    limits: &Limits,
) -> Result<Plan<'m>, Refusal> {
    related(model, request)?;
    let select = output::outputs(model, request.select.as_deref(), limits)?;
    let sort = order::order(model, request, &select, limits)?;
    let is_grouped = select.iter().any(Output::is_aggregate);
    let after = match &request.cursor {
        None => None,
        Some(_) if is_grouped => {
            return Err(Refusal::new(
                "invalid_cursor",
                "a cursor continues after a row, and functions over rows make groups, which change with every row",
            )
            .hint("ask for groups with limit and offset"));
        }
        Some(_) if request.offset > 0 => {
            return Err(Refusal::new(
                "invalid_offset",
                "a cursor says where to continue; an offset cannot be added",
            )
            .hint("leave offset out"));
        }
        Some(text) => Some(cursor::decode(text, &model.name, &sort)?),
    };
    Ok(Plan {
        model,
        conditions: condition::conditions(model, &request.filters, limits)?,
        select,
        sort,
        after,
        limit: request.limit.unwrap_or(limits.rows).min(limits.rows),
        offset: request.offset,
    })
}

/// Checks a query of the one row with this key, percent-encoded as it stands in the path.
pub fn row<'m>(
    model: &'m ReadModel,
    key: &str,
    request: &Request,
    limits: &Limits,
) -> Result<Plan<'m>, Refusal> {
    related(model, request)?;
    let others = !request.filters.is_empty()
        || !request.order.is_empty()
        || request.limit.is_some()
        || request.offset > 0
        || request.cursor.is_some();
    if others {
        return Err(Refusal::new(
            "unsupported_parameter",
            "a single row can be asked for select, as_of, min_position and wait only",
        )
        .hint(format!(
            "filters, order and pages are for /read/{}",
            model.name
        )));
    }
    let select = output::outputs(model, request.select.as_deref(), limits)?;
    if select.iter().any(Output::is_aggregate) {
        return Err(Refusal::new(
            "invalid_select",
            "functions over rows are not for a single row",
        )
        .hint(format!("ask /read/{} with a filter", model.name)));
    }
    Ok(Plan {
        model,
        conditions: key_conditions(model, key, limits)?,
        select,
        sort: Vec::new(),
        after: None,
        limit: 1,
        offset: 0,
    })
}

fn key_conditions<'m>(
    model: &'m ReadModel,
    key: &str,
    limits: &Limits,
) -> Result<Vec<Condition<'m>>, Refusal> {
    let parts: Vec<&str> = key.split(',').collect();
    let names: Vec<&str> = model.key_columns().map(|c| c.name.as_str()).collect();
    if parts.len() != names.len() {
        return Err(Refusal::new(
            "invalid_key",
            format!(
                "the key of read model \"{}\" has {} part(s), {}; {} were given",
                model.name,
                names.len(),
                names.join(", "),
                parts.len()
            ),
        )
        .hint("separate the parts by commas; write a comma inside a part as %2C, a slash as %2F"));
    }
    let mut conditions = Vec::new();
    for (part, name) in parts.into_iter().zip(names) {
        // The names are columns, since the descriptor was checked.
        let Some(field) = find(model, name) else {
            continue;
        };
        let literal = Literal {
            text: scan::decode(part, Plus::IsPlus)?,
            place: Place {
                parameter: name.to_owned(),
                at: 1,
            },
        };
        let key = Expression::of(field);
        let text = condition::fit(&key, &literal, limits)?;
        conditions.push(Condition::Compare(key, Comparator::Eq, text));
    }
    Ok(conditions)
}

/// Refuses what is asked of relations that are not embedded.
fn related(model: &ReadModel, request: &Request) -> Result<(), Refusal> {
    let first = request.nested.first();
    match first.and_then(|nested| nested.relations.first()) {
        Some(relation) => Err(output::unrelated(model, relation)),
        None => Ok(()),
    }
}

fn twice(code: &'static str, name: &str, place: &Place) -> Refusal {
    let shown: String = name.chars().take(80).collect();
    Refusal::new(code, format!("\"{shown}\" is named twice")).at(place)
}
