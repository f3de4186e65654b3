//! Compares the read models with what the simulator kept for itself, cell by cell.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, bail};
use serde_json::value::RawValue;

use super::client::{Client, RawRow};
use super::clock;
use super::decimal::Decimal;
use super::ledger::{Cell, Ledger, Row};
use super::market::prefix;

/// How many differences of a read model are shown.
const SHOWN: usize = 10;

/// Compares one run's rows in all read models. The error lists the differences.
pub(crate) fn check(
    client: &Client,
    ledgers: &[Ledger],
    run: u64,
    start: i64,
) -> Result<Vec<String>> {
    // A dot follows a hyphen, so this is every text that begins with the run's name.
    let (low, high) = (prefix(run), prefix(run).replace('-', "."));
    let of_run = |column: &str| format!("{column}=gte.{low}&{column}=lt.{high}");
    let since = format!("minute=gte.{}", clock::text(start));
    let orders: Vec<Row> = ledgers.iter().flat_map(Ledger::order_rows).collect();
    let stats: Vec<Row> = ledgers.iter().flat_map(Ledger::stats_rows).collect();
    let bars: Vec<Row> = ledgers.iter().flat_map(Ledger::bar_rows).collect();

    let mut report = String::new();
    let mut summary = Vec::new();
    for (model, key, filter, expected) in [
        ("orders", &["order_id"][..], of_run("order_id"), orders),
        (
            "user_symbol_stats",
            &["user_id", "symbol"][..],
            of_run("user_id"),
            stats,
        ),
        ("symbol_bars", &["symbol", "minute"][..], since, bars),
    ] {
        let count = expected.len();
        let differences = compare(key, expected, &client.rows(model, &filter)?)?;
        if differences.is_empty() {
            summary.push(format!("{model}: {count} rows, equal in every column"));
            continue;
        }
        let _ = writeln!(report, "{model}: {} differences", differences.len());
        for difference in differences.iter().take(SHOWN) {
            let _ = writeln!(report, "  {difference}");
        }
    }
    if !report.is_empty() {
        bail!("the read models differ from the simulator's own figures\n{report}");
    }
    Ok(summary)
}

fn compare(key: &[&str], expected: Vec<Row>, found: &[RawRow]) -> Result<Vec<String>> {
    let mut missing: BTreeMap<Vec<String>, Row> = expected
        .into_iter()
        .map(|row| (key.iter().map(|column| show(&row[column])).collect(), row))
        .collect();
    let mut differences = Vec::new();
    for row in found {
        let name = name_of(key, row)?;
        let Some(wanted) = missing.remove(&name) else {
            differences.push(format!("{}: not expected, or there twice", name.join(" ")));
            continue;
        };
        for (column, cell) in &wanted {
            let raw = row
                .get(*column)
                .map_or("(no such column)", |value| value.get());
            if !holds(raw, cell) {
                differences.push(format!(
                    "{}: {column} is {raw}, expected {}",
                    name.join(" "),
                    show(cell)
                ));
            }
        }
    }
    differences.extend(
        missing
            .keys()
            .map(|name| format!("{}: missing", name.join(" "))),
    );
    Ok(differences)
}

/// The key of a row as the expected side writes it.
fn name_of(key: &[&str], row: &RawRow) -> Result<Vec<String>> {
    let mut name = Vec::new();
    for column in key {
        let Some(text) = row.get(*column).and_then(|value| text_of(value)) else {
            bail!("a row has no text in {column}: {row:?}");
        };
        name.push(clock::parse(&text).map_or(text, clock::text));
    }
    Ok(name)
}

fn text_of(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

fn holds(raw: &str, cell: &Cell) -> bool {
    let text = || serde_json::from_str::<String>(raw).ok();
    match cell {
        Cell::Null => raw == "null",
        Cell::Text(expected) => text().is_some_and(|text| text == *expected),
        Cell::Whole(expected) => raw.parse::<i64>().is_ok_and(|number| number == *expected),
        Cell::Decimal(expected) => Decimal::parse(raw).is_some_and(|number| number == *expected),
        Cell::Time(expected) => text().and_then(|text| clock::parse(&text)) == Some(*expected),
    }
}

fn show(cell: &Cell) -> String {
    match cell {
        Cell::Null => "null".to_owned(),
        Cell::Text(text) => text.clone(),
        Cell::Whole(number) => number.to_string(),
        Cell::Decimal(number) => number.to_string(),
        Cell::Time(micros) => clock::text(*micros),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<RawRow> {
        serde_json::from_str(text).unwrap()
    }

    fn expected() -> Vec<Row> {
        let row = |id: &str, volume| {
            let volume = Cell::Decimal(Decimal::new(volume, 4));
            BTreeMap::from([
                ("id", Cell::Text(id.to_owned())),
                ("volume", volume),
                ("at", Cell::Time(0)),
            ])
        };
        vec![row("a", 12_500), row("b", 1)]
    }

    #[test]
    fn equal_rows_have_no_differences_and_others_are_named() {
        let equal = r#"[{"id":"b","volume":0.00010,"at":"1970-01-01T00:00:00Z"},
                        {"id":"a","volume":1.25,"at":"1970-01-01T00:00:00+00:00"}]"#;
        assert_eq!(
            compare(&["id"], expected(), &rows(equal)).unwrap(),
            Vec::<String>::new()
        );

        let other = r#"[{"id":"a","volume":1.2501,"at":"1970-01-01T00:00:00Z"},
                        {"id":"c","volume":1,"at":"1970-01-01T00:00:00Z"}]"#;
        let differences = compare(&["id"], expected(), &rows(other)).unwrap();
        let wanted = [
            "a: volume is 1.2501, expected 1.2500",
            "c: not expected, or there twice",
            "b: missing",
        ];
        assert_eq!(differences, wanted);
    }
}
