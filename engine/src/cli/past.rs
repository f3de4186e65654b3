//! `gobo replay`, `gobo snapshot`: the rows at a point in the past.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::engine::{Engine, EngineArgs};
use super::generations::{follow, path, say};
use super::replay::ReplayArgs;

/// When a replay is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// After so many hours.
    Hours(u32),
    /// When it is cancelled.
    Never,
}

/// Reads it from the command line.
pub(super) fn expiry(text: &str) -> Result<Expiry, String> {
    match (text, text.parse()) {
        ("never", _) => Ok(Expiry::Never),
        (_, Ok(hours)) => Ok(Expiry::Hours(hours)),
        (_, Err(_)) => Err("write a number of hours, or never".into()),
    }
}

/// Keep a copy of the live rows as they are now; a later replay starts from it.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  gobo snapshot orders --as before-the-sale
  gobo cancel orders --generation 7     # gives it up again")]
pub struct SnapshotArgs {
    /// The projection.
    pub projection: String,
    /// What it is called.
    #[arg(long = "as", value_name = "LABEL")]
    pub label: Option<String>,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Begins a replay, and shows how far it is. The command line has seen to it that everything is given.
pub(super) fn replay(args: &ReplayArgs) -> Result<()> {
    let engine = Engine::new(&args.engine);
    let mut body = json!({
        "until": args.until, "label": args.label, "from_scratch": args.from_scratch,
    });
    match args.expires {
        None => {}
        Some(Expiry::Hours(hours)) => body["expires_hours"] = hours.into(),
        Some(Expiry::Never) => body["expires_hours"] = Value::Null,
    }
    let projection = args.projection.as_deref().unwrap_or_default();
    let path = format!("{}/replay", path(projection));
    let answer: Value = engine.post(&path, &body.to_string())?;
    say(&answer);
    match (args.detach, answer["generation"].as_i64()) {
        (false, Some(generation)) => follow(&engine, projection, generation),
        _ => Ok(()),
    }
}

/// Takes a snapshot.
pub fn snapshot(args: &SnapshotArgs) -> Result<()> {
    let path = format!("{}/snapshot", path(&args.projection));
    let body = json!({ "label": args.label }).to_string();
    let answer: Value = Engine::new(&args.engine).post(&path, &body)?;
    say(&answer);
    Ok(())
}
