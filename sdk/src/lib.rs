//! Write a Gobo projection: typed events in, typed rows out.
//!
//! ```
//! use gobo_sdk::prelude::*;
//!
//! /// One row per order.
//! #[derive(ReadModel, Clone)]
//! #[read_model(table = "orders", per_stream, index(user_id))]
//! struct Order {
//!     #[key]
//!     order_id: String,
//!     user_id: String,
//!     filled: Decimal,
//! }
//!
//! #[payload]
//! struct Created<'e> {
//!     order_id: Cow<'e, str>,
//!     user_id: Cow<'e, str>,
//! }
//!
//! #[payload]
//! struct Matched<'e> {
//!     order_id: Cow<'e, str>,
//!     quantity: Decimal,
//! }
//!
//! #[derive(Events)]
//! enum OrderEvent<'e> {
//!     OrderCreated(Created<'e>),
//!     OrderMatched(Matched<'e>),
//! }
//!
//! struct Orders;
//!
//! impl Projection for Orders {
//!     type Event<'e> = OrderEvent<'e>;
//!     type ReadModels = Order;
//!
//!     fn handle(event: &OrderEvent<'_>, _at: &Meta<'_>, rows: &mut Rows) -> Result {
//!         match event {
//!             OrderEvent::OrderCreated(c) => rows.upsert(Order {
//!                 order_id: c.order_id.to_string(),
//!                 user_id: c.user_id.to_string(),
//!                 filled: Decimal::ZERO,
//!             }),
//!             OrderEvent::OrderMatched(m) => {
//!                 rows.modify::<Order, _>(&m.order_id, |order| order.filled += m.quantity)?;
//!             }
//!         }
//!         Ok(())
//!     }
//! }
//!
//! export!(Orders);
//! # fn main() {}
//! ```
//!
//! From here the modules follow the data: an event, the projection that handles
//! it, the rows it reads and writes, the session that does this for a batch.

extern crate self as gobo_sdk;

mod descriptor;
mod errors;
mod event;
pub mod log;
mod projection;
pub mod read_model;
mod rows;
mod session;

pub mod column;
mod decimal;
mod frame;
mod hash;
mod json;
mod time;
mod uuid;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use decimal::{Decimal, Rounding};
pub use descriptor::describe;
pub use errors::{Error, Result};
pub use event::{Batch, Events, Meta};
pub use frame::FrameReader;
pub use gobo_sdk_macros::{Events, ReadModel, Text, payload};
pub use json::{Json, JsonObject, JsonText};
pub use log::Level;
pub use projection::{Exported, OnChange, Projection, Upcast, upcast};
pub use read_model::{ReadModel, ReadModels};
pub use rows::Rows;
pub use serde;
pub use serde_json;
pub use session::{Failure, Session, Step};
pub use time::{Date, Timestamp};
pub use uuid::Uuid;

/// Everything a projection names.
pub mod prelude {
    pub use std::borrow::Cow;

    pub use crate::{
        Date, Decimal, Error, Events, Json, JsonText, Level, Meta, OnChange, Projection, ReadModel,
        Result, Rounding, Rows, Text, Timestamp, Upcast, Uuid, bail, debug, ensure, error, export,
        info, log, payload, upcast, warn,
    };
}

#[doc(hidden)]
pub mod private;

/// Makes a crate of the type `cdylib` a plugin: `export!(Orders)`.
///
/// The projection is called like the crate and has its version;
/// `export!(Orders, name = "orders-v2")` gives it another name.
#[macro_export]
macro_rules! export {
    ($projection:ident) => {
        $crate::export!($projection, name = env!("CARGO_PKG_NAME"));
    };
    ($projection:ident, name = $name:expr) => {
        impl $crate::Exported for $projection {
            const NAME: &'static str = $name;
            const VERSION: &'static str = env!("CARGO_PKG_VERSION");
        }
        const _: () =
            $crate::private::check_projection_name(<$projection as $crate::Exported>::NAME);
        $crate::__export_guest!($projection);
    };
}

/// Nothing to export where this is not WebAssembly; the projection counts as used all the same.
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __export_guest {
    ($projection:ident) => {
        const _: fn() -> ::std::string::String = $crate::describe::<$projection>;
    };
}
