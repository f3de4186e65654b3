//! Gobo: a projection engine for PostgreSQL.

// The flow, top to bottom.
pub mod event;
pub mod store;
pub mod source;
pub mod descriptor;
pub mod host;
pub mod frame;
pub mod change;
pub mod projection;
pub mod read_model;
pub mod query;

// The control plane.
pub mod api;
pub mod db;
pub mod migrate;
pub mod progress;
