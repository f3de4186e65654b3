//! The check: what is asked for + the read model -> a query in which every name is a column and every value fits its
//! type.

use std::fmt;

use super::parse::{
    self, Comparator, Direction, Filter, Keyword, Literal, Name, Nulls, Request, Selected, Test,
};
use super::scan::{self, Parameter, Plus};
use super::{Limits, Place, Refusal, cursor, nearest, value};
use crate::read_model::{ColumnType, ReadModel, Scalar};

/// A column that a query may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'m> {
    /// Its name.
    pub name: &'m str,
    /// Its type.
    pub kind: ColumnType,
    /// Whether it may be NULL.
    pub nullable: bool,
}

/// A condition on fields, with values in PostgreSQL's text format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition<'m> {
    /// All of them hold.
    All(Vec<Condition<'m>>),
    /// One of them holds.
    Any(Vec<Condition<'m>>),
    /// It does not hold.
    Not(Box<Condition<'m>>),
    /// The field compares so with the value.
    Compare(Field<'m>, Comparator, String),
    /// The field is one of the values.
    In(Field<'m>, Vec<String>),
    /// The field is this.
    Is(Field<'m>, Keyword),
}

/// One column of a complete order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort<'m> {
    /// The column.
    pub field: Field<'m>,
    /// The direction.
    pub direction: Direction,
    /// Where NULLs go; without meaning for a column that has none.
    pub nulls: Nulls,
}

impl fmt::Display for Sort<'_> {
    /// The term as `order` would say it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Ascending => "asc",
            Direction::Descending => "desc",
        };
        write!(f, "{}.{direction}", self.field.name)?;
        match (self.field.nullable, self.nulls) {
            (false, _) => Ok(()),
            (true, Nulls::First) => f.write_str(".nullsfirst"),
            (true, Nulls::Last) => f.write_str(".nullslast"),
        }
    }
}

/// A checked query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<'m> {
    /// What is read.
    pub model: &'m ReadModel,
    /// Conditions that must all hold.
    pub conditions: Vec<Condition<'m>>,
    /// The columns of an answer's rows.
    pub select: Vec<Field<'m>>,
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
        self.select.iter().map(|field| field.name).collect()
    }

    /// The cursor that continues after the row with these values of the sort columns.
    pub fn cursor(&self, values: Vec<Option<String>>) -> String {
        cursor::encode(&self.model.name, &self.sort, values)
    }
}

/// Checks that every parameter is known: one of the grammar's, or a column. Comes before parsing, so that a misspelt
/// parameter is not taken for a malformed filter.
pub fn check_names(parameters: &[Parameter<'_>], model: &ReadModel) -> Result<(), Refusal> {
    for parameter in parameters {
        let name = parameter.name.as_str();
        if parse::is_reserved(name) || find(model, name).is_some() {
            continue;
        }
        let place = Place {
            parameter: name.chars().take(80).collect(),
            at: 1,
        };
        let known = fields(model).map(|field| field.name);
        let mut refusal = unknown(model, name, &place);
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
    let sort = order(model, request)?;
    let after = match &request.cursor {
        None => None,
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
        conditions: conditions(model, &request.filters)?,
        select: select(model, &request.select)?,
        sort,
        after,
        limit: request.limit.unwrap_or(limits.rows).min(limits.rows),
        offset: request.offset,
    })
}

/// Checks a query of the one row with this key, percent-encoded as it stands in the path.
pub fn row<'m>(model: &'m ReadModel, key: &str, request: &Request) -> Result<Plan<'m>, Refusal> {
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
        let text = fit(field, &literal)?;
        conditions.push(Condition::Compare(field, Comparator::Eq, text));
    }
    Ok(Plan {
        model,
        conditions,
        select: select(model, &request.select)?,
        sort: Vec::new(),
        after: None,
        limit: 1,
        offset: 0,
    })
}

const SYSTEM: [(&str, Scalar); 3] = [
    ("_position", Scalar::Int8),
    ("_revision", Scalar::Int8),
    ("_updated_at", Scalar::Timestamptz),
];

/// The read model's own columns.
fn own(model: &ReadModel) -> impl Iterator<Item = Field<'_>> {
    model.columns.iter().map(|column| Field {
        name: &column.name,
        kind: column.kind,
        nullable: column.nullable,
    })
}

/// The columns that a query may name: its own, and those that every row carries.
fn fields(model: &ReadModel) -> impl Iterator<Item = Field<'_>> {
    own(model).chain(SYSTEM.map(|(name, kind)| Field {
        name,
        kind: ColumnType::Scalar(kind),
        nullable: false,
    }))
}

fn find<'m>(model: &'m ReadModel, name: &str) -> Option<Field<'m>> {
    fields(model).find(|field| field.name == name)
}

fn unknown(model: &ReadModel, name: &str, place: &Place) -> Refusal {
    let shown: String = name.chars().take(80).collect();
    Refusal::new(
        "unknown_column",
        format!("read model \"{}\" has no column \"{shown}\"", model.name),
    )
    .at(place)
}

fn field<'m>(model: &'m ReadModel, name: &Name) -> Result<Field<'m>, Refusal> {
    find(model, &name.text).ok_or_else(|| {
        let refusal = unknown(model, &name.text, &name.place);
        match nearest(&name.text, fields(model).map(|field| field.name)) {
            Some(near) => refusal.hint(format!("did you mean \"{near}\"?")),
            None => refusal,
        }
    })
}

fn fit(field: Field<'_>, literal: &Literal) -> Result<String, Refusal> {
    value::check(field.kind, &literal.text).map_err(|misfit| {
        let shown: String = literal.text.chars().take(80).collect();
        let mut message = format!(
            "\"{shown}\" is no value of column \"{}\", which has type {}",
            field.name, field.kind
        );
        if shown.eq_ignore_ascii_case("null") {
            message.push_str("; NULL is tested with is.null");
        }
        Refusal::new("invalid_value", message)
            .hint(misfit.0)
            .at(&literal.place)
    })
}

fn conditions<'m>(model: &'m ReadModel, filters: &[Filter]) -> Result<Vec<Condition<'m>>, Refusal> {
    filters.iter().map(|f| condition(model, f)).collect()
}

fn condition<'m>(model: &'m ReadModel, filter: &Filter) -> Result<Condition<'m>, Refusal> {
    Ok(match filter {
        Filter::All(filters) => Condition::All(conditions(model, filters)?),
        Filter::Any(filters) => Condition::Any(conditions(model, filters)?),
        Filter::Not(filter) => Condition::Not(Box::new(condition(model, filter)?)),
        Filter::Column(name, test) => {
            let field = field(model, name)?;
            let is_json = field.kind == ColumnType::Scalar(Scalar::Json);
            match test {
                Test::Compare(_, literal) if is_json => {
                    return Err(incomparable(field, &literal.place));
                }
                Test::In(_) if is_json => return Err(incomparable(field, &name.place)),
                Test::Compare(comparator, literal) => {
                    Condition::Compare(field, *comparator, fit(field, literal)?)
                }
                Test::In(literals) => {
                    let values: Result<_, _> = literals.iter().map(|l| fit(field, l)).collect();
                    Condition::In(field, values?)
                }
                Test::Is(keyword, place) => Condition::Is(field, is(field, *keyword, place)?),
            }
        }
    })
}

fn incomparable(field: Field<'_>, place: &Place) -> Refusal {
    Refusal::new(
        "invalid_filter",
        format!(
            "column \"{}\" has type json, whose values cannot be compared",
            field.name
        ),
    )
    .hint("test it with is.null or is.not_null, or declare the column as jsonb")
    .at(place)
}

fn is(field: Field<'_>, keyword: Keyword, place: &Place) -> Result<Keyword, Refusal> {
    let is_bool = field.kind == ColumnType::Scalar(Scalar::Bool);
    if !is_bool && !matches!(keyword, Keyword::Null | Keyword::NotNull) {
        return Err(Refusal::new(
            "invalid_filter",
            format!(
                "column \"{}\" has type {}, not bool",
                field.name, field.kind
            ),
        )
        .hint("only null and not_null can be tested for")
        .at(place));
    }
    Ok(keyword)
}

fn select<'m>(model: &'m ReadModel, selected: &[Selected]) -> Result<Vec<Field<'m>>, Refusal> {
    if selected.is_empty() {
        return Ok(own(model).collect());
    }
    let mut chosen: Vec<Field<'m>> = Vec::new();
    for element in selected {
        match element {
            Selected::Own => {
                for field in own(model).filter(|f| !selected_by_name(selected, f.name)) {
                    if chosen.contains(&field) {
                        return Err(twice("invalid_select", "*", None));
                    }
                    chosen.push(field);
                }
            }
            Selected::Column(name) => {
                let field = field(model, name)?;
                if chosen.contains(&field) {
                    return Err(twice("invalid_select", field.name, Some(&name.place)));
                }
                chosen.push(field);
            }
        }
    }
    Ok(chosen)
}

/// With `*` beside a column's own name, the column stands where it is named.
fn selected_by_name(selected: &[Selected], name: &str) -> bool {
    selected
        .iter()
        .any(|element| matches!(element, Selected::Column(other) if other.text == name))
}

fn twice(code: &'static str, name: &str, place: Option<&Place>) -> Refusal {
    let refusal = Refusal::new(code, format!("\"{name}\" is named twice"));
    match place {
        Some(place) => refusal.at(place),
        None => refusal,
    }
}

fn order<'m>(model: &'m ReadModel, request: &Request) -> Result<Vec<Sort<'m>>, Refusal> {
    let mut sort: Vec<Sort<'m>> = Vec::new();
    for term in &request.order {
        let field = field(model, &term.column)?;
        if field.kind == ColumnType::Scalar(Scalar::Json) {
            return Err(Refusal::new(
                "invalid_order",
                format!(
                    "column \"{}\" has type json, which has no order",
                    field.name
                ),
            )
            .hint("declare the column as jsonb")
            .at(&term.column.place));
        }
        if sort.iter().any(|sort| sort.field == field) {
            return Err(twice("invalid_order", field.name, Some(&term.column.place)));
        }
        sort.push(Sort {
            field,
            direction: term.direction,
            nulls: term.nulls.unwrap_or(match term.direction {
                Direction::Ascending => Nulls::Last,
                Direction::Descending => Nulls::First,
            }),
        });
    }
    // In the last direction, so that an index on (a, key) serves order=a.desc when it is read backwards.
    let direction = sort.last().map(|sort| sort.direction).unwrap_or_default();
    for column in model.key_columns() {
        if sort.iter().any(|sort| sort.field.name == column.name) {
            continue;
        }
        sort.push(Sort {
            field: Field {
                name: &column.name,
                kind: column.kind,
                nullable: false,
            },
            direction,
            nulls: Nulls::Last,
        });
    }
    Ok(sort)
}
