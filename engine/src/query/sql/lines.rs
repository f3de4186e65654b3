//! How a row is written, and how rows are put together.

use super::{Bound, TEXT};
use crate::read_model::quote;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// The line of the row `shown`, which has these columns.
    pub(super) fn line(self, columns: &[&str]) -> String {
        match self {
            Lines::Json => "row_to_json(shown)::text".to_owned(),
            Lines::Stripped => "json_strip_nulls(row_to_json(shown))::text".to_owned(),
            Lines::Csv => {
                // Unlike a cast, concat writes a value as PostgreSQL shows it: a bool as t or f.
                let fields: Vec<String> = columns
                    .iter()
                    .map(|name| format!("shown.{}", quote(name)))
                    .map(|field| format!("case when {field} is not null then concat({field}) end"))
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

    /// All lines that fulfil `condition`, in the order of `n`, as one text.
    pub(super) fn body(
        self,
        columns: &[&str],
        condition: &str,
        parameters: &mut Vec<Bound>,
    ) -> String {
        if self != Lines::Csv {
            return format!(
                "'[' || coalesce(string_agg(line, ',' order by n) filter (where {condition}), '') || ']'"
            );
        }
        // Names may be the reader's own words.
        parameters.push(Bound {
            column: "select".to_owned(),
            oid: TEXT,
            text: Some(head(columns)),
        });
        format!(
            "${} || coalesce(string_agg(E'\\n' || line, '' order by n) filter (where {condition}), '')",
            parameters.len()
        )
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
