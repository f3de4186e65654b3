//! Changed rows, judged by a query.

use super::{Bound, Builder, Lines, Statement};
use crate::query::plan::Plan;
use crate::read_model::quote;

const JSON: u32 = 114;

/// What changes of rows are to a query: one text, a JSON array of upserts (rows that it holds now) and deletes (rows that it
/// held before), or NULL. The first parameter is for the changes as the feed tells them. Rows are read back with the
/// types of the generation's table, and conditions and rows are written as in any other statement.
pub fn changes(plan: &Plan<'_>, schema: &str) -> Statement {
    let mut builder = Builder {
        parameters: vec![Bound {
            column: "changes".to_owned(),
            oid: JSON,
            text: None,
        }],
    };
    let conditions = builder.all("t", &plan.conditions);
    let members: Vec<(&str, String)> = (plan.select.iter())
        .map(|output| (output.name.as_str(), builder.source("t", &output.source)))
        .collect();
    let line = Lines::Json.line(&mut builder, members);
    let row = |side: &str| {
        format!(
            "json_populate_record(null::{}.{}, case when json_typeof(e.change->'{side}') = 'object' then e.change->'{side}' end)",
            quote(schema),
            quote(&plan.model.name)
        )
    };
    let text = format!(
        "select '[' || string_agg(case when now.line is null then '{{\"op\":\"delete\",\"key\":' || (e.change->'k')::text || '}}' \
           else '{{\"op\":\"upsert\",\"key\":' || (e.change->'k')::text || ',\"row\":' || now.line || '}}' end, ',' order by e.n) || ']'
  from json_array_elements($1) with ordinality as e(change, n)
  left join lateral (select true as was from {before} as t where t._position is not null and ({conditions})) as was on true
  left join lateral (select {line} as line
    from {after} as t where t._position is not null and ({conditions})) as now on true
 where was.was is not null or now.line is not null",
        before = row("b"),
        after = row("a"),
    );
    Statement {
        text,
        parameters: builder.parameters,
    }
}
