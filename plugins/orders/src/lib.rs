//! One row per order: what was ordered, how much of it is filled, and at what average price.

use gobo_sdk::prelude::*;

/// How many digits an average price keeps.
const AVERAGE_SCALE: u32 = 8;

/// One row per order.
#[derive(ReadModel, Clone)]
#[read_model(table = "orders", per_stream, index(user_id, status), index(symbol, status))]
pub struct Order {
    /// The order's own identifier.
    #[key]
    pub order_id: String,
    /// Who placed the order.
    pub user_id: String,
    /// What is traded.
    pub symbol: String,
    /// Which way.
    pub side: Side,
    /// How far it got.
    pub status: Status,
    /// The limit price.
    pub price: Decimal,
    /// How much was ordered.
    pub quantity: Decimal,
    /// How much of it has been traded.
    pub filled: Decimal,
    /// The sum of price times quantity over its trades.
    pub notional: Decimal,
    /// Notional divided by filled, to eight digits; NULL before the first trade.
    pub average_price: Option<Decimal>,
    /// When the order was placed.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Which way an order goes.
#[derive(Text, Clone, Copy, Debug, PartialEq, Eq)]
#[text(rename_all = "snake_case")]
pub enum Side {
    /// For the symbol.
    Buy,
    /// Against it.
    Sell,
}

/// How far an order got.
#[derive(Text, Clone, Copy, Debug, PartialEq, Eq)]
#[text(rename_all = "snake_case")]
pub enum Status {
    /// Nothing is traded yet.
    Open,
    /// A part is traded.
    PartiallyFilled,
    /// All of it is traded.
    Filled,
    /// It was taken back; what was traded before stays traded.
    Cancelled,
}

#[payload]
#[doc(hidden)]
pub struct Created<'e> {
    order_id: Cow<'e, str>,
    user_id: Cow<'e, str>,
    symbol: Cow<'e, str>,
    side: Side,
    price: Decimal,
    quantity: Decimal,
}

#[payload]
#[doc(hidden)]
pub struct Matched<'e> {
    order_id: Cow<'e, str>,
    quantity: Decimal,
    price: Decimal,
}

#[payload]
#[doc(hidden)]
pub struct Cancelled<'e> {
    order_id: Cow<'e, str>,
}

/// What happens to an order.
#[derive(Events)]
#[events(unknown = "ignore")]
pub enum OrderEvent<'e> {
    /// It is placed.
    OrderCreated(Created<'e>),
    /// A part of it, or all, is traded.
    OrderMatched(Matched<'e>),
    /// What is left of it is taken back.
    OrderCancelled(Cancelled<'e>),
}

/// The projection.
pub struct Orders;

impl Projection for Orders {
    type Event<'e> = OrderEvent<'e>;
    type ReadModels = Order;

    fn handle(event: &OrderEvent<'_>, at: &Meta<'_>, rows: &mut Rows) -> Result {
        match event {
            OrderEvent::OrderCreated(created) => rows.upsert(Order::open(created, at)),
            OrderEvent::OrderMatched(matched) => {
                rows.modify::<Order, _>(&matched.order_id, |order| order.fill(matched, at))??;
            }
            OrderEvent::OrderCancelled(cancelled) => rows.modify::<Order, _>(&cancelled.order_id, |order| {
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
        self.average_price = Some(self.notional.div(self.filled, AVERAGE_SCALE, Rounding::HalfUp)?);
        self.status = if self.filled >= self.quantity { Status::Filled } else { Status::PartiallyFilled };
        self.updated_at = at.occurred_at;
        Ok(())
    }
}

export!(Orders);
