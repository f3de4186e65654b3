//! Any text as the query string of a read. `README.md` says how it is run.
//!
//! The corpus in `corpus/query` is replayed, and varied a little, by the ordinary tests (`tests/query/corpus.rs`). What
//! a run finds belongs into it.

#![no_main]

#[path = "../query.rs"]
mod query;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static HARNESS: LazyLock<query::Harness> = LazyLock::new(query::Harness::new);

fuzz_target!(|text: &str| {
    HARNESS.check(text);
});
