//! The statement: a checked query -> SQL and its bind parameters.
//!
//! Values are sent in text format with their column's type, so PostgreSQL reads them with the type's own input function
//! and plans with them as constants. Only identifiers and numbers of this module's own making stand in the text.

use std::fmt::Write;

use super::catalog::Standing;
use super::parse::{Comparator, Direction, Keyword, Nulls};
use super::plan::{Condition, Field, Plan, Sort};
use crate::read_model::{ColumnType, quote};

/// SQL with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The text; `$1` is the first parameter.
    pub text: String,
    /// The parameters.
    pub parameters: Vec<Bound>,
}

/// A bind parameter in text format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The column that the value is compared with.
    pub column: String,
    /// The type's oid.
    pub oid: u32,
    /// The value.
    pub text: Option<String>,
}

/// Where rows are read from.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The generation, whose checkpoint says how fresh the rows are.
    pub generation: i64,
    /// Whether readers see it, or only those who ask for the past.
    pub standing: Standing,
    /// The schema of the generation's tables.
    pub schema: &'a str,
    /// The position whose dead letters are to be named.
    pub min_position: Option<i64>,
    /// Bytes of rows beyond which none are returned.
    pub answer_bytes: u64,
}

const INT8: u32 = 20;
const TEXT: u32 = 25;

/// Dead letters are counted up to this number, since every answer counts them.
pub const MAX_DEAD_LETTERS: i64 = 1_000;

/// How fresh a read model's rows are: position, revision, dead letters, and the positions of those up to the one asked
/// for. The first three parameters are the generation, the read model's name and that position.
pub fn freshness(target: Target<'_>, model: &str) -> Statement {
    Statement {
        text: format!("select {FRESHNESS} from {}", fresh_from(target.standing)),
        parameters: fresh_parameters(target, model),
    }
}

/// A query's rows as one JSON array, and how fresh they are, from one snapshot. One row beyond the limit is looked for,
/// to know whether there is a next page.
pub fn rows(plan: &Plan<'_>, target: Target<'_>) -> Statement {
    let mut builder = Builder {
        parameters: fresh_parameters(target, &plan.model.name),
    };
    let page = builder.page(plan, target);
    let limit = plan.limit;
    let most = target.answer_bytes;
    let text = format!(
        "select {FRESHNESS}, page.count, page.bytes, page.body, page.last from {fresh}
cross join (
  select count(*) as count,
    coalesce(sum(octet_length(line)) filter (where n <= {limit}), 0)::bigint as bytes,
    case when coalesce(sum(octet_length(line)) filter (where n <= {limit}), 0) <= {most}
      then '[' || coalesce(string_agg(line, ',' order by n) filter (where n <= {limit}), '') || ']' end as body,
    max(place) filter (where n = {limit}) as last
  from ({page}) as lines
) as page",
        fresh = fresh_from(target.standing),
    );
    Statement {
        text,
        parameters: builder.parameters,
    }
}

/// At most 20 dead letters are named.
const FRESHNESS: &str = "(select to_char(pg_postmaster_start_time(), 'YYMMDDHH24MISSUS') || '-' || left(token::text, 8) from gobo.incarnation) as incarnation, c.position, c.revision, dead.count as dead_letters, \
    array(select d.position from gobo.dead_letters d where d.generation = c.generation and d.position <= $3 and d.state <> 'discarded' \
    order by d.position limit 20) as dead_positions";

/// A generation that has lost its standing meanwhile gives no row.
fn fresh_from(standing: Standing) -> String {
    let standing = match standing {
        Standing::Live => {
            "select c.generation, c.position, coalesce(m.revision, 0) as revision from gobo.checkpoints c \
             join gobo.projections p on p.live = c.generation left join gobo.read_models m on m.name = $2"
        }
        Standing::Past => {
            "select c.generation, c.position, c.revision from gobo.checkpoints c \
             join gobo.generations g on g.id = c.generation and g.state = 'done'"
        }
    };
    format!(
        "({standing} where c.generation = $1) as c \
         cross join lateral (select count(*) as count from (select 1 from gobo.dead_letters d \
         where d.generation = c.generation and d.state <> 'discarded' limit {MAX_DEAD_LETTERS}) as letters) as dead"
    )
}

fn fresh_parameters(target: Target<'_>, model: &str) -> Vec<Bound> {
    let bound = |column: &str, oid, text| Bound {
        column: column.to_owned(),
        oid,
        text,
    };
    vec![
        bound("generation", INT8, Some(target.generation.to_string())),
        bound("read model", TEXT, Some(model.to_owned())),
        bound(
            "min_position",
            INT8,
            target.min_position.map(|position| position.to_string()),
        ),
    ]
}

struct Builder {
    parameters: Vec<Bound>,
}

impl Builder {
    /// The lines of a page: number, JSON, and the sort columns' values.
    fn page(&mut self, plan: &Plan<'_>, target: Target<'_>) -> String {
        let mut needed: Vec<&str> = plan.select.iter().map(|field| field.name).collect();
        for sort in &plan.sort {
            if !needed.contains(&sort.field.name) {
                needed.push(sort.field.name);
            }
        }
        let list = |alias: &str, names: &[&str]| {
            let names: Vec<_> = names
                .iter()
                .map(|n| format!("{alias}.{}", quote(n)))
                .collect();
            names.join(", ")
        };
        let shown: Vec<&str> = plan.select.iter().map(|field| field.name).collect();
        let places: Vec<String> = plan
            .sort
            .iter()
            .map(|sort| format!("p.{}::text", quote(sort.field.name)))
            .collect();
        let mut conditions = self.all(&plan.conditions);
        if let Some(after) = &plan.after {
            conditions = format!("{conditions} and {}", self.after(&plan.sort, after));
        }
        format!(
            "select row_number() over ({numbered}) as n,
      (select row_to_json(shown)::text from (select {shown}) as shown) as line,
      array[{places}]::text[] as place
    from (select {needed} from {schema}.{table} t where {conditions}{ordered} limit {limit} offset {offset}) as p",
            numbered = order_by("p", &plan.sort).trim_start(),
            shown = list("p", &shown),
            places = places.join(", "),
            needed = list("t", &needed),
            schema = quote(target.schema),
            table = quote(&plan.model.name),
            ordered = order_by("t", &plan.sort),
            limit = plan.limit + 1,
            offset = plan.offset,
        )
    }

    fn bind(&mut self, field: Field<'_>, oid: u32, text: String) -> String {
        self.parameters.push(Bound {
            column: field.name.to_owned(),
            oid,
            text: Some(text),
        });
        format!("${}", self.parameters.len())
    }

    fn all(&mut self, conditions: &[Condition<'_>]) -> String {
        self.joined(conditions, " and ", "true")
    }

    fn joined(&mut self, conditions: &[Condition<'_>], word: &str, empty: &str) -> String {
        let parts: Vec<String> = conditions.iter().map(|c| self.condition(c)).collect();
        match parts.is_empty() {
            true => empty.to_owned(),
            false => parts.join(word),
        }
    }

    fn condition(&mut self, condition: &Condition<'_>) -> String {
        match condition {
            Condition::All(conditions) => format!("({})", self.all(conditions)),
            Condition::Any(conditions) => format!("({})", self.joined(conditions, " or ", "false")),
            Condition::Not(condition) => format!("(not {})", self.condition(condition)),
            Condition::Compare(field, comparator, text) => {
                let value = self.bind(*field, field.kind.oid(), text.clone());
                format!("({} {} {value})", column(*field), operator(*comparator))
            }
            Condition::In(field, values) => self.one_of(*field, values),
            Condition::Is(field, keyword) => {
                format!("({} is {})", column(*field), word(*keyword))
            }
        }
    }

    fn one_of(&mut self, field: Field<'_>, values: &[String]) -> String {
        match field.kind {
            _ if values.is_empty() => "false".to_owned(),
            ColumnType::Scalar(scalar) => {
                let list = self.bind(field, scalar.array_oid(), array(values));
                format!("({} = any({list}))", column(field))
            }
            // An array of arrays would be one array of more dimensions.
            ColumnType::Array(_) => {
                let mut parts = Vec::new();
                for value in values {
                    let value = self.bind(field, field.kind.oid(), value.clone());
                    parts.push(format!("{} = {value}", column(field)));
                }
                format!("({})", parts.join(" or "))
            }
        }
    }

    /// The rows after one with these values: the first column that differs decides.
    fn after(&mut self, sort: &[Sort<'_>], values: &[Option<String>]) -> String {
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

fn order_by(alias: &str, sort: &[Sort<'_>]) -> String {
    let terms: Vec<String> = sort
        .iter()
        .map(|sort| {
            let direction = match sort.direction {
                Direction::Ascending => "asc",
                Direction::Descending => "desc",
            };
            // Said only where it matters, so that a plain index serves the order.
            let nulls = match (sort.field.nullable, sort.nulls) {
                (false, _) => "",
                (true, Nulls::First) => " nulls first",
                (true, Nulls::Last) => " nulls last",
            };
            format!("{alias}.{} {direction}{nulls}", quote(sort.field.name))
        })
        .collect();
    match terms.is_empty() {
        true => String::new(),
        false => format!(" order by {}", terms.join(", ")),
    }
}

fn column(field: Field<'_>) -> String {
    format!("t.{}", quote(field.name))
}

/// An array literal: every element quoted.
fn array(values: &[String]) -> String {
    let quoted: Vec<String> = values
        .iter()
        .map(|value| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
        .collect();
    format!("{{{}}}", quoted.join(","))
}

fn operator(comparator: Comparator) -> &'static str {
    match comparator {
        Comparator::Eq => "=",
        Comparator::Neq => "<>",
        Comparator::Gt => ">",
        Comparator::Gte => ">=",
        Comparator::Lt => "<",
        Comparator::Lte => "<=",
    }
}

fn word(keyword: Keyword) -> &'static str {
    match keyword {
        Keyword::Null => "null",
        Keyword::NotNull => "not null",
        Keyword::True => "true",
        Keyword::False => "false",
        Keyword::Unknown => "unknown",
    }
}
