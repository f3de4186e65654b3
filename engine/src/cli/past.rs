//! `gobo replay`, `gobo snapshot`: the rows at a point in the past.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::engine::{Engine, EngineArgs};
use super::generations::{follow, path, say};

/// Compute the rows at a point in the past, beside the live ones, to be read with `?as_of=`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  gobo replay orders --until 1234 --as before-the-sale
  gobo replay orders --until 2026-01-31T12:30:00+01:00 --as noon --expires 2
  curl 'http://127.0.0.1:7171/read/orders?as_of=noon'")]
pub struct ReplayArgs {
    /// The projection.
    pub projection: String,
    /// The last position, or a time with its offset from UTC: up to the first event that was recorded later.
    #[arg(long, value_name = "POSITION|TIME")]
    pub until: String,
    /// What it is called.
    #[arg(long = "as", value_name = "LABEL")]
    pub label: String,
    /// After how many hours it is dropped, or `never` [default: generations.replay_hours].
    #[arg(long, value_name = "HOURS|never", value_parser = expiry)]
    pub expires: Option<Expiry>,
    /// Begin at the first event, even if a snapshot or another replay is nearer.
    #[arg(long)]
    pub from_scratch: bool,
    /// Do not wait until it is done.
    #[arg(long)]
    pub detach: bool,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// When a replay is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// After so many hours.
    Hours(u32),
    /// When it is cancelled.
    Never,
}

fn expiry(text: &str) -> Result<Expiry, String> {
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

/// Begins a replay, and shows how far it is.
pub fn replay(args: &ReplayArgs) -> Result<()> {
    let engine = Engine::new(&args.engine);
    let mut body = json!({
        "until": args.until, "label": args.label, "from_scratch": args.from_scratch,
    });
    match args.expires {
        None => {}
        Some(Expiry::Hours(hours)) => body["expires_hours"] = hours.into(),
        Some(Expiry::Never) => body["expires_hours"] = Value::Null,
    }
    let path = format!("{}/replay", path(&args.projection));
    let answer: Value = engine.post(&path, &body.to_string())?;
    say(&answer);
    match (args.detach, answer["generation"].as_i64()) {
        (false, Some(generation)) => follow(&engine, &args.projection, generation),
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
