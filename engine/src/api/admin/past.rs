//! The rows at a point in the past: replays and snapshots.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Admin;
use super::letters::json_body;
use crate::api::problem::Problem;
use crate::generations::past::{Expiry, Replay};
use crate::generations::{Decision, GenerationError};
use crate::query::as_of::AsOf;

/// How long a request waits for a copy: large tables take longer, and it goes on without the request.
const PATIENCE: Duration = Duration::from_secs(20);

type Answered = Result<(StatusCode, Json<Value>), Problem>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayBody {
    until: Point,
    label: String,
    #[serde(default, deserialize_with = "hours")]
    expires_hours: Option<Hours>,
    #[serde(default)]
    from_scratch: bool,
}

/// A position as a number or as text, or a time.
#[derive(Deserialize)]
#[serde(untagged)]
enum Point {
    Position(i64),
    Text(String),
}

/// A number of hours, or null: never.
struct Hours(Option<u32>);

/// What is absent and what is null are not the same here.
fn hours<'de, D: serde::Deserializer<'de>>(given: D) -> Result<Option<Hours>, D::Error> {
    Option::deserialize(given).map(|hours| Some(Hours(hours)))
}

pub(super) async fn replay(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answered {
    let asked: ReplayBody = json_body(&body)?;
    let until = match &asked.until {
        Point::Position(position) if *position >= 0 => Some(AsOf::Position(*position)),
        Point::Position(_) => None,
        Point::Text(text) => AsOf::parse(text),
    };
    let until = until.ok_or_else(|| {
        Problem::bad_request(
            "invalid",
            "\"until\" is a position (1234), or a time with its offset from UTC (2026-01-31T12:30:00Z)",
        )
    })?;
    let wish = Replay {
        until,
        label: asked.label,
        expiry: match asked.expires_hours {
            None => Expiry::Usual,
            Some(Hours(Some(hours))) => Expiry::Hours(hours),
            Some(Hours(None)) => Expiry::Never,
        },
        from_scratch: asked.from_scratch,
    };
    let projection = name.clone();
    let work = async move {
        let generations = &admin.generations;
        generations.replay(&admin.sources, &name, &wish).await
    };
    done_or_begun(&projection, work).await
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SnapshotBody {
    label: Option<String>,
}

pub(super) async fn snapshot(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answered {
    let SnapshotBody { label } = json_body(&body)?;
    let projection = name.clone();
    let work = async move { admin.generations.snapshot(&name, label.as_deref()).await };
    done_or_begun(&projection, work).await
}

/// Waits a while for work that goes on in any case.
async fn done_or_begun(
    projection: &str,
    work: impl Future<Output = Result<Decision, GenerationError>> + Send + 'static,
) -> Answered {
    let task = tokio::spawn(async move {
        let done = work.await;
        if let Err(error) = &done {
            tracing::warn!(%error, "the rows of the past cannot be made");
        }
        done
    });
    let Ok(done) = tokio::time::timeout(PATIENCE, task).await else {
        let detail = format!(
            "rows are still being copied; `gobo generations {projection}` shows the generation when that is done"
        );
        let begun = json!({ "projection": projection, "outcome": "copying", "detail": detail });
        return Ok((StatusCode::ACCEPTED, Json(begun)));
    };
    let decision = done.map_err(|_| {
        let why = "the request failed; the engine's log says more";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", why)
    })??;
    let status = match decision.outcome {
        "replaying" => StatusCode::ACCEPTED,
        _ => StatusCode::CREATED,
    };
    Ok((status, Json(json!(decision))))
}
