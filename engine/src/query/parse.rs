//! The grammar: parameters -> what is asked for. Nothing here knows a read model; names and values are texts with their
//! places.
//!
//! ```text
//! parameter  = [relation "." ...] path "=" ["not."] test
//!            | [relation "." ...] ["not."] ("and" | "or") "=" group
//!            | [relation "." ...] ("order" | "limit" | "offset") "=" ...
//! path       = name *(("->" | "->>") (key | index))
//! ```
//!
//! `filter`, `select` and `order` have the rest. Blanks may stand around what separates. A name or value that contains
//! what separates is written in double quotes; outside of parentheses a value reaches to the end of its parameter.

mod filter;
mod name;
mod order;
mod select;

use std::time::Duration;

pub use filter::{Comparator, Filter, Keyword, Literal, Quantifier, Search, Test};
pub use name::{Key, Name, Path, Step};
pub use order::{Direction, Nulls, Term};
pub use select::{Aggregate, Embed, Function, Item, Join, Selected, Shown, Value};

use super::scan::{self, Form, Parameter, Scanner};
use super::{Limits, Place, Refusal};
use filter::Filters;

/// What a query string asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Conditions that must all hold.
    pub filters: Vec<Filter>,
    /// What each row shows; `None`: its own columns.
    pub select: Option<Vec<Selected>>,
    /// The order that was asked for.
    pub order: Vec<Term>,
    /// At most so many rows.
    pub limit: Option<u64>,
    /// So many rows are skipped.
    pub offset: i64,
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// The position that the rows must have reached.
    pub min_position: Option<i64>,
    /// How old the oldest event may be that the rows do not have yet.
    pub max_lag: Option<Duration>,
    /// How long to wait for either.
    pub wait: Option<Duration>,
    /// What is asked of embedded relations.
    pub nested: Vec<Nested>,
}

/// A parameter that is meant for an embedded relation: `lines.order=price`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nested {
    /// The relations' names, from the outermost on.
    pub relations: Vec<Name>,
    /// What is asked.
    pub part: Part,
}

/// What a parameter asks of an embedded relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A condition.
    Filter(Filter),
    /// An order.
    Order(Vec<Term>),
    /// At most so many rows.
    Limit(u64),
    /// So many rows are skipped.
    Offset(i64),
}

/// Parameters that are no column's filter.
pub(super) const PARAMETERS: [&str; 11] = [
    "select",
    "order",
    "limit",
    "offset",
    "cursor",
    "min_position",
    "max_lag",
    "wait",
    "as_of",
    "and",
    "or",
];

/// Parameters that combine conditions.
const LOGIC: [&str; 4] = ["and", "or", "not.and", "not.or"];

/// Parameters that an embedded relation has too, besides conditions.
const OF_RELATIONS: [&str; 3] = ["order", "limit", "offset"];

/// Names that are reserved and have no meaning yet (the descriptor refuses columns of these names).
const WITHOUT_MEANING: [&str; 5] = ["live", "last_event_id", "on_conflict", "columns", "not"];

/// What to do instead of giving one of [`WITHOUT_MEANING`].
fn without_meaning(name: &str) -> &'static str {
    match name {
        "live" | "last_event_id" => "leave it out: changes cannot be followed here",
        "not" => {
            "write not before an operator, id=not.eq.1, or before a group, not.or=(id.eq.1,id.eq.2)"
        }
        "columns" => "choose columns with select: select=id,name",
        _ => "leave it out: it is for writing, and read models change by events alone",
    }
}

/// Whether the parameter `name` is something else than a filter on the column `name`.
pub(super) fn is_reserved(name: &str) -> bool {
    [&PARAMETERS[..], &LOGIC, &WITHOUT_MEANING]
        .iter()
        .any(|names| names.contains(&name))
}

/// Reads the parameters of a query.
pub fn parse(parameters: &[Parameter<'_>], limits: &Limits) -> Result<Request, Refusal> {
    let mut request = Request::default();
    let mut budget = limits.filters;
    for (index, parameter) in parameters.iter().enumerate() {
        let Parameter { name, value, .. } = parameter;
        if WITHOUT_MEANING.contains(&name.as_str()) {
            return Err(Refusal::new(
                "unsupported_parameter",
                format!("the parameter \"{name}\" is reserved; this engine does not support it"),
                without_meaning(name),
            )
            .at(&Place::of(name, 1)));
        }
        let target = Target::read(name)?;
        if !target.is_filter() && parameters[..index].iter().any(|p| p.name == *name) {
            let shown: String = name.chars().take(80).collect();
            return Err(Refusal::new(
                "duplicate_parameter",
                format!("the parameter \"{shown}\" is given twice"),
                "only filters may be given several times; all of them must hold",
            )
            .at(&Place::of(name, 1)));
        }
        let part = match target.what {
            What::Own("select") => {
                let mut scanner = scanner(parameter, select::FORM);
                request.select = Some(select::read(&mut scanner, limits)?);
                continue;
            }
            What::Own("cursor") => {
                request.cursor = Some(value.clone());
                continue;
            }
            What::Own("min_position") => {
                request.min_position = Some(number(parameter, "invalid_min_position")?);
                continue;
            }
            What::Own("max_lag") => {
                request.max_lag = Some(duration(parameter, "invalid_max_lag")?);
                continue;
            }
            What::Own("wait") => {
                request.wait = Some(wait(parameter, limits)?);
                continue;
            }
            // `as_of` says which generation is asked, and so was read before.
            What::Own(_) => continue,
            What::Of("order") => {
                let mut scanner = scanner(parameter, order::FORM);
                Part::Order(order::read(&mut scanner, limits)?)
            }
            What::Of("limit") => Part::Limit(number(parameter, "invalid_limit")?),
            What::Of(_) => Part::Offset(number(parameter, "invalid_offset")?),
            What::Logic(word) => {
                Part::Filter(Filters::new(parameter, limits, &mut budget).group_of(word)?)
            }
            What::Path(path) => {
                Part::Filter(Filters::new(parameter, limits, &mut budget).test_of(path)?)
            }
        };
        request.add(target.relations, part);
    }
    Ok(request)
}

/// What the embeds of a query's `select` are called, by the names they were given and by their relations. Nothing is
/// refused here: that comes when the query is read.
pub fn embedded(parameters: &[Parameter<'_>], limits: &Limits) -> Vec<String> {
    let select = parameters
        .iter()
        .find(|parameter| parameter.name == "select");
    let selected = select.and_then(|parameter| {
        let mut scanner = scanner(parameter, select::FORM);
        select::read(&mut scanner, limits).ok()
    });
    let mut names = Vec::new();
    for element in selected.unwrap_or_default() {
        if let Selected::Embed(embed) = element {
            names.extend(embed.alias.map(|alias| alias.text));
            names.push(embed.relation.text);
        }
    }
    names
}

impl Request {
    /// Adds what a parameter asks of the query itself, or of the embedded relation to which `relations` lead.
    pub(super) fn add(&mut self, relations: Vec<Name>, part: Part) {
        if !relations.is_empty() {
            self.nested.push(Nested { relations, part });
            return;
        }
        match part {
            Part::Filter(filter) => self.filters.push(filter),
            Part::Order(terms) => self.order = terms,
            Part::Limit(limit) => self.limit = Some(limit),
            Part::Offset(offset) => self.offset = offset,
        }
    }
}

/// What a parameter's name says.
#[derive(Debug)]
pub(super) struct Target {
    /// The embedded relations that lead to what is meant.
    pub(super) relations: Vec<Name>,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// One of the query's own parameters.
    Own(&'static str),
    /// One that embedded relations have too.
    Of(&'static str),
    /// Conditions, combined by one of [`LOGIC`].
    Logic(&'static str),
    /// A column or JSON path, with a test.
    Path(Path),
}

impl Target {
    pub(super) fn read(name: &str) -> Result<Self, Refusal> {
        let found = |words: &[&'static str]| words.iter().copied().find(|word| *word == name);
        let what = match (found(&LOGIC), found(&OF_RELATIONS), found(&PARAMETERS)) {
            (Some(word), ..) => What::Logic(word),
            (_, Some(word), _) => What::Of(word),
            (.., Some(word)) => What::Own(word),
            _ => return Self::read_path(name),
        };
        Ok(Self {
            relations: Vec::new(),
            what,
        })
    }

    fn read_path(name: &str) -> Result<Self, Refusal> {
        let shown: String = name.chars().take(80).collect();
        let mut scanner = Scanner::new(&shown, name, filter::FORM);
        let mut names = vec![name::name(&mut scanner)?];
        while scanner.take(".") {
            names.push(name::name(&mut scanner)?);
        }
        let steps = name::steps(&mut scanner)?;
        if !scanner.is_done() {
            return Err(scanner.refuse("a filter's name ends here").hint(
                "a filter is written as column=operator.value, or data->>key=operator.value",
            ));
        }
        let last = names.pop().unwrap_or_else(|| Name {
            text: String::new(),
            place: scanner.place(),
        });
        let is_word = steps.is_empty() && !names.is_empty();
        let of = OF_RELATIONS.iter().copied().find(|word| *word == last.text);
        let what = match last.text.as_str() {
            "and" | "or" if is_word => {
                let negated = names.len() > 1 && names.last().is_some_and(|n| n.text == "not");
                if negated {
                    names.pop();
                }
                What::Logic(match (negated, last.text.as_str()) {
                    (false, "and") => "and",
                    (false, _) => "or",
                    (true, "and") => "not.and",
                    (true, _) => "not.or",
                })
            }
            _ => match of {
                Some(word) if is_word => What::Of(word),
                _ => What::Path(Path { name: last, steps }),
            },
        };
        Ok(Self {
            relations: names,
            what,
        })
    }

    fn is_filter(&self) -> bool {
        matches!(self.what, What::Logic(_) | What::Path(_))
    }
}

fn scanner<'a>(parameter: &'a Parameter<'_>, form: Form) -> Scanner<'a> {
    Scanner::new(&parameter.name, &parameter.value, form)
}

fn number<N: std::str::FromStr>(
    parameter: &Parameter<'_>,
    code: &'static str,
) -> Result<N, Refusal> {
    let Parameter { name, value, .. } = parameter;
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    match value.parse() {
        Ok(number) if digits => Ok(number),
        // A range that ends before it begins.
        _ if name == "limit" && value.starts_with('-') && value.parse::<i64>().is_ok() => {
            let hint = "leave limit out for as many rows as an answer may have";
            let refusal = Refusal::new("range_not_satisfiable", "limit is less than 0", hint);
            Err(refusal.at(&Place::of(name, 1)))
        }
        _ => {
            let name: String = name.chars().take(80).collect();
            let message = format!("{name} is not a whole number that is 0 or more");
            let refusal = Refusal::new(code, message, format!("for example {name}=100"));
            Err(refusal.at(&Place::of(&name, 1)))
        }
    }
}

fn wait(parameter: &Parameter<'_>, limits: &Limits) -> Result<Duration, Refusal> {
    let wait = duration(parameter, "invalid_wait")?;
    if wait > limits.wait {
        let most = limits.wait.as_secs_f64();
        return Err(Refusal::new(
            "invalid_wait",
            format!("a reader may wait for at most {most} s"),
            format!(
                "write wait={}ms or less, and ask again",
                limits.wait.as_millis()
            ),
        )
        .at(&Place::of("wait", 1)));
    }
    Ok(wait)
}

fn duration(parameter: &Parameter<'_>, code: &'static str) -> Result<Duration, Refusal> {
    scan::duration(&parameter.value).ok_or_else(|| {
        let message = format!("{} is not a duration", parameter.name);
        let refusal = Refusal::new(code, message, "write it as 500ms or 2s");
        refusal.at(&Place::of(&parameter.name, 1))
    })
}

#[cfg(test)]
mod tests;
