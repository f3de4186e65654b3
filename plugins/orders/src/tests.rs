//! What becomes of an order.

use super::{Order, Orders, Side, Status};
use gobo_sdk::prelude::*;
use gobo_sdk::serde_json::{Value, json};
use gobo_sdk::testing::{TestEvent, event, given};

fn created() -> TestEvent {
    let data = json!({"order_id": "o-1", "user_id": "u-1", "symbol": "ACME", "side": "buy", "price": "101.25", "quantity": "2.5"});
    on_order("OrderCreated", data).at("2024-03-01T10:00:00Z")
}

fn matched(quantity: &str, price: &str) -> TestEvent {
    on_order(
        "OrderMatched",
        json!({"order_id": "o-1", "quantity": quantity, "price": price, "trade_id": "t-1"}),
    )
}

fn on_order(event_type: &str, data: Value) -> TestEvent {
    event(event_type, data).stream("order-o-1")
}

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn open_order() -> Order {
    Order {
        order_id: "o-1".into(),
        user_id: "u-1".into(),
        symbol: "ACME".into(),
        side: Side::Buy,
        status: Status::Open,
        price: decimal("101.25"),
        quantity: decimal("2.5"),
        filled: Decimal::ZERO,
        notional: Decimal::ZERO,
        average_price: None,
        created_at: time("2024-03-01T10:00:00Z"),
        updated_at: time("2024-03-01T10:00:00Z"),
    }
}

#[test]
fn a_new_order_is_open_and_has_no_average_price() {
    given::<Orders>([created()]).expect([open_order()]);
}

#[test]
fn trades_fill_an_order_at_their_average_price() {
    given::<Orders>([
        created(),
        matched("0.5", "101").at("2024-03-01T10:00:01Z"),
        matched("1", "101.25").at("2024-03-01T10:00:02Z"),
    ])
    .expect([Order {
        status: Status::PartiallyFilled,
        filled: decimal("1.5"),
        notional: decimal("151.75"),
        average_price: Some(decimal("101.16666667")),
        updated_at: time("2024-03-01T10:00:02Z"),
        ..open_order()
    }]);
}

#[test]
fn an_order_is_filled_when_nothing_is_left_of_it() {
    let outcome = given::<Orders>([created(), matched("2.50", "100")]);
    assert_eq!(outcome.rows::<Order>()[0].status, Status::Filled);
}

#[test]
fn a_cancelled_order_keeps_what_was_traded() {
    given::<Orders>([
        created(),
        matched("1", "100").at("2024-03-01T10:00:01Z"),
        on_order(
            "OrderCancelled",
            json!({"order_id": "o-1", "reason": "user"}),
        )
        .at("2024-03-01T10:00:02Z"),
    ])
    .expect([Order {
        status: Status::Cancelled,
        filled: decimal("1"),
        notional: decimal("100"),
        average_price: Some(decimal("100")),
        updated_at: time("2024-03-01T10:00:02Z"),
        ..open_order()
    }]);
}

#[test]
fn a_trade_of_an_order_that_was_never_created_is_an_error_that_names_both() {
    given::<Orders>([matched("1", "100").position(7)]).expect_error(
        "OrderMatched at position 7 (stream order-o-1, version 0): no row in read model `orders` with order_id = \"o-1\"",
    );
}

#[test]
fn events_of_other_types_are_not_asked_for() {
    let descriptor: Value =
        gobo_sdk::serde_json::from_str(&gobo_sdk::describe::<Orders>()).unwrap();
    assert_eq!(
        descriptor["event_types"],
        json!(["OrderCreated", "OrderMatched", "OrderCancelled"])
    );
    assert_eq!(descriptor["name"], "orders");
}
