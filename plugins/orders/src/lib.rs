//! One row per order: what was ordered, how much of it is filled, and at what average price.

use gobo_sdk::prelude::*;

#[cfg(test)]
mod tests;

/// One row per order.
#[derive(ReadModel, Clone)]
#[read_model(
    table = "orders",
    per_stream,
    index(user_id, status),
    index(symbol),
    references(user_id, symbol -> user_symbol_stats)
)]
struct Order {
    /// The order's own identifier.
    #[key]
    order_id: String,
    /// Who placed the order.
    user_id: String,
    /// What is traded.
    symbol: String,
    /// Which way.
    side: Side,
    /// How far it got.
    status: Status,
    /// The limit price.
    price: Decimal,
    /// How much was ordered.
    quantity: Decimal,
    /// How much of it has been traded.
    filled: Decimal,
    /// The sum of price times quantity over its trades.
    notional: Decimal,
    /// Notional divided by filled, to eight digits; NULL before the first trade.
    average_price: Option<Decimal>,
    /// When the order was placed.
    created_at: Timestamp,
    /// When it last changed.
    updated_at: Timestamp,
}

#[derive(Text, Clone, Copy, Debug, PartialEq, Eq)]
#[text(rename_all = "snake_case")]
enum Side {
    Buy,
    Sell,
}

#[derive(Text, Clone, Copy, Debug, PartialEq, Eq)]
#[text(rename_all = "snake_case")]
enum Status {
    Open,
    PartiallyFilled,
    Filled,
    Cancelled,
}

#[payload]
struct Created<'e> {
    order_id: Cow<'e, str>,
    user_id: Cow<'e, str>,
    symbol: Cow<'e, str>,
    side: Side,
    price: Decimal,
    quantity: Decimal,
}

#[payload]
struct Matched<'e> {
    order_id: Cow<'e, str>,
    quantity: Decimal,
    price: Decimal,
}

#[payload]
struct Cancelled<'e> {
    order_id: Cow<'e, str>,
}

#[derive(Events)]
#[events(unknown = "ignore")]
#[allow(
    clippy::enum_variant_names,
    reason = "they are the types of the events"
)]
enum OrderEvent<'e> {
    OrderCreated(Created<'e>),
    OrderMatched(Matched<'e>),
    OrderCancelled(Cancelled<'e>),
}

struct Orders;

impl Projection for Orders {
    type Event<'e> = OrderEvent<'e>;
    type ReadModels = Order;

    fn handle(event: &OrderEvent<'_>, at: &Meta<'_>, rows: &mut Rows) -> Result {
        match event {
            OrderEvent::OrderCreated(c) => rows.upsert(Order::open(c, at)),
            OrderEvent::OrderMatched(m) => {
                rows.modify::<Order, _>(&m.order_id, |order| order.fill(m, at))??;
            }
            OrderEvent::OrderCancelled(c) => rows.modify::<Order, _>(&c.order_id, |order| {
                order.status = Status::Cancelled;
                order.updated_at = at.occurred_at;
            })?,
        }
        Ok(())
    }
}

impl Order {
    fn open(created: &Created<'_>, at: &Meta<'_>) -> Self {
        Self {
            order_id: created.order_id.to_string(),
            user_id: created.user_id.to_string(),
            symbol: created.symbol.to_string(),
            side: created.side,
            status: Status::Open,
            price: created.price,
            quantity: created.quantity,
            filled: Decimal::ZERO,
            notional: Decimal::ZERO,
            average_price: None,
            created_at: at.occurred_at,
            updated_at: at.occurred_at,
        }
    }

    fn fill(&mut self, matched: &Matched<'_>, at: &Meta<'_>) -> Result {
        self.filled += matched.quantity;
        self.notional += matched.price * matched.quantity;
        self.average_price = Some(self.notional.div(self.filled, 8, Rounding::HalfUp)?);
        self.status = match self.filled >= self.quantity {
            true => Status::Filled,
            false => Status::PartiallyFilled,
        };
        self.updated_at = at.occurred_at;
        Ok(())
    }
}

export!(Orders);
