//! `/metrics`: how this process and what is deployed are doing, in Prometheus' text format.
//!
//! Every node tells of every generation, as the database has it; rates are known where a loop runs. There are as many
//! series as there are projections, generations and read models: nothing that an event or a client says becomes a label.

mod readers;
mod redis;

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Request, State as Shared};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::time::Instant;

use super::admin::Admin;
use super::admin::status::{GenerationStatus, State, all_generations};
use super::read::Reader;
use crate::event::Position;
use crate::feed::Hub;
use crate::feed::publish::Published;
use crate::redis::Redis;
use crate::source;

const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The states, each a series that is 0 or 1.
const STATES: [(State, &str); 6] = [
    (State::Running, "running"),
    (State::Waiting, "waiting"),
    (State::Stopped, "stopped"),
    (State::Failed, "failed"),
    (State::Paused, "paused"),
    (State::Done, "done"),
];

/// Answers by the hundreds of their status: 1xx to 5xx.
#[derive(Debug, Default)]
struct Traffic {
    answers: [AtomicU64; 5],
}

/// How fast generations move, by what was seen of them at the last two scrapes.
#[derive(Debug, Default)]
struct Pace {
    seen: Mutex<HashMap<i64, Seen>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Instant,
    position: Position,
    per_second: Option<f64>,
}

/// What is measured besides the process.
#[derive(Clone)]
pub struct Measured {
    /// The generations.
    pub admin: Admin,
    /// Caches, and what readers wait for.
    pub reader: Reader,
    /// The second cache.
    pub redis: Option<Redis>,
    /// The feeds in it.
    pub published: Published,
    /// Who follows what.
    pub live: Hub,
}

#[derive(Clone)]
struct Room {
    of: Measured,
    traffic: Arc<Traffic>,
    pace: Arc<Pace>,
}

/// Adds `/metrics` to `router`, and counts the answers of all of it.
pub fn measured(router: Router, of: Measured) -> Router {
    let traffic: Arc<Traffic> = Arc::default();
    let room = Room {
        of,
        traffic: traffic.clone(),
        pace: Arc::default(),
    };
    let metrics = Router::new()
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(super::method_not_allowed)
        .with_state(room);
    router
        .merge(metrics)
        .layer(middleware::from_fn_with_state(traffic, count))
}

async fn count(Shared(traffic): Shared<Arc<Traffic>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let class = usize::from(response.status().as_u16() / 100);
    if let Some(answers) = class
        .checked_sub(1)
        .and_then(|class| traffic.answers.get(class))
    {
        answers.fetch_add(1, Ordering::Relaxed);
    }
    response
}

async fn metrics(Shared(room): Shared<Room>) -> Response {
    let mut page = Page::default();
    process(&mut page, &room);
    readers::all(&mut page, &room.of.reader);
    if let Some(redis) = &room.of.redis {
        redis::server(&mut page, redis);
    }
    of_live(&mut page, &room.of.live);
    // What is known of this process is told also while the database is away.
    let generations = all_generations(&room.of.admin).await;
    let up = [(Vec::new(), if generations.is_ok() { 1.0 } else { 0.0 })];
    page.family(
        "gobo_database_up",
        Kind::Gauge,
        "Whether the engine's database answers.",
        up,
    );
    if let Ok(generations) = generations {
        deployed(&mut page, &generations);
        redis::feeds(&mut page, &room.of.published, &generations);
        rebuilds(&mut page, &room.pace, &generations);
    }
    ([(header::CONTENT_TYPE, FORMAT)], page.text).into_response()
}

fn of_live(page: &mut Page, live: &Hub) {
    let stats = live.stats();
    let families = [
        (
            "gobo_live_subscribers",
            Kind::Gauge,
            "Streams and long polls that follow a read model.",
            stats.subscribers.get(),
        ),
        (
            "gobo_live_events_total",
            Kind::Counter,
            "Events sent to those who follow.",
            stats.events.get(),
        ),
        (
            "gobo_live_dropped_total",
            Kind::Counter,
            "Subscribers who were dropped: they, their queries or the database were too slow.",
            stats.dropped.get(),
        ),
        (
            "gobo_live_refetches_total",
            Kind::Counter,
            "Subscribers who were told to read the rows anew.",
            stats.refetches.get(),
        ),
    ];
    for (name, kind, about, value) in families {
        page.family(name, kind, about, [(Vec::new(), value as f64)]);
    }
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

fn process(page: &mut Page, room: &Room) {
    let build = [(vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)];
    page.family(
        "gobo_build_info",
        Kind::Gauge,
        "The engine's version.",
        build,
    );
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
    let answers = classes.iter().zip(&room.traffic.answers);
    page.family(
        "gobo_http_requests_total",
        Kind::Counter,
        "Requests that this process has answered, by the class of the status; health checks are not counted.",
        answers.map(|(class, count)| (vec![("status", *class)], count.load(Ordering::Relaxed) as f64)),
    );
    let sources = room.of.admin.sources.by_name();
    let mut heads: Vec<_> = (sources.iter())
        .map(|(name, source)| (name.as_str(), source.safe_head().borrow().clone()))
        .collect();
    heads.sort_by_key(|(name, _)| *name);
    page.family(
        "gobo_source_up",
        Kind::Gauge,
        "Whether a source can be read.",
        heads.iter().map(|(name, head)| {
            let is_up = head.state == source::State::Ok;
            (vec![("source", *name)], if is_up { 1.0 } else { 0.0 })
        }),
    );
    page.family(
        "gobo_source_head_position",
        Kind::Gauge,
        "The highest position that was drawn in a source.",
        heads
            .iter()
            .map(|(name, head)| (vec![("source", *name)], head.head as f64)),
    );
    page.family(
        "gobo_source_safe_position",
        Kind::Gauge,
        "The position of a source below which nothing can appear any more.",
        heads
            .iter()
            .map(|(name, head)| (vec![("source", *name)], head.position as f64)),
    );
}

/// One generation with the text of its number.
struct Named<'a> {
    of: &'a GenerationStatus,
    number: String,
}

impl Named<'_> {
    fn labels(&self) -> Labels<'_> {
        vec![
            ("projection", &self.of.status.name),
            ("generation", &self.number),
        ]
    }

    fn labels_and<'a>(&'a self, more: &[(&'static str, &'a str)]) -> Labels<'a> {
        let mut labels = self.labels();
        labels.extend_from_slice(more);
        labels
    }
}

fn named(generations: &[GenerationStatus]) -> Vec<Named<'_>> {
    let named = generations.iter().map(|of| Named {
        of,
        number: of.status.generation.to_string(),
    });
    named.collect()
}

fn deployed(page: &mut Page, generations: &[GenerationStatus]) {
    let all = named(generations);
    page.family(
        "gobo_generation_info",
        Kind::Gauge,
        "A generation of a projection, and what it is.",
        all.iter().map(|one| {
            let GenerationStatus {
                status,
                stage,
                purpose,
                ..
            } = one.of;
            let more: [(&'static str, &str); 4] = [
                ("stage", stage),
                ("purpose", purpose),
                ("source", &status.source),
                ("version", &status.version),
            ];
            (one.labels_and(&more), 1.0)
        }),
    );
    page.family(
        "gobo_generation_state",
        Kind::Gauge,
        "1 for the state that a generation is in.",
        all.iter().flat_map(|one| {
            STATES.map(|(state, word)| {
                let is_so = one.of.status.state == state;
                (
                    one.labels_and(&[("state", word)]),
                    if is_so { 1.0 } else { 0.0 },
                )
            })
        }),
    );
    let mut gauge = |name, help, value: &dyn Fn(&GenerationStatus) -> Option<f64>| {
        let samples = all
            .iter()
            .filter_map(|one| Some((one.labels(), value(one.of)?)));
        page.family(name, Kind::Gauge, help, samples);
    };
    gauge(
        "gobo_generation_position",
        "Up to where a generation's rows are complete.",
        &|one| Some(one.status.position as f64),
    );
    gauge(
        "gobo_generation_head_position",
        "The highest position of the source that a generation reads.",
        &|one| one.status.head_position.map(|head| head as f64),
    );
    gauge(
        "gobo_generation_lag_seconds",
        "How old the oldest event is that a generation has not processed yet.",
        &|one| one.status.lag_seconds,
    );
    gauge(
        "gobo_generation_events_per_second",
        "How fast this process works on a generation; only where it runs.",
        &|one| one.status.events_per_second,
    );
    gauge(
        "gobo_generation_dead_letters",
        "Events of a generation that could not be processed and wait for a decision.",
        &|one| Some(one.status.dead_letters as f64),
    );
    gauge(
        "gobo_generation_diverged",
        "Whether a replay may give other rows than a generation has.",
        &|one| Some(f64::from(u8::from(one.status.diverged))),
    );
    let live = generations.iter().filter(|one| one.stage == "live");
    page.family(
        "gobo_read_model_revision",
        Kind::Gauge,
        "The revision of a read model: rises with every transaction that changes it.",
        live.flat_map(|one| {
            one.status.read_models.iter().map(|model| {
                let labels: Labels<'_> = vec![
                    ("projection", &one.status.name),
                    ("read_model", &model.name),
                ];
                (labels, model.revision as f64)
            })
        }),
    );
}

/// What is on its way: how far, and how long it will take.
fn rebuilds(page: &mut Page, pace: &Pace, generations: &[GenerationStatus]) {
    let all = named(generations);
    let rates = pace.measure(generations);
    let building = || all.iter().filter(|one| one.of.stage == "building");
    let end = |one: &GenerationStatus| one.until.or(one.status.head_position);
    page.family(
        "gobo_rebuild_progress_ratio",
        Kind::Gauge,
        "How much of its way a generation has come that is being filled, from 0 to 1.",
        building().filter_map(|one| {
            let (end, position) = (end(one.of)? as f64, one.of.status.position as f64);
            let ratio = if end > 0.0 {
                (position / end).min(1.0)
            } else {
                1.0
            };
            Some((one.labels(), ratio))
        }),
    );
    page.family(
        "gobo_rebuild_eta_seconds",
        Kind::Gauge,
        "How long a generation that is being filled will take at its present pace; from the second scrape on.",
        building().filter_map(|one| {
            let left = (end(one.of)? - one.of.status.position).max(0) as f64;
            let rate = rates.get(&one.of.status.generation).filter(|rate| **rate > 0.0)?;
            Some((one.labels(), left / rate))
        }),
    );
}

impl Pace {
    /// Positions per second of what is being filled, as far as they are known.
    fn measure(&self, generations: &[GenerationStatus]) -> HashMap<i64, f64> {
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::take(&mut *seen);
        for one in generations.iter().filter(|one| one.stage == "building") {
            let (generation, position) = (one.status.generation, one.status.position);
            let before = old.get(&generation);
            let per_second = before.map(|before| {
                let moved = (position - before.position).max(0) as f64;
                let lately = moved / (now - before.at).as_secs_f64().max(0.001);
                before
                    .per_second
                    .map_or(lately, |rate| rate + 0.5 * (lately - rate))
            });
            seen.insert(
                generation,
                Seen {
                    at: now,
                    position,
                    per_second,
                },
            );
        }
        (seen.iter())
            .filter_map(|(generation, seen)| Some((*generation, seen.per_second?)))
            .collect()
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// The text, family by family.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    /// A family with its samples; nothing if there are none.
    fn family<'a>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let mut is_first = true;
        for (labels, value) in samples {
            if std::mem::take(&mut is_first) {
                self.line(format_args!("# HELP {name} {help}"));
                self.line(format_args!("# TYPE {name} {kind}"));
            }
            let labels: Vec<String> = (labels.iter())
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
                .collect();
            match labels.is_empty() {
                true => self.line(format_args!("{name} {value}")),
                false => self.line(format_args!("{name}{{{}}} {value}", labels.join(","))),
            }
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_help_and_type_once_and_labels_are_escaped() {
        let mut page = Page::default();
        let samples = [(vec![("name", "a\"b\\c\nd")], 1.5), (Vec::new(), 2.0)];
        page.family("gobo_things", Kind::Counter, "Things.", samples);
        page.family("gobo_nothing", Kind::Gauge, "Nothing.", []);
        assert_eq!(
            page.text,
            "# HELP gobo_things Things.\n# TYPE gobo_things counter\n\
             gobo_things{name=\"a\\\"b\\\\c\\nd\"} 1.5\ngobo_things 2\n"
        );
    }
}
