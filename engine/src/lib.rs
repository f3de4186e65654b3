//! Gobo: a projection engine for PostgreSQL.

// The flow, top to bottom.
pub mod descriptor;
pub mod event;
pub mod frame;
pub mod host;
pub mod read_model;

// The control plane.
pub mod api;
pub mod db;
pub mod migrate;
