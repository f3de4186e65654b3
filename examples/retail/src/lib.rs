//! A shop's invoice lines as invoices, customers, stock codes, and days per country.

use gobo_sdk::prelude::*;

#[cfg(test)]
mod tests;

/// One row per invoice; numbers that begin with C are cancellations.
#[derive(ReadModel, Clone)]
#[read_model(table = "invoices", per_stream, index(customer_id), references(customer_id -> customers))]
struct Invoice {
    #[key]
    invoice_no: String,
    /// Empty for a sale without customer.
    customer_id: String,
    country: String,
    lines: i64,
    units: i64,
    total: Decimal,
    first_at: Timestamp,
    last_at: Timestamp,
}

/// One row per customer, and one with an empty identifier for all sales without.
#[derive(ReadModel, Clone, Default)]
#[read_model(table = "customers")]
struct Customer {
    #[key]
    customer_id: String,
    /// Distinct invoices that are no cancellations.
    orders: i64,
    /// Distinct cancellations.
    cancellations: i64,
    lines: i64,
    cancelled_lines: i64,
    /// Cancellations count negative.
    revenue: Decimal,
    first_at: Timestamp,
    last_at: Timestamp,
}

/// One row per stock code.
#[derive(ReadModel, Clone, Default)]
#[read_model(table = "stock_codes")]
struct StockCode {
    #[key]
    stock_code: String,
    units_sold: i64,
    /// Units with a negative quantity, as a positive number.
    units_returned: i64,
    revenue: Decimal,
    lines: i64,
    /// The last one that was given.
    last_description: Option<String>,
}

/// One row per country and day.
#[derive(ReadModel, Clone, Default)]
#[read_model(table = "country_day", index(day))]
struct CountryDay {
    #[key]
    country: String,
    #[key]
    day: Date,
    revenue: Decimal,
    lines: i64,
    /// Distinct invoices.
    invoices: i64,
}

#[payload]
struct Line<'e> {
    invoice_no: Cow<'e, str>,
    stock_code: Cow<'e, str>,
    description: Option<Cow<'e, str>>,
    quantity: i64,
    unit_price: Decimal,
    customer_id: Option<Cow<'e, str>>,
    country: Cow<'e, str>,
}

#[derive(Events)]
#[events(unknown = "refuse")]
enum RetailEvent<'e> {
    InvoiceLineAdded(Line<'e>),
    InvoiceLineCancelled(Line<'e>),
}

struct Retail;

impl Projection for Retail {
    type Event<'e> = RetailEvent<'e>;
    type ReadModels = (Invoice, Customer, StockCode, CountryDay);

    fn handle(event: &RetailEvent<'_>, at: &Meta<'_>, rows: &mut Rows) -> Result {
        let line = event.line();
        let amount = line.amount()?;
        // An invoice has one customer, one country and one day, so its row tells whether it has been counted.
        let new_invoice = i64::from(!rows.exists::<Invoice>(&line.invoice_no)?);
        rows.modify_or_insert::<Invoice, _>(
            &line.invoice_no,
            || Invoice::begin(line, at),
            |invoice| invoice.add(line, amount, at),
        )??;
        rows.modify_or_insert(
            line.customer(),
            || Customer::begin(line, at),
            |customer: &mut Customer| {
                match event {
                    RetailEvent::InvoiceLineAdded(_) => customer.orders += new_invoice,
                    RetailEvent::InvoiceLineCancelled(_) => {
                        customer.cancellations += new_invoice;
                        customer.cancelled_lines += 1;
                    }
                }
                customer.lines += 1;
                customer.revenue += amount;
                customer.last_at = at.occurred_at;
            },
        )?;
        rows.modify_or_insert(
            &line.stock_code,
            || StockCode {
                stock_code: line.stock_code.to_string(),
                ..StockCode::default()
            },
            |stock| stock.add(line, amount),
        )?;
        let (country, day) = (&line.country, at.occurred_at.date());
        rows.modify_or_insert(
            (country, day),
            || CountryDay {
                country: country.to_string(),
                day,
                ..CountryDay::default()
            },
            |sales| {
                sales.revenue += amount;
                sales.lines += 1;
                sales.invoices += new_invoice;
            },
        )
    }

    fn want(event: &RetailEvent<'_>, at: &Meta<'_>, rows: &mut Rows) {
        let line = event.line();
        rows.want::<Invoice>(&line.invoice_no);
        rows.want::<Customer>(line.customer());
        rows.want::<StockCode>(&line.stock_code);
        rows.want::<CountryDay>((&line.country, at.occurred_at.date()));
    }
}

impl<'e> RetailEvent<'e> {
    fn line(&self) -> &Line<'e> {
        match self {
            Self::InvoiceLineAdded(line) | Self::InvoiceLineCancelled(line) => line,
        }
    }
}

impl Line<'_> {
    fn customer(&self) -> &str {
        self.customer_id.as_deref().unwrap_or_default()
    }

    /// Every amount has three digits after the point, as the most precise prices do.
    fn amount(&self) -> Result<Decimal> {
        (Decimal::from(self.quantity) * self.unit_price).rescale(3)
    }
}

impl Invoice {
    fn begin(line: &Line<'_>, at: &Meta<'_>) -> Self {
        Self {
            invoice_no: line.invoice_no.to_string(),
            customer_id: line.customer().to_owned(),
            country: line.country.to_string(),
            lines: 0,
            units: 0,
            total: Decimal::ZERO,
            first_at: at.occurred_at,
            last_at: at.occurred_at,
        }
    }

    fn add(&mut self, line: &Line<'_>, amount: Decimal, at: &Meta<'_>) -> Result {
        ensure!(
            self.customer_id == line.customer(),
            "the invoice has two customers"
        );
        ensure!(
            self.country == line.country,
            "the invoice has two countries"
        );
        ensure!(
            self.first_at.date() == at.occurred_at.date(),
            "the invoice spans two days"
        );
        self.lines += 1;
        self.units += line.quantity;
        self.total += amount;
        self.last_at = at.occurred_at;
        Ok(())
    }
}

impl Customer {
    fn begin(line: &Line<'_>, at: &Meta<'_>) -> Self {
        let customer_id = line.customer().to_owned();
        Self {
            customer_id,
            first_at: at.occurred_at,
            ..Self::default()
        }
    }
}

impl StockCode {
    fn add(&mut self, line: &Line<'_>, amount: Decimal) {
        match line.quantity {
            sold @ 0.. => self.units_sold += sold,
            returned => self.units_returned -= returned,
        }
        self.revenue += amount;
        self.lines += 1;
        if let Some(description) = &line.description {
            self.last_description = Some(description.to_string());
        }
    }
}

export!(Retail);
