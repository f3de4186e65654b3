//! The check: what is asked for + the read model -> a query in which every name is a column and every value fits its
//! type.

mod cast;
mod condition;
mod embed;
mod expression;
mod order;
mod output;

pub use condition::{Condition, operators};
pub use embed::{Embedded, Link, Related};
pub use expression::{Expression, Field};
pub use order::{By, Sort};
pub use output::{Aggregate, Output, Source};

use std::cell::LazyCell;
use std::sync::Arc;

use super::catalog::{ByName, Readable};
use super::parse::{self, Comparator, Literal, Request, Target, What};
use super::rules::{Rules, Sight, Viewer};
use super::scan::{self, Parameter, Plus};
use super::{Limits, Place, Refusal, cursor};
use crate::read_model::{Column, ReadModel};
pub(super) use expression::fields;
use expression::find;

/// What can be reached from a read model, by whom.
#[derive(Debug, Clone, Copy)]
pub struct Around<'m> {
    /// The read models that `from` can be related to: those of the same picture of what is deployed.
    pub models: &'m ByName,
    /// Where the query begins.
    pub from: &'m Readable,
    /// Who may read what.
    pub rules: &'m Rules,
    /// Who reads.
    pub viewer: &'m Viewer,
}

impl<'m> Around<'m> {
    pub(super) fn may_read(&self, model: &str) -> bool {
        self.rules.may_read(model, self.viewer)
    }

    /// What the reader sees of a read model.
    fn sight(&self, model: &ReadModel) -> Sight<'m> {
        self.rules.sight(&model.name, self.viewer)
    }

    /// Whether the other one's positions mean the same.
    fn shares_source(&self, other: &Readable) -> bool {
        let head = &self.from.upstream.head;
        head.same_channel(&other.upstream.head)
    }
}

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
    /// Rows of related read models, shown or not.
    pub embeds: Vec<Arc<Embedded<'m>>>,
    /// The planner's estimate of the cost beyond which it is not run.
    pub max_cost: Option<u64>,
}

impl<'m> Plan<'m> {
    /// The names of an answer's members.
    pub fn columns(&self) -> Vec<&str> {
        self.select
            .iter()
            .map(|output| output.name.as_str())
            .collect()
    }

    /// The cursor that continues after the row with these values of the sort columns, if there can be one.
    pub fn cursor(&self, values: Vec<Option<String>>) -> Option<String> {
        let has_place = self.has_place();
        has_place.then(|| cursor::encode(&self.model.name, &self.sort, values))
    }

    /// Whether its rows have values of their own that say where a page ends.
    pub fn has_place(&self) -> bool {
        let hides_rows = hides_rows(&self.conditions);
        !self.sort.is_empty() && self.sort.iter().all(|sort| sort.has_place(hides_rows))
    }

    /// Whether its conditions give every column of the key, so that there is one row at most, and values change nothing about
    /// how to find it.
    pub fn finds_one(&self) -> bool {
        let is_given = |key: &Column| {
            self.conditions.iter().any(|condition| match condition {
                Condition::Compare(left, Comparator::Eq, _) => {
                    left.column().is_some_and(|field| field.name == key.name)
                }
                _ => false,
            })
        };
        let is_of_rows = self.limit > 0 && !self.is_grouped() && !self.embeds_rows();
        is_of_rows && self.model.key_columns().all(is_given)
    }

    /// Whether rows of other read models are in its own.
    pub fn embeds_rows(&self) -> bool {
        !self.embeds.is_empty()
    }

    /// What leads to each embedded read model and to those between, within other embeds too.
    pub fn links(&self) -> Vec<&Link<'m>> {
        let mut links = Vec::new();
        for embed in &self.embeds {
            links.extend(embed.link.through.as_ref().map(|between| &between.link));
            links.push(&embed.link);
            links.extend(embed.plan.links());
        }
        links
    }

    /// Whether there may be rows, its own or embedded ones, that the reader does not see.
    pub fn hides_rows(&self) -> bool {
        let hides = |embed: &Arc<Embedded<'_>>| embed.link.hides_rows() || embed.plan.hides_rows();
        let embedded = || self.embeds.iter().any(hides);
        hides_rows(&self.conditions) || embedded()
    }

    /// Whether an answer's rows are groups of the read model's rows.
    pub fn is_grouped(&self) -> bool {
        self.select.iter().any(Output::is_aggregate)
    }
}

/// Checks that every parameter is known: one of the grammar's, or a column. Comes before parsing, so that a misspelt
/// parameter is not taken for a malformed filter.
pub fn check_names(
    parameters: &[Parameter<'_>],
    model: &ReadModel,
    limits: &Limits,
) -> Result<(), Refusal> {
    // Looked at for names that are no columns only.
    let embedded = LazyCell::new(|| parse::embedded(parameters, limits));
    for parameter in parameters {
        let name = parameter.name.as_str();
        if parse::is_reserved(name) {
            continue;
        }
        let target = Target::read(name)?;
        // What is asked of an embed is checked with it.
        if !target.relations.is_empty() {
            continue;
        }
        let What::Path(path) = target.what else {
            continue;
        };
        let name = path.name.text.as_str();
        if find(model, name).is_some() || embedded.iter().any(|embed| embed == name) {
            continue;
        }
        let place = Place::of(&parameter.name, 1);
        return Err(expression::unknown(model, name, &place, &parse::PARAMETERS));
    }
    Ok(())
}

/// Checks a query of many rows: of those that the reader may see.
pub fn rows<'m>(
    model: &'m ReadModel,
    around: &Around<'m>,
    request: &Request,
    limits: &Limits,
) -> Result<Plan<'m>, Refusal> {
    let embeds = embed::embeds(model, around, request, limits)?;
    let select = output::outputs(model, request.select.as_deref(), embeds.list(), limits)?;
    let sort = order::order(model, request, &select, &embeds, limits)?;
    let is_grouped = select.iter().any(Output::is_aggregate);
    let mut conditions = around.sight(model).conditions(model)?;
    let wanted = condition::conditions(model, &request.filters, &embeds, limits)?;
    conditions.extend(wanted);
    conditions.extend(embeds.required()?);
    let after = match &request.cursor {
        None => None,
        Some(_) if is_grouped => {
            return Err(Refusal::new(
                "invalid_cursor",
                "a cursor continues after a row, and functions over rows make groups, which change with every row",
                "ask for groups with limit and offset",
            )
            .at(&cursor::place()));
        }
        Some(_) if request.offset > 0 => {
            return Err(Refusal::new(
                "invalid_offset",
                "a cursor says where to continue; an offset cannot be added",
                "leave offset out",
            )
            .at(&Place::of("offset", 1)));
        }
        Some(_) if !(sort.iter()).all(|sort| sort.has_place(hides_rows(&conditions))) => {
            return Err(Refusal::new(
                "invalid_cursor",
                "a cursor continues after a row's own columns, and these rows are sorted by other values",
                "ask for pages with limit and offset",
            )
            .at(&cursor::place()));
        }
        Some(text) => Some(cursor::decode(text, &model.name, &sort)?),
    };
    let limit = request.limit.unwrap_or(limits.rows).min(limits.rows);
    embeds.few(limits)?;
    Ok(Plan {
        model,
        conditions,
        select,
        sort,
        after,
        limit,
        offset: request.offset,
        embeds: embeds.into_list(),
        max_cost: limits.cost,
    })
}

/// Whether there may be rows that the reader does not see.
fn hides_rows(conditions: &[Condition<'_>]) -> bool {
    matches!(conditions.first(), Some(Condition::Seen(_)))
}

/// Checks a query of the one row with this key, percent-encoded as it stands in the path.
pub fn row<'m>(
    model: &'m ReadModel,
    around: &Around<'m>,
    key: &str,
    request: &Request,
    limits: &Limits,
) -> Result<Plan<'m>, Refusal> {
    if let Some(place) = of_many(request) {
        return Err(Refusal::new(
            "unsupported_parameter",
            "a single row can be asked for select, as_of, min_position, max_lag and wait only",
            format!("filters, order and pages are for /read/{}", model.name),
        )
        .at(&place));
    }
    let embeds = embed::embeds(model, around, request, limits)?;
    let select = output::outputs(model, request.select.as_deref(), embeds.list(), limits)?;
    if select.iter().any(Output::is_aggregate) {
        return Err(Refusal::new(
            "invalid_select",
            "functions over rows are not for a single row",
            format!("ask /read/{} with a filter", model.name),
        )
        .at(&Place::of("select", 1)));
    }
    let mut conditions = around.sight(model).conditions(model)?;
    conditions.extend(key_conditions(model, key, limits)?);
    conditions.extend(embeds.required()?);
    embeds.few(limits)?;
    Ok(Plan {
        model,
        conditions,
        select,
        sort: Vec::new(),
        after: None,
        limit: 1,
        offset: 0,
        embeds: embeds.into_list(),
        // Found by the key.
        max_cost: None,
    })
}

/// Where something is asked that is for many rows.
fn of_many(request: &Request) -> Option<Place> {
    let filter = request.filters.iter().find_map(parse::Filter::place);
    let order = || request.order.first().map(|term| &term.path.name.place);
    let pages = [
        ("limit", request.limit.is_some()),
        ("offset", request.offset > 0),
        ("cursor", request.cursor.is_some()),
    ];
    let page = || {
        let asked = pages.into_iter().find(|(_, is_asked)| *is_asked);
        asked.map(|(name, _)| Place::of(name, 1))
    };
    filter.or_else(order).cloned().or_else(page)
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
            "separate the parts by commas; write a comma inside a part as %2C, a slash as %2F",
        )
        .at(&Place::Path));
    }
    let mut conditions = Vec::new();
    for (part, name) in parts.into_iter().zip(names) {
        // The names are columns, since the descriptor was checked.
        let Some(field) = find(model, name) else {
            continue;
        };
        let literal = Literal {
            text: scan::decode(part, Plus::IsPlus)?,
            place: Place::Path,
        };
        let key = Expression::of(field);
        let text = condition::fit(&key, &literal, limits)?;
        conditions.push(Condition::Compare(key, Comparator::Eq, text));
    }
    Ok(conditions)
}

fn twice(code: &'static str, name: &str, place: &Place, hint: &'static str) -> Refusal {
    let shown: String = name.chars().take(80).collect();
    Refusal::new(code, format!("\"{shown}\" is named twice"), hint).at(place)
}
