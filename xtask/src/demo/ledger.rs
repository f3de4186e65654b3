//! What the read models must hold, kept by the simulator itself while it trades.

use std::collections::BTreeMap;

use super::clock::MINUTE;
use super::decimal::Decimal;

/// Prices are whole cents, quantities whole ten-thousandths.
pub(crate) const PRICE_SCALE: u32 = 2;
/// See [`PRICE_SCALE`].
pub(crate) const QUANTITY_SCALE: u32 = 4;
const NOTIONAL_SCALE: u32 = PRICE_SCALE + QUANTITY_SCALE;
/// The places of an average price, as the plugins round it.
const AVERAGE_SCALE: u32 = 8;

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Null,
    Text(String),
    Whole(i64),
    Decimal(Decimal),
    Time(i64),
}

/// One row: its columns by name.
pub(crate) type Row = BTreeMap<&'static str, Cell>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Buy,
    Sell,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Buy => "buy",
            Side::Sell => "sell",
        }
    }
}

#[derive(Debug)]
struct Order {
    user: String,
    side: Side,
    price: i64,
    quantity: i64,
    filled: i64,
    notional: i128,
    cancelled: bool,
    created: i64,
    updated: i64,
}

#[derive(Debug, Default)]
struct Stats {
    orders: i64,
    volume: i64,
    notional: i128,
    last_trade: Option<i64>,
}

#[derive(Debug)]
struct Bar {
    open: i64,
    high: i64,
    low: i64,
    close: i64,
    volume: i64,
    trades: i64,
}

/// The expected rows of one symbol.
#[derive(Debug)]
pub(crate) struct Ledger {
    symbol: &'static str,
    orders: BTreeMap<String, Order>,
    stats: BTreeMap<String, Stats>,
    bars: BTreeMap<i64, Bar>,
}

impl Ledger {
    pub(crate) fn new(symbol: &'static str) -> Ledger {
        Ledger {
            symbol,
            orders: BTreeMap::new(),
            stats: BTreeMap::new(),
            bars: BTreeMap::new(),
        }
    }

    pub(crate) fn created(
        &mut self,
        id: &str,
        user: &str,
        side: Side,
        price: i64,
        quantity: i64,
        at: i64,
    ) {
        let user = user.to_owned();
        self.stats.entry(user.clone()).or_default().orders += 1;
        let order = Order {
            user,
            side,
            price,
            quantity,
            filled: 0,
            notional: 0,
            cancelled: false,
            created: at,
            updated: at,
        };
        self.orders.insert(id.to_owned(), order);
    }

    pub(crate) fn matched(&mut self, id: &str, price: i64, quantity: i64, at: i64) {
        if let Some(order) = self.orders.get_mut(id) {
            order.filled += quantity;
            order.notional += i128::from(price) * i128::from(quantity);
            order.updated = at;
        }
    }

    pub(crate) fn cancelled(&mut self, id: &str, at: i64) {
        if let Some(order) = self.orders.get_mut(id) {
            order.cancelled = true;
            order.updated = at;
        }
    }

    pub(crate) fn traded(&mut self, buyer: &str, seller: &str, price: i64, quantity: i64, at: i64) {
        for user in [buyer, seller] {
            let stats = self.stats.entry(user.to_owned()).or_default();
            stats.volume += quantity;
            stats.notional += i128::from(price) * i128::from(quantity);
            stats.last_trade = Some(at);
        }
        let first = Bar {
            open: price,
            high: price,
            low: price,
            close: price,
            volume: 0,
            trades: 0,
        };
        let bar = self.bars.entry(at - at.rem_euclid(MINUTE)).or_insert(first);
        bar.high = bar.high.max(price);
        bar.low = bar.low.min(price);
        bar.close = price;
        bar.volume += quantity;
        bar.trades += 1;
    }

    /// The rows of `orders`, by order.
    pub(crate) fn order_rows(&self) -> impl Iterator<Item = Row> {
        self.orders.iter().map(|(id, order)| {
            BTreeMap::from([
                ("order_id", text(id)),
                ("user_id", text(&order.user)),
                ("symbol", text(self.symbol)),
                ("side", text(order.side.name())),
                ("status", text(order.status())),
                ("price", price(order.price)),
                ("quantity", quantity(order.quantity)),
                ("filled", quantity(order.filled)),
                ("notional", notional(order.notional)),
                ("average_price", average(order.notional, order.filled)),
                ("created_at", Cell::Time(order.created)),
                ("updated_at", Cell::Time(order.updated)),
            ])
        })
    }

    /// The rows of `user_symbol_stats`, by user.
    pub(crate) fn stats_rows(&self) -> impl Iterator<Item = Row> {
        self.stats.iter().map(|(user, stats)| {
            BTreeMap::from([
                ("user_id", text(user)),
                ("symbol", text(self.symbol)),
                ("orders", Cell::Whole(stats.orders)),
                ("volume", quantity(stats.volume)),
                ("notional", notional(stats.notional)),
                ("average_price", average(stats.notional, stats.volume)),
                (
                    "last_trade_at",
                    stats.last_trade.map_or(Cell::Null, Cell::Time),
                ),
            ])
        })
    }

    /// The rows of `symbol_bars`, by minute.
    pub(crate) fn bar_rows(&self) -> impl Iterator<Item = Row> {
        self.bars.iter().map(|(minute, bar)| {
            BTreeMap::from([
                ("symbol", text(self.symbol)),
                ("minute", Cell::Time(*minute)),
                ("open", price(bar.open)),
                ("high", price(bar.high)),
                ("low", price(bar.low)),
                ("close", price(bar.close)),
                ("volume", quantity(bar.volume)),
                ("trades", Cell::Whole(bar.trades)),
            ])
        })
    }
}

impl Order {
    fn status(&self) -> &'static str {
        match self {
            Order {
                cancelled: true, ..
            } => "cancelled",
            Order { filled: 0, .. } => "open",
            Order {
                filled, quantity, ..
            } if filled == quantity => "filled",
            _ => "partially_filled",
        }
    }
}

fn text(value: &str) -> Cell {
    Cell::Text(value.to_owned())
}

fn price(cents: i64) -> Cell {
    Cell::Decimal(Decimal::new(cents.into(), PRICE_SCALE))
}

fn quantity(units: i64) -> Cell {
    Cell::Decimal(Decimal::new(units.into(), QUANTITY_SCALE))
}

fn notional(units: i128) -> Cell {
    Cell::Decimal(Decimal::new(units, NOTIONAL_SCALE))
}

fn average(notional: i128, filled: i64) -> Cell {
    let filled = Decimal::new(filled.into(), QUANTITY_SCALE);
    let average = Decimal::quotient(
        Decimal::new(notional, NOTIONAL_SCALE),
        filled,
        AVERAGE_SCALE,
    );
    average.map_or(Cell::Null, Cell::Decimal)
}
