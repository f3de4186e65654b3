//! `gobo deploy`: a plugin to a running engine.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use super::engine::{Engine, EngineArgs, encoded};

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
    let outcome: Value = Engine::new(&args.engine).send_module(&path, is_own, &wasm)?;
    if args.json {
        println!("{outcome:#}");
        return Ok(());
    }
    let text = |member: &str| outcome[member].as_str().unwrap_or_default();
    println!("{}: {}", text("outcome"), text("detail"));
    Ok(())
}
