//! Comparisons of generations, which may take longer than a request: their answer begins when the snapshot is taken.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use tokio::sync::oneshot::error::RecvError;

use super::Admin;
use crate::api::problem::Problem;
use crate::generations::compare::Wanted;
use crate::generations::diff::{Columns, Diff, DiffError, Options, SAMPLES};

/// How often white space is sent while there is nothing to say yet: it keeps whoever stands between from giving up, and
/// tells when the client has.
const BREATH: Duration = Duration::from_secs(2);

/// What may be asked of a comparison in its URL.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wishes {
    a: Option<i64>,
    b: Option<i64>,
    samples: Option<u32>,
    #[serde(default)]
    all: bool,
}

/// White space, then one JSON document: the comparison, or `{"error": {"code", "detail"}}` when it failed on its way.
pub(super) async fn diff(
    State(admin): State<Admin>,
    Path(projection): Path<String>,
    wishes: Result<Query<Wishes>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(wishes) =
        wishes.map_err(|error| Problem::bad_request("bad_parameter", error.body_text()))?;
    let columns = match wishes.all {
        true => Columns::All,
        false => Columns::Declared,
    };
    let wanted = Wanted {
        projection,
        a: wishes.a,
        b: wishes.b,
        options: Options {
            columns,
            samples: wishes.samples.unwrap_or(SAMPLES),
        },
    };
    let comparison = admin.comparer.start(wanted).await?;
    let parts = stream::unfold(Some(comparison), |comparison| async move {
        let mut comparison = comparison?;
        let (part, rest) = match tokio::time::timeout(BREATH, &mut comparison.end).await {
            Err(_) => (Bytes::from_static(b"\n"), Some(comparison)),
            Ok(end) => (document(end), None),
        };
        Some((Ok::<_, Infallible>(part), rest))
    });
    let kind = [(header::CONTENT_TYPE, "application/json")];
    Ok((kind, Body::from_stream(parts)).into_response())
}

fn document(end: Result<Result<Diff, DiffError>, RecvError>) -> Bytes {
    let failed = |detail: String| {
        let error = json!({ "error": { "code": "comparison_failed", "detail": detail } });
        Bytes::from(error.to_string())
    };
    match end {
        Ok(Ok(diff)) => match serde_json::to_vec(&diff) {
            Ok(document) => document.into(),
            Err(error) => failed(error.to_string()),
        },
        Ok(Err(error)) => failed(error.to_string()),
        Err(_) => failed("the engine failed over it; its log says more".into()),
    }
}

/// Begins a scratch generation with the live one's code.
pub(super) async fn verify(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let decision = admin.generations.verify(&name).await?;
    Ok((StatusCode::ACCEPTED, Json(json!(decision))))
}
