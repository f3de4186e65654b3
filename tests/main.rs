//! The system tests: one module per part of the specification.

// Clippy knows only functions marked `#[test]` as tests, not what they call.
#![allow(clippy::unwrap_used)]

mod cluster;
mod deploy;
mod race;
mod source;
mod import;
mod migrate;
mod orders;
mod recovery;
mod store;
mod streams;
