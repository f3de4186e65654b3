//! `/admin`: deploy, status, generations, settings, logs, dead letters, restart, removal, redaction.

mod compare;
pub(crate) mod generations;
pub(crate) mod letters;
mod past;
mod redact;
mod remove;
mod settings;
pub(crate) mod status;
mod stream_rebuilds;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use deadpool_postgres::Pool;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;

use super::problem::Problem;
use crate::deploy::{Action, DeployError, Deployer, Mode, Origin, Request};
use crate::generations::compare::Comparer;
use crate::generations::{GenerationError, Generations};
use crate::host::LoadError;
use crate::ownership::Activity;
use crate::read_model::schema::SchemaError;
use crate::registry::{LoadStoredError, LoadingError, Registry};
use crate::sources::Sources;

/// What the handlers work with.
#[derive(Clone)]
pub struct Admin {
    /// Sessions for requests.
    pub pool: Pool,
    /// What is deployed.
    pub registry: Registry,
    /// Deploys.
    pub deployer: Arc<Deployer>,
    /// Decides about generations.
    pub generations: Generations,
    /// Compares generations.
    pub comparer: Comparer,
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
    let generation = "/admin/projections/{name}/generations/{generation}";
    Router::new()
        .route("/admin/projections", get(status::all).post(deploy))
        .route(one, get(status::one).put(deploy_as).delete(remove::remove))
        .route(&format!("{one}/removal"), get(remove::plan))
        .route(
            &format!("{one}/settings"),
            get(settings::shown).patch(settings::change),
        )
        .route("/admin/events/redact", post(redact::redact))
        .route(&format!("{one}/logs"), get(status::logs))
        .route(&format!("{one}/restart"), post(letters::restart))
        .route(&format!("{one}/dead-letters"), get(letters::list))
        .route(&format!("{one}/dead-letters/retry"), post(letters::retry))
        .route(
            &format!("{one}/dead-letters/discard"),
            post(letters::discard),
        )
        .route(&format!("{one}/generations"), get(generations::list))
        .route(&format!("{one}/rebuild"), post(generations::rebuild))
        .route(&format!("{one}/diff"), get(compare::diff))
        .route(&format!("{one}/verify"), post(compare::verify))
        .route(&format!("{one}/promote"), post(generations::promote))
        .route(&format!("{one}/rollback"), post(generations::rollback))
        .route(&format!("{one}/cancel"), post(generations::cancel))
        .route(
            &format!("{one}/rebuild-stream"),
            get(stream_rebuilds::list).post(stream_rebuilds::rebuild),
        )
        .route(&format!("{one}/replay"), post(past::replay))
        .route(&format!("{one}/snapshot"), post(past::snapshot))
        .route(&format!("{one}/pause"), post(generations::pause))
        .route(&format!("{one}/resume"), post(generations::resume))
        .route(generation, get(generations::one))
        .route(
            &format!("{generation}/progress"),
            get(generations::progress),
        )
        .route(
            &format!("{generation}/promote"),
            post(generations::promote_one),
        )
        .route(
            &format!("{generation}/cancel"),
            post(generations::cancel_one),
        )
        .route(&format!("{generation}/pause"), post(generations::pause_one))
        .route(
            &format!("{generation}/resume"),
            post(generations::resume_one),
        )
        .with_state(admin)
}

/// What may be asked of a deploy in its URL.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wishes {
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    hold: bool,
}

async fn deploy(
    State(admin): State<Admin>,
    wishes: Result<Query<Wishes>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    deploy_bytes(&admin, None, wishes, body).await
}

async fn deploy_as(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    wishes: Result<Query<Wishes>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    deploy_bytes(&admin, Some(name), wishes, body).await
}

async fn deploy_bytes(
    admin: &Admin,
    name: Option<String>,
    wishes: Result<Query<Wishes>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let Query(wishes) =
        wishes.map_err(|error| Problem::bad_request("bad_parameter", error.body_text()))?;
    let wasm = read_module(body, admin.module_bytes).await?;
    // A task of its own: a client that goes away does not leave the deploy half done on this node.
    let deployer = admin.deployer.clone();
    let request = Request {
        expected: name,
        mode: wishes.mode,
        hold: wishes.hold,
        origin: Origin::Request,
    };
    let deploying = tokio::spawn(async move { deployer.deploy(wasm, &request).await });
    let outcome = deploying.await.map_err(|_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the deploy failed; the engine's log says more",
        )
    })??;
    let status = match outcome.outcome {
        Action::Created => StatusCode::CREATED,
        Action::Rebuilding => StatusCode::ACCEPTED,
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
            DeployError::Plugin(error) => error.into(),
            DeployError::Name { .. } => unprocessable("name_mismatch"),
            DeployError::Generation(error) => error.into(),
            DeployError::Reference { .. } => unprocessable("reference_refused").with_hint(
                "Mend the reference, or deploy the other projection first if its key is about to change.",
            ),
            DeployError::NothingToCompare(_) => conflict("nothing_to_compare"),
            DeployError::SourceChanged { .. } => conflict("source_changed"),
            DeployError::TablesChanged { differences, .. } => {
                conflict("tables_changed").with_details(json!(differences))
            }
            DeployError::Schema(error) => error.into(),
            DeployError::Database(error) => error.into(),
            DeployError::Pool(error) => error.into(),
        }
    }
}

impl From<SchemaError> for Problem {
    fn from(error: SchemaError) -> Self {
        let text = error.to_string();
        match error {
            SchemaError::Taken { schema, name } => Problem::new(StatusCode::CONFLICT, "relation_exists", text)
                .with_hint(format!(
                    "Rename or drop \"{schema}\".\"{name}\", rename the read model, or choose another database.read_schema."
                )),
            SchemaError::Dependents { .. } => Problem::new(StatusCode::CONFLICT, "dependent_objects", text)
                .with_hint("Drop what was built on it, and make it again afterwards: the engine never drops what is not its own."),
            SchemaError::Privilege(_) => {
                Problem::new(StatusCode::FORBIDDEN, "database_privilege", text).with_hint(
                    "Grant CREATE on the database to the engine's role, and CREATE on the schema of the views.",
                )
            }
            SchemaError::Database(error) => error.into(),
        }
    }
}

impl From<LoadingError> for Problem {
    fn from(error: LoadingError) -> Self {
        let text = error.to_string();
        let refused = Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "plugin_refused",
            text.clone(),
        );
        match error {
            LoadingError::Refused(LoadError::Describe(_)) => {
                refused.with_hint("describe() must return at once; what runs now goes on running.")
            }
            LoadingError::Refused(_) | LoadingError::Slow => {
                refused.with_hint("What runs now goes on running.")
            }
            LoadingError::Crashed => {
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
            }
        }
    }
}

impl From<GenerationError> for Problem {
    fn from(error: GenerationError) -> Self {
        let text = error.to_string();
        let conflict = |code| Problem::new(StatusCode::CONFLICT, code, text.clone());
        match error {
            GenerationError::NoProjection(_) => Problem::not_found("no_such_projection", text)
                .with_hint("GET /admin/projections lists them."),
            GenerationError::NoGeneration { projection, .. } => {
                Problem::not_found("no_such_generation", text).with_hint(format!(
                    "GET /admin/projections/{projection}/generations lists them."
                ))
            }
            GenerationError::Conflict(_) | GenerationError::Behind(_) => conflict("conflict"),
            GenerationError::Invalid(_) => Problem::bad_request("invalid", text),
            GenerationError::Source(_) => Problem::unavailable(text),
            GenerationError::ReadModelTaken { read_model, owner } => conflict("read_model_taken")
                .with_details(json!({ "read_model": read_model, "projection": owner })),
            GenerationError::Plugin(LoadStoredError::Loading(error)) => error.into(),
            GenerationError::Plugin(LoadStoredError::Pool(error)) => error.into(),
            GenerationError::Plugin(_) => conflict("plugin_forgotten"),
            GenerationError::Schema(error) => error.into(),
            GenerationError::Pool(error) => error.into(),
            GenerationError::Database(error) => error.into(),
        }
    }
}
