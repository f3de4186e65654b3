//! One stream alone: its rows computed anew, in place.

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

/// How long a request waits for the loop to be done.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    stream_id: String,
}

pub(super) async fn rebuild(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let Wish { stream_id } = json_body(&body)?;
    let generations = &admin.generations;
    let done = generations
        .rebuild_stream(&name, &stream_id, PATIENCE)
        .await?;
    let (status, outcome, detail) = match (&done.finished_at, &done.error) {
        (_, Some(why)) => {
            let problem = Problem::new(
                StatusCode::CONFLICT,
                "stream_not_rebuilt",
                format!("the rows of stream \"{stream_id}\" stay as they are: {why}"),
            );
            return Err(problem.with_details(json!(done)));
        }
        (Some(_), None) => (
            StatusCode::OK,
            "rebuilt",
            format!(
                "stream \"{stream_id}\" has {} rows in generation {}, computed anew from its events",
                done.rows.unwrap_or_default(),
                done.generation
            ),
        ),
        (None, None) => (
            StatusCode::ACCEPTED,
            "waiting",
            format!(
                "stream \"{stream_id}\" is computed anew as soon as projection \"{name}\" runs and gets to it; \
                 GET /admin/projections/{name}/rebuild-stream tells"
            ),
        ),
    };
    let mut answer = json!(done);
    answer["projection"] = json!(name);
    answer["outcome"] = json!(outcome);
    answer["detail"] = json!(detail);
    Ok((status, Json(answer)))
}

pub(super) async fn list(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let streams = admin.generations.rebuilt_streams(&name).await?;
    Ok(Json(json!({ "projection": name, "streams": streams })))
}
