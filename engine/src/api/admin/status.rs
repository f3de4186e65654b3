//! What is deployed, how far it is, and what it says.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use deadpool_postgres::Client;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_postgres::Row;

use super::Admin;
use crate::api::problem::Problem;
use crate::event::Position;
use crate::projection::StopError;
use crate::source;

/// How long a status waits for a source to tell how old the next event is.
const AGE: Duration = Duration::from_secs(1);
const DEFAULT_LINES: i64 = 100;
const MAX_LINES: i64 = 1_000;

/// Where a projection is.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Status {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Of the plugin's bytes, in hexadecimal.
    pub(crate) hash: String,
    pub(crate) generation: i64,
    pub(crate) state: State,
    pub(crate) position: Position,
    pub(crate) head_position: Option<Position>,
    pub(crate) lag_seconds: Option<f64>,
    pub(crate) events_per_second: Option<f64>,
    pub(crate) owner: Option<String>,
    pub(crate) error: Option<StopError>,
    /// Whether a replay may give other rows.
    pub(crate) diverged: bool,
    /// Those that nobody has decided about.
    pub(crate) dead_letters: i64,
    pub(crate) read_models: Vec<Published>,
    pub(crate) source: String,
    /// What is on its way to replace it.
    pub(crate) candidate: Option<Candidate>,
}

/// A generation that is on its way to be the live one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Candidate {
    pub(crate) generation: i64,
    pub(crate) position: Position,
    /// Whether it waits for an operator to promote it.
    pub(crate) hold: bool,
    /// Why it cannot be promoted now.
    pub(crate) trouble: Option<String>,
    /// Why it has stopped.
    pub(crate) error: Option<StopError>,
}

/// A read model of a projection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) name: String,
    pub(crate) revision: i64,
}

/// Whether a projection makes progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Some process runs it.
    Running,
    /// It cannot be run as it is deployed or configured.
    Failed,
    /// An operator has to decide.
    Stopped,
    /// It goes on by itself when something is there again.
    Waiting,
    /// An operator told it to wait.
    Paused,
    /// It has come to where it ends.
    Done,
}

/// Where a generation is.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct GenerationStatus {
    #[serde(flatten)]
    pub(crate) status: Status,
    /// `building`, `live`, `kept` or `done`.
    pub(crate) stage: String,
    /// `projection`, `replay`, `snapshot` or `verify`.
    pub(crate) purpose: String,
    /// Why it is there.
    pub(crate) reason: Option<String>,
    /// Why it cannot be promoted or dropped now.
    pub(crate) trouble: Option<String>,
    pub(crate) label: Option<String>,
    /// Whether it waits for an operator to promote it.
    pub(crate) hold: bool,
    /// Whether it is in the fast fill.
    pub(crate) bulk: bool,
    /// Up to where events were processed, committed or not: a fast fill commits seldom. Only its owner knows.
    pub(crate) reached: Option<Position>,
    /// Where it ends.
    pub(crate) until: Option<Position>,
    pub(crate) created_at: String,
    pub(crate) promoted_at: Option<String>,
    pub(crate) expires_at: Option<String>,
}

pub(super) async fn all(Shared(admin): Shared<Admin>) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({ "projections": statuses(&admin).await? })))
}

pub(super) async fn one(
    Shared(admin): Shared<Admin>,
    Path(name): Path<String>,
) -> Result<Json<Status>, Problem> {
    status_of(&admin, &name).await.map(Json)
}

/// The status of every projection, by name.
pub(crate) async fn statuses(admin: &Admin) -> Result<Vec<Status>, Problem> {
    let client = admin.pool.get().await?;
    let rows = client
        .query(include_str!("status.sql"), &[&None::<&str>, &false])
        .await?;
    drop(client);
    let statuses = rows.iter().map(|row| status(admin, row));
    Ok(futures_util::future::join_all(statuses).await)
}

/// The status of the projection called `name`, or 404.
pub(crate) async fn status_of(admin: &Admin, name: &str) -> Result<Status, Problem> {
    let client = admin.pool.get().await?;
    let row = client
        .query_opt(include_str!("status.sql"), &[&Some(name), &false])
        .await?;
    drop(client);
    let row = row.ok_or_else(|| unknown(name))?;
    Ok(status(admin, &row).await)
}

/// The generations of every projection.
pub(crate) async fn all_generations(admin: &Admin) -> Result<Vec<GenerationStatus>, Problem> {
    let client = admin.pool.get().await?;
    let rows = client
        .query(include_str!("status.sql"), &[&None::<&str>, &true])
        .await?;
    drop(client);
    let statuses = rows.iter().map(|row| generation_status(admin, row));
    Ok(futures_util::future::join_all(statuses).await)
}

/// The generations of a projection, the oldest first; 404 if there is no such projection.
pub(crate) async fn generations(
    admin: &Admin,
    name: &str,
) -> Result<Vec<GenerationStatus>, Problem> {
    let client = admin.pool.get().await?;
    let rows = client
        .query(include_str!("status.sql"), &[&Some(name), &true])
        .await?;
    drop(client);
    if rows.is_empty() {
        return Err(unknown(name));
    }
    let statuses = rows.iter().map(|row| generation_status(admin, row));
    Ok(futures_util::future::join_all(statuses).await)
}

async fn generation_status(admin: &Admin, row: &Row) -> GenerationStatus {
    GenerationStatus {
        status: status(admin, row).await,
        stage: row.get("stage"),
        purpose: row.get("purpose"),
        reason: row.get("reason"),
        trouble: row.get("trouble"),
        label: row.get("label"),
        hold: row.get("hold"),
        bulk: row.get("bulk"),
        reached: admin.activity.reached(row.get("generation")),
        until: row.get("until"),
        created_at: row.get("created_at"),
        promoted_at: row.get("promoted_at"),
        expires_at: row.get("expires_at"),
    }
}

/// Which lines: those after a line, in order; without `after`, the last ones.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    after: Option<i64>,
    limit: Option<i64>,
}

/// A line of a plugin's log.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) id: i64,
    pub(crate) at: String,
    pub(crate) level: String,
    /// The last event of the batch during which it was logged.
    pub(crate) position: Position,
    pub(crate) message: String,
}

pub(super) async fn logs(
    Shared(admin): Shared<Admin>,
    Path(name): Path<String>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(wanted) =
        wanted.map_err(|error| Problem::bad_request("bad_parameter", error.body_text()))?;
    let limit = wanted.limit.unwrap_or(DEFAULT_LINES);
    let lines = log_lines(&admin, &name, wanted.after, limit).await?;
    Ok(Json(json!({ "lines": lines })))
}

/// Lines of the live generation's log in order: those after a line, or else the last ones.
pub(crate) async fn log_lines(
    admin: &Admin,
    name: &str,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<Line>, Problem> {
    let client = admin.pool.get().await?;
    let generation = live_generation(&client, name).await?;
    let sql = match after {
        Some(_) => {
            "select id, logged_at, level, position, message from gobo.plugin_logs \
              where generation = $1 and id > $2 order by id limit $3"
        }
        None => {
            "select * from (select id, logged_at, level, position, message from gobo.plugin_logs \
              where generation = $1 and id > $2 order by id desc limit $3) as last order by id"
        }
    };
    let wrapped = format!(
        "select json_build_object('id', id, 'at', logged_at, 'level', level, 'position', position, 'message', message)::text \
           from ({sql}) as lines"
    );
    let limit = limit.clamp(1, MAX_LINES);
    let rows = client
        .query(&wrapped, &[&generation, &after.unwrap_or(0), &limit])
        .await?;
    parsed(&rows)
}

/// The live generation of a projection, or 404.
pub(super) async fn live_generation(client: &Client, name: &str) -> Result<i64, Problem> {
    let row = client
        .query_opt(
            "select live from gobo.projections where name = $1 and live is not null",
            &[&name],
        )
        .await?;
    row.map(|row| row.get(0)).ok_or_else(|| unknown(name))
}

/// Rows of one column of JSON text.
pub(super) fn parsed<T: DeserializeOwned>(rows: &[Row]) -> Result<Vec<T>, Problem> {
    let rows = rows.iter().map(|row| serde_json::from_str(row.get(0)));
    rows.collect::<Result<_, _>>().map_err(|error| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            format!("the database answered otherwise than expected: {error}"),
        )
    })
}

fn unknown(name: &str) -> Problem {
    Problem::not_found(
        "no_such_projection",
        format!("there is no projection \"{name}\""),
    )
    .with_hint("GET /admin/projections lists them.")
}

async fn status(admin: &Admin, row: &Row) -> Status {
    let source: &str = row.get("source");
    let generation: i64 = row.get("generation");
    let position: Position = row.get("position");
    let hash: &[u8] = row.get("plugin_hash");
    let owned: bool = row.get("owned");
    let (state, error) = state(admin, row, owned);
    let (head_position, lag_seconds) = progress(admin, source, position).await;
    let read_models = serde_json::from_str(row.get::<_, &str>("read_models")).unwrap_or_default();
    Status {
        name: row.get("name"),
        version: row.get("version"),
        hash: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        generation,
        state,
        position,
        head_position,
        lag_seconds,
        events_per_second: admin.activity.events_per_second(generation),
        owner: row.get::<_, Option<String>>("owner_name").filter(|_| owned),
        error,
        diverged: row.get("diverged"),
        dead_letters: row.get("dead_letters"),
        read_models,
        source: source.to_owned(),
        candidate: row
            .get::<_, Option<&str>>("candidate")
            .and_then(|text| serde_json::from_str(text).ok()),
    }
}

/// Whether a projection makes progress, and if not, why.
fn state(admin: &Admin, row: &Row, owned: bool) -> (State, Option<StopError>) {
    let source: &str = row.get("source");
    let generation: i64 = row.get("generation");
    let trouble = |message: String| {
        Some(StopError {
            message,
            position: None,
            stream_id: None,
            event_type: None,
            hint: None,
            file: None,
        })
    };
    let stored: Option<&str> = row.get("error");
    let stored = stored.and_then(|text| serde_json::from_str(text).ok());
    let catalog = admin.registry.catalog().borrow().clone();
    let broken = catalog.broken.get(&generation);
    let upstream = admin.sources.get(source).map(source_trouble);
    match (broken, stored, upstream) {
        (Some(broken), _, _) => (State::Failed, trouble(broken.reason.clone())),
        (None, Some(error), _) => (State::Stopped, Some(error)),
        (None, None, None) => (
            State::Failed,
            trouble(format!(
                "its source \"{source}\" is not configured: add [sources.{source}]"
            )),
        ),
        (None, None, _) if row.get("paused") => (State::Paused, None),
        (None, None, _) if row.get::<_, &str>("stage") == "done" => (State::Done, None),
        (None, None, Some(Some(why))) => (State::Waiting, trouble(why)),
        (None, None, Some(None)) if owned => match admin.activity.troubles().remove(&generation) {
            Some(why) => (State::Waiting, trouble(why)),
            None => (State::Running, None),
        },
        (None, None, Some(None)) => (State::Waiting, None),
    }
}

fn source_trouble(source: &source::Source) -> Option<String> {
    match &source.safe_head().borrow().state {
        source::State::Starting | source::State::Ok => None,
        source::State::Unreachable(why) => Some(format!("the source cannot be reached: {why}")),
        source::State::Refused(why) => Some(format!("the source is refused: {why}")),
    }
}

/// The head of a source, and how old the oldest event after `position` is. Unknown is null, never a guess.
async fn progress(
    admin: &Admin,
    source: &str,
    position: Position,
) -> (Option<Position>, Option<f64>) {
    let Some(upstream) = admin.sources.upstream(source) else {
        return (None, None);
    };
    let head = *upstream.head.borrow();
    if position >= head.head {
        return (Some(head.head), Some(0.0));
    }
    let age = tokio::time::timeout(AGE, (upstream.age_after)(position)).await;
    let lag = match age {
        Ok(Ok(age)) => Some(age.map_or(0.0, |age| age.as_secs_f64())),
        Ok(Err(_)) | Err(_) => None,
    };
    (Some(head.head), lag)
}
