//! A simulated market for one symbol: limit orders that meet by price, then time.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::clock;
use super::decimal::Decimal;
use super::ledger::{Ledger, PRICE_SCALE, QUANTITY_SCALE, Side};
use super::random::Random;

/// What is traded, with the price in cents at which it begins.
pub(crate) const SYMBOLS: [(&str, i64); 8] = [
    ("BTC-EUR", 6_142_050),
    ("ETH-EUR", 248_310),
    ("SOL-EUR", 13_275),
    ("ADA-EUR", 4_120),
    ("DOT-EUR", 618),
    ("LTC-EUR", 7_955),
    ("XMR-EUR", 15_240),
    ("ATOM-EUR", 531),
];

const USERS: i64 = 200;

/// Events for one stream, to be appended together.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) stream: String,
    /// The version that the stream must have, or `None` for any.
    pub(crate) expected: Option<Value>,
    pub(crate) events: Vec<Value>,
}

#[derive(Debug)]
struct Resting {
    id: String,
    user: String,
    side: Side,
    price: i64,
    open: i64,
    /// The number of events in the order's stream.
    events: i64,
}

/// One symbol's order book, its clock, and what it expects of the read models.
#[derive(Debug)]
pub(crate) struct Market {
    run: u64,
    symbol: &'static str,
    random: Random,
    now: i64,
    middle: i64,
    orders: i64,
    trades: i64,
    /// Resting orders in the order in which they are matched: best price first, then the oldest.
    /// A bid's price is negated for that.
    bids: BTreeMap<(i64, i64), Resting>,
    asks: BTreeMap<(i64, i64), Resting>,
    ledger: Ledger,
}

impl Market {
    /// A market that begins at `start`. Everything that it names carries the number of the run.
    pub(crate) fn new(seed: u64, run: u64, index: usize, start: i64) -> Market {
        let (symbol, middle) = SYMBOLS[index];
        let mut random = Random::new(seed ^ (run << 32) ^ index as u64);
        random.next();
        Market {
            run,
            symbol,
            random,
            now: start,
            middle,
            orders: 0,
            trades: 0,
            bids: BTreeMap::new(),
            asks: BTreeMap::new(),
            ledger: Ledger::new(symbol),
        }
    }

    pub(crate) fn into_ledger(self) -> Ledger {
        self.ledger
    }

    /// What happens next: a new order with all that follows from it, or a cancellation.
    pub(crate) fn step(&mut self) -> Vec<Append> {
        self.now += self.random.between(1_000, 4_000_000);
        self.middle =
            (self.middle + self.random.between(-3, 3) * (self.middle / 5_000).max(1)).max(100);
        if self.random.chance(15)
            && let Some(order) = self.some_resting()
        {
            return vec![self.cancel(order, "requested by the user")];
        }
        self.place()
    }

    fn place(&mut self) -> Vec<Append> {
        self.orders += 1;
        let side = if self.random.chance(50) {
            Side::Buy
        } else {
            Side::Sell
        };
        let reach = (self.middle / 200).max(3);
        let away = self.random.between(-reach, reach * 2);
        let price = (if side == Side::Buy {
            self.middle - away
        } else {
            self.middle + away
        })
        .max(1);
        let quantity = self.random.between(1, 40) * self.random.between(1, 2_500);
        let mut taker = Resting {
            id: format!("{}{}-{:06}", prefix(self.run), self.symbol, self.orders),
            user: format!(
                "{}user-{:03}",
                prefix(self.run),
                self.random.between(1, USERS)
            ),
            side,
            price,
            open: quantity,
            events: 0,
        };
        self.ledger
            .created(&taker.id, &taker.user, side, price, quantity, self.now);
        let created = json!({
            "order_id": taker.id, "user_id": taker.user, "symbol": self.symbol, "side": side.name(),
            "price": price_text(price), "quantity": quantity_text(quantity),
        });
        let mut own = vec![self.event("OrderCreated", created)];
        let mut trades = Vec::new();
        let mut others = Vec::new();
        while taker.open > 0
            && let Some(maker) = self.take_match(&taker)
        {
            if maker.user == taker.user {
                others.push(self.cancel(maker, "would trade with its own user"));
                continue;
            }
            let (matched, other, trade) = self.trade(&mut taker, maker);
            own.push(matched);
            others.push(other);
            trades.push(trade);
        }
        taker.events = own.len() as i64;
        let mut appends = vec![Append {
            stream: stream(&taker.id),
            expected: Some(json!("none")),
            events: own,
        }];
        appends.append(&mut others);
        if !trades.is_empty() {
            appends.push(Append {
                stream: format!("trades-{}", self.symbol),
                expected: None,
                events: trades,
            });
        }
        if taker.open > 0 {
            self.rest(taker, self.orders);
        }
        appends
    }

    /// Trades as much as both orders allow. Returns the taker's event, the maker's, and the trade.
    fn trade(&mut self, taker: &mut Resting, mut maker: Resting) -> (Value, Append, Value) {
        self.trades += 1;
        let id = format!(
            "{}{}-trade-{:06}",
            prefix(self.run),
            self.symbol,
            self.trades
        );
        let (price, quantity) = (maker.price, maker.open.min(taker.open));
        let (buyer, seller) = if taker.side == Side::Buy {
            (&*taker, &maker)
        } else {
            (&maker, &*taker)
        };
        let traded = json!({
            "trade_id": id, "symbol": self.symbol, "buyer_id": buyer.user, "seller_id": seller.user,
            "price": price_text(price), "quantity": quantity_text(quantity),
        });
        self.ledger
            .traded(&buyer.user, &seller.user, price, quantity, self.now);
        let trade = self.event("TradeExecuted", traded);
        let own = self.matched(&taker.id, &id, price, quantity);
        let theirs = self.matched(&maker.id, &id, price, quantity);
        let append = self.append_to(&mut maker, theirs);
        taker.open -= quantity;
        maker.open -= quantity;
        if maker.open > 0 {
            // It keeps its place in time: its number is in its name.
            let number = maker
                .id
                .rsplit('-')
                .next()
                .and_then(|number| number.parse().ok())
                .unwrap_or(0);
            self.rest(maker, number);
        }
        (own, append, trade)
    }

    fn matched(&mut self, id: &str, trade: &str, price: i64, quantity: i64) -> Value {
        self.ledger.matched(id, price, quantity, self.now);
        let data = json!({
            "order_id": id, "quantity": quantity_text(quantity), "price": price_text(price), "trade_id": trade,
        });
        self.event("OrderMatched", data)
    }

    fn cancel(&mut self, mut order: Resting, reason: &str) -> Append {
        self.ledger.cancelled(&order.id, self.now);
        let event = self.event(
            "OrderCancelled",
            json!({ "order_id": order.id, "reason": reason }),
        );
        self.append_to(&mut order, event)
    }

    fn append_to(&self, order: &mut Resting, event: Value) -> Append {
        let expected = Some(json!(order.events - 1));
        order.events += 1;
        Append {
            stream: stream(&order.id),
            expected,
            events: vec![event],
        }
    }

    fn event(&mut self, kind: &str, data: Value) -> Value {
        json!({ "event_id": self.random.uuid(), "type": kind, "data": data, "occurred_at": clock::text(self.now) })
    }

    fn rest(&mut self, order: Resting, number: i64) {
        match order.side {
            Side::Buy => self.bids.insert((-order.price, number), order),
            Side::Sell => self.asks.insert((order.price, number), order),
        };
    }

    /// Takes the best order of the other side from the book when its price suits `taker`.
    fn take_match(&mut self, taker: &Resting) -> Option<Resting> {
        let (book, limit) = match taker.side {
            Side::Buy => (&mut self.asks, taker.price),
            Side::Sell => (&mut self.bids, -taker.price),
        };
        let best = *book.keys().next()?;
        if best.0 <= limit {
            book.remove(&best)
        } else {
            None
        }
    }

    fn some_resting(&mut self) -> Option<Resting> {
        let buying = self.random.chance(50);
        let book = if buying {
            &mut self.bids
        } else {
            &mut self.asks
        };
        let count = i64::try_from(book.len()).ok().filter(|count| *count > 0)?;
        let place = self.random.between(0, count - 1);
        let key = *book.keys().nth(usize::try_from(place).ok()?)?;
        book.remove(&key)
    }
}

/// What every order and user of a run begins with.
pub(crate) fn prefix(run: u64) -> String {
    format!("run{run:04}-")
}

fn stream(order: &str) -> String {
    format!("order-{order}")
}

fn price_text(cents: i64) -> String {
    Decimal::new(cents.into(), PRICE_SCALE).to_string()
}

fn quantity_text(units: i64) -> String {
    Decimal::new(units.into(), QUANTITY_SCALE).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::ledger::Cell;

    #[test]
    fn a_seed_always_gives_the_same_market_and_its_books_balance() {
        let mut market = Market::new(7, 1, 0, 0);
        let mut again = Market::new(7, 1, 0, 0);
        let mut fills = 0;
        for _ in 0..2_000 {
            let appends = market.step();
            assert_eq!(format!("{appends:?}"), format!("{:?}", again.step()));
            let events = appends.iter().flat_map(|append| &append.events);
            fills += events
                .filter(|event| event["type"] == "OrderMatched")
                .count();
        }
        let trades = usize::try_from(market.trades).unwrap();
        assert!(trades > 200, "{trades} trades");
        assert_eq!(fills, trades * 2);
        let statuses: std::collections::BTreeSet<String> = market
            .into_ledger()
            .order_rows()
            .map(|row| format!("{:?}", row["status"]))
            .collect();
        let expected = ["cancelled", "filled", "open", "partially_filled"];
        assert_eq!(
            statuses,
            expected
                .map(|status| format!("{:?}", Cell::Text(status.to_owned())))
                .into()
        );
    }
}
