//! `/admin/projections`: deploy, status, logs, dead letters, restart.

mod letters;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use deadpool_postgres::Pool;
use futures_util::StreamExt;
use serde_json::json;

use super::problem::Problem;
use crate::deploy::{Action, DeployError, Deployer, Origin};
use crate::host::LoadError;
use crate::ownership::Activity;
use crate::read_model::schema::SchemaError;
use crate::registry::{LoadingError, Registry};
use crate::sources::Sources;

/// What the handlers work with.
#[derive(Clone)]
pub struct Admin {
    /// Sessions for requests.
    pub pool: Pool,
    /// What is deployed.
    pub registry: Arc<Registry>,
    /// Deploys.
    pub deployer: Arc<Deployer>,
    /// Where events come from.
    pub sources: Sources,
    /// What the loops of this process do.
    pub activity: Activity,
    /// The largest module.
    pub module_bytes: usize,
}

/// The paths below `/admin`.
pub fn router(admin: Admin) -> Router {
    let one = "/admin/projections/{name}";
    Router::new()
        .route("/admin/projections", get(status::all).post(deploy))
        .route(one, get(status::one).put(deploy_as))
        .route(&format!("{one}/logs"), get(status::logs))
        .route(&format!("{one}/restart"), post(letters::restart))
        .route(&format!("{one}/dead-letters"), get(letters::list))
        .route(&format!("{one}/dead-letters/retry"), post(letters::retry))
        .route(
            &format!("{one}/dead-letters/discard"),
            post(letters::discard),
        )
        .with_state(admin)
}

async fn deploy(State(admin): State<Admin>, body: Body) -> Result<Response, Problem> {
    deploy_bytes(&admin, None, body).await
}

async fn deploy_as(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    deploy_bytes(&admin, Some(name), body).await
}

async fn deploy_bytes(
    admin: &Admin,
    name: Option<String>,
    body: Body,
) -> Result<Response, Problem> {
    let wasm = read_module(body, admin.module_bytes).await?;
    // A task of its own: a client that goes away does not leave the deploy half done on this node.
    let deployer = admin.deployer.clone();
    let deploying = tokio::spawn(async move {
        deployer
            .deploy(wasm, name.as_deref(), &Origin::Request)
            .await
    });
    let outcome = deploying.await.map_err(|_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the deploy failed; the engine's log says more",
        )
    })??;
    let status = match outcome.outcome {
        Action::Created => StatusCode::CREATED,
        Action::Swapped | Action::Unchanged => StatusCode::OK,
    };
    Ok((status, Json(json!(outcome))).into_response())
}

async fn read_module(body: Body, limit: usize) -> Result<Vec<u8>, Problem> {
    let mut wasm = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            Problem::bad_request("bad_body", format!("the module did not arrive: {error}"))
        })?;
        if wasm.len() + chunk.len() > limit {
            return Err(too_large(limit));
        }
        wasm.extend_from_slice(&chunk);
    }
    Ok(wasm)
}

fn too_large(limit: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "module_too_large",
        format!("the module is larger than the limit of {limit} bytes (limits.module_bytes)"),
    )
    .with_hint(
        "Build it with the release profile, lto = true and opt-level = \"s\", or raise the limit.",
    )
}

impl From<DeployError> for Problem {
    fn from(error: DeployError) -> Self {
        let text = error.to_string();
        let unprocessable =
            |code| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, text.clone());
        let conflict = |code| Problem::new(StatusCode::CONFLICT, code, text.clone());
        match error {
            DeployError::Plugin(LoadingError::Refused(
                LoadError::Module(_) | LoadError::Descriptor(_) | LoadError::Unstable,
            ))
            | DeployError::Plugin(LoadingError::Slow) => unprocessable("plugin_refused")
                .with_hint("What runs now goes on running."),
            DeployError::Plugin(LoadingError::Refused(LoadError::Describe(_))) => {
                unprocessable("plugin_refused")
                    .with_hint("describe() must return at once; what runs now goes on running.")
            }
            DeployError::Plugin(LoadingError::Crashed) => {
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
            }
            DeployError::Name { .. } => unprocessable("name_mismatch"),
            DeployError::ReadModelTaken { read_model, owner } => conflict("read_model_taken")
                .with_details(json!({ "read_model": read_model, "projection": owner })),
            DeployError::SourceChanged { .. } => conflict("source_changed"),
            DeployError::TablesChanged { differences, .. } => {
                conflict("tables_changed").with_details(json!(differences))
            }
            DeployError::Schema(SchemaError::Taken { schema, name }) => conflict("relation_exists")
                .with_hint(format!(
                    "Rename or drop \"{schema}\".\"{name}\", rename the read model, or choose another database.read_schema."
                )),
            DeployError::Schema(SchemaError::Privilege(_)) => {
                Problem::new(StatusCode::FORBIDDEN, "database_privilege", text).with_hint(
                    "Grant CREATE on the database to the engine's role, and CREATE on the schema of the views.",
                )
            }
            DeployError::Schema(SchemaError::Database(error)) | DeployError::Database(error) => {
                error.into()
            }
            DeployError::Pool(error) => error.into(),
        }
    }
}
