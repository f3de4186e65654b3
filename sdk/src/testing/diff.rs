//! Differences between rows, written for the person whose test fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::Engine;
use crate::column::{ColumnType, Scalar, display};
use crate::frame::FrameReader;
use crate::read_model::Table;
use crate::{Decimal, ReadModel};

/// The differences between two runs; none when they kept the same, down to the last byte.
pub(super) fn engines<P>(expected: &Engine<P>, found: &Engine<P>) -> String {
    let mut report = String::new();
    for (expected, found) in expected.models.iter().zip(&found.models) {
        let table = &expected.table;
        for key in expected
            .rows
            .keys()
            .chain(found.rows.keys())
            .collect::<BTreeSet<_>>()
        {
            let (left, right) = (expected.rows.get(key), found.rows.get(key));
            if left == right {
                continue;
            }
            let row = |side: Option<&(Vec<u8>, i64)>| side.map(|(row, _)| row.clone());
            let before = report.len();
            compare(
                table,
                key,
                row(left).as_deref(),
                row(right).as_deref(),
                false,
                &mut report,
            );
            if let (Some((_, left)), Some((_, right)), true) = (left, right, report.len() == before)
            {
                line(
                    &mut report,
                    format_args!("{}: {}", table.name, table.show_key(key)),
                );
                line(
                    &mut report,
                    format_args!("  _position: expected {left}, found {right}"),
                );
            }
        }
    }
    report
}

/// The differences between two lists of rows.
pub(super) fn rows<R: ReadModel>(expected: &[R], found: &[R]) -> String {
    let mut report = String::new();
    let (expected, found) = (by_key(expected), by_key(found));
    for key in expected.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
        let (left, right) = (expected.get(key), found.get(key));
        compare(
            &R::TABLE,
            key,
            left.map(Vec::as_slice),
            right.map(Vec::as_slice),
            true,
            &mut report,
        );
    }
    report
}

fn by_key<R: ReadModel>(rows: &[R]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let bytes = |row: &R| {
        let (mut key, mut bytes) = (Vec::new(), Vec::new());
        row.write_key(&mut key);
        row.write(&mut bytes);
        (key, bytes)
    };
    rows.iter().map(bytes).collect()
}

fn compare(
    table: &Table,
    key: &[u8],
    expected: Option<&[u8]>,
    found: Option<&[u8]>,
    as_numbers: bool,
    report: &mut String,
) {
    let name = format!("{}: {}", table.name, table.show_key(key));
    match (expected, found) {
        (None, None) => {}
        (Some(row), None) => {
            line(report, format_args!("{name}: expected, not found"));
            show(table, row, report);
        }
        (None, Some(row)) => {
            line(report, format_args!("{name}: found, not expected"));
            show(table, row, report);
        }
        (Some(expected), Some(found)) => {
            let mut differences = String::new();
            for ((column, left), (_, right)) in fields(table, expected).zip(fields(table, found)) {
                if left != right && !(as_numbers && equal_numbers(column.column, left, right)) {
                    let (left, right) =
                        (display(column.column, left), display(column.column, right));
                    line(
                        &mut differences,
                        format_args!("  {}: expected {left}, found {right}", column.name),
                    );
                }
            }
            if !differences.is_empty() {
                line(report, format_args!("{name}"));
                report.push_str(&differences);
            }
        }
    }
}

fn show(table: &Table, row: &[u8], report: &mut String) {
    for (column, field) in fields(table, row) {
        line(
            report,
            format_args!("  {}: {}", column.name, display(column.column, field)),
        );
    }
}

fn fields<'t>(
    table: &'t Table,
    row: &'t [u8],
) -> impl Iterator<Item = (&'t crate::read_model::ColumnInfo, Option<&'t [u8]>)> {
    let mut frame = FrameReader::new(row);
    // Both rows were written by this crate, so their fields can be read.
    table
        .columns
        .iter()
        .map(move |column| (column, frame.field().unwrap_or_default()))
}

fn equal_numbers(column: ColumnType, left: Option<&[u8]>, right: Option<&[u8]>) -> bool {
    let number = |field: Option<&[u8]>| field.and_then(|bytes| Decimal::decode(bytes).ok());
    column == ColumnType::Numeric && number(left).is_some() && number(left) == number(right)
}

fn line(report: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(report, "{text}");
}
