//! Appending events and reading them back: `/streams/{stream_id}/events` and `/events`.

mod wait_for;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::watch;

use self::wait_for::Outcome;
pub use self::wait_for::Projections;
use super::body;
use super::problem::Problem;
use crate::access::Identity;
use crate::event::Position;
use crate::store::{
    AppendError, Appended, ExpectedVersion, MAX_EVENTS_PER_APPEND, MAX_PAGE, ReadError, Store,
    StoredEvent,
};

/// The largest body of an append, unless configured otherwise.
pub const DEFAULT_BODY_LIMIT: usize = 8 << 20;
const DEFAULT_PAGE: i64 = 100;

/// What this room needs.
#[derive(Debug, Clone)]
pub struct Streams {
    /// Where the events are.
    pub store: Store,
    /// The own store's safe head, as the source computes it: nothing beyond it is listed.
    pub safe: watch::Receiver<Position>,
    /// Who an append may wait for.
    pub projections: Projections,
    /// The largest body of an append, in bytes.
    pub body_limit: usize,
}

/// The routes. Methods that they do not have are answered as problems.
pub fn router(state: Streams) -> Router {
    let limit = DefaultBodyLimit::max(state.body_limit);
    Router::new()
        .route(
            "/streams/{stream_id}/events",
            post(append).get(read_stream).layer(limit),
        )
        .route("/events", get(read_all))
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
}

async fn method_not_allowed() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this address does not have that method",
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppendBody<'a> {
    #[serde(default)]
    expected_version: ExpectedVersion,
    // Handed on as it is: the database checks each event.
    #[serde(borrow)]
    events: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppendQuery {
    wait_for: Option<String>,
    wait: Option<String>,
}

#[derive(Serialize)]
struct AppendAnswer {
    #[serde(flatten)]
    appended: Appended,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waited_for: Vec<Outcome>,
}

async fn append(
    State(state): State<Streams>,
    identity: Option<Extension<Arc<Identity>>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<AppendQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Path(stream_id) = path.map_err(bad_path)?;
    let Query(query) = query.map_err(bad_query)?;
    let awaited = match &query.wait_for {
        None => None,
        Some(names) => {
            let wait = query.wait.as_deref();
            let viewer = identity.map(|Extension(identity)| identity.viewer.clone());
            let viewer = viewer.unwrap_or_default();
            Some(state.projections.awaited(names, wait, &viewer)?)
        }
    };
    let body = Bytes::from_request(request, &())
        .await
        .map_err(|rejection| bad_body(&rejection, state.body_limit))?;
    let body: AppendBody<'_> =
        body::object(&body).map_err(|problem| problem.with_hint(append_hint()))?;
    let appended = state
        .store
        .append(&stream_id, body.expected_version, body.events.get())
        .await?;
    let position = HeaderValue::from(appended.position);
    let headers = [(HeaderName::from_static("gobo-position"), position)];
    let waited_for = match awaited {
        None => Vec::new(),
        Some(awaited) => awaited.pass(&appended).await,
    };
    let status = match waited_for.iter().all(|outcome| outcome.reached) {
        true => StatusCode::OK,
        false => StatusCode::ACCEPTED,
    };
    let answer = AppendAnswer {
        appended,
        waited_for,
    };
    Ok((status, headers, Json(answer)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamQuery {
    after: Option<i64>,
    limit: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllQuery {
    after: Option<i64>,
    limit: Option<i64>,
    types: Option<String>,
}

#[derive(Serialize)]
struct PageBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_id: Option<String>,
    /// The version of the stream's last event.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
    events: Vec<StoredEvent>,
    next: Option<i64>,
    head_position: Position,
    safe_position: Position,
}

async fn read_stream(
    State(state): State<Streams>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<StreamQuery>, QueryRejection>,
) -> Result<Json<PageBody>, Problem> {
    let Path(stream_id) = path.map_err(bad_path)?;
    let Query(query) = query.map_err(bad_query)?;
    let limit = page_limit(query.limit).ok_or_else(bad_limit)?;
    // The version first: a stream that is there stays there, so the page can only hold more than it says.
    let Some(version) = state.store.stream_version(&stream_id).await? else {
        return Err(Problem::not_found(
            "unknown_stream",
            format!("there is no stream {stream_id:?}"),
        )
        .with_hint("A stream begins to exist with the first append to it."));
    };
    let page = state
        .store
        .read_stream(&stream_id, query.after.unwrap_or(-1), limit)
        .await?;
    let newest = page.events.last().map_or(version, |event| event.version);
    let safe_position = *state.safe.borrow();
    Ok(Json(PageBody {
        stream_id: Some(stream_id),
        version: Some(version.max(newest)),
        events: page.events,
        next: page.next,
        head_position: state.store.head().await?.max(safe_position),
        safe_position,
    }))
}

async fn read_all(
    State(state): State<Streams>,
    query: Result<Query<AllQuery>, QueryRejection>,
) -> Result<Json<PageBody>, Problem> {
    let Query(query) = query.map_err(bad_query)?;
    let limit = page_limit(query.limit).ok_or_else(bad_limit)?;
    let types: Vec<String> = query
        .types
        .as_deref()
        .unwrap_or_default()
        .split(',')
        // No type is empty or contains NUL, and PostgreSQL could not be asked for the latter.
        .filter(|kind| !kind.is_empty() && !kind.contains('\0'))
        .map(str::to_owned)
        .collect();
    let safe_position = *state.safe.borrow();
    let page = state
        .store
        .read_all(query.after.unwrap_or(0), safe_position, &types, limit)
        .await?;
    Ok(Json(PageBody {
        stream_id: None,
        version: None,
        events: page.events,
        next: page.next,
        head_position: state.store.head().await?.max(safe_position),
        safe_position,
    }))
}

fn page_limit(limit: Option<i64>) -> Option<i64> {
    let limit = limit.unwrap_or(DEFAULT_PAGE);
    (1..=MAX_PAGE).contains(&limit).then_some(limit)
}

fn bad_limit() -> Problem {
    Problem::bad_request(
        "bad_query",
        format!("limit is a number from 1 to {MAX_PAGE}"),
    )
}

fn bad_path(rejection: PathRejection) -> Problem {
    Problem::bad_request("bad_path", rejection.body_text())
        .with_hint("A stream's id is percent-encoded UTF-8; a slash in it is %2F.")
}

fn bad_query(rejection: QueryRejection) -> Problem {
    Problem::bad_request("bad_query", rejection.body_text())
}

fn bad_body(rejection: &BytesRejection, limit: usize) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("the body is larger than {limit} bytes"),
        )
        .with_hint("Append in several parts, or raise the limit in the configuration.");
    }
    Problem::bad_request("bad_body", rejection.body_text())
}

fn append_hint() -> String {
    format!(
        "An append is {{\"expected_version\": \"any\" | \"none\" | N, \"events\": [{{\"type\": .., \"data\": ..}}]}} \
         with 1 to {MAX_EVENTS_PER_APPEND} events."
    )
}

impl From<AppendError> for Problem {
    fn from(error: AppendError) -> Self {
        let message = error.to_string();
        match error {
            AppendError::VersionConflict { actual_version, .. } => {
                Self::new(StatusCode::CONFLICT, "version_conflict", message)
                    .with_details(json!({ "actual_version": actual_version }))
                    .with_hint("Read the stream from the version you know, decide again, append again.")
            }
            AppendError::EventIdConflict { event_ids, .. } => {
                Self::new(StatusCode::CONFLICT, "event_id_conflict", message)
                    .with_details(json!({ "event_ids": event_ids }))
                    .with_hint("The same append again must hold the same events in the same order; others need new ids.")
            }
            AppendError::Refused { index, .. } => {
                Self::bad_request("event_refused", message).with_details(json!({ "index": index }))
            }
            AppendError::Pool(error) => error.into(),
            AppendError::Database(error) => error.into(),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Pool(error) => error.into(),
            ReadError::Database(error) => error.into(),
            ReadError::Json(error) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                error.to_string(),
            ),
        }
    }
}
