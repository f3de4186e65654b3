//! `gobo generations`, `rebuild`, `promote`, `rollback`, `cancel`, `pause`, `resume`: what readers see, and what is on its
//! way.

use std::io::{BufRead, BufReader, IsTerminal};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::engine::{Engine, EngineArgs, encoded};

/// List the generations of a projection.
#[derive(Debug, Clone, Args)]
pub struct GenerationsArgs {
    /// The projection.
    pub projection: String,
    /// Print the engine's answer as JSON.
    #[arg(long)]
    pub json: bool,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Compute all rows of a projection anew, beside the live ones, and switch when they have caught up.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  gobo rebuild orders
  gobo rebuild orders --hold        # then: gobo promote orders
  gobo rebuild orders --stream order-17")]
pub struct RebuildArgs {
    /// The projection.
    pub projection: String,
    /// Wait for `gobo promote` before readers see it.
    #[arg(long)]
    pub hold: bool,
    /// Begin again what is being filled.
    #[arg(long)]
    pub from_scratch: bool,
    /// Only the rows of this stream, in place: for read models that are declared per_stream.
    #[arg(long, value_name = "ID", conflicts_with_all = ["hold", "from_scratch", "detach"])]
    pub stream: Option<String>,
    /// Do not wait until it is done.
    #[arg(long)]
    pub detach: bool,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Go back to what was live before: the previous generation, or the previous code after a deploy that went on in place.
#[derive(Debug, Clone, Args)]
pub struct RollbackArgs {
    /// The projection.
    pub projection: String,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// A projection, or one generation of it.
#[derive(Debug, Clone, Args)]
pub struct OneArgs {
    /// The projection.
    pub projection: String,
    /// Only this generation, and no other one.
    #[arg(long)]
    pub generation: Option<i64>,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Lists.
pub fn list(args: &GenerationsArgs) -> Result<()> {
    let path = format!("{}/generations", path(&args.projection));
    let answer: Value = Engine::new(&args.engine).get(&path)?;
    if args.json {
        println!("{answer:#}");
        return Ok(());
    }
    println!(
        "{:>10}  {:<10} {:<10} {:>12} {:>12}  {:<12} NOTE",
        "GENERATION", "STAGE", "STATE", "POSITION", "HEAD", "VERSION"
    );
    for one in answer["generations"].as_array().into_iter().flatten() {
        let text = |member: &str| one[member].as_str().unwrap_or_default().to_owned();
        let number = |member: &str| one[member].as_i64().map_or("-".into(), |n| n.to_string());
        println!(
            "{:>10}  {:<10} {:<10} {:>12} {:>12}  {:<12} {}",
            number("generation"),
            stage(one),
            text("state"),
            number("position"),
            number("head_position"),
            text("version"),
            note(one)
        );
    }
    Ok(())
}

fn stage(one: &Value) -> String {
    let stage = one["stage"].as_str().unwrap_or_default();
    match one["purpose"].as_str() {
        Some("projection") | None => stage.to_owned(),
        Some(purpose) => purpose.to_owned(),
    }
}

fn note(one: &Value) -> String {
    let error = one["error"]["message"].as_str();
    let trouble = one["trouble"].as_str();
    let held = one["hold"]
        .as_bool()
        .unwrap_or_default()
        .then_some("held for `gobo promote`");
    let label = one["label"].as_str();
    let parts = [label, held, trouble, error, one["reason"].as_str()];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Rebuilds, and shows how far it is.
pub fn rebuild(args: &RebuildArgs) -> Result<()> {
    let engine = Engine::new(&args.engine);
    let path = path(&args.projection);
    if let Some(stream) = &args.stream {
        let body = json!({ "stream_id": stream }).to_string();
        let answer: Value = engine.post(&format!("{path}/rebuild-stream"), &body)?;
        say(&answer);
        return Ok(());
    }
    let body = json!({ "hold": args.hold, "from_scratch": args.from_scratch }).to_string();
    let answer: Value = engine.post(&format!("{path}/rebuild"), &body)?;
    say(&answer);
    match (args.detach, answer["generation"].as_i64()) {
        (false, Some(generation)) => follow(&engine, &args.projection, generation),
        _ => Ok(()),
    }
}

/// Promotes.
pub fn promote(args: &OneArgs) -> Result<()> {
    act(&args.engine, &args.projection, args.generation, "promote")
}

/// Rolls back.
pub fn rollback(args: &RollbackArgs) -> Result<()> {
    act(&args.engine, &args.projection, None, "rollback")
}

/// Cancels.
pub fn cancel(args: &OneArgs) -> Result<()> {
    act(&args.engine, &args.projection, args.generation, "cancel")
}

/// Stops.
pub fn pause(args: &OneArgs) -> Result<()> {
    act(&args.engine, &args.projection, args.generation, "pause")
}

/// Goes on.
pub fn resume(args: &OneArgs) -> Result<()> {
    act(&args.engine, &args.projection, args.generation, "resume")
}

fn act(at: &EngineArgs, projection: &str, generation: Option<i64>, verb: &str) -> Result<()> {
    let engine = Engine::new(at);
    let path = match generation {
        None => format!("{}/{verb}", path(projection)),
        Some(generation) => format!("{}/generations/{generation}/{verb}", path(projection)),
    };
    let answer: Value = engine.post(&path, "{}")?;
    say(&answer);
    match (answer["outcome"].as_str(), answer["generation"].as_i64()) {
        (Some("waiting"), Some(generation)) => follow(&engine, projection, generation),
        _ => Ok(()),
    }
}

pub(super) fn path(projection: &str) -> String {
    format!("/admin/projections/{}", encoded(projection))
}

pub(super) fn say(answer: &Value) {
    let text = |member: &str| answer[member].as_str().unwrap_or_default();
    println!("{}: {}", text("outcome"), text("detail"));
}

/// Shows how far a generation is, until there is nothing to wait for: it is live, complete, stopped or gone, or has caught
/// up and waits. Gives the engine's last report of it.
pub(super) fn watch(engine: &Engine, projection: &str, generation: i64) -> Result<Value> {
    let bar = ProgressBar::new(1);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:32} {percent:>3} % {pos}/{len} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    let path = format!("{}/generations/{generation}/progress", path(projection));
    let mut last = Value::Null;
    for report in Reports::new(engine.stream(&path)?) {
        let report = report?;
        let number = |member: &str| report[member].as_f64();
        let end = number("until").or(number("head_position"));
        bar.set_length(end.unwrap_or_default() as u64);
        // What is processed but not committed yet counts as well.
        let reached = number("reached").unwrap_or_default();
        bar.set_position(number("position").unwrap_or_default().max(reached) as u64);
        let mut message = format!("{}/s", number("positions_per_second").unwrap_or_default());
        if let Some(eta) = number("eta_seconds") {
            message.push_str(&format!(", {eta} s left"));
        }
        bar.set_message(message);
        last = report;
        let waits = last["hold"] == true && last["caught_up"] == true;
        if last["state"] == "stopped" || waits || last["state"] == "paused" {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(last)
}

/// The same, and says how it ended.
pub(super) fn follow(engine: &Engine, projection: &str, generation: i64) -> Result<()> {
    let last = watch(engine, projection, generation)?;
    let position = last["position"].as_i64().unwrap_or_default();
    match (last["stage"].as_str(), last["state"].as_str()) {
        (Some("live"), _) => println!("generation {generation} is live at position {position}"),
        (Some("done"), _) => println!("generation {generation} is complete at position {position}"),
        (Some("building"), Some("stopped")) => bail!(
            "generation {generation} has stopped: {}",
            last["error"]["message"].as_str().unwrap_or_default()
        ),
        (Some("building"), Some("paused")) => {
            println!("generation {generation} is paused at position {position}")
        }
        (Some("building"), _) => println!(
            "generation {generation} has caught up, at position {position}, and waits for `gobo promote {projection}`{}",
            last["trouble"]
                .as_str()
                .map(|why| format!(": {why}"))
                .unwrap_or_default()
        ),
        _ => bail!("generation {generation} was given up"),
    }
    Ok(())
}

/// The data of server-sent events, one after the other.
struct Reports<R> {
    lines: std::io::Lines<BufReader<R>>,
}

impl<R: std::io::Read> Reports<R> {
    fn new(body: R) -> Self {
        Self {
            lines: BufReader::new(body).lines(),
        }
    }
}

impl<R: std::io::Read> Iterator for Reports<R> {
    type Item = Result<Value>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.lines.next()? {
                Err(error) => return Some(Err(error.into())),
                Ok(line) => {
                    if let Some(data) = line.strip_prefix("data:") {
                        return Some(serde_json::from_str(data.trim()).map_err(Into::into));
                    }
                }
            }
        }
    }
}
