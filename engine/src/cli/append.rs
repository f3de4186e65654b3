//! `gobo append`: one event, or a file of them, to a stream.

use std::io::Read;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::engine::{Engine, EngineArgs, encoded};
use crate::store::{Appended, ExpectedVersion};

/// Append an event to a stream, or all events of a file.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "With --wait-for, the command ends when these projections have passed the events: whoever reads then sees what they do.
Exit codes: 0 appended, 1 nothing was appended, 2 wrong usage, 3 appended, and not passed in time: do not append again.

Examples:
  gobo append order-1 OrderCreated '{\"symbol\": \"ACME\"}'
  gobo append order-1 OrderCreated @order.json --wait-for orders,trading-stats --wait 2s"
)]
pub struct AppendArgs {
    /// The stream's id.
    pub stream: String,
    /// The event's type.
    #[arg(value_name = "TYPE", required_unless_present = "file")]
    pub kind: Option<String>,
    /// The event's data: JSON, `@FILE`, or `-` for standard input.
    #[arg(default_value = "-", conflicts_with = "file")]
    pub data: String,
    /// `any`, `none` (the stream must not exist), or the version of the stream's last event.
    #[arg(long, default_value = "any", value_parser = expected_version)]
    pub expected_version: ExpectedVersion,
    /// The event's identity: the same append again changes nothing.
    #[arg(long, conflicts_with = "file")]
    pub event_id: Option<Uuid>,
    /// A JSON object that is noted beside the data.
    #[arg(long, value_name = "JSON", conflicts_with = "file")]
    pub metadata: Option<String>,
    /// When it happened, such as 2026-01-31T12:00:00Z; now, unless given.
    #[arg(long, value_name = "TIME", conflicts_with = "file")]
    pub occurred_at: Option<String>,
    /// A JSON array of events instead: `[{"type", "data", "metadata"?, "event_id"?, "occurred_at"?}]`; `-` for standard input.
    #[arg(long, value_name = "EVENTS.json", conflicts_with = "kind")]
    pub file: Option<String>,
    /// Projections, or read models of theirs, that must have passed the events: `orders,trading-stats`.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub wait_for: Vec<String>,
    /// For how long to wait, such as 2s or 500ms; 5s, unless given. The engine's api.max_wait_ms is the most.
    #[arg(long, value_name = "TIME", requires = "wait_for")]
    pub wait: Option<String>,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// The events are stored, and not every projection that was waited for has passed them.
#[derive(Debug, thiserror::Error)]
#[error("appended, and not passed in time: {0}")]
pub struct NotPassed(String);

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(flatten)]
    appended: Appended,
    #[serde(default)]
    waited_for: Vec<Outcome>,
}

/// How a projection took the events.
#[derive(Debug, Deserialize)]
struct Outcome {
    projection: String,
    reached: bool,
    position: Option<i64>,
    #[serde(default)]
    dead_letters: Vec<i64>,
    detail: Option<String>,
}

/// Appends, and prints where the events were stored and who has passed them.
pub fn run(args: &AppendArgs) -> Result<()> {
    let events = match (&args.file, &args.kind) {
        (Some(file), _) => json_text(&read(file)?, file)?,
        (None, Some(kind)) => one_event(args, kind)?,
        (None, None) => bail!("name the event's type, or a --file of events"),
    };
    let expected = args.expected_version.to_string();
    let body = format!(
        "{{\"expected_version\":{},\"events\":{}}}",
        json!(expected),
        events.get()
    );
    let path = format!("/streams/{}/events{}", encoded(&args.stream), waiting(args));
    let Answer {
        appended,
        waited_for,
    } = Engine::new(&args.engine).post(&path, &body)?;
    for event in &appended.events {
        println!(
            "{} {}@{} {}",
            event.position, appended.stream_id, event.version, event.event_id
        );
    }
    let mut late = Vec::new();
    for outcome in &waited_for {
        match outcome.reached {
            true => println!("{} has passed {}", outcome.projection, appended.position),
            false => late.push(outcome.late()),
        }
        for position in &outcome.dead_letters {
            let name = &outcome.projection;
            println!(
                "{name} could not process {position}: gobo dead-letters show {name} {position}"
            );
        }
    }
    match late.is_empty() {
        true => Ok(()),
        false => Err(NotPassed(late.join("; ")).into()),
    }
}

/// The query that says for whom to wait.
fn waiting(args: &AppendArgs) -> String {
    if args.wait_for.is_empty() {
        return String::new();
    }
    let names: Vec<String> = args.wait_for.iter().map(|name| encoded(name)).collect();
    let wait = (args.wait.iter()).map(|wait| format!("&wait={}", encoded(wait)));
    format!("?wait_for={}{}", names.join(","), wait.collect::<String>())
}

impl Outcome {
    fn late(&self) -> String {
        let name = &self.projection;
        match (self.position, &self.detail) {
            (Some(position), _) => format!("{name} is at {position}"),
            (None, Some(detail)) => format!("{name}: {detail}"),
            (None, None) => format!("it is not known where {name} is"),
        }
    }
}

fn one_event(args: &AppendArgs, kind: &str) -> Result<Box<RawValue>> {
    let data = match args.data.strip_prefix('@') {
        Some(file) => json_text(&read(file)?, file)?,
        None if args.data == "-" => json_text(&read("-")?, "standard input")?,
        None => json_text(&args.data, "the data")?,
    };
    let mut rest = Map::new();
    rest.insert("type".to_owned(), json!(kind));
    if let Some(event_id) = args.event_id {
        rest.insert("event_id".to_owned(), json!(event_id));
    }
    if let Some(occurred_at) = &args.occurred_at {
        rest.insert("occurred_at".to_owned(), json!(occurred_at));
    }
    // Data and metadata are passed on as they were written: numbers keep their digits.
    let mut members = Value::from(rest).to_string();
    members.pop();
    members.push_str(&format!(",\"data\":{data}"));
    if let Some(metadata) = &args.metadata {
        let metadata = json_text(metadata, "the metadata")?;
        members.push_str(&format!(",\"metadata\":{metadata}"));
    }
    Ok(RawValue::from_string(format!("[{members}}}]"))?)
}

fn read(file: &str) -> Result<String> {
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin().read_to_string(&mut text).map(|_| text),
        _ => std::fs::read_to_string(file),
    };
    read.with_context(|| format!("{file} cannot be read"))
}

fn json_text(text: &str, what: &str) -> Result<Box<RawValue>> {
    serde_json::from_str(text).with_context(|| format!("{what} is not JSON"))
}

fn expected_version(text: &str) -> Result<ExpectedVersion, String> {
    text.parse()
}
