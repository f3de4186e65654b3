//! `gobo restart`: a projection that stopped tries again.

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::engine::{Engine, EngineArgs, encoded};

/// Let a projection that stopped at an event try again.
#[derive(Debug, Clone, Args)]
pub struct RestartArgs {
    /// The projection.
    pub projection: String,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Restarts, and says whether there was something to restart.
pub fn run(args: &RestartArgs) -> Result<()> {
    let path = format!("/admin/projections/{}/restart", encoded(&args.projection));
    let answer: Value = Engine::new(&args.engine).post(&path, "{}")?;
    match answer["restarted"].as_bool() {
        Some(true) => println!("{} tries again from its checkpoint", args.projection),
        _ => println!("{} had not stopped; nothing was changed", args.projection),
    }
    Ok(())
}
