//! `gobo status`: what is deployed and how far it is.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::engine::{Away, Engine, EngineArgs};

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

const COLUMNS: [&str; 9] = [
    "PROJECTION",
    "STATE",
    "POSITION",
    "HEAD",
    "LAG",
    "EVENTS/S",
    "DEAD",
    "GENERATION",
    "OWNER",
];

/// Show the projections: state, position, lag, rate.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  gobo status
  gobo status --watch
  gobo status --json")]
pub struct StatusArgs {
    /// Print the engine's answer as JSON.
    #[arg(long, conflicts_with = "watch")]
    pub json: bool,
    /// Look again every second.
    #[arg(long, short)]
    pub watch: bool,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Prints the status, once or for ever.
pub fn run(args: &StatusArgs) -> Result<()> {
    let engine = Engine::new(&args.engine);
    loop {
        match engine.get::<Value>("/admin/projections") {
            Ok(answer) if args.json => println!("{answer:#}"),
            Ok(answer) if args.watch => print!("\x1b[2J\x1b[H{}", table(&answer)),
            Ok(answer) => print!("{}", table(&answer)),
            Err(error) if args.watch && error.is::<Away>() => println!("{error:#}"),
            Err(error) => return Err(error),
        }
        if !args.watch {
            return Ok(());
        }
        std::thread::sleep(WATCH_EVERY);
    }
}

/// The projections as lines of text, each followed by its error if it has one.
fn table(answer: &Value) -> String {
    let projections = answer["projections"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    if projections.is_empty() {
        return "no projections: deploy one with `gobo deploy FILE.wasm`\n".to_owned();
    }
    let rows: Vec<[String; 9]> = projections.iter().map(row).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([COLUMNS[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = line(&mut COLUMNS.into_iter());
    for (row, projection) in rows.iter().zip(projections) {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
        if let Some(message) = projection["error"]["message"].as_str() {
            let at = match projection["error"]["position"].as_i64() {
                Some(position) => format!("at event {position}: "),
                None => String::new(),
            };
            text.push_str(&format!("    {at}{}\n", message.replace('\n', "\n    ")));
            if let Some(file) = projection["error"]["file"].as_str() {
                text.push_str(&format!(
                    "    to run it again: gobo replay --frame {file} --plugin PLUGIN.wasm\n"
                ));
            }
        }
        if projection["candidate"].is_object() {
            text.push_str(&format!("    {}\n", candidate(projection)));
        }
    }
    text
}

/// What is on its way to replace the live generation.
fn candidate(projection: &Value) -> String {
    let candidate = &projection["candidate"];
    let position = candidate["position"].as_i64().unwrap_or_default();
    let head = projection["head_position"].as_i64().unwrap_or(position);
    let mut text = format!(
        "generation {} is at {position} of {head}",
        candidate["generation"]
    );
    if candidate["hold"] == true {
        text.push_str(", held for `gobo promote`");
    }
    for why in [&candidate["error"]["message"], &candidate["trouble"]] {
        if let Some(why) = why.as_str() {
            text.push_str(&format!(": {why}"));
        }
    }
    text
}

fn row(projection: &Value) -> [String; 9] {
    let text = |member: &str| projection[member].as_str().unwrap_or("-").to_owned();
    let number = |member: &str| {
        let number = projection[member].as_i64();
        number.map_or("-".to_owned(), |number| number.to_string())
    };
    let decimal = |member: &str, unit: &str| {
        let number = projection[member].as_f64();
        number.map_or("-".to_owned(), |number| format!("{number:.1}{unit}"))
    };
    [
        text("name"),
        text("state"),
        number("position"),
        number("head_position"),
        decimal("lag_seconds", " s"),
        decimal("events_per_second", ""),
        number("dead_letters"),
        number("generation"),
        text("owner"),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_aligns_columns_and_shows_errors() {
        let answer = json!({ "projections": [
            { "name": "orders", "state": "running", "position": 12, "head_position": 12, "lag_seconds": 0.0,
              "events_per_second": 3.25, "dead_letters": 0, "generation": 1, "owner": "host:1", "error": null },
            { "name": "a-longer-name", "state": "stopped", "position": 5, "head_position": null, "lag_seconds": null,
              "events_per_second": null, "dead_letters": 0, "generation": 2, "owner": null,
              "error": { "position": 6, "message": "no" },
              "candidate": { "generation": 7, "position": 3, "hold": true, "error": null, "trouble": null } },
        ] });
        let text = table(&answer);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "PROJECTION     STATE    POSITION  HEAD  LAG    EVENTS/S  DEAD  GENERATION  OWNER"
        );
        assert_eq!(
            lines[1],
            "orders         running  12        12    0.0 s  3.2       0     1           host:1"
        );
        assert_eq!(lines[3], "    at event 6: no");
        assert_eq!(
            lines[4],
            "    generation 7 is at 3 of 3, held for `gobo promote`"
        );
    }
}
