//! `gobo logs`: what a plugin logged.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::engine::{Away, Engine, EngineArgs, encoded};

/// How often new lines are asked for.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// Show what a projection's plugin logged.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  gobo logs orders
  gobo logs orders --follow")]
pub struct LogsArgs {
    /// The projection.
    pub projection: String,
    /// Go on with new lines as they come.
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the last lines are shown.
    #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=1000))]
    pub lines: i64,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Prints the last lines, and with `--follow` all that come, also after the engine was away.
pub fn run(args: &LogsArgs) -> Result<()> {
    let engine = Engine::new(&args.engine);
    let path = format!("/admin/projections/{}/logs", encoded(&args.projection));
    let answer: Value = engine.get(&format!("{path}?limit={}", args.lines))?;
    let mut last = print(&answer)?.unwrap_or(0);
    if !args.follow {
        return Ok(());
    }
    loop {
        std::thread::sleep(FOLLOW_EVERY);
        match engine.get::<Value>(&format!("{path}?after={last}&limit=1000")) {
            Ok(answer) => last = print(&answer)?.unwrap_or(last),
            Err(error) if error.is::<Away>() => {}
            Err(error) => return Err(error),
        }
    }
}

/// Prints lines and gives the last one's id.
fn print(answer: &Value) -> Result<Option<i64>> {
    let mut out = std::io::stdout().lock();
    let mut last = None;
    for line in answer["lines"].as_array().into_iter().flatten() {
        let text = |member: &str| line[member].as_str().unwrap_or_default();
        let (at, level) = (text("at"), text("level"));
        writeln!(
            out,
            "{at} {level:5} [{}] {}",
            line["position"],
            text("message")
        )?;
        last = line["id"].as_i64().or(last);
    }
    out.flush()?;
    Ok(last)
}
