//! The change feed, and live queries over it.

mod feed;
