//! What each user trades per symbol, and one-minute bars of each symbol.

use gobo_sdk::prelude::*;

#[cfg(test)]
mod tests;

/// One row per user and symbol.
#[derive(ReadModel, Clone, Default)]
#[read_model(table = "user_symbol_stats", index(symbol, volume))]
struct Stats {
    #[key]
    user_id: String,
    #[key]
    symbol: String,
    /// How many orders the user placed.
    orders: i64,
    /// How much the user bought and sold.
    volume: Decimal,
    /// The sum of price times quantity over the user's trades.
    notional: Decimal,
    /// Notional divided by volume, to eight digits; NULL before the first trade.
    average_price: Option<Decimal>,
    /// When the user last traded.
    last_trade_at: Option<Timestamp>,
}

/// One row per symbol and minute with a trade in it: first, highest, lowest and last price.
#[derive(ReadModel, Clone, Default)]
#[read_model(table = "symbol_bars", per_stream)]
struct Bar {
    #[key]
    symbol: String,
    /// When the minute begins.
    #[key]
    minute: Timestamp,
    open: Decimal,
    high: Decimal,
    low: Decimal,
    close: Decimal,
    /// How much was traded.
    volume: Decimal,
    /// How many trades there were.
    trades: i64,
}

#[payload]
struct Created<'e> {
    user_id: Cow<'e, str>,
    symbol: Cow<'e, str>,
}

#[payload]
struct Trade<'e> {
    symbol: Cow<'e, str>,
    buyer_id: Cow<'e, str>,
    seller_id: Cow<'e, str>,
    price: Decimal,
    quantity: Decimal,
}

#[derive(Events)]
enum TradingEvent<'e> {
    OrderCreated(Created<'e>),
    TradeExecuted(Trade<'e>),
}

struct TradingStats;

impl Projection for TradingStats {
    type Event<'e> = TradingEvent<'e>;
    type ReadModels = (Stats, Bar);

    fn handle(event: &TradingEvent<'_>, at: &Meta<'_>, rows: &mut Rows) -> Result {
        match event {
            TradingEvent::OrderCreated(c) => {
                stats(rows, &c.user_id, &c.symbol, |stats| stats.orders += 1)
            }
            TradingEvent::TradeExecuted(t) => {
                stats(rows, &t.buyer_id, &t.symbol, |stats| stats.add(t, at))??;
                stats(rows, &t.seller_id, &t.symbol, |stats| stats.add(t, at))??;
                let minute = at.occurred_at.truncate_to_minute();
                let new = || Bar::begin(t, minute);
                rows.modify_or_insert::<Bar, _>((&t.symbol, minute), new, |bar| bar.add(t))
            }
        }
    }

    fn want(event: &TradingEvent<'_>, at: &Meta<'_>, rows: &mut Rows) {
        match event {
            TradingEvent::OrderCreated(c) => rows.want::<Stats>((&c.user_id, &c.symbol)),
            TradingEvent::TradeExecuted(t) => {
                rows.want::<Stats>((&t.buyer_id, &t.symbol));
                rows.want::<Stats>((&t.seller_id, &t.symbol));
                rows.want::<Bar>((&t.symbol, at.occurred_at.truncate_to_minute()));
            }
        }
    }
}

/// Changes the row of a user and symbol; the first time, one of zeros.
fn stats<T>(
    rows: &mut Rows,
    user: &str,
    symbol: &str,
    f: impl FnOnce(&mut Stats) -> T,
) -> Result<T> {
    let new = || Stats {
        user_id: user.to_owned(),
        symbol: symbol.to_owned(),
        ..Stats::default()
    };
    rows.modify_or_insert((user, symbol), new, f)
}

impl Stats {
    fn add(&mut self, trade: &Trade<'_>, at: &Meta<'_>) -> Result {
        self.volume += trade.quantity;
        self.notional += trade.price * trade.quantity;
        self.average_price = Some(self.notional.div(self.volume, 8, Rounding::HalfUp)?);
        self.last_trade_at = Some(at.occurred_at);
        Ok(())
    }
}

impl Bar {
    fn begin(trade: &Trade<'_>, minute: Timestamp) -> Self {
        let (symbol, price) = (trade.symbol.to_string(), trade.price);
        Self {
            symbol,
            minute,
            open: price,
            high: price,
            low: price,
            ..Self::default()
        }
    }

    fn add(&mut self, trade: &Trade<'_>) {
        self.high = self.high.max(trade.price);
        self.low = self.low.min(trade.price);
        self.close = trade.price;
        self.volume += trade.quantity;
        self.trades += 1;
    }
}

export!(TradingStats);
