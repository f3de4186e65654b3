use gobo_sdk::prelude::*;
use gobo_sdk::serde_json::json;
use gobo_sdk::testing::{TestEvent, event, given};

use super::{Bar, Stats, TradingStats};

fn created(user: &str) -> TestEvent {
    let data = json!({
        "order_id": "o-1", "user_id": user, "symbol": "ACME", "side": "buy", "price": "10.50", "quantity": "3",
    });
    event("OrderCreated", data).stream("order-o-1")
}

fn trade(buyer: &str, seller: &str, price: &str, quantity: &str) -> TestEvent {
    let data = json!({
        "trade_id": "t-1", "symbol": "ACME", "buyer_id": buyer, "seller_id": seller, "price": price, "quantity": quantity,
    });
    event("TradeExecuted", data).stream("trades-ACME")
}

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn stats(user: &str) -> Stats {
    Stats {
        user_id: user.into(),
        symbol: "ACME".into(),
        ..Stats::default()
    }
}

fn bar(minute: &str, prices: [&str; 4], volume: &str, trades: i64) -> Bar {
    let [open, high, low, close] = prices.map(decimal);
    Bar {
        symbol: "ACME".into(),
        minute: time(minute),
        open,
        high,
        low,
        close,
        volume: decimal(volume),
        trades,
    }
}

#[test]
fn orders_are_counted_before_anything_is_traded() {
    given::<TradingStats>([created("ann"), created("ann"), created("bob")])
        .expect([
            Stats {
                orders: 2,
                ..stats("ann")
            },
            Stats {
                orders: 1,
                ..stats("bob")
            },
        ])
        .expect::<Bar>([]);
}

#[test]
fn a_trade_counts_for_buyer_and_seller() {
    let traded = |user: &str| Stats {
        volume: decimal("3"),
        notional: decimal("32"),
        average_price: Some(decimal("10.66666667")),
        last_trade_at: Some(time("2024-03-01T10:00:59.999999Z")),
        ..stats(user)
    };
    given::<TradingStats>([
        trade("ann", "bob", "10", "1").at("2024-03-01T10:00:00Z"),
        trade("bob", "ann", "11", "2").at("2024-03-01T10:00:59.999999Z"),
    ])
    .expect([traded("ann"), traded("bob")]);
}

#[test]
fn who_trades_with_themselves_trades_twice() {
    let outcome = given::<TradingStats>([trade("ann", "ann", "10", "1.5")]);
    assert_eq!(outcome.rows::<Stats>()[0].volume, decimal("3"));
}

#[test]
fn bars_cover_a_minute_each() {
    given::<TradingStats>([
        trade("ann", "bob", "10", "1").at("2024-03-01T10:00:00Z"),
        trade("ann", "bob", "12", "2").at("2024-03-01T10:00:30Z"),
        trade("ann", "bob", "9", "3").at("2024-03-01T10:00:59Z"),
        trade("ann", "bob", "11", "4").at("2024-03-01T10:01:00Z"),
    ])
    .expect([
        bar("2024-03-01T10:00:00Z", ["10", "12", "9", "9"], "6", 3),
        bar("2024-03-01T10:01:00Z", ["11", "11", "11", "11"], "4", 1),
    ]);
}
