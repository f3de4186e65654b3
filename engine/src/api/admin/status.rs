//! What is deployed, how far it is, and what it says.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use deadpool_postgres::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_postgres::Row;

use super::Admin;
use crate::api::problem::Problem;
use crate::source;

/// How long a status waits for a source to tell how old the next event is.
const AGE: Duration = Duration::from_secs(1);
const DEFAULT_LINES: i64 = 100;
const MAX_LINES: i64 = 1_000;

pub(super) async fn all(State(admin): State<Admin>) -> Result<Json<Value>, Problem> {
    let client = admin.pool.get().await?;
    let rows = client
        .query(include_str!("status.sql"), &[&None::<&str>, &false])
        .await?;
    drop(client);
    let statuses = rows.iter().map(|row| status(&admin, row));
    let statuses = futures_util::future::join_all(statuses).await;
    Ok(Json(json!({ "projections": statuses })))
}

pub(super) async fn one(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let client = admin.pool.get().await?;
    let row = client
        .query_opt(include_str!("status.sql"), &[&Some(&name), &false])
        .await?;
    drop(client);
    let row = row.ok_or_else(|| unknown(&name))?;
    Ok(Json(status(&admin, &row).await))
}

/// The generations of a projection, the oldest first.
pub(super) async fn generations(admin: &Admin, name: &str) -> Result<Vec<Value>, Problem> {
    let client = admin.pool.get().await?;
    let rows = client
        .query(include_str!("status.sql"), &[&Some(&name), &true])
        .await?;
    drop(client);
    if rows.is_empty() {
        return Err(unknown(name));
    }
    let statuses = rows.iter().map(|row| async {
        let mut status = status(admin, row).await;
        let json = |name: &str| match row.get::<_, Option<&str>>(name) {
            Some(text) => serde_json::from_str(text).unwrap_or_default(),
            None => Value::Null,
        };
        for (name, value) in [
            ("stage", json!(row.get::<_, &str>("stage"))),
            ("purpose", json!(row.get::<_, &str>("purpose"))),
            ("reason", json!(row.get::<_, Option<&str>>("reason"))),
            ("trouble", json!(row.get::<_, Option<&str>>("trouble"))),
            ("label", json!(row.get::<_, Option<&str>>("label"))),
            ("hold", json!(row.get::<_, bool>("hold"))),
            ("until", json!(row.get::<_, Option<i64>>("until"))),
            ("created_at", json("created_at")),
            ("promoted_at", json("promoted_at")),
            ("expires_at", json("expires_at")),
        ] {
            status[name] = value;
        }
        status
    });
    Ok(futures_util::future::join_all(statuses).await)
}

/// Lines of a plugin's log: after a line, in order; without `after`, the last ones.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lines {
    after: Option<i64>,
    limit: Option<i64>,
}

pub(super) async fn logs(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    lines: Result<Query<Lines>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(lines) =
        lines.map_err(|error| Problem::bad_request("bad_parameter", error.body_text()))?;
    let limit = lines.limit.unwrap_or(DEFAULT_LINES).clamp(1, MAX_LINES);
    let client = admin.pool.get().await?;
    live_generation(&client, &name).await?;
    let sql = match lines.after {
        Some(_) => {
            "select id, logged_at, level, position, message from gobo.plugin_logs \
              where projection = $1 and id > $2 order by id limit $3"
        }
        None => {
            "select * from (select id, logged_at, level, position, message from gobo.plugin_logs \
              where projection = $1 and id > $2 order by id desc limit $3) as last order by id"
        }
    };
    let wrapped = format!(
        "select json_build_object('id', id, 'at', logged_at, 'level', level, 'position', position, 'message', message)::text \
           from ({sql}) as lines"
    );
    let rows = client
        .query(&wrapped, &[&name, &lines.after.unwrap_or(0), &limit])
        .await?;
    Ok(Json(json!({ "lines": parsed(&rows) })))
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
pub(super) fn parsed(rows: &[Row]) -> Vec<Value> {
    rows.iter()
        .map(|row| serde_json::from_str(row.get(0)).unwrap_or_default())
        .collect()
}

fn unknown(name: &str) -> Problem {
    Problem::not_found(
        "no_such_projection",
        format!("there is no projection \"{name}\""),
    )
    .with_hint("GET /admin/projections lists them.")
}

async fn status(admin: &Admin, row: &Row) -> Value {
    let name: &str = row.get("name");
    let source: &str = row.get("source");
    let generation: i64 = row.get("generation");
    let position: i64 = row.get("position");
    let hash: &[u8] = row.get("plugin_hash");
    let owned: bool = row.get("owned");
    let stored: Option<&str> = row.get("error");
    let stored = stored.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let broken = admin
        .registry
        .catalog()
        .borrow()
        .broken
        .get(&generation)
        .cloned();
    let upstream = admin.sources.get(source).map(source_trouble);
    let (state, error) = match (broken, stored, upstream) {
        (Some(broken), _, _) => ("failed", json!({ "message": broken.reason })),
        (None, Some(error), _) => ("stopped", error),
        (None, None, None) => (
            "failed",
            json!({ "message": format!("its source \"{source}\" is not configured: add [sources.{source}]") }),
        ),
        (None, None, _) if row.get("paused") => ("paused", Value::Null),
        (None, None, _) if row.get::<_, &str>("stage") == "done" => ("done", Value::Null),
        (None, None, Some(Some(trouble))) => ("waiting", json!({ "message": trouble })),
        (None, None, Some(None)) if owned => match admin.activity.troubles().remove(&generation) {
            Some(trouble) => ("waiting", json!({ "message": trouble })),
            None => ("running", Value::Null),
        },
        (None, None, Some(None)) => ("waiting", Value::Null),
    };
    let (head, lag) = progress(admin, source, position).await;
    let read_models: Value =
        serde_json::from_str(row.get::<_, &str>("read_models")).unwrap_or_default();
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "name": name,
        "version": row.get::<_, &str>("version"),
        "hash": hash,
        "generation": generation,
        "state": state,
        "position": position,
        "head_position": head,
        "lag_seconds": lag,
        "events_per_second": admin.activity.events_per_second(generation),
        "owner": row.get::<_, Option<&str>>("owner_name").filter(|_| owned),
        "error": error,
        "diverged": row.get::<_, bool>("diverged"),
        "dead_letters": row.get::<_, i64>("dead_letters"),
        "read_models": read_models,
        "source": source,
    })
}

fn source_trouble(source: &source::Source) -> Option<String> {
    match &source.safe_head().borrow().state {
        source::State::Starting | source::State::Ok => None,
        source::State::Unreachable(why) => Some(format!("the source cannot be reached: {why}")),
        source::State::Refused(why) => Some(format!("the source is refused: {why}")),
    }
}

/// The head of a source, and how old the oldest event after `position` is. Unknown is null, never a guess.
async fn progress(admin: &Admin, source: &str, position: i64) -> (Option<i64>, Option<f64>) {
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
