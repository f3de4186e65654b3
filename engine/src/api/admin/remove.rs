//! The end of a projection: first what goes, then its going.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::Deserialize;

use super::Admin;
use crate::api::problem::Problem;
use crate::generations::{Removal, Removed};

pub(super) async fn plan(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<Json<Removal>, Problem> {
    Ok(Json(admin.generations.removal(&name).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Confirmed {
    confirm: Option<String>,
}

pub(super) async fn remove(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    confirmed: Result<Query<Confirmed>, QueryRejection>,
) -> Result<Json<Removed>, Problem> {
    let Query(Confirmed { confirm }) =
        confirmed.map_err(|error| Problem::bad_request("bad_parameter", error.body_text()))?;
    if confirm.as_deref() != Some(name.as_str()) {
        // Says first whether there is such a projection at all.
        admin.generations.removal(&name).await?;
        return Err(Problem::bad_request(
            "not_confirmed",
            format!(
                "removing projection \"{name}\" drops its tables: confirm it with ?confirm={name}"
            ),
        )
        .with_hint(format!(
            "GET /admin/projections/{name}/removal shows what goes."
        )));
    }
    Ok(Json(admin.generations.remove(&name).await?))
}
