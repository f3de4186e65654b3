//! The lines of a page: which rows, in which order, and how each is written.

use super::{Builder, Lines, Target};
use crate::query::parse::{Direction, Nulls};
use crate::query::plan::{Plan, Sort};
use crate::read_model::quote;

impl Builder {
    /// The lines of a page: number, text, and the sort columns' values.
    pub(super) fn page(&mut self, plan: &Plan<'_>, target: Target<'_>, lines: Lines) -> String {
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
      (select {line} from (select {shown}) as shown) as line,
      array[{places}]::text[] as place
    from (select {needed} from {schema}.{table} t where {conditions}{ordered} limit {limit} offset {offset}) as p",
            numbered = order_by("p", &plan.sort).trim_start(),
            line = lines.line(&plan.columns()),
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
