//! `gobo dead-letters`: events that a projection could not process.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::engine::{Engine, EngineArgs, encoded};

/// List, retry or discard the events that a projection could not process.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  gobo dead-letters list orders
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
        /// Print the engine's answer as JSON.
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
        Action::List { projection, json } => {
            let answer: Value = engine.get(&path(projection, ""))?;
            match json {
                true => println!("{answer:#}"),
                false => print(&answer),
            }
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

fn print(answer: &Value) {
    let letters = answer["dead_letters"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    if letters.is_empty() {
        println!("no dead letters");
    }
    for letter in letters {
        let text = |member: &str| letter[member].as_str().unwrap_or_default();
        println!(
            "{:>12}  {:9}  {}  {}  (attempts: {})",
            letter["position"].to_string(),
            text("state"),
            text("stream_id"),
            text("event_type"),
            letter["attempts"],
        );
        for line in text("message").lines() {
            println!("              {line}");
        }
    }
}
