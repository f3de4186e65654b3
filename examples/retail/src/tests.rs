//! A small shop, made up from a seed, and added up a second time in plain integers.

use std::collections::{BTreeMap, BTreeSet};

use gobo_sdk::prelude::*;
use gobo_sdk::serde_json::json;
use gobo_sdk::testing::{TestEvent, event, given};

use super::{CountryDay, Customer, Invoice, Retail, StockCode};

const CUSTOMERS: [Option<&str>; 4] = [None, Some("12346"), Some("12347"), Some("17850")];
const COUNTRIES: [&str; 3] = ["United Kingdom", "EIRE", "France"];
const CODES: [&str; 5] = ["85123A", "85123a", "POST", "22423", "D"];

/// One line of an invoice; the price in thousandths.
#[derive(Clone)]
struct Sold {
    invoice_no: String,
    customer: Option<&'static str>,
    country: &'static str,
    code: &'static str,
    description: Option<String>,
    quantity: i64,
    price: i64,
    at: String,
}

struct Dice(u64);

impl Dice {
    /// A number below `sides` (Knuth's MMIX generator).
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.roll(items.len() as u64) as usize]
    }
}

/// Invoices of a few lines each; some are cancellations, have no customer, are continued a minute later or
/// after another invoice.
fn shop(seed: u64) -> Vec<Sold> {
    let mut dice = Dice(seed);
    let mut sold = Vec::new();
    for number in 0..60 {
        let cancelled = dice.roll(5) == 0;
        let invoice_no = format!("{}{}", if cancelled { "C" } else { "" }, 536_365 + number);
        let (customer, country) = (dice.pick(&CUSTOMERS), dice.pick(&COUNTRIES));
        for line in 0..1 + dice.roll(6) {
            let units = 1 + dice.roll(40) as i64;
            let returned = cancelled || dice.roll(20) == 0;
            sold.push(Sold {
                invoice_no: invoice_no.clone(),
                customer,
                country,
                code: dice.pick(&CODES),
                description: (dice.roll(4) > 0).then(|| format!("LAMP \"{}\" £ ", dice.roll(3))),
                quantity: if returned { -units } else { units },
                price: dice.pick(&[0, 850, 2550, 10_995, 1]),
                at: format!(
                    "2011-01-{:02}T10:{:02}:00Z",
                    1 + number / 20,
                    number % 20 * 2 + line as i64 / 4
                ),
            });
        }
    }
    // The sort is stable: lines of one minute stay in order, and invoices that continue are interrupted.
    sold.sort_by(|left, right| left.at.cmp(&right.at));
    sold
}

fn events(sold: &[Sold]) -> Vec<TestEvent> {
    let line = |line: &Sold| {
        let cancelled = line.invoice_no.starts_with('C');
        let data = json!({
            "invoice_no": line.invoice_no,
            "stock_code": line.code,
            "description": line.description,
            "quantity": line.quantity,
            "unit_price": Decimal::new(line.price, 3).normalize(),
            "customer_id": line.customer,
            "country": line.country,
        });
        let event_type = if cancelled {
            "InvoiceLineCancelled"
        } else {
            "InvoiceLineAdded"
        };
        event(event_type, data)
            .stream(format!("invoice-{}", line.invoice_no))
            .at(&line.at)
    };
    sold.iter().map(line).collect()
}

/// The lines by a key, each group in order.
fn by<K: Ord>(sold: &[Sold], key: impl Fn(&Sold) -> K) -> BTreeMap<K, Vec<&Sold>> {
    let mut groups: BTreeMap<K, Vec<&Sold>> = BTreeMap::new();
    for line in sold {
        groups.entry(key(line)).or_default().push(line);
    }
    groups
}

fn total(lines: &[&Sold]) -> Decimal {
    Decimal::new(lines.iter().map(|line| line.quantity * line.price).sum(), 3)
}

fn invoices(lines: &[&Sold], cancelled: bool) -> i64 {
    let numbers: BTreeSet<&str> = lines.iter().map(|line| line.invoice_no.as_str()).collect();
    numbers
        .iter()
        .filter(|number| number.starts_with('C') == cancelled)
        .count() as i64
}

fn time(line: &Sold) -> Timestamp {
    line.at.parse().unwrap()
}

#[test]
fn every_read_model_adds_up() {
    for seed in 1..=5 {
        let sold = shop(seed);
        let outcome = given::<Retail>(events(&sold));
        outcome.expect(by(&sold, |line| line.invoice_no.clone()).into_iter().map(
            |(invoice_no, lines)| Invoice {
                invoice_no,
                customer_id: lines[0].customer.unwrap_or_default().to_owned(),
                country: lines[0].country.to_owned(),
                lines: lines.len() as i64,
                units: lines.iter().map(|line| line.quantity).sum(),
                total: total(&lines),
                first_at: time(lines[0]),
                last_at: time(lines[lines.len() - 1]),
            },
        ));
        outcome.expect(
            by(&sold, |line| line.customer)
                .into_iter()
                .map(|(customer, lines)| Customer {
                    customer_id: customer.unwrap_or_default().to_owned(),
                    orders: invoices(&lines, false),
                    cancellations: invoices(&lines, true),
                    lines: lines.len() as i64,
                    cancelled_lines: lines
                        .iter()
                        .filter(|line| line.invoice_no.starts_with('C'))
                        .count() as i64,
                    revenue: total(&lines),
                    first_at: time(lines[0]),
                    last_at: time(lines[lines.len() - 1]),
                }),
        );
        outcome.expect(
            by(&sold, |line| line.code)
                .into_iter()
                .map(|(code, lines)| StockCode {
                    stock_code: code.to_owned(),
                    units_sold: lines.iter().map(|line| line.quantity.max(0)).sum(),
                    units_returned: lines.iter().map(|line| -line.quantity.min(0)).sum(),
                    revenue: total(&lines),
                    lines: lines.len() as i64,
                    last_description: lines.iter().rev().find_map(|line| line.description.clone()),
                }),
        );
        let days = by(&sold, |line| (line.country, time(line).date()));
        outcome.expect(days.into_iter().map(|((country, day), lines)| CountryDay {
            country: country.to_owned(),
            day,
            revenue: total(&lines),
            lines: lines.len() as i64,
            invoices: invoices(&lines, false) + invoices(&lines, true),
        }));
    }
}

#[test]
fn an_invoice_with_two_customers_is_refused_because_it_would_be_counted_wrongly() {
    let mut sold = shop(1);
    let mut other = sold[0].clone();
    other.customer = Some("99999");
    sold.insert(1, other);
    given::<Retail>(events(&sold)).expect_error("the invoice has two customers");
}

#[test]
fn a_type_of_event_that_nobody_thought_of_is_refused() {
    given::<Retail>([event("InvoicePaid", json!({}))])
        .expect_error("does not know this type of event");
}
