//! `gobo replay`: what happened, once more.

mod frame;
mod shown;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::engine::EngineArgs;
use super::past::{self, Expiry, expiry};
pub use frame::Unusable;

/// Compute the rows as they were, beside the live ones; or run an event again that a plugin could not process.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  gobo replay orders --until 1234 --as before-the-sale
  gobo replay orders --until 2026-01-31T12:30:00+01:00 --as noon --expires 2
  curl 'http://127.0.0.1:7171/read/orders?as_of=noon'

  gobo replay --frame .gobo/failures/orders-g3-1207.json --plugin target/wasm32-unknown-unknown/release/orders.wasm
  gobo replay --frame orders-g3-1207.json --plugin orders.wasm --json

With --frame, neither an engine nor a database is needed. The file holds the event, and the rows that the plugin was given;
`gobo status` and `gobo logs` name it. For files and lines in the backtrace, build the plugin with
debug = \"line-tables-only\" in its profile. Exit codes then: 0 the plugin processes the event, 1 it fails, 2 a file is of no use.")]
pub struct ReplayArgs {
    /// The projection whose rows are to be seen as they were.
    #[arg(required_unless_present = "frame", conflicts_with = "frame")]
    pub projection: Option<String>,
    /// The last position, or a time with its offset from UTC: up to the first event that was recorded later.
    #[arg(
        long,
        value_name = "POSITION|TIME",
        required_unless_present = "frame",
        conflicts_with = "frame"
    )]
    pub until: Option<String>,
    /// What it is called.
    #[arg(
        long = "as",
        value_name = "LABEL",
        required_unless_present = "frame",
        conflicts_with = "frame"
    )]
    pub label: Option<String>,
    /// After how many hours it is dropped, or `never` [default: generations.replay_hours].
    #[arg(long, value_name = "HOURS|never", value_parser = expiry, conflicts_with = "frame")]
    pub expires: Option<Expiry>,
    /// Begin at the first event, even if a snapshot or another replay is nearer.
    #[arg(long, conflicts_with = "frame")]
    pub from_scratch: bool,
    /// Do not wait until it is done.
    #[arg(long, conflicts_with = "frame")]
    pub detach: bool,
    /// The file of an event that could not be processed.
    #[arg(long, value_name = "FILE", requires = "plugin")]
    pub frame: Option<PathBuf>,
    /// The plugin to run it with: the one that failed, or a mended one.
    #[arg(long, value_name = "FILE.wasm", requires = "frame")]
    pub plugin: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, requires = "frame")]
    pub json: bool,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Runs what was asked for.
pub fn run(args: &ReplayArgs) -> Result<()> {
    match (&args.frame, &args.plugin) {
        (Some(frame), Some(plugin)) => frame::run(frame, plugin, args.json),
        _ => past::replay(args),
    }
}
