//! What is imported: a made-up shop of the shape of real invoice lines, and the demo's market.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::demo::clock;
use crate::demo::market::{Market, SYMBOLS};
use crate::demo::random::Random;

/// 2026-01-05T08:00:00Z
const START: i64 = 1_767_600_000_000_000;

const COUNTRIES: [&str; 6] = [
    "United Kingdom",
    "Germany",
    "France",
    "EIRE",
    "Spain",
    "Netherlands",
];

/// Writes `events` invoice lines: some 20 to an invoice, 4,000 customers and 4,000 articles of which few are bought
/// often, one line in fifty a cancellation, one sale in four without customer.
pub(super) fn shop(file: &Path, events: u64) -> Result<()> {
    let mut out = create(file)?;
    let mut random = Random::new(1);
    let (mut written, mut invoice, mut now) = (0, 500_000_u64, START);
    while written < events {
        invoice += 1;
        now += random.between(1_000_000, 90_000_000);
        let cancelled = random.chance(4);
        let number = format!("{}{invoice}", if cancelled { "C" } else { "" });
        let customer =
            (!random.chance(25)).then(|| (12_000 + skewed(&mut random, 4_000)).to_string());
        let country = match random.chance(90) {
            true => COUNTRIES[0],
            false => COUNTRIES[usize::try_from(skewed(&mut random, 6))?],
        };
        let lines = if cancelled {
            random.between(1, 3)
        } else {
            random.between(1, 40)
        };
        let lines = lines.unsigned_abs().min(events - written);
        for version in 0..lines {
            let article = skewed(&mut random, 4_000);
            let quantity = random.between(1, 24) * if cancelled { -1 } else { 1 };
            let price = random.between(42, 1_495);
            let line = json!({
                "stream_id": format!("invoice-{number}"),
                "version": version,
                "type": if cancelled { "InvoiceLineCancelled" } else { "InvoiceLineAdded" },
                "data": {
                    "invoice_no": number,
                    "stock_code": (20_000 + article).to_string(),
                    "description": format!("WHITE HANGING HEART NUMBER {article}"),
                    "quantity": quantity,
                    "unit_price": format!("{}.{:02}", price / 100, price % 100),
                    "customer_id": customer,
                    "country": country,
                },
                "occurred_at": clock::text(now - now % 1_000_000),
            });
            writeln!(out, "{line}")?;
        }
        written += lines;
    }
    Ok(out.flush()?)
}

/// Writes about `events` events of the demo's market.
pub(super) fn market(file: &Path, events: u64) -> Result<()> {
    let mut out = create(file)?;
    let mut markets: Vec<Market> = (0..SYMBOLS.len())
        .map(|index| Market::new(1, 1, index, START))
        .collect();
    let mut written = 0;
    while written < events {
        for market in &mut markets {
            for append in market.step() {
                for mut event in append.events {
                    event["stream_id"] = json!(append.stream);
                    writeln!(out, "{event}")?;
                    written += 1;
                }
            }
        }
    }
    Ok(out.flush()?)
}

/// Writes `events` events of which each makes an order of the demo's market.
pub(super) fn orders(file: &Path, events: u64) -> Result<()> {
    let mut out = create(file)?;
    for number in 0..events {
        let order = format!("order-{number}");
        let (symbol, _) = SYMBOLS[usize::try_from(number)? % SYMBOLS.len()];
        let line = json!({
            "stream_id": order, "version": 0, "type": "OrderCreated",
            "data": {
                "order_id": order, "user_id": format!("user-{}", number % 1_000), "symbol": symbol, "side": "buy",
                "price": "61420.50", "quantity": "1.25",
            },
            "occurred_at": clock::text(START),
        });
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

/// A number below `end`; small ones come up most.
fn skewed(random: &mut Random, end: i64) -> i64 {
    let (first, second) = (random.between(0, end - 1), random.between(1, end));
    first * second / end
}

fn create(file: &Path) -> Result<BufWriter<File>> {
    let created = File::create(file);
    Ok(BufWriter::new(created.with_context(|| {
        format!("could not write {}", file.display())
    })?))
}
