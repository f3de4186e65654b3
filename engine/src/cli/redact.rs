//! `gobo redact`: what an event says is taken back.

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::engine::{Engine, EngineArgs};

/// Take back what an event of Gobo's own store says: its data and metadata. Its position, stream, version and identity stay.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Without --data, the event's type becomes \"$redacted\" and its data says when and why: plugins go past it. With --data, the type
stays, and plugins read what is given. The answer names what has read the event already and has to be computed anew.

Examples:
  gobo redact --position 1234 --reason 'a password in the notes'
  gobo redact --stream user-17 --reason 'erasure requested' --yes
  gobo redact --position 1234 --reason 'wrong name' --data '{\"name\": \"?\"}'"
)]
pub struct RedactArgs {
    /// The event at this position.
    #[arg(long, group = "which")]
    pub position: Option<i64>,
    /// The event with this identity.
    #[arg(long, group = "which", value_name = "ID")]
    pub event_id: Option<String>,
    /// Every event of this stream that is there now.
    #[arg(long, group = "which", value_name = "ID")]
    pub stream: Option<String>,
    /// The source; only Gobo's own can be changed.
    #[arg(long, hide = true)]
    pub source: Option<String>,
    /// Why; it is kept with the event.
    #[arg(long)]
    pub reason: String,
    /// What takes the place of the data, as JSON.
    #[arg(long, value_name = "JSON")]
    pub data: Option<String>,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// Print the engine's answer as JSON.
    #[arg(long)]
    pub json: bool,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Says what would happen, asks, and takes the events back.
pub fn run(args: &RedactArgs) -> Result<()> {
    let engine = Engine::new(&args.engine);
    let data: Option<Value> = match &args.data {
        Some(text) => match serde_json::from_str(text).context("--data is not JSON")? {
            Value::Null => bail!(
                "--data cannot be null: without --data, the event only says that it was redacted"
            ),
            data => Some(data),
        },
        None => None,
    };
    let ask = |dry_run: bool| -> Result<Value> {
        let mut body = json!({
            "position": args.position, "event_id": args.event_id, "stream_id": args.stream, "source": args.source,
            "reason": args.reason, "dry_run": dry_run,
        });
        if let Some(data) = &data {
            body["data"] = data.clone();
        }
        engine.post("/admin/events/redact", &body.to_string())
    };
    if !args.yes {
        let plan = ask(true)?;
        print!("{}", shown(&plan));
        if plan["redacted"] == 0 {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            bail!("nothing was changed; to do it without being asked: --yes");
        }
        print!("This cannot be undone. Type \"redact\" to do it: ");
        std::io::stdout().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if answer.trim() != "redact" {
            bail!("nothing was changed");
        }
    }
    let answer = ask(false)?;
    match args.json {
        true => println!("{answer:#}"),
        false => print!("{}", shown(&answer)),
    }
    Ok(())
}

fn shown(answer: &Value) -> String {
    let number = |member: &str| answer[member].as_i64().unwrap_or_default();
    let (first, last) = (number("first_position"), number("last_position"));
    let place = match first == last {
        true => format!("position {first}"),
        false => format!("positions {first} to {last}"),
    };
    let mut shown = match answer["outcome"].as_str() {
        Some("dry_run") => format!("{} events at {place} would be redacted", number("redacted")),
        _ => format!("{} events at {place} are redacted", number("redacted")),
    };
    match number("redacted_before") {
        0 => shown.push('\n'),
        before => shown.push_str(&format!("; {before} had been before\n")),
    }
    let readers = answer["read_by"].as_array().map_or(&[][..], Vec::as_slice);
    match readers.is_empty() {
        true => shown.push_str("no projection has read them\n"),
        false => shown.push_str("read already, and to be computed anew or dropped:\n"),
    }
    for reader in readers {
        let text = |member: &str| reader[member].as_str().unwrap_or_default();
        let count = |member: &str| reader[member].as_i64().unwrap_or_default();
        shown.push_str(&format!(
            "  {} generation {} ({}, {}): {}\n",
            text("projection"),
            count("generation"),
            text("stage"),
            text("purpose"),
            text("advice")
        ));
        let (letters, lines) = (count("dead_letters"), count("log_lines"));
        if letters > 0 {
            shown.push_str(&format!(
                "    {letters} dead letters may quote them (gobo dead-letters discard)\n"
            ));
        }
        if lines > 0 {
            shown.push_str(&format!("    {lines} lines of its log may quote them\n"));
        }
        if reader["stopped_there"].as_bool().unwrap_or_default() {
            shown.push_str("    the error that stopped it may quote them\n");
        }
    }
    shown.push_str("not reached by this:\n");
    for place in answer["elsewhere"].as_array().into_iter().flatten() {
        shown.push_str(&format!("  {}\n", place.as_str().unwrap_or_default()));
    }
    shown
}
