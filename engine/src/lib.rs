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

// The control plane: it calls the flow, never the other way round.
pub mod runtime;
pub mod config;
pub mod registry;
pub mod deploy;
pub mod import;
pub mod api;
pub mod cli;
pub mod db;
pub mod migrate;
pub mod progress;
pub mod shutdown;
pub mod sources;
