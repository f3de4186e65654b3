//! `gobo dead-letters`: events that a projection could not process.

use std::io::{self, Write};

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::engine::{Engine, EngineArgs, encoded};

/// Dead letters that are asked for at once.
const PAGE: u64 = 1_000;

/// List, retry or discard the events that a projection could not process.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  gobo dead-letters list orders
  gobo dead-letters list orders --limit 20 --after 4711
  gobo dead-letters retry orders
  gobo dead-letters retry orders --stream order-17
  gobo dead-letters discard orders --position 4711 --reason \"duplicate of 4710, checked with sales\"
  gobo dead-letters discard orders --stream test-1 --whole-stream --reason \"a test\"")]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// List them, in order.
    List {
        /// The projection.
        projection: String,
        /// Only those after this position.
        #[arg(long)]
        after: Option<i64>,
        /// At most so many [default: all].
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
        /// Print them as one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Try them again, each stream's in order, until one fails again.
    Retry {
        /// The projection.
        projection: String,
        /// Only those of this stream.
        #[arg(long)]
        stream: Option<String>,
    },
    /// Give one up: its stream goes on behind it.
    Discard {
        /// The projection.
        projection: String,
        /// The first one of this stream.
        #[arg(long, required_unless_present = "position")]
        stream: Option<String>,
        /// The one at this position.
        #[arg(long)]
        position: Option<i64>,
        /// All of the stream, not only its first one.
        #[arg(long, requires = "stream", conflicts_with = "position")]
        whole_stream: bool,
        /// Why it is given up; kept with it.
        #[arg(long)]
        reason: String,
    },
}

/// Does what was asked for.
pub fn run(args: &DeadLettersArgs) -> Result<()> {
    let engine = Engine::new(&args.engine);
    let path = |projection: &str, rest: &str| {
        format!(
            "/admin/projections/{}/dead-letters{rest}",
            encoded(projection)
        )
    };
    match &args.action {
        Action::List {
            projection,
            after,
            limit,
            json,
        } => {
            let path = path(projection, "");
            let (after, limit) = (after.unwrap_or(0), limit.unwrap_or(u64::MAX));
            list(&engine, &path, after, limit, *json)?;
        }
        Action::Retry { projection, stream } => {
            let body = json!({ "stream_id": stream }).to_string();
            let answer: Value = engine.post(&path(projection, "/retry"), &body)?;
            println!("{} dead letters are tried again", answer["count"]);
        }
        Action::Discard {
            projection,
            stream,
            position,
            whole_stream,
            reason,
        } => {
            let body = json!({
                "stream_id": stream, "position": position, "whole_stream": whole_stream, "reason": reason,
            });
            let answer: Value = engine.post(&path(projection, "/discard"), &body.to_string())?;
            let (first, stream) = (
                &answer["discarded"]["position"],
                &answer["discarded"]["stream_id"],
            );
            match whole_stream {
                true => println!(
                    "discarded {} events of stream {stream}, from event {first} on",
                    answer["count"]
                ),
                false => println!(
                    "discarded event {first} of stream {stream}; {} that waited behind it are tried again",
                    answer["retried"]
                ),
            }
        }
    }
    Ok(())
}

/// Prints page after page; JSON is gathered first, since it is one object.
fn list(engine: &Engine, path: &str, mut after: i64, mut limit: u64, json: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    let mut gathered = Vec::new();
    let mut seen = false;
    let next = loop {
        let page = limit.min(PAGE);
        let mut answer: Value = engine.get(&format!("{path}?after={after}&limit={page}"))?;
        let letters = match answer["dead_letters"].take() {
            Value::Array(letters) => letters,
            _ => Vec::new(),
        };
        limit = limit.saturating_sub(letters.len() as u64);
        seen |= !letters.is_empty();
        match json {
            true => gathered.extend(letters),
            false => letters
                .iter()
                .try_for_each(|letter| print(&mut out, letter))?,
        }
        match answer["next"].as_i64() {
            Some(next) if limit > 0 => after = next,
            next => break next,
        }
    };
    if json {
        writeln!(
            out,
            "{:#}",
            json!({ "dead_letters": gathered, "next": next })
        )?;
    } else if !seen {
        writeln!(out, "no dead letters")?;
    } else if let Some(next) = next {
        writeln!(out, "There are more: --after {next}")?;
    }
    Ok(())
}

fn print(out: &mut impl Write, letter: &Value) -> io::Result<()> {
    let text = |member: &str| letter[member].as_str().unwrap_or_default();
    writeln!(
        out,
        "{:>12}  {:9}  {}  {}  (attempts: {})",
        letter["position"].to_string(),
        text("state"),
        text("stream_id"),
        text("event_type"),
        letter["attempts"],
    )?;
    for line in text("message").lines() {
        writeln!(out, "              {line}")?;
    }
    Ok(())
}
