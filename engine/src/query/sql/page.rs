//! The lines of a page: which rows, in which order, and how each is written.

use super::{Builder, Lines, Target};
use crate::query::parse::{Direction, Nulls};
use crate::query::plan::{By, Output, Plan, Sort};
use crate::read_model::quote;

/// The alias of the read model's own table.
const ROW: &str = "t";

impl Builder {
    /// A page: how many rows it has, of how many bytes, all of them as one text, and the sort columns' values of the last one
    /// if there are more. One row more is counted if there is one.
    pub(super) fn page(&mut self, plan: &Plan<'_>, target: Target<'_>, lines: Lines) -> String {
        let mut rows = self.matching(plan, target);
        if let Some(after) = &plan.after {
            let after = self.after(ROW, &plan.sort, after);
            rows.push_str(&format!(" and {after}"));
        }
        let line = |builder: &mut Self, members: Vec<(&str, String)>| lines.line(builder, members);
        let found = self.lines_of(plan, ROW, &rows, plan.limit + 1, &plan.select, line);
        match plan.finds_one() {
            true => self.only(plan, target, lines, &found),
            false => self.all_of(plan, target, lines, &found),
        }
    }

    /// The page with the only row there can be. Counting and putting together would take as long as finding it.
    fn only(&mut self, plan: &Plan<'_>, target: Target<'_>, lines: Lines, found: &str) -> String {
        let most = target.answer_bytes;
        let body = lines.body(&plan.columns(), &mut self.parameters, |line, _| {
            line.to_owned()
        });
        format!(
            "
  select (line is not null)::int::bigint as count,
    coalesce(octet_length(line), 0)::bigint as bytes,
    case when coalesce(octet_length(line), 0) <= {most}
      then {body} end as body,
    null::text[] as last
  from (select) as once left join ({found}) as lines on true
"
        )
    }

    fn all_of(&mut self, plan: &Plan<'_>, target: Target<'_>, lines: Lines, found: &str) -> String {
        let (limit, most) = (plan.limit, target.answer_bytes);
        let body = lines.body(&plan.columns(), &mut self.parameters, |line, between| {
            // Lines beyond are not even put together: what an answer may have at most is what the server needs for it at most.
            format!(
                "string_agg({line}, '{between}') filter (where n <= {limit} and upto <= {most})"
            )
        });
        format!(
            "
  select count(*) as count,
    coalesce(sum(octet_length(line)) filter (where n <= {limit}), 0)::bigint as bytes,
    case when coalesce(sum(octet_length(line)) filter (where n <= {limit}), 0) <= {most}
      then {body} end as body,
    max(place) filter (where n = {limit}) as last
  from (select line, place, row_number() over so_far as n, sum(octet_length(line)) over so_far as upto
    from ({found}) as lines window so_far as (rows unbounded preceding)) as lines
"
        )
    }

    /// The lines of the rows that `rows`, a `from` and a `where`, finds under the table alias `t`, in their order, which
    /// whatever reads this as its only table keeps. `line` makes one of a row's members, which are those of `outputs`: all,
    /// or where rows are no groups any of them.
    ///
    /// Inside, the columns of `p`, the page, are `c1`, `c2` ...: first the outputs, then what the order needs besides.
    pub(super) fn lines_of(
        &mut self,
        plan: &Plan<'_>,
        t: &str,
        rows: &str,
        limit: u64,
        outputs: &[Output<'_>],
        line: impl FnOnce(&mut Self, Vec<(&str, String)>) -> String,
    ) -> String {
        let p = format!("{t}p");
        let inner = |index: usize| format!("{p}.c{}", index + 1);
        let mut columns: Vec<String> = outputs
            .iter()
            .map(|output| self.source(t, &output.source))
            .collect();
        let sorted: Vec<usize> = plan
            .sort
            .iter()
            .map(|sort| match &sort.by {
                By::Output(index) => *index,
                By::Related(related, value) => {
                    columns.push(self.of_related(t, related, value));
                    columns.len() - 1
                }
                By::Value(value) => {
                    let text = self.expression(t, value);
                    let known = columns.iter().position(|column| *column == text);
                    known.unwrap_or_else(|| {
                        columns.push(text);
                        columns.len() - 1
                    })
                }
            })
            .collect();
        let names = outputs.iter().enumerate();
        let members = names.map(|(n, output)| (output.name.as_str(), inner(n)));
        let line = line(self, members.collect());
        // Groups have no cursor.
        let places: Vec<String> = match plan.has_place() {
            false => Vec::new(),
            true => sorted
                .iter()
                .map(|n| format!("{}::text", inner(*n)))
                .collect(),
        };
        let needed: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(n, column)| format!("{column} as c{}", n + 1))
            .collect();
        // The last offset keeps the planner from writing a line wherever its bytes are counted.
        format!(
            "select {line} as line, array[{places}]::text[] as place
    from (select {needed} {rows}{grouped}{ordered} limit {limit} offset {offset}) as {p} offset 0",
            places = places.join(", "),
            needed = needed.join(", "),
            grouped = group_by(plan),
            ordered = order_by(&plan.sort, &sorted),
            offset = plan.offset,
        )
    }

    /// All rows of an answer, pages aside: a `from` clause.
    pub(super) fn all_rows(&mut self, plan: &Plan<'_>, target: Target<'_>) -> String {
        let matching = self.matching(plan, target);
        if !plan.is_grouped() {
            return matching;
        }
        let outputs: Vec<String> = plan
            .select
            .iter()
            .map(|output| self.source(ROW, &output.source))
            .collect();
        let (outputs, grouped) = (outputs.join(", "), group_by(plan));
        format!("from (select {outputs} {matching}{grouped}) as groups")
    }

    /// The read model's rows that match the conditions: `from` and `where`, with the table alias [`ROW`].
    fn matching(&mut self, plan: &Plan<'_>, target: Target<'_>) -> String {
        format!(
            "from {}.{} {ROW} where {}",
            quote(target.schema),
            quote(&plan.model.name),
            self.all(ROW, &plan.conditions),
        )
    }
}

/// By the outputs that are no functions over rows, where others are.
fn group_by(plan: &Plan<'_>) -> String {
    let outputs = plan.select.iter().enumerate();
    let values: Vec<String> = outputs
        .filter(|(_, output)| !output.is_aggregate())
        .map(|(n, _)| (n + 1).to_string())
        .collect();
    match plan.is_grouped() && !values.is_empty() {
        true => format!(" group by {}", values.join(", ")),
        false => String::new(),
    }
}

/// `sorted` has the columns' indexes.
fn order_by(sort: &[Sort<'_>], sorted: &[usize]) -> String {
    let terms: Vec<String> = sort
        .iter()
        .zip(sorted)
        .map(|(sort, &index)| {
            let direction = match sort.direction {
                Direction::Ascending => "asc",
                Direction::Descending => "desc",
            };
            // Said only where it matters, so that a plain index serves the order.
            let nulls = match (sort.nullable(), sort.nulls) {
                (false, _) => "",
                (true, Nulls::First) => " nulls first",
                (true, Nulls::Last) => " nulls last",
            };
            format!("{} {direction}{nulls}", index + 1)
        })
        .collect();
    match terms.is_empty() {
        true => String::new(),
        false => format!(" order by {}", terms.join(", ")),
    }
}
