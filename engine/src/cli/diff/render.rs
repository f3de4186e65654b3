//! How a comparison of two generations is shown to people.

use std::fmt::Write;

use crate::generations::diff::{
    ChangedRow, Diff, Matched, ModelDiff, RowDiff, Sample, ShapeDifference, Side,
};

/// A value's longest part that is shown, in characters.
const SHOWN: usize = 60;
/// How much of what two long values have in common is shown before the place where they differ.
const LEAD: usize = 10;

/// A comparison as lines of text: one line per read model; then, for those that differ, what differs in their shape, the
/// counts per column, and samples. Control characters in values are escaped.
pub fn render(diff: &Diff) -> String {
    let mut text = heading(diff);
    text.push_str(&overview(diff));
    for model in diff.read_models.iter().filter(|model| !model.is_empty()) {
        let details = details(diff, model);
        if !details.is_empty() {
            put(&mut text, format_args!("\n{}\n{details}", model.name));
        }
    }
    text
}

fn heading(diff: &Diff) -> String {
    let verdict = match diff.is_empty() {
        true => "are the same",
        false => "differ",
    };
    format!(
        "generations {} and {} {verdict} at position {}\n\n",
        diff.a, diff.b, diff.position
    )
}

/// The table with one line per read model. Numbers stand right.
fn overview(diff: &Diff) -> String {
    let (a, b) = (format!("ROWS IN {}", diff.a), format!("ROWS IN {}", diff.b));
    let headings = ["READ MODEL", &a, &b, "ADDED", "REMOVED", "CHANGED"];
    let mut rows = vec![headings.map(str::to_owned)];
    rows.extend(diff.read_models.iter().map(overview_row));
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| match column {
            0 => format!("{cell:width$}"),
            _ => format!("{cell:>width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        put(&mut text, format_args!("{}\n", line.trim_end()));
    }
    text
}

fn overview_row(model: &ModelDiff) -> [String; 6] {
    let none = || "-".to_owned();
    let [a, b, added, removed, changed] = match &model.rows {
        RowDiff::Matched(rows) => {
            [rows.a, rows.b, rows.added, rows.removed, rows.changed].map(|count| count.to_string())
        }
        RowDiff::Unmatched { a, b } => [a.to_string(), b.to_string(), none(), none(), none()],
        RowDiff::OnlyInA { count } => [count.to_string(), none(), none(), none(), none()],
        RowDiff::OnlyInB { count } => [none(), count.to_string(), none(), none(), none()],
    };
    [model.name.clone(), a, b, added, removed, changed]
}

/// What is to be said about a read model that differs.
fn details(diff: &Diff, model: &ModelDiff) -> String {
    let mut text = String::new();
    match &model.rows {
        RowDiff::OnlyInA { .. } => only_in(&mut text, diff.a),
        RowDiff::OnlyInB { .. } => only_in(&mut text, diff.b),
        RowDiff::Unmatched { .. } => {
            text.push_str("  rows cannot be matched, since the keys differ\n");
        }
        RowDiff::Matched(_) => {}
    }
    for difference in &model.shape {
        put(&mut text, format_args!("  {}\n", shape(diff, difference)));
    }
    if let RowDiff::Matched(rows) = &model.rows {
        changed_columns(&mut text, rows);
        rows_of_one_side(&mut text, "added", rows.added, rows, &rows.samples.added);
        rows_of_one_side(
            &mut text,
            "removed",
            rows.removed,
            rows,
            &rows.samples.removed,
        );
        changed_rows(&mut text, rows);
    }
    text
}

fn only_in(text: &mut String, generation: i64) {
    put(text, format_args!("  only in generation {generation}\n"));
}

fn shape(diff: &Diff, difference: &ShapeDifference) -> String {
    let generation = |side: Side| match side {
        Side::A => diff.a,
        Side::B => diff.b,
    };
    match difference {
        ShapeDifference::ColumnOnlyIn {
            side,
            column,
            r#type,
            nullable,
        } => {
            let null = if *nullable { ", nullable" } else { "" };
            let generation = generation(*side);
            format!("column {column} ({type}{null}): only in generation {generation}")
        }
        ShapeDifference::ColumnType { column, a, b } => {
            format!("column {column}: {a} -> {b}, so its values are not compared")
        }
        ShapeDifference::ColumnNullable {
            column,
            nullable_in,
        } => {
            let generation = generation(*nullable_in);
            format!("column {column}: nullable only in generation {generation}")
        }
        ShapeDifference::Key { a, b } => format!("key: ({}) -> ({})", a.join(", "), b.join(", ")),
        ShapeDifference::IndexOnlyIn { side, columns } => {
            let columns = columns.join(", ");
            let generation = generation(*side);
            format!("index ({columns}): only in generation {generation}")
        }
        ShapeDifference::PerStreamOnlyIn { side } => {
            format!("per_stream: only in generation {}", generation(*side))
        }
    }
}

fn changed_columns(text: &mut String, rows: &Matched) {
    let columns: Vec<_> = rows.columns.iter().filter(|c| c.changed > 0).collect();
    if columns.is_empty() {
        return;
    }
    let names = columns.iter().map(|column| column.name.chars().count());
    let name_width = names.max().unwrap_or(0);
    let counts = columns.iter().map(|column| column.changed);
    let count_width = counts.max().unwrap_or(0).to_string().len();
    text.push_str("  changed per column:\n");
    for column in columns {
        let (name, changed) = (&column.name, column.changed);
        put(
            text,
            format_args!("    {name:name_width$}  {changed:>count_width$}\n"),
        );
    }
}

fn rows_of_one_side(text: &mut String, word: &str, count: i64, rows: &Matched, samples: &[Sample]) {
    heading_of_samples(text, word, count, samples.len());
    for sample in samples {
        let values = sample.values.iter();
        let values = values.map(|v| format!("{}={}", v.column, value(v.value.as_deref(), 0)));
        let line = std::iter::once(key(rows, &sample.key)).chain(values);
        let line = line.collect::<Vec<_>>().join("  ");
        put(text, format_args!("    {line}\n"));
    }
}

fn changed_rows(text: &mut String, rows: &Matched) {
    let samples: &[ChangedRow] = &rows.samples.changed;
    heading_of_samples(text, "changed", rows.changed, samples.len());
    for sample in samples {
        put(text, format_args!("    {}\n", key(rows, &sample.key)));
        for change in &sample.changes {
            let (a, b) = (change.a.as_deref(), change.b.as_deref());
            let from = start(a, b);
            let (a, b) = (value(a, from), value(b, from));
            put(text, format_args!("      {}: {a} -> {b}\n", change.column));
        }
    }
}

fn heading_of_samples(text: &mut String, word: &str, count: i64, shown: usize) {
    if shown == 0 {
        return;
    }
    let is_all = i64::try_from(shown).is_ok_and(|shown| shown == count);
    match is_all {
        true => put(text, format_args!("  {word}:\n")),
        false => put(text, format_args!("  {word}, {shown} of {count}:\n")),
    }
}

fn key(rows: &Matched, values: &[String]) -> String {
    let pairs = rows.key.iter().zip(values);
    let pairs = pairs.map(|(name, text)| format!("{name}={}", value(Some(text), 0)));
    pairs.collect::<Vec<_>>().join(" ")
}

/// Where to start showing two values, so that what differs is seen however long they are.
fn start(a: Option<&str>, b: Option<&str>) -> usize {
    let (Some(a), Some(b)) = (a, b) else {
        return 0;
    };
    let is_long = |text: &str| text.chars().nth(SHOWN).is_some();
    if !is_long(a) && !is_long(b) {
        return 0;
    }
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b);
    same.count().saturating_sub(LEAD)
}

/// A value on one line from its character `from` on: cut, and with its control characters escaped, since it may come
/// from anywhere. Quoted where it would run into its neighbours or look like NULL.
fn value(text: Option<&str>, from: usize) -> String {
    let Some(text) = text else {
        return "NULL".to_owned();
    };
    let is_plain = !text.is_empty()
        && text != "NULL"
        && !text.starts_with('\'')
        && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    let part = text.chars().skip(from).take(SHOWN);
    let mut shown: String = part.flat_map(visible).collect();
    if !is_plain {
        shown = format!("'{shown}'");
    }
    if from > 0 {
        shown = format!("...{shown}");
    }
    match text.chars().count().saturating_sub(from + SHOWN) {
        0 => shown,
        hidden => format!("{shown}... ({hidden} more)"),
    }
}

/// Control characters, and those that turn the direction of text, would let a value rewrite the lines around it.
fn visible(c: char) -> impl Iterator<Item = char> {
    let is_hidden = c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let escaped = is_hidden.then(|| c.escape_default());
    let plain = (!is_hidden).then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn diff(read_models: serde_json::Value) -> Diff {
        let diff = json!({
            "a": 3, "b": 4, "position": 120, "columns": "declared", "read_models": read_models,
        });
        serde_json::from_value(diff).unwrap()
    }

    #[track_caller]
    fn check(read_models: serde_json::Value, expected: &str) {
        assert_eq!(render(&diff(read_models)), expected);
    }

    #[test]
    fn nothing_but_the_counts_is_shown_of_generations_that_are_the_same() {
        check(
            json!([
                { "name": "orders", "shape": [], "rows": {
                    "kind": "matched", "a": 2000000, "b": 2000000, "added": 0, "removed": 0, "changed": 0, "key": ["id"],
                    "columns": [{ "name": "status", "type": "text", "changed": 0 }],
                    "samples": { "added": [], "removed": [], "changed": [] } } },
            ]),
            "\
generations 3 and 4 are the same at position 120

READ MODEL  ROWS IN 3  ROWS IN 4  ADDED  REMOVED  CHANGED
orders        2000000    2000000      0        0        0
",
        );
    }

    #[test]
    fn rows_that_differ_are_counted_per_column_and_sampled() {
        check(
            json!([
                { "name": "orders", "shape": [], "rows": {
                    "kind": "matched", "a": 10, "b": 11, "added": 2, "removed": 1, "changed": 12, "key": ["id", "day"],
                    "columns": [{ "name": "status", "type": "text", "changed": 12 },
                                { "name": "same", "type": "text", "changed": 0 },
                                { "name": "price", "type": "numeric", "changed": 1 }],
                    "samples": {
                        "added": [
                            { "key": ["1", "2026-01-01"], "values": [{ "column": "status", "value": "open" }] },
                            { "key": ["2", "2026-01-01"], "values": [{ "column": "status", "value": null }] },
                        ],
                        "removed": [{ "key": ["3", "2026-01-01"], "values": [{ "column": "status", "value": "NULL" }] }],
                        "changed": [{ "key": ["a b", "2026-01-01"], "changes": [
                            { "column": "status", "a": "open", "b": "" }, { "column": "price", "a": "1.0", "b": "1.00" },
                        ] }] } } },
                { "name": "users", "shape": [], "rows": {
                    "kind": "matched", "a": 5, "b": 5, "added": 0, "removed": 0, "changed": 0, "key": ["id"], "columns": [],
                    "samples": { "added": [], "removed": [], "changed": [] } } },
            ]),
            "\
generations 3 and 4 differ at position 120

READ MODEL  ROWS IN 3  ROWS IN 4  ADDED  REMOVED  CHANGED
orders             10         11      2        1       12
users               5          5      0        0        0

orders
  changed per column:
    status  12
    price    1
  added:
    id=1 day=2026-01-01  status=open
    id=2 day=2026-01-01  status=NULL
  removed:
    id=3 day=2026-01-01  status='NULL'
  changed, 1 of 12:
    id='a b' day=2026-01-01
      status: open -> ''
      price: 1.0 -> 1.00
",
        );
    }

    #[test]
    fn differences_of_shape_are_told_in_words() {
        check(
            json!([
                { "name": "gone", "shape": [], "rows": { "kind": "only_in_a", "count": 7 } },
                { "name": "new", "shape": [], "rows": { "kind": "only_in_b", "count": 0 } },
                { "name": "rekeyed", "rows": { "kind": "unmatched", "a": 5, "b": 6 }, "shape": [
                    { "kind": "column_only_in", "side": "b", "column": "note", "type": "text", "nullable": true },
                    { "kind": "column_only_in", "side": "a", "column": "old", "type": "int4", "nullable": false },
                    { "kind": "column_type", "column": "n", "a": "int4", "b": "int8" },
                    { "kind": "column_nullable", "column": "n", "nullable_in": "b" },
                    { "kind": "key", "a": ["id"], "b": ["id", "day"] },
                    { "kind": "index_only_in", "side": "a", "columns": ["n", "id"] },
                    { "kind": "per_stream_only_in", "side": "b" },
                ] },
            ]),
            "\
generations 3 and 4 differ at position 120

READ MODEL  ROWS IN 3  ROWS IN 4  ADDED  REMOVED  CHANGED
gone                7          -      -        -        -
new                 -          0      -        -        -
rekeyed             5          6      -        -        -

gone
  only in generation 3

new
  only in generation 4

rekeyed
  rows cannot be matched, since the keys differ
  column note (text, nullable): only in generation 4
  column old (int4): only in generation 3
  column n: int4 -> int8, so its values are not compared
  column n: nullable only in generation 4
  key: (id) -> (id, day)
  index (n, id): only in generation 3
  per_stream: only in generation 4
",
        );
    }

    #[test]
    fn values_stay_on_one_line_and_cannot_rewrite_it() {
        for (text, expected) in [
            (None, "NULL"),
            (Some(""), "''"),
            (Some("plain"), "plain"),
            (Some("'quoted'"), "''quoted''"),
            (Some("two\nlines"), "'two\\nlines'"),
            (Some("\u{1b}[2J"), "'\\u{1b}[2J'"),
            (Some("a\u{202e}b"), "a\\u{202e}b"),
            (Some("Grüße"), "Grüße"),
        ] {
            assert_eq!(value(text, 0), expected);
        }
    }

    #[test]
    fn long_values_are_shown_where_they_differ() {
        let same = "x".repeat(100);
        let (a, b) = (format!("{same}1"), format!("{same}2{same}"));
        let from = start(Some(&a), Some(&b));
        assert_eq!(value(Some(&a), from), "...xxxxxxxxxx1");
        let cut = "x".repeat(49);
        let expected = format!("...xxxxxxxxxx2{cut}... (51 more)");
        assert_eq!(value(Some(&b), from), expected);
        assert_eq!(start(Some("short"), Some("shorter")), 0);
        assert_eq!(start(Some(&a), None), 0);
    }
}
