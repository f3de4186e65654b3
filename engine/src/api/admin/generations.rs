//! The generations of a projection: what there is, and what operators do with it.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::letters::json_body;
use super::status::GenerationStatus;
use super::{Admin, status};
use crate::api::problem::Problem;
use crate::generations::{Decision, GenerationError};

/// Between two reports of progress.
const REPORT: Duration = Duration::from_millis(500);
/// Positions behind the live generation that still count as caught up: while events come in, none are too few.
const NEAR: i64 = 1_000;
/// How long `promote` waits for a generation that is nearly there.
const PATIENCE: Duration = Duration::from_secs(10);

/// A decision, with the status that says whether it is done or only begun.
fn answer(decision: Decision) -> (StatusCode, Json<Value>) {
    let status = match decision.outcome {
        "rebuilding" | "waiting" => StatusCode::ACCEPTED,
        _ => StatusCode::OK,
    };
    (status, Json(json!(decision)))
}

type Answered = Result<(StatusCode, Json<Value>), Problem>;

pub(super) async fn list(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let generations = status::generations(&admin, &name).await?;
    Ok(Json(
        json!({ "projection": name, "generations": generations }),
    ))
}

pub(super) async fn one(
    State(admin): State<Admin>,
    Path((name, generation)): Path<(String, i64)>,
) -> Result<Json<GenerationStatus>, Problem> {
    Ok(Json(find(&admin, &name, generation).await?.generation))
}

async fn find(admin: &Admin, name: &str, generation: i64) -> Result<Report, Problem> {
    let all = status::generations(admin, name).await?;
    let live = all.iter().find(|one| one.stage == "live");
    let live = live.map(|live| live.status.position);
    let found = (all.into_iter()).find(|found| found.status.generation == generation);
    let generation = found.ok_or_else(|| {
        let projection = name.to_owned();
        let what = generation.to_string();
        Problem::from(GenerationError::NoGeneration { projection, what })
    })?;
    let position = generation.status.position;
    let caught_up = !generation.bulk && live.is_some_and(|live| position >= live - NEAR);
    Ok(Report {
        generation,
        caught_up,
    })
}

/// A generation among its siblings.
#[derive(Clone)]
struct Report {
    generation: GenerationStatus,
    /// Whether it is nearly as far as the live one.
    caught_up: bool,
}

impl Report {
    fn gone(mut self) -> Self {
        self.generation.stage = "gone".into();
        self.caught_up = false;
        self
    }

    /// Whether there is something to wait for. A generation that is to be compared has no end of its own.
    fn is_under_way(&self) -> bool {
        let is_compared = self.generation.purpose == "verify" && self.caught_up;
        self.generation.stage == "building" && !is_compared
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rebuild {
    hold: bool,
    from_scratch: bool,
}

pub(super) async fn rebuild(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answered {
    let Rebuild { hold, from_scratch } = json_body(&body)?;
    let decision = admin.generations.rebuild(&name, hold, from_scratch).await?;
    Ok(answer(decision))
}

pub(super) async fn promote(State(admin): State<Admin>, Path(name): Path<String>) -> Answered {
    let promoted = admin
        .generations
        .promote_named(&name, None, PATIENCE)
        .await?;
    Ok(answer(promoted))
}

pub(super) async fn promote_one(
    State(admin): State<Admin>,
    Path((name, generation)): Path<(String, i64)>,
) -> Answered {
    let generations = &admin.generations;
    let promoted = generations
        .promote_named(&name, Some(generation), PATIENCE)
        .await?;
    Ok(answer(promoted))
}

pub(super) async fn rollback(State(admin): State<Admin>, Path(name): Path<String>) -> Answered {
    Ok(answer(admin.generations.rollback(&name).await?))
}

pub(super) async fn cancel(State(admin): State<Admin>, Path(name): Path<String>) -> Answered {
    Ok(answer(admin.generations.cancel(&name, None).await?))
}

pub(super) async fn cancel_one(
    State(admin): State<Admin>,
    Path((name, generation)): Path<(String, i64)>,
) -> Answered {
    Ok(answer(
        admin.generations.cancel(&name, Some(generation)).await?,
    ))
}

pub(super) async fn pause(State(admin): State<Admin>, Path(name): Path<String>) -> Answered {
    Ok(answer(admin.generations.pause(&name, None, true).await?))
}

pub(super) async fn resume(State(admin): State<Admin>, Path(name): Path<String>) -> Answered {
    Ok(answer(admin.generations.pause(&name, None, false).await?))
}

pub(super) async fn pause_one(
    State(admin): State<Admin>,
    Path((name, generation)): Path<(String, i64)>,
) -> Answered {
    let generations = &admin.generations;
    Ok(answer(
        generations.pause(&name, Some(generation), true).await?,
    ))
}

pub(super) async fn resume_one(
    State(admin): State<Admin>,
    Path((name, generation)): Path<(String, i64)>,
) -> Answered {
    let generations = &admin.generations;
    Ok(answer(
        generations.pause(&name, Some(generation), false).await?,
    ))
}

/// Server-sent events: `progress` twice a second, until `end`, when the generation is live, complete or gone, or can be
/// compared.
pub(super) async fn progress(
    State(admin): State<Admin>,
    Path((name, generation)): Path<(String, i64)>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let first = find(&admin, &name, generation).await?;
    let mut pace = Pace::default();
    let reports = futures_util::stream::unfold(Some(first), move |report| {
        let report = report.map(|report| (pace.measure(&report), report));
        let (admin, name) = (admin.clone(), name.clone());
        async move {
            let (shown, report) = report?;
            let is_under_way = report.is_under_way();
            let kind = if is_under_way { "progress" } else { "end" };
            let event = Event::default().event(kind).data(json!(shown).to_string());
            if !is_under_way {
                return Some((Ok(event), None));
            }
            tokio::time::sleep(REPORT).await;
            let next = match find(&admin, &name, generation).await {
                Ok(next) => next,
                Err(problem) if problem.is_not_found() => report.gone(),
                // The database is away: nothing new is known.
                Err(_) => report,
            };
            Some((Ok(event), Some(next)))
        }
    });
    Ok(Sse::new(reports).keep_alive(KeepAlive::default()))
}

/// A report with how fast the generation moves; null as long as that is not known.
#[derive(Serialize)]
struct Progress {
    #[serde(flatten)]
    generation: GenerationStatus,
    caught_up: bool,
    positions_per_second: Option<f64>,
    eta_seconds: Option<f64>,
}

/// How fast a generation moves, by what was reported of it: a moving average.
#[derive(Default)]
struct Pace {
    seen: Option<(Instant, i64)>,
    positions_per_second: Option<f64>,
}

impl Pace {
    fn measure(&mut self, report: &Report) -> Progress {
        let caught_up = report.caught_up;
        let report = &report.generation;
        let committed = report.status.position;
        let position = report
            .reached
            .map_or(committed, |reached| reached.max(committed));
        let now = Instant::now();
        if let Some((at, before)) = self.seen {
            let lately = (position - before).max(0) as f64 / (now - at).as_secs_f64().max(0.001);
            let rate = self
                .positions_per_second
                .map_or(lately, |rate| rate + 0.3 * (lately - rate));
            self.positions_per_second = Some(rate);
        }
        self.seen = Some((now, position));
        let end = report.until.or(report.status.head_position);
        let rate = self.positions_per_second.filter(|rate| *rate > 0.0);
        let left = end.map(|end| (end - position).max(0) as f64);
        Progress {
            generation: report.clone(),
            caught_up,
            positions_per_second: self.positions_per_second.map(f64::round),
            eta_seconds: left.zip(rate).map(|(left, rate)| (left / rate).round()),
        }
    }
}
