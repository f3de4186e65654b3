//! `gobo deploy`: a plugin to a running engine.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use super::engine::{Engine, EngineArgs, encoded};
use super::generations::follow;

/// Deploy a plugin: a .wasm file. What runs stays if it is refused.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  gobo deploy target/wasm32-unknown-unknown/plugin/orders.wasm
  gobo deploy orders.wasm --name orders")]
pub struct DeployArgs {
    /// The module.
    pub file: PathBuf,
    /// Refuse it unless it is this projection.
    #[arg(long)]
    pub name: Option<String>,
    /// Keep the rows and go on from the checkpoint, adding to the tables what can be added.
    #[arg(long = "continue", conflicts_with = "rebuild")]
    pub go_on: bool,
    /// Fill new tables from the first event beside the live ones, even if the author asks to continue.
    #[arg(long)]
    pub rebuild: bool,
    /// Let a new generation wait for `gobo promote`.
    #[arg(long, conflicts_with = "go_on")]
    pub hold: bool,
    /// Do not wait until a new generation has caught up.
    #[arg(long)]
    pub detach: bool,
    /// Print the engine's answer as JSON.
    #[arg(long)]
    pub json: bool,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Deploys, and says what it led to.
pub fn run(args: &DeployArgs) -> Result<()> {
    let wasm = std::fs::read(&args.file)
        .with_context(|| format!("{} cannot be read", args.file.display()))?;
    let (path, is_own) = match &args.name {
        Some(name) => (format!("/admin/projections/{}", encoded(name)), true),
        None => ("/admin/projections".to_owned(), false),
    };
    let mode = match (args.go_on, args.rebuild) {
        (true, _) => "continue",
        (_, true) => "rebuild",
        _ => "auto",
    };
    let path = format!("{path}?mode={mode}&hold={}", args.hold);
    let engine = Engine::new(&args.engine);
    let outcome: Value = engine.send_module(&path, is_own, &wasm)?;
    if args.json {
        println!("{outcome:#}");
        return Ok(());
    }
    let text = |member: &str| outcome[member].as_str().unwrap_or_default();
    println!("{}: {}", text("outcome"), text("detail"));
    match (text("outcome"), outcome["generation"].as_i64()) {
        ("rebuilding", Some(generation)) if !args.detach => {
            follow(&engine, text("projection"), generation)
        }
        _ => Ok(()),
    }
}
