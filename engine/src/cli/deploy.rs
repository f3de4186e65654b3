//! `gobo deploy`: a plugin to a running engine.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde_json::Value;

use super::diff::{self, Question};
use super::engine::{Engine, EngineArgs, encoded};
use super::generations::{follow, watch};
use super::verify::ensure_caught_up;
use crate::generations::diff::{Diff, SAMPLES};

/// Deploy a plugin: a .wasm file. What runs stays if it is refused.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  gobo deploy target/wasm32-unknown-unknown/plugin/orders.wasm
  gobo deploy orders.wasm --name orders
  gobo deploy orders.wasm --preview
  gobo deploy orders.wasm --preview --discard --json > diff.json

Exit codes: 0 deployed, 1 refused, 2 wrong usage; with --preview 0 the rows stay as they are, 1 they differ, 3 they could not
be compared.")]
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
    /// Compare the rows that it gives with the live ones, and let readers see them only after `gobo promote`.
    #[arg(long, conflicts_with_all = ["go_on", "detach"])]
    pub preview: bool,
    /// Give the new generation up when it has been compared.
    #[arg(long, requires = "preview")]
    pub discard: bool,
    /// How many rows of each kind a preview shows.
    #[arg(long, value_name = "N", requires = "preview", default_value_t = SAMPLES)]
    pub samples: u32,
    /// Print the engine's answer, or the comparison of a preview, as JSON.
    #[arg(long)]
    pub json: bool,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Deploys, and says what it led to.
pub fn run(args: &DeployArgs) -> Result<()> {
    match args.preview {
        true => preview(args),
        false => deploy(args),
    }
}

fn deploy(args: &DeployArgs) -> Result<()> {
    let mode = match (args.go_on, args.rebuild) {
        (true, _) => "continue",
        (_, true) => "rebuild",
        _ => "auto",
    };
    let engine = Engine::new(&args.engine);
    let outcome = send(&engine, args, mode)?;
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

fn send(engine: &Engine, args: &DeployArgs, mode: &str) -> Result<Value> {
    let wasm = std::fs::read(&args.file)
        .with_context(|| format!("{} cannot be read", args.file.display()))?;
    let (path, is_own) = match &args.name {
        Some(name) => (format!("/admin/projections/{}", encoded(name)), true),
        None => ("/admin/projections".to_owned(), false),
    };
    let path = format!("{path}?mode={mode}&hold={}", args.hold);
    engine.send_module(&path, is_own, &wasm)
}

/// Fills a generation that readers do not see, and compares it with the one that they see.
fn preview(args: &DeployArgs) -> Result<()> {
    let engine = Engine::new(&args.engine);
    let outcome = send(&engine, args, "preview").map_err(diff::incomparable)?;
    let text = |member: &str| outcome[member].as_str().unwrap_or_default();
    let (projection, candidate) = (text("projection"), outcome["generation"].as_i64());
    let path = format!("/admin/projections/{}", encoded(projection));
    let status: Value = engine.get(&path).map_err(diff::incomparable)?;
    let live = status["generation"].as_i64();
    if candidate == live {
        match args.json {
            true => println!("{outcome:#}"),
            false => println!("{}: {}", text("outcome"), text("detail")),
        }
        return Ok(());
    }
    let (Some(live), Some(candidate)) = (live, candidate) else {
        return Err(diff::incomparable(anyhow!(
            "the engine did not say which generation it fills"
        )));
    };
    eprintln!("{}: {}", text("outcome"), text("detail"));
    let compared = compare(&engine, args, projection, live, candidate);
    if let Ok(found) = &compared {
        diff::print(found, args.json)?;
        diff::remark(&engine, projection, found);
    }
    if args.discard {
        let cancel = format!("{path}/generations/{candidate}/cancel");
        let cancelled: Value = engine.post(&cancel, "{}").map_err(diff::incomparable)?;
        eprintln!("{}", cancelled["detail"].as_str().unwrap_or_default());
    } else {
        eprintln!(
            "generation {candidate} is held: `gobo promote {projection}` lets readers see it, `gobo cancel {projection}` gives it up"
        );
    }
    diff::verdict(&compared.map_err(diff::incomparable)?)
}

fn compare(
    engine: &Engine,
    args: &DeployArgs,
    projection: &str,
    live: i64,
    candidate: i64,
) -> Result<Diff> {
    let last = watch(engine, projection, candidate)?;
    ensure_caught_up(candidate, &last)?;
    diff::ask(
        engine,
        &Question {
            projection,
            a: Some(live),
            b: Some(candidate),
            samples: args.samples,
            all: false,
        },
    )
}
