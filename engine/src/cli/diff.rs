//! `gobo diff`: how two generations differ, at one position.

mod render;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::engine::{Engine, EngineArgs, encoded};
use crate::generations::diff::{Diff, SAMPLES};
pub use render::render;

/// Compare the rows of two generations at one position: the live one with the candidate, or else with the one that was live
/// before.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  gobo diff orders                  # the live generation and the candidate
  gobo diff orders 3 4 --all
  gobo diff orders --json > diff.json

Exit codes: 0 the rows are equal, 1 they differ, 2 wrong usage, 3 they could not be compared.")]
pub struct DiffArgs {
    /// The projection.
    pub projection: String,
    /// A generation, if not the live one.
    #[arg(value_name = "GEN_A", requires = "b")]
    pub a: Option<i64>,
    /// The generation that it is compared with.
    #[arg(value_name = "GEN_B")]
    pub b: Option<i64>,
    /// Print the comparison as JSON.
    #[arg(long)]
    pub json: bool,
    /// How many rows of each kind to show.
    #[arg(long, value_name = "N", default_value_t = SAMPLES)]
    pub samples: u32,
    /// Compare the engine's own columns too: _position, _updated_at, _stream_id.
    #[arg(long)]
    pub all: bool,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// The rows differ, which is printed already.
#[derive(Debug, thiserror::Error)]
#[error("the rows differ")]
pub struct Differ;

/// There is no comparison.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct Incomparable(anyhow::Error);

/// What is compared.
pub(super) struct Question<'q> {
    pub(super) projection: &'q str,
    pub(super) a: Option<i64>,
    pub(super) b: Option<i64>,
    pub(super) samples: u32,
    pub(super) all: bool,
}

/// Compares, and prints what differs.
pub fn run(args: &DiffArgs) -> Result<()> {
    let engine = Engine::new(&args.engine);
    let question = Question {
        projection: &args.projection,
        a: args.a,
        b: args.b,
        samples: args.samples,
        all: args.all,
    };
    let diff = ask(&engine, &question).map_err(incomparable)?;
    print(&diff, args.json)?;
    remark(&engine, &args.projection, &diff);
    verdict(&diff)
}

/// An error that is no difference.
pub(super) fn incomparable(error: anyhow::Error) -> anyhow::Error {
    Incomparable(error).into()
}

/// Whether they are equal, for the exit code.
pub(super) fn verdict(diff: &Diff) -> Result<()> {
    match diff.is_empty() {
        true => Ok(()),
        false => Err(Differ.into()),
    }
}

/// Asks the engine, which may take long to answer.
pub(super) fn ask(engine: &Engine, question: &Question<'_>) -> Result<Diff> {
    let mut path = format!(
        "/admin/projections/{}/diff?samples={}&all={}",
        encoded(question.projection),
        question.samples,
        question.all
    );
    for (name, generation) in [("a", question.a), ("b", question.b)] {
        if let Some(generation) = generation {
            path.push_str(&format!("&{name}={generation}"));
        }
    }
    let bar = ProgressBar::new_spinner();
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{spinner} comparing, {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(200));
    let answer: Result<Value> = engine.get(&path);
    bar.finish_and_clear();
    let answer = answer?;
    if let Some(why) = answer["error"]["detail"].as_str() {
        return Err(anyhow!(why.to_owned()));
    }
    Ok(serde_json::from_value(answer)?)
}

/// Prints a comparison, for people or for programs.
pub(super) fn print(diff: &Diff, json: bool) -> Result<()> {
    let mut text = match json {
        true => serde_json::to_string_pretty(diff)?,
        false => render(diff),
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

/// Says, apart from the comparison itself, what makes rows differ that is not the code's doing.
pub(super) fn remark(engine: &Engine, projection: &str, diff: &Diff) {
    let path = format!("/admin/projections/{}/generations", encoded(projection));
    // A remark less is no reason to fail.
    let answer: Value = engine.get(&path).unwrap_or_default();
    for one in answer["generations"].as_array().into_iter().flatten() {
        let Some(generation) = one["generation"].as_i64() else {
            continue;
        };
        if ![diff.a, diff.b].contains(&generation) {
            continue;
        }
        if let Some(letters) = one["dead_letters"].as_i64().filter(|count| *count > 0) {
            eprintln!(
                "note: generation {generation} has {letters} dead letters, which its rows lack"
            );
        }
        if one["diverged"] == true {
            eprintln!(
                "note: dead letters of generation {generation} were retried late: other rows than those of a rebuild are possible"
            );
        }
    }
}
