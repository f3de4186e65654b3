//! `gobo ingest`: events from elsewhere into the event store, for as long as there are any.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::ProgressBar;

use super::serve::until_signal;
use crate::db::{Database, describe, is_infrastructure};
use crate::ingest::{DEFAULT_BATCH, Fields, IngestError, OnBad, Options, Seen, Summary, ingest};
use crate::migrate::{MigrateError, migrate};
use crate::shutdown::Shutdown;

/// How often a line says how far it is, when there is no terminal.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// Pause between two attempts to reach the database at the start.
const PAUSE: Duration = Duration::from_secs(1);

/// Read events from elsewhere into the event store, as they come.
#[derive(Debug, Clone, Args)]
pub struct IngestArgs {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Clone, Subcommand)]
enum From {
    Redis(RedisArgs),
}

/// Store the entries of a Redis Stream as events, each once, in the order of the stream. Reads as a consumer group, which
/// belongs to this command alone, and acknowledges an entry when its event is durable. Can be ended and killed at any
/// moment, and goes on where it was. Of several processes with the same stream and group one is at work; the others stand by.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  gobo ingest redis --stream orders --redis-url redis://localhost:6379 --database-url postgresql://gobo@localhost/gobo

An entry has the fields stream_id, type and data (JSON), and may have metadata (a JSON object), event_id (a UUID) and
occurred_at (such as 2026-01-31T12:00:00Z). Without an event_id, one is made from the name of the ingestion and the id of
the entry; without occurred_at, the event happened when its entry was added, as the entry's id says.")]
struct RedisArgs {
    /// The stream's key
    #[arg(long)]
    stream: String,
    /// The consumer group; made when it is not there
    #[arg(long, default_value = "gobo")]
    group: String,
    /// The name in the group
    #[arg(long, default_value = "gobo")]
    consumer: String,
    /// Where a group begins that is made now: 0 is the first entry, $ what is added from now on, or the id of an entry
    /// after which to begin
    #[arg(long, default_value = "0", value_parser = from)]
    from: String,
    /// Made event ids depend on it [default: the stream's key]. Two streams of the same key, on two servers, need two names
    #[arg(long)]
    name: Option<String>,
    /// The field with the event's stream
    #[arg(long, value_name = "FIELD", default_value = "stream_id")]
    stream_field: String,
    /// The field with the event's type
    #[arg(long, value_name = "FIELD", default_value = "type")]
    type_field: String,
    /// The field with the event's data, JSON
    #[arg(long, value_name = "FIELD", default_value = "data")]
    data_field: String,
    /// The field with the event's metadata, a JSON object
    #[arg(long, value_name = "FIELD", default_value = "metadata")]
    metadata_field: String,
    /// The field with the event's identity, a UUID
    #[arg(long, value_name = "FIELD", default_value = "event_id")]
    id_field: String,
    /// The field with the moment when the event happened
    #[arg(long, value_name = "FIELD", default_value = "occurred_at")]
    time_field: String,
    /// How many entries are stored together
    #[arg(long, value_name = "ENTRIES", default_value_t = DEFAULT_BATCH, value_parser = batch)]
    batch: usize,
    /// What becomes of an entry that cannot be stored: end in front of it, or move it to the stream STREAM:refused
    #[arg(long, value_enum, default_value_t = Bad::Stop)]
    on_bad: Bad,
    /// End when there is nothing more to read
    #[arg(long)]
    once: bool,
    /// Where Redis is: redis://[user:password@]host[:port][/database], rediss://... with TLS, redis+unix:///path
    #[arg(
        long,
        env = "REDIS_URL",
        hide_env_values = true,
        default_value = "redis://localhost:6379"
    )]
    redis_url: String,
    /// Where the event store is: the `database.url` of `gobo serve`, or what `gobo dev` prints
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Bad {
    Stop,
    Skip,
}

/// Ingests until a signal ends it, after the batch that is being stored.
pub async fn run(args: IngestArgs) -> Result<()> {
    let From::Redis(args) = args.from;
    let database = Database::new(&args.database_url)?;
    let options = options(args);
    let shutdown = until_signal()?;
    if !prepare(&database, shutdown.clone()).await? {
        return Ok(());
    }
    let mut report = Report::new(&options);
    let result = ingest(&database, &options, shutdown, |seen| report.show(seen)).await;
    report.end();
    let summary = match result {
        Err(error @ IngestError::Bad { .. }) => {
            return Err(error).context(
                "the ingestion stopped; what is stored stays, and the same command goes on from here. \
                 To move entries that cannot be stored out of the way, add --on-bad skip",
            );
        }
        other => other.context("the ingestion stopped; what is stored stays")?,
    };
    let Summary {
        stored,
        present,
        refused,
        lost,
    } = summary;
    println!("{stored} events stored");
    if present > 0 {
        println!("{present} were there already");
    }
    if refused > 0 {
        println!("{refused} entries moved to {}:refused", options.stream);
    }
    if lost > 0 {
        println!("{lost} entries were deleted from the stream before they could be stored");
    }
    Ok(())
}

fn options(args: RedisArgs) -> Options {
    Options {
        redis_url: args.redis_url,
        name: args.name.unwrap_or_else(|| args.stream.clone()),
        stream: args.stream,
        group: args.group,
        consumer: args.consumer,
        from: args.from,
        fields: Fields {
            stream_id: args.stream_field,
            kind: args.type_field,
            data: args.data_field,
            metadata: args.metadata_field,
            event_id: args.id_field,
            occurred_at: args.time_field,
        },
        batch: args.batch,
        on_bad: match args.on_bad {
            Bad::Stop => OnBad::Stop,
            Bad::Skip => OnBad::Skip,
        },
        once: args.once,
    }
}

/// Brings the database's schema up to date, waiting for the database; false when the end is asked for first.
async fn prepare(database: &Database, mut shutdown: Shutdown) -> Result<bool> {
    loop {
        let why = match database.connect("ingest", &[]).await {
            Ok(mut client) => match migrate(&mut client).await {
                Ok(()) => return Ok(true),
                Err(MigrateError::Database(error)) if is_infrastructure(&error) => describe(&error),
                Err(error) => return Err(error.into()),
            },
            Err(error) if is_infrastructure(&error) => describe(&error),
            Err(error) => {
                anyhow::bail!("the database cannot be used: {}", describe(&error));
            }
        };
        eprintln!("waiting for the database: {why}");
        tokio::select! {
            () = shutdown.requested() => return Ok(false),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// A spinner on a terminal, else a line now and then.
struct Report {
    what: String,
    bar: Option<ProgressBar>,
    began: Instant,
    last_shown: Instant,
}

impl Report {
    fn new(options: &Options) -> Self {
        let now = Instant::now();
        Self {
            what: format!("stream {} as group {}", options.stream, options.group),
            bar: std::io::stderr()
                .is_terminal()
                .then(ProgressBar::new_spinner),
            began: now,
            last_shown: now,
        }
    }

    fn show(&mut self, seen: Seen) {
        match seen {
            Seen::Reading => self.say(&format!("reading {}", self.what)),
            Seen::StandingBy => {
                self.say(&format!("another process reads {}; standing by", self.what))
            }
            Seen::Waiting(why) => self.say(&format!("waiting, and trying again: {why}")),
            Seen::Stored(done) => {
                let seconds = self.began.elapsed().as_secs_f64().max(1e-6);
                let rate = done.stored as f64 / seconds;
                let mut line = format!("{} events stored, {rate:.0}/s", done.stored);
                if done.refused > 0 {
                    line.push_str(&format!(", {} refused", done.refused));
                }
                match &self.bar {
                    Some(bar) => {
                        bar.set_message(line);
                        bar.tick();
                    }
                    None if self.last_shown.elapsed() >= REPORT_EVERY => {
                        self.last_shown = Instant::now();
                        eprintln!("{line}");
                    }
                    None => {}
                }
            }
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn batch(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(entries @ 1..=100_000) => Ok(entries),
        _ => Err("a batch has 1 to 100000 entries".to_owned()),
    }
}

fn from(text: &str) -> Result<String, String> {
    let number = |part: &str| part.parse::<u64>().is_ok();
    let is_id = match text.split_once('-') {
        Some((time, sequence)) => number(time) && number(sequence),
        None => number(text),
    };
    match is_id || text == "$" {
        true => Ok(text.to_owned()),
        false => Err("it is 0, $, or the id of an entry such as 1700000000000-0".to_owned()),
    }
}
