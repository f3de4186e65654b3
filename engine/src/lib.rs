//! Gobo: a projection engine for PostgreSQL.

// The flow, top to bottom.
pub mod event;
pub mod frame;

// The control plane.
pub mod api;
pub mod db;
pub mod migrate;
