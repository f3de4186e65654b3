//! How a row is written, and how rows are put together.

use super::{Bound, Builder, TEXT};

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lines {
    /// A JSON array of objects.
    Json,
    /// The same without members that are null.
    Stripped,
    /// CSV as RFC 4180 has it, but for the ends of lines, which are PostgREST's: a line of column names, then one line
    /// for each row, with nothing for NULL and `""` for a text that is empty.
    Csv,
}

impl Lines {
    /// The line of a row with these members, given by name and SQL value.
    pub(super) fn line(self, builder: &mut Builder, members: Vec<(&str, String)>) -> String {
        match self {
            Lines::Json => builder.object(members),
            Lines::Stripped => {
                let object = builder.object(members);
                format!("json_strip_nulls({object}::json)::text")
            }
            Lines::Csv => {
                // Unlike a cast, concat writes a value as PostgreSQL shows it: a bool as t or f.
                let fields: Vec<String> = members
                    .iter()
                    .map(|(_, value)| {
                        format!("case when {value} is not null then concat({value}) end")
                    })
                    .collect();
                format!(
                    "(select string_agg(case when f is null then '' when f = '' or f ~ '[\",\\r\\n]' \
                     then '\"' || replace(f, '\"', '\"\"') || '\"' else f end, ',' order by i) \
                     from unnest(array[{}]::text[]) with ordinality as fields(f, i))",
                    fields.join(", ")
                )
            }
        }
    }

    /// An answer's text. `join` puts lines together, given a line and what comes between two of them; no lines are NULL.
    pub(super) fn body(
        self,
        columns: &[&str],
        parameters: &mut Vec<Bound>,
        join: impl FnOnce(&str, &str) -> String,
    ) -> String {
        if self != Lines::Csv {
            return format!("'[' || coalesce({}, '') || ']'", join("line", ","));
        }
        // Names may be the reader's own words.
        parameters.push(Bound {
            column: "select".to_owned(),
            oid: TEXT,
            text: Some(head(columns)),
        });
        let lines = join("E'\\n' || line", "");
        format!("${} || coalesce({lines}, '')", parameters.len())
    }
}

/// The line of column names.
fn head(columns: &[&str]) -> String {
    let names: Vec<String> = columns
        .iter()
        .map(|name| match name.contains(['"', ',', '\r', '\n']) {
            true => format!("\"{}\"", name.replace('"', "\"\"")),
            false => (*name).to_owned(),
        })
        .collect();
    names.join(",")
}
