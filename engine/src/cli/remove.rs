//! `gobo remove`: a projection and all that it has.

use std::io::{IsTerminal, Write};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use super::engine::{Engine, EngineArgs, encoded};

/// Remove a projection with its tables, its views and its dead letters, after saying what goes.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The events stay. A file of the watched folder does not bring the projection back by itself, unless its content changes;
`gobo deploy FILE` does."
)]
pub struct RemoveArgs {
    /// The projection.
    pub projection: String,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Says what goes, asks, and removes.
pub fn run(args: &RemoveArgs) -> Result<()> {
    let engine = Engine::new(&args.engine);
    let name = encoded(&args.projection);
    let path = format!("/admin/projections/{name}");
    let plan: Value = engine.get(&format!("{path}/removal"))?;
    print!("{}", shown(&plan));
    if !args.yes && !confirmed(&args.projection)? {
        bail!("nothing was removed");
    }
    let answer: Value = engine.delete(&format!("{path}?confirm={name}"))?;
    println!("{}", answer["detail"].as_str().unwrap_or_default());
    Ok(())
}

/// Asks for the name, because it cannot be undone.
fn confirmed(projection: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("to remove it without being asked: gobo remove {projection} --yes");
    }
    print!("This cannot be undone. Type the projection's name to remove it: ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim() == projection)
}

fn shown(plan: &Value) -> String {
    let text = |of: &Value, member: &str| of[member].as_str().unwrap_or_default().to_owned();
    let list = |member: &str| plan[member].as_array().cloned().unwrap_or_default();
    let mut shown = format!("projection {}: what goes\n", text(plan, "projection"));
    for generation in list("generations") {
        let number = generation["generation"].as_i64().unwrap_or_default();
        let (stage, purpose) = (text(&generation, "stage"), text(&generation, "purpose"));
        shown.push_str(&format!("  generation {number} ({stage}, {purpose})\n"));
        for table in generation["tables"].as_array().into_iter().flatten() {
            let rows = table["rows"].as_i64();
            let rows = rows.map_or("rows not counted yet".to_owned(), |rows| {
                format!("about {rows} rows")
            });
            let mebibytes = table["bytes"].as_f64().unwrap_or_default() / f64::from(1 << 20);
            let name = text(table, "name");
            shown.push_str(&format!("    table {name}: {rows}, {mebibytes:.1} MiB\n"));
        }
    }
    for view in list("views") {
        shown.push_str(&format!("  view {}\n", view.as_str().unwrap_or_default()));
    }
    for name in list("read_models") {
        shown.push_str(&format!(
            "  the name {} of a read model becomes free\n",
            name.as_str().unwrap_or_default()
        ));
    }
    let letters = plan["dead_letters"].as_i64().unwrap_or_default();
    shown.push_str(&format!("  {letters} dead letters, and the log\n"));
    if plan["has_settings"].as_bool().unwrap_or_default() {
        shown.push_str("  the settings that were decided at run time\n");
    }
    for built in list("built_on_it") {
        shown.push_str(&format!(
            "  in the way: {}\n",
            built.as_str().unwrap_or_default()
        ));
    }
    shown
}
