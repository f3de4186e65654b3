//! `gobo settings`: what a projection's loops work with, shown and changed while they run.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Map, Value};

use super::engine::{Engine, EngineArgs, encoded};

/// Show how a projection is run and where each value comes from, or change it while it runs.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  gobo settings orders
  gobo settings orders policy=skip linger_ms=200
  gobo settings orders --unset policy

Settings: policy (stop, park, skip), linger_ms, batch_events, batch_bytes, row_cache_bytes, rebuild_bytes,
synchronous_commit. What is set here stands above the configuration of every node, and counts from the next batch on.")]
pub struct SettingsArgs {
    /// The projection.
    pub projection: String,
    /// What changes.
    #[arg(value_name = "KEY=VALUE")]
    pub changes: Vec<String>,
    /// Take back what was set; the configuration counts again. May be given several times.
    #[arg(long, value_name = "KEY")]
    pub unset: Vec<String>,
    /// Print the engine's answer as JSON.
    #[arg(long)]
    pub json: bool,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Changes what is to be changed, and shows what is in force then.
pub fn run(args: &SettingsArgs) -> Result<()> {
    let engine = Engine::new(&args.engine);
    let path = format!("/admin/projections/{}/settings", encoded(&args.projection));
    let changes = changes(args)?;
    let answer: Value = match changes.is_empty() {
        true => engine.get(&path)?,
        false => engine.patch(&path, &Value::from(changes).to_string())?,
    };
    if args.json {
        println!("{answer:#}");
        return Ok(());
    }
    println!("{:<20} {:>14}  FROM", "SETTING", "VALUE");
    for setting in answer["settings"].as_array().into_iter().flatten() {
        let text = |member: &str| setting[member].as_str().unwrap_or_default().to_owned();
        let from = match setting["origin"].as_str() {
            Some("run_time") => format!("run time (otherwise {})", plain(&setting["otherwise"])),
            Some("configuration") => format!("configuration: {}", text("configured_as")),
            _ => "default".to_owned(),
        };
        println!(
            "{:<20} {:>14}  {from}",
            text("key"),
            plain(&setting["value"])
        );
    }
    Ok(())
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn changes(args: &SettingsArgs) -> Result<Map<String, Value>> {
    let mut changes = Map::new();
    for change in &args.changes {
        let Some((key, text)) = change.split_once('=') else {
            bail!("\"{change}\" does not say what to set: key=value");
        };
        let (key, text) = (key.trim(), text.trim());
        // Numbers and true or false as such; everything else is a word.
        let value = match serde_json::from_str(&text.replace('_', "")) {
            Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
            _ => Value::from(text),
        };
        if changes.insert(key.to_owned(), value).is_some() {
            bail!("{key} is given twice");
        }
    }
    for key in &args.unset {
        if changes.insert(key.clone(), Value::Null).is_some() {
            bail!("{key} is given twice");
        }
    }
    Ok(changes)
}
