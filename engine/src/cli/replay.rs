//! `gobo replay`: what happened, once more.

mod frame;
mod shown;

use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgGroup, Args};

pub use frame::Unusable;

/// Run an event again that a plugin could not process, from the file that the engine has kept: no database, no engine.
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["frame"])))]
#[command(
    after_help = "Exit codes: 0 the plugin processes the event, 1 it fails, 2 a file is of no use.

Examples:
  gobo replay --frame .gobo/failures/orders-g3-1207.json --plugin target/wasm32-unknown-unknown/release/orders.wasm
  gobo replay --frame orders-g3-1207.json --plugin orders.wasm --json

The file holds the event, and the rows that the plugin was given; `gobo status` and `gobo logs` name it.
For files and lines in the backtrace, build the plugin with debug = \"line-tables-only\" in its profile."
)]
pub struct ReplayArgs {
    /// The file of an event that could not be processed.
    #[arg(long, value_name = "FILE", requires = "plugin")]
    pub frame: Option<PathBuf>,
    /// The plugin to run it with: the one that failed, or a mended one.
    #[arg(long, value_name = "FILE.wasm", requires = "frame")]
    pub plugin: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs what was asked for.
pub fn run(args: &ReplayArgs) -> Result<()> {
    match (&args.frame, &args.plugin) {
        (Some(frame), Some(plugin)) => frame::run(frame, plugin, args.json),
        _ => Err(Unusable::new("name a failure with --frame and a plugin with --plugin").into()),
    }
}
