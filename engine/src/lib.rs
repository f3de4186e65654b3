//! Gobo: a projection engine for PostgreSQL.

// The flow, top to bottom.
pub mod event;
pub mod frame;
pub mod source;
pub mod store;

// The control plane.
pub mod api;
pub mod cli;
pub mod db;
pub mod import;
pub mod migrate;
