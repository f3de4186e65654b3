//! Gobo: a projection engine for PostgreSQL.
//!
//! ```text
//! append / foreign writers -> events -> source -> batch -> plugin (begin -> rows -> resume) -> changes
//!                                                            |  one transaction: rows + checkpoint + fence
//!        HTTP readers <- query <- read-model tables <--------+
//! ```

// The flow, top to bottom.
pub mod event;
pub mod store;
pub mod import;
pub mod ingest;
pub mod source;
pub mod host;
pub mod descriptor;
pub mod frame;
pub mod change;
pub mod failure;
pub mod projection;
pub mod read_model;
pub mod progress;
pub mod query;
pub mod cache;
pub mod feed;

// The control plane: it calls the flow, never the other way round.
pub mod runtime;
pub mod sources;
pub mod registry;
pub mod deploy;
pub mod generations;
pub mod ownership;
pub mod access;
pub mod api;
pub mod config;
pub mod cli;
pub mod migrate;
pub mod db;
pub mod redis;
pub mod shutdown;
