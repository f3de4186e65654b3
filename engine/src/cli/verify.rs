//! `gobo verify`: whether the live rows are those that the events give.

use std::sync::{Arc, OnceLock};
use std::thread;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::diff::{self, Question};
use super::engine::{Engine, EngineArgs, encoded};
use super::generations::watch;
use crate::generations::diff::{Diff, SAMPLES};

/// Compute all rows of a projection anew in a scratch generation, compare them with the live ones at the same position, and
/// drop it.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  gobo verify orders
  gobo verify orders --json

Compared are all columns but _revision. Readers go on reading meanwhile, and the live rows are never changed. Rows differ
where the past cannot be repeated: after `gobo deploy --continue` with other code, or with discarded dead letters.

Exit codes: 0 the rows are equal, 1 they differ, 2 wrong usage, 3 they could not be compared.")]
pub struct VerifyArgs {
    /// The projection.
    pub projection: String,
    /// Print the comparison as JSON.
    #[arg(long)]
    pub json: bool,
    /// How many rows of each kind to show.
    #[arg(long, value_name = "N", default_value_t = SAMPLES)]
    pub samples: u32,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Verifies. The scratch generation is given up at the end, also when a signal asks for the end.
pub fn run(args: &VerifyArgs) -> Result<()> {
    let scratch = Arc::new(OnceLock::new());
    let (ended, end) = oneshot::channel();
    let (work, begun) = (args.clone(), scratch.clone());
    // A thread of its own, since asking the engine blocks; it ends with the process at the latest.
    thread::spawn(move || {
        // Nobody waits for it any more after a signal.
        drop(ended.send(compare(&work, &begun)));
    });
    let compared = super::serve::block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            diff = end => diff.context("the comparison crashed")?,
            _ = interrupt.recv() => Err(anyhow!("interrupted")),
            _ = terminate.recv() => Err(anyhow!("interrupted")),
        }
    });
    let engine = Engine::new(&args.engine);
    if let Ok(diff) = &compared {
        diff::print(diff, args.json)?;
        diff::remark(&engine, &args.projection, diff);
    }
    if let Some(generation) = scratch.get() {
        give_up(&engine, &args.projection, *generation);
    }
    diff::verdict(&compared.map_err(diff::incomparable)?)
}

fn compare(args: &VerifyArgs, scratch: &OnceLock<i64>) -> Result<Diff> {
    let engine = Engine::new(&args.engine);
    let path = format!("/admin/projections/{}", encoded(&args.projection));
    let begun: Value = engine.post(&format!("{path}/verify"), "{}")?;
    let generation = begun["generation"]
        .as_i64()
        .context("the engine did not say which generation it begins")?;
    let _ = scratch.set(generation);
    eprintln!("{}", begun["detail"].as_str().unwrap_or_default());
    let last = watch(&engine, &args.projection, generation)?;
    ensure_caught_up(generation, &last)?;
    let diff = diff::ask(
        &engine,
        &Question {
            projection: &args.projection,
            a: None,
            b: Some(generation),
            samples: args.samples,
            all: true,
        },
    )?;
    let live: Value = engine.get(&path)?;
    match live["generation"] == diff.a && live["hash"] == last["hash"] {
        true => Ok(diff),
        false => Err(anyhow!(
            "something else was deployed or promoted meanwhile: verify again"
        )),
    }
}

/// Whether a generation that was watched can be compared now.
pub(super) fn ensure_caught_up(generation: i64, last: &Value) -> Result<()> {
    if last["caught_up"] == true {
        return Ok(());
    }
    let state = last["state"].as_str().unwrap_or_default();
    Err(match (last["error"]["message"].as_str(), state) {
        (Some(why), _) => anyhow!("generation {generation} has stopped: {why}"),
        (None, "paused") => anyhow!("generation {generation} is paused"),
        (None, _) => anyhow!("generation {generation} was given up"),
    })
}

fn give_up(engine: &Engine, projection: &str, generation: i64) {
    let projection = encoded(projection);
    let path = format!("/admin/projections/{projection}/generations/{generation}/cancel");
    if let Err(error) = engine.post::<Value>(&path, "{}") {
        eprintln!("note: generation {generation} stays until it expires: {error:#}");
    }
}
