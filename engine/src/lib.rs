//! Gobo: a projection engine for PostgreSQL.

// The flow, top to bottom.
pub mod change;
pub mod descriptor;
pub mod event;
pub mod frame;
pub mod host;
pub mod projection;
pub mod query;
pub mod read_model;
pub mod source;

// The control plane.
pub mod api;
pub mod db;
pub mod migrate;
pub mod progress;
