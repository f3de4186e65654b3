//! The command line: one file per command.

pub mod append;
pub mod engine;
pub mod events;
pub mod import;
