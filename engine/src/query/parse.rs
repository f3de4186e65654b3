//! The grammar: parameters -> what is asked for. Nothing here knows a read model; names and values are texts with their
//! places.
//!
//! ```text
//! filter     = column "=" ["not."] test              | ["not."] ("and" | "or") "=" group
//! group      = "(" condition *("," condition) ")"
//! condition  = ["not."] ("and" | "or") group         | column "." ["not."] test
//! test       = comparator "." value | "in.(" [value *("," value)] ")" | "is." keyword
//! comparator = "eq" | "neq" | "gt" | "gte" | "lt" | "lte"
//! keyword    = "null" | "not_null" | "true" | "false" | "unknown"
//! select     = ("*" | column) *("," ("*" | column))
//! order      = column ["." ("asc" | "desc")] ["." ("nullsfirst" | "nullslast")] *("," ...)
//! ```
//!
//! Within parentheses, a value or column that contains `,` `.` `(` `)` is written in double quotes. Outside of them a
//! value reaches to the end of its parameter.

use std::time::Duration;

use super::scan::{self, Parameter, Scanner};
use super::{Limits, Place, Refusal};

/// What a query string asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Conditions that must all hold.
    pub filters: Vec<Filter>,
    /// What each row shows; empty: its own columns.
    pub select: Vec<Selected>,
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
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// All of them hold.
    All(Vec<Filter>),
    /// One of them holds.
    Any(Vec<Filter>),
    /// It does not hold.
    Not(Box<Filter>),
    /// A column passes a test.
    Column(Name, Test),
}

/// A column's name, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The name.
    pub text: String,
    /// Where it stands.
    pub place: Place,
}

/// What a column is tested for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// It compares so with the value.
    Compare(Comparator, Literal),
    /// It is one of the values.
    In(Vec<Literal>),
    /// It is this.
    Is(Keyword, Place),
}

/// A value, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Literal {
    /// The text.
    pub text: String,
    /// Where it stands.
    pub place: Place,
}

/// Ways to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "these are PostgREST's own names")]
pub enum Comparator {
    Eq,
    Neq,
    Gt,
    Gte,
    Lt,
    Lte,
}

/// What may follow `is`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "these are SQL's own words")]
pub enum Keyword {
    Null,
    NotNull,
    True,
    False,
    Unknown,
}

/// One element of `select`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    /// `*`: the read model's own columns.
    Own,
    /// One column.
    Column(Name),
}

/// One element of `order`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The column.
    pub column: Name,
    /// The direction.
    pub direction: Direction,
    /// Where NULLs go, if it was said.
    pub nulls: Option<Nulls>,
}

/// A direction to sort in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Smallest first.
    #[default]
    Ascending,
    /// Greatest first.
    Descending,
}

/// Where NULLs go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nulls {
    /// Before all values.
    First,
    /// After all values.
    Last,
}

const COMPARATORS: [(&str, Comparator); 6] = [
    ("eq", Comparator::Eq),
    ("neq", Comparator::Neq),
    ("gt", Comparator::Gt),
    ("gte", Comparator::Gte),
    ("lt", Comparator::Lt),
    ("lte", Comparator::Lte),
];

const KEYWORDS: [(&str, Keyword); 5] = [
    ("null", Keyword::Null),
    ("not_null", Keyword::NotNull),
    ("true", Keyword::True),
    ("false", Keyword::False),
    ("unknown", Keyword::Unknown),
];

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

/// Names that are reserved and have no meaning yet (the descriptor refuses columns of these names).
const WITHOUT_MEANING: [&str; 4] = ["live", "on_conflict", "columns", "not"];

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
            ));
        }
        let is_filter = LOGIC.contains(&name.as_str()) || !is_reserved(name);
        if !is_filter && parameters[..index].iter().any(|p| p.name == *name) {
            return Err(Refusal::new(
                "duplicate_parameter",
                format!("the parameter \"{name}\" is given twice"),
            )
            .hint("only filters may be given several times; all of them must hold"));
        }
        match name.as_str() {
            "select" => request.select = select(&mut scanner(parameter, "invalid_select"))?,
            "order" => request.order = order(&mut scanner(parameter, "invalid_order"))?,
            "limit" => request.limit = Some(number(parameter, "invalid_limit")?),
            "offset" => request.offset = number(parameter, "invalid_offset")?,
            "cursor" => request.cursor = Some(value.clone()),
            "min_position" => {
                request.min_position = Some(number(parameter, "invalid_min_position")?);
            }
            // Says which generation is asked, and so was read before.
            "as_of" => {}
            "max_lag" => request.max_lag = Some(duration(parameter, "invalid_max_lag")?),
            "wait" => request.wait = Some(wait(parameter, limits)?),
            _ => {
                let mut filters = Filters {
                    scanner: scanner(parameter, "invalid_filter"),
                    limits,
                    budget: &mut budget,
                };
                request.filters.push(filters.parameter(name)?);
            }
        }
    }
    Ok(request)
}

fn scanner<'a>(parameter: &'a Parameter<'_>, code: &'static str) -> Scanner<'a> {
    Scanner::new(&parameter.name, &parameter.value, code)
}

/// Conditions: a recursive descent over one parameter's value.
struct Filters<'a> {
    scanner: Scanner<'a>,
    limits: &'a Limits,
    /// How many more comparisons this query may have.
    budget: &'a mut usize,
}

impl Filters<'_> {
    fn parameter(&mut self, name: &str) -> Result<Filter, Refusal> {
        let filter = match LOGIC.contains(&name) {
            true => self.combined(name, 1)?,
            false => {
                let place = self.scanner.place();
                let text = name.to_owned();
                self.test(Name { text, place }, Nesting::Top)?
            }
        };
        if !self.scanner.is_done() {
            return Err(self.scanner.refuse("expected the end here"));
        }
        Ok(filter)
    }

    /// The group that follows `and`, `or`, or one of them with `not.` before it.
    fn combined(&mut self, word: &str, depth: usize) -> Result<Filter, Refusal> {
        let group = self.group(depth)?;
        let filter = match word.ends_with("and") {
            true => Filter::All(group),
            false => Filter::Any(group),
        };
        Ok(match word.starts_with("not.") {
            true => Filter::Not(Box::new(filter)),
            false => filter,
        })
    }

    fn group(&mut self, depth: usize) -> Result<Vec<Filter>, Refusal> {
        if depth > self.limits.depth {
            let limit = self.limits.depth;
            return Err(self
                .scanner
                .refuse(format!("conditions are nested deeper than {limit}")));
        }
        self.scanner.expect("(")?;
        let mut filters = vec![self.condition(depth)?];
        while self.scanner.take(",") {
            filters.push(self.condition(depth)?);
        }
        self.scanner.expect(")")?;
        Ok(filters)
    }

    fn condition(&mut self, depth: usize) -> Result<Filter, Refusal> {
        for word in LOGIC {
            let rest = self.scanner.rest();
            if rest.strip_prefix(word).is_some_and(|r| r.starts_with('(')) {
                self.scanner.take(word);
                return self.combined(word, depth + 1);
            }
        }
        let column = name(&mut self.scanner)?;
        self.scanner.expect(".")?;
        self.test(column, Nesting::Inside)
    }

    fn test(&mut self, column: Name, nesting: Nesting) -> Result<Filter, Refusal> {
        *self.budget = self.budget.checked_sub(1).ok_or_else(|| {
            let limit = self.limits.filters;
            Refusal::new(
                "query_too_large",
                format!("the query has more than {limit} conditions"),
            )
            .at(&self.scanner.place())
        })?;
        let negated = self.scanner.take("not.");
        let place = self.scanner.place();
        let word = self.scanner.until(&['.', ',', '(', ')']);
        let comparator = COMPARATORS.iter().find(|entry| entry.0 == word);
        let test = match (word, comparator) {
            (_, Some(&(_, comparator))) => {
                self.scanner.expect(".")?;
                Test::Compare(comparator, self.value(nesting)?)
            }
            ("in", None) => {
                self.scanner.expect(".")?;
                Test::In(self.list()?)
            }
            ("is", None) => {
                self.scanner.expect(".")?;
                let place = self.scanner.place();
                Test::Is(self.keyword()?, place)
            }
            _ => return Err(self.unknown_operator(word, &column.text, &place)),
        };
        let filter = Filter::Column(column, test);
        Ok(match negated {
            true => Filter::Not(Box::new(filter)),
            false => filter,
        })
    }

    fn unknown_operator(&self, word: &str, column: &str, place: &Place) -> Refusal {
        let known = COMPARATORS.iter().map(|entry| entry.0).chain(["in", "is"]);
        let shown: String = word.chars().take(40).collect();
        let refusal = Refusal::new(
            "unknown_operator",
            format!("there is no operator \"{shown}\""),
        )
        .at(place);
        match super::nearest(word, known) {
            Some(near) if word.len() > 1 => refusal.hint(format!("did you mean \"{near}\"?")),
            _ => refusal.hint(format!(
                "write a filter as {column}=eq.value; the operators are eq, neq, gt, gte, lt, lte, in, is, each also with not. before it"
            )),
        }
    }

    fn value(&mut self, nesting: Nesting) -> Result<Literal, Refusal> {
        let place = self.scanner.place();
        let text = match nesting {
            Nesting::Top => self.scanner.all().to_owned(),
            Nesting::Inside => match self.scanner.quoted()? {
                Some(text) => text,
                None => self.scanner.until(&[',', ')', '(', '"']).to_owned(),
            },
        };
        Ok(Literal { text, place })
    }

    fn list(&mut self) -> Result<Vec<Literal>, Refusal> {
        self.scanner.expect("(")?;
        let mut values = Vec::new();
        if self.scanner.take(")") {
            return Ok(values);
        }
        loop {
            if values.len() == self.limits.list {
                return Err(Refusal::new(
                    "query_too_large",
                    format!("a list has more than {} values", self.limits.list),
                )
                .at(&self.scanner.place()));
            }
            values.push(self.value(Nesting::Inside)?);
            if !self.scanner.take(",") {
                break;
            }
        }
        self.scanner.expect(")")?;
        Ok(values)
    }

    fn keyword(&mut self) -> Result<Keyword, Refusal> {
        let place = self.scanner.place();
        let word = self.scanner.until(&[',', ')']);
        KEYWORDS
            .iter()
            .find(|entry| entry.0.eq_ignore_ascii_case(word))
            .map(|entry| entry.1)
            .ok_or_else(|| {
                Refusal::new(
                    "invalid_filter",
                    format!("a column cannot be tested with is.{word}"),
                )
                .hint("is takes null, not_null, true, false or unknown")
                .at(&place)
            })
    }
}

/// Whether a value ends with its parameter, or before the next comma or parenthesis.
#[derive(Debug, Clone, Copy)]
enum Nesting {
    Top,
    Inside,
}

fn name(scanner: &mut Scanner<'_>) -> Result<Name, Refusal> {
    let place = scanner.place();
    let text = match scanner.quoted()? {
        Some(text) => text,
        None => scanner.until(&['.', ',', '(', ')', ':', '"']).to_owned(),
    };
    if text.is_empty() {
        return Err(scanner.refuse("expected a column's name"));
    }
    Ok(Name { text, place })
}

fn select(scanner: &mut Scanner<'_>) -> Result<Vec<Selected>, Refusal> {
    let mut selected = Vec::new();
    loop {
        selected.push(match scanner.take("*") {
            true => Selected::Own,
            false => Selected::Column(name(scanner)?),
        });
        if scanner.is_done() {
            return Ok(selected);
        }
        scanner.expect(",")?;
    }
}

fn order(scanner: &mut Scanner<'_>) -> Result<Vec<Term>, Refusal> {
    let mut terms = Vec::new();
    loop {
        let mut term = Term {
            column: name(scanner)?,
            direction: Direction::Ascending,
            nulls: None,
        };
        let mut directed = false;
        while scanner.take(".") {
            let place = scanner.place();
            match scanner.until(&['.', ',']) {
                "asc" if !directed && term.nulls.is_none() => directed = true,
                "desc" if !directed && term.nulls.is_none() => {
                    directed = true;
                    term.direction = Direction::Descending;
                }
                "nullsfirst" if term.nulls.is_none() => term.nulls = Some(Nulls::First),
                "nullslast" if term.nulls.is_none() => term.nulls = Some(Nulls::Last),
                _ => {
                    return Err(Refusal::new("invalid_order", "this is no way to sort")
                        .hint("write column.asc or column.desc, and then .nullsfirst or .nullslast")
                        .at(&place));
                }
            }
        }
        terms.push(term);
        if scanner.is_done() {
            return Ok(terms);
        }
        scanner.expect(",")?;
    }
}

fn number<N: std::str::FromStr>(
    parameter: &Parameter<'_>,
    code: &'static str,
) -> Result<N, Refusal> {
    let Parameter { name, value, .. } = parameter;
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    match value.parse() {
        Ok(number) if digits => Ok(number),
        _ => Err(scanner(parameter, code)
            .refuse(format!("{name} is not a whole number that is 0 or more"))
            .hint(format!("for example {name}=100"))),
    }
}

fn wait(parameter: &Parameter<'_>, limits: &Limits) -> Result<Duration, Refusal> {
    let wait = duration(parameter, "invalid_wait")?;
    if wait > limits.wait {
        return Err(scanner(parameter, "invalid_wait").refuse(format!(
            "a reader may wait for at most {} s",
            limits.wait.as_secs()
        )));
    }
    Ok(wait)
}

fn duration(parameter: &Parameter<'_>, code: &'static str) -> Result<Duration, Refusal> {
    scan::duration(&parameter.value).ok_or_else(|| {
        scanner(parameter, code)
            .refuse(format!("{} is not a duration", parameter.name))
            .hint("write it as 500ms or 2s")
    })
}

#[cfg(test)]
mod tests;
