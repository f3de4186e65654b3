//! Embedded rows as SQL: each embed is a subquery about the row that it belongs to, so one statement and one snapshot give
//! them all.

use super::expression::json;
use super::{Builder, Lines};
use crate::query::plan::{Embedded, Expression, Link, Output, Related};
use crate::read_model::quote;

impl Builder {
    /// The rows of an embed as JSON: an array, or the only one, or NULL.
    pub(super) fn embed(&mut self, alias: &str, embedded: &Embedded<'_>) -> String {
        let line =
            |builder: &mut Self, members: Vec<(&str, String)>| Lines::Json.line(builder, members);
        if !embedded.is_one {
            return self.array(alias, embedded, &embedded.plan.select, line);
        }
        let (plan, inner) = (&embedded.plan, within(alias));
        let rows = self.rows_of(alias, &inner, embedded);
        let lines = self.lines_of(plan, &inner, &rows, plan.limit.min(1), &plan.select, line);
        format!("(select line::json from ({lines}) as {inner}l)")
    }

    /// A JSON array of what `line` makes of these outputs of each row of an embed.
    fn array(
        &mut self,
        alias: &str,
        embedded: &Embedded<'_>,
        outputs: &[Output<'_>],
        line: impl FnOnce(&mut Self, Vec<(&str, String)>) -> String,
    ) -> String {
        let (plan, inner) = (&embedded.plan, within(alias));
        let rows = self.rows_of(alias, &inner, embedded);
        let lines = self.lines_of(plan, &inner, &rows, plan.limit, outputs, line);
        format!(
            "(select ('[' || coalesce(string_agg(line, ','), '') || ']')::json from ({lines}) as {inner}l)"
        )
    }

    /// One value of the only row of an embed, or of each of its rows.
    pub(super) fn spread(&mut self, alias: &str, embedded: &Embedded<'_>, index: usize) -> String {
        let Some(output) = embedded.plan.select.get(index) else {
            return "null".to_owned();
        };
        if !embedded.is_one {
            // Not the others: each of those may be such an array as well, and so on within it.
            let outputs = std::slice::from_ref(output);
            return self.array(alias, embedded, outputs, |_, members| {
                members.iter().map(|(_, value)| json(value)).collect()
            });
        }
        let inner = within(alias);
        let value = self.source(&inner, &output.source);
        let rows = self.rows_of(alias, &inner, embedded);
        let (limit, offset) = (embedded.plan.limit.min(1), embedded.plan.offset);
        format!("(select {value} {rows} limit {limit} offset {offset})")
    }

    /// The rows of an embed: `from` and `where`.
    fn rows_of(&mut self, alias: &str, inner: &str, embedded: &Embedded<'_>) -> String {
        self.tied(alias, inner, &embedded.link, |builder| {
            builder.all(inner, &embedded.plan.conditions)
        })
    }

    /// Whether there are such rows.
    pub(super) fn exists(&mut self, alias: &str, related: &Related<'_>) -> String {
        let inner = within(alias);
        let rows = self.of(alias, &inner, related);
        format!("exists (select {rows})")
    }

    /// A value of the only row that belongs to a row.
    pub(super) fn of_related(
        &mut self,
        alias: &str,
        related: &Related<'_>,
        value: &Expression<'_>,
    ) -> String {
        let inner = within(alias);
        let value = self.expression(&inner, value);
        let rows = self.of(alias, &inner, related);
        format!("(select {value} {rows} limit 1)")
    }

    fn of(&mut self, alias: &str, inner: &str, related: &Related<'_>) -> String {
        self.tied(alias, inner, &related.link, |builder| {
            builder.all(inner, &related.conditions)
        })
    }

    /// `from` and `where`: the rows that belong to the outer row and fulfil conditions.
    fn tied(
        &mut self,
        outer: &str,
        inner: &str,
        link: &Link<'_>,
        conditions: impl FnOnce(&mut Self) -> String,
    ) -> String {
        let mut from = table(link, inner);
        let mut ties = String::new();
        let mut near = outer.to_owned();
        if let Some(through) = &link.through {
            near = format!("{inner}b");
            from.push_str(&format!(", {}", table(&through.link, &near)));
            ties.push_str(&equal(outer, &near, &through.link));
            ties.push_str(&format!("{} and ", self.all(&near, &through.conditions)));
        }
        ties.push_str(&equal(&near, inner, link));
        format!("from {from} where {ties}{}", conditions(self))
    }
}

/// A table under an alias.
fn table(link: &Link<'_>, alias: &str) -> String {
    format!("{}.{} {alias}", quote(link.schema), quote(&link.model.name))
}

/// That the columns of a link are equal, with `and` behind each.
fn equal(one: &str, other: &str, link: &Link<'_>) -> String {
    let columns = link.columns.iter().map(|(own, theirs)| {
        let (own, theirs) = (quote(own.name), quote(theirs.name));
        format!("{other}.{theirs} = {one}.{own} and ")
    });
    columns.collect()
}

/// The alias of a table whose rows belong to those of another one. Siblings may share it: neither sees the other.
fn within(alias: &str) -> String {
    format!("{alias}e")
}
