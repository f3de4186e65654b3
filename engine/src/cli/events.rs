//! `gobo events`: what is in the event store, and what comes in.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::engine::{Absent, Away, Engine, EngineArgs, encoded};
use crate::store::MAX_PAGE;

/// A follower asks again after this long when there was something, and ever later when there was not.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Print events in order, and follow them as they come in.
#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    /// Only this stream's.
    #[arg(long)]
    pub stream: Option<String>,
    /// Only those after this position; with --stream, after this version.
    #[arg(long, allow_negative_numbers = true)]
    pub after: Option<i64>,
    /// Only events of this type (may be repeated).
    #[arg(long = "type", value_name = "TYPE")]
    pub types: Vec<String>,
    /// At most so many [default: 100, with --follow no limit].
    #[arg(long)]
    pub limit: Option<u64>,
    /// Go on with new events as they come in; begins with the next one, unless --after says otherwise.
    #[arg(long, short)]
    pub follow: bool,
    /// One JSON object per line, with everything.
    #[arg(long)]
    pub json: bool,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Box<RawValue>>,
    next: Option<i64>,
    safe_position: i64,
    /// Of a stream.
    version: Option<i64>,
}

#[derive(Deserialize)]
struct Event<'a> {
    position: i64,
    stream_id: String,
    version: i64,
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Prints events until the limit, the end of the store, or for ever.
pub fn run(args: &EventsArgs) -> Result<()> {
    if args.types.iter().any(|kind| kind.contains(',')) {
        bail!("a --type with a comma cannot be asked for");
    }
    Listing::begin(args)?.run()
}

struct Listing<'a> {
    args: &'a EventsArgs,
    engine: Engine,
    after: Option<i64>,
    left: u64,
}

impl<'a> Listing<'a> {
    fn begin(args: &'a EventsArgs) -> Result<Self> {
        let default_limit = if args.follow { u64::MAX } else { 100 };
        let mut listing = Self {
            args,
            engine: Engine::new(&args.engine),
            after: args.after,
            left: args.limit.unwrap_or(default_limit),
        };
        if args.follow && args.after.is_none() {
            // A stream that does not exist yet is followed from its first event.
            listing.after = match listing.page(1) {
                Ok(page) => Some(page.version.unwrap_or(page.safe_position)),
                Err(error) if error.is::<Absent>() => None,
                Err(error) => return Err(error),
            };
        }
        Ok(listing)
    }

    fn run(mut self) -> Result<()> {
        let mut pause = SHORTEST_PAUSE;
        let mut away = false;
        while self.left > 0 {
            let limit = self.left.min(MAX_PAGE.unsigned_abs());
            let page = match self.page(limit) {
                Ok(page) => page,
                Err(error) if self.args.follow && error.is::<Away>() => {
                    if !std::mem::replace(&mut away, true) {
                        eprintln!("{error}\nTrying again until it does.");
                    }
                    thread::sleep(LONGEST_PAUSE);
                    continue;
                }
                Err(error) if self.args.follow && error.is::<Absent>() => {
                    thread::sleep(LONGEST_PAUSE);
                    continue;
                }
                Err(error) => return Err(error),
            };
            away = false;
            self.print(&page)?;
            match page.next {
                Some(next) => self.after = Some(next),
                None if self.args.follow => {
                    pause = match page.events.is_empty() {
                        true => (pause * 2).min(LONGEST_PAUSE),
                        false => SHORTEST_PAUSE,
                    };
                    thread::sleep(pause);
                }
                None => break,
            }
        }
        Ok(())
    }

    fn page(&self, limit: u64) -> Result<Page> {
        let mut path = match &self.args.stream {
            Some(stream) => format!("/streams/{}/events?limit={limit}", encoded(stream)),
            None => format!("/events?limit={limit}"),
        };
        if let Some(after) = self.after {
            path.push_str(&format!("&after={after}"));
        }
        if self.args.stream.is_none() && !self.args.types.is_empty() {
            path.push_str(&format!("&types={}", encoded(&self.args.types.join(","))));
        }
        self.engine.get(&path)
    }

    fn print(&mut self, page: &Page) -> Result<()> {
        let mut out = io::stdout().lock();
        for text in &page.events {
            let event: Event<'_> = serde_json::from_str(text.get())?;
            self.after = Some(match self.args.stream {
                Some(_) => event.version,
                None => event.position,
            });
            if !self.args.types.is_empty() && !self.args.types.contains(&event.kind) {
                continue;
            }
            if self.args.json {
                writeln!(out, "{text}")?;
            } else {
                let Event {
                    position,
                    stream_id,
                    version,
                    kind,
                    data,
                } = event;
                writeln!(out, "{position} {stream_id}@{version} {kind} {data}")?;
            }
            self.left = self.left.saturating_sub(1);
        }
        out.flush()?;
        Ok(())
    }
}
