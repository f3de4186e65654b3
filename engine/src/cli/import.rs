//! `gobo import`: events from a file into the event store.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;

use crate::db::{Database, describe};
use crate::import::{DEFAULT_CHUNK, Input, Options, Progress, Summary, content_name, import};
use crate::migrate::migrate;

/// How often a line says how far it is, when there is no terminal.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Load events from lines of JSON: one object per line with stream_id, type, data, and optionally version, event_id,
/// metadata, occurred_at. An import that was interrupted goes on where it stopped when the same command is given again.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// A file (plain, zstd or gzip), or `-` for standard input.
    pub file: PathBuf,
    /// The name under which the import can be continued [default: the hash of the file's content].
    #[arg(long)]
    pub name: Option<String>,
    /// How many lines are stored together, all or none.
    #[arg(long, value_name = "LINES", default_value_t = DEFAULT_CHUNK, value_parser = chunk)]
    pub chunk: usize,
    /// Where the event store is: the `database.url` of `gobo serve`, or what `gobo dev` prints.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
}

/// Imports, says how fast, and stops after the current chunk at Ctrl-C.
pub async fn run(args: ImportArgs) -> Result<()> {
    let (input, name) = open(&args)?;
    let database = Database::new(&args.database_url)?;
    let mut client = database
        .connect("import", &[])
        .await
        .map_err(|error| anyhow::anyhow!("the database cannot be reached: {}", describe(&error)))?;
    migrate(&mut client).await?;
    let options = Options {
        name: name.clone(),
        chunk: args.chunk,
    };
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            eprintln!("stopping after the current chunk; press Ctrl-C again to stop at once");
            let _ = stop.send(true);
        }
        // A chunk that is cut off leaves nothing behind.
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    });
    let mut report = Report::new(input.size());
    let result = import(&mut client, input, &options, stopped, |progress| {
        report.show(progress);
    })
    .await;
    report.end();
    let continues = format!("gobo import {} --name {name}", args.file.display());
    let summary = result.with_context(|| {
        format!("the import stopped; what is stored stays, and it goes on with: {continues}")
    })?;
    print_summary(&summary);
    if !summary.complete {
        bail!(
            "interrupted after line {}; it goes on with: {continues}",
            summary.lines
        );
    }
    Ok(())
}

fn open(args: &ImportArgs) -> Result<(Input, String)> {
    if args.file == Path::new("-") {
        let Some(name) = args.name.clone() else {
            bail!("an import from standard input needs a --name, under which it can be continued");
        };
        return Ok((Input::stdin(), name));
    }
    let cannot = || format!("{} cannot be read", args.file.display());
    let name = match &args.name {
        Some(name) => name.clone(),
        None => content_name(&args.file).with_context(cannot)?,
    };
    Ok((Input::file(&args.file).with_context(cannot)?, name))
}

fn print_summary(summary: &Summary) {
    let took = summary.took;
    let seconds = took.total.as_secs_f64().max(1e-6);
    if summary.resumed_at > 0 {
        println!("went on after line {}", summary.resumed_at);
    }
    if summary.present > 0 {
        println!("{} events were there already", summary.present);
    }
    println!(
        "{} events in {seconds:.1} s, {:.0} events/s (parsing {:.1} s, beside it COPY {:.1} s and commits {:.1} s); last position {}",
        summary.stored,
        summary.stored as f64 / seconds,
        took.parsing.as_secs_f64(),
        took.copying.as_secs_f64(),
        took.committing.as_secs_f64(),
        summary.last_position
    );
}

/// A bar on a terminal, else a line now and then.
struct Report {
    bar: Option<ProgressBar>,
    began: Instant,
    last_shown: Instant,
}

impl Report {
    fn new(size: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let (bar, template) = match size {
                Some(size) => (
                    ProgressBar::new(size),
                    "{bar:40} {percent}% {bytes_per_sec} {msg} eta {eta}",
                ),
                None => (ProgressBar::new_spinner(), "{spinner} {bytes} {msg}"),
            };
            match ProgressStyle::with_template(template) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        let now = Instant::now();
        Self {
            bar,
            began: now,
            last_shown: now,
        }
    }

    fn show(&mut self, progress: Progress) {
        let seconds = self.began.elapsed().as_secs_f64().max(1e-6);
        let rate = (progress.lines - progress.resumed_at) as f64 / seconds;
        let message = format!("{} lines, {rate:.0}/s", progress.lines);
        match &self.bar {
            Some(bar) => {
                bar.set_position(progress.consumed);
                bar.set_message(message);
            }
            None if self.last_shown.elapsed() >= REPORT_EVERY => {
                self.last_shown = Instant::now();
                eprintln!("{message}");
            }
            None => {}
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn chunk(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(lines @ 1..=1_000_000) => Ok(lines),
        _ => Err("a chunk has 1 to 1000000 lines".to_owned()),
    }
}
