//! What a projection's loops work with, shown and changed.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde_json::{Map, Value, json};

use super::Admin;
use super::letters::json_body;
use crate::api::problem::Problem;

pub(super) async fn shown(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let settings = admin.generations.settings(&name).await?;
    Ok(Json(json!({ "projection": name, "settings": settings })))
}

/// The body has what changes; null takes back what was set at run time.
pub(super) async fn change(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let changes: Map<String, Value> = json_body(&body)?;
    let settings = admin.generations.change_settings(&name, changes).await?;
    Ok(Json(json!({ "projection": name, "settings": settings })))
}
