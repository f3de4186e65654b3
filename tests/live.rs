//! The change feed, and live queries over it.

mod events;
mod feed;
mod follow;
mod hub;
mod lists;
mod many;
mod moment;
mod refused;
mod resume;
mod rules;
