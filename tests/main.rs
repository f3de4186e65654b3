//! The system tests: one module per part of the specification.

// Clippy knows only functions marked `#[test]` as tests, not what they call.
#![allow(clippy::unwrap_used)]

mod access;
mod backup;
mod boundaries;
mod clients;
mod cluster;
mod compare;
mod console;
mod commands;
mod contract;
mod dead_letters;
mod dev;
mod deploy;
mod diff_tables;
mod failure;
mod foreign;
mod fresh;
mod generations;
mod guides;
mod http;
mod import;
mod live;
mod metrics;
mod migrate;
mod openapi;
mod operate;
mod orders;
mod past;
mod per_stream;
mod query;
mod race;
mod readme;
mod rebuild_fill;
mod recovery;
mod redact;
mod redis;
mod sandbox;
mod scene;
mod sdk;
mod source;
mod store;
mod stream_rebuild;
mod streams;
mod tidy;
