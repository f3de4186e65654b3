//! `/openapi.json`: what can be asked of this engine right now, as OpenAPI 3.1.
//!
//! What every engine has is written down in `openapi/*.json`; the paths of read models are made from what is deployed, and
//! again whenever that changes.

mod columns;
mod models;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::problem::Problem;
use super::read::matches;
use crate::access::{Access, Identity};
use crate::query::Limits;
use crate::query::catalog::{Catalog, Models};
use crate::query::rules::Viewer;

/// What is described, and how.
#[derive(Clone)]
pub struct Described {
    /// The read models.
    pub catalog: Catalog,
    /// What a query may ask for at most.
    pub limits: Limits,
    /// Whether only requests that name this machine are let in.
    pub loopback: bool,
    /// The schema of the public views.
    pub schema: String,
    /// Who may do what. Read models that somebody may not read are not described to them.
    pub access: Access,
}

/// How many documents are kept: one for each set of read models that somebody may read.
const KEPT: usize = 16;

/// The documents that were made last.
#[derive(Default)]
struct Made {
    documents: Mutex<Vec<Document>>,
}

#[derive(Clone)]
struct Document {
    models: Models,
    /// The read models in it.
    names: BTreeSet<String>,
    body: Bytes,
    tag: HeaderValue,
}

#[derive(Clone)]
struct Room {
    described: Arc<Described>,
    made: Arc<Made>,
}

/// The route.
pub fn router(described: Described) -> Router {
    let room = Room {
        described: Arc::new(described),
        made: Arc::default(),
    };
    Router::new()
        .route("/openapi.json", get(answer))
        .with_state(room)
}

async fn answer(
    State(room): State<Room>,
    Extension(identity): Extension<Arc<Identity>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let document = room.document(&identity.viewer)?;
    let tag = (header::ETAG, document.tag.clone());
    let cache = (header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let is_known = (document.tag.to_str()).is_ok_and(|tag| matches(&headers, tag));
    if is_known {
        return Ok((StatusCode::NOT_MODIFIED, [tag, cache]).into_response());
    }
    let kind = HeaderValue::from_static("application/json");
    let headers = [(header::CONTENT_TYPE, kind), tag, cache];
    Ok((headers, document.body).into_response())
}

impl Room {
    /// The document about the present read models that somebody may read; the one at hand, if they are the same.
    fn document(&self, viewer: &Viewer) -> Result<Document, Problem> {
        let models = self.described.catalog.models();
        let rules = self.described.access.rules();
        let names = models
            .live
            .keys()
            .filter(|name| rules.may_read(name, viewer));
        let names: BTreeSet<String> = names.cloned().collect();
        // Nothing that holds the lock can leave half a document.
        let mut made = (self.made.documents.lock()).unwrap_or_else(PoisonError::into_inner);
        made.retain(|document| Arc::ptr_eq(&document.models, &models));
        if let Some(document) = made.iter().find(|document| document.names == names) {
            return Ok(document.clone());
        }
        let failed = |error: serde_json::Error| {
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                format!("the description cannot be made: {error}"),
            )
        };
        let value = document(&self.described, &models, &names).map_err(failed)?;
        let body = serde_json::to_vec_pretty(&value).map_err(failed)?;
        let hash = Sha256::digest(&body)[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        let tag = HeaderValue::try_from(format!("\"{hash}\""))
            .unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        let document = Document {
            models,
            names,
            body: body.into(),
            tag,
        };
        if made.len() == KEPT {
            made.remove(0);
        }
        made.push(document.clone());
        Ok(document)
    }
}

const ABOUT: &str = "Read models as tables over HTTP, in PostgREST's grammar, with answers that say how fresh they are; \
    the events that they are made from; and what runs. The paths below `/read` are those of the projections that are \
    deployed right now.";

/// What is named once and used in many places, by its kind.
type Components = BTreeMap<String, Map<String, Value>>;

/// The whole document.
fn document(
    described: &Described,
    published: &Models,
    names: &BTreeSet<String>,
) -> serde_json::Result<Value> {
    let live = published.live.values();
    let mut models: Vec<_> = live.filter(|one| names.contains(&one.model.name)).collect();
    models.sort_by(|one, other| one.model.name.cmp(&other.model.name));
    let mut paths = Map::new();
    let mut components: Components = serde_json::from_str(include_str!("openapi/components.json"))?;
    for more in [
        include_str!("openapi/read.json"),
        include_str!("openapi/live.json"),
    ] {
        for (kind, named) in serde_json::from_str::<Components>(more)? {
            components.entry(kind).or_default().extend(named);
        }
    }
    let mut tags = Vec::new();
    for readable in models {
        let model = &readable.model;
        let tag = format!("read {}", model.name);
        let comment = model.comment.as_deref().unwrap_or_default();
        tags.push(json!({ "name": tag, "description": comment }));
        paths.extend(models::paths(model, &tag));
        let schemas = components.entry("schemas".to_owned()).or_default();
        schemas.insert(model.name.clone(), models::row(model));
    }
    let parameters = components.entry("parameters".to_owned()).or_default();
    models::limits(parameters, &described.limits);
    models::schema(parameters, &described.schema);
    for fixed in [
        include_str!("openapi/events.json"),
        include_str!("openapi/admin.json"),
    ] {
        paths.extend(serde_json::from_str::<Map<String, Value>>(fixed)?);
    }
    everywhere(&mut paths, described);
    for (name, about) in [
        ("events", "Appending events, and reading them back."),
        ("health", "How the engine is doing."),
        ("admin", "Deploying, and looking after what is deployed."),
    ] {
        tags.push(json!({ "name": name, "description": about }));
    }
    let is_guarded = described.access.is_on();
    if is_guarded {
        let schemes = components.entry("securitySchemes".to_owned()).or_default();
        schemes.insert(
            "token".to_owned(),
            json!({ "type": "http", "scheme": "bearer" }),
        );
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Gobo",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": tags,
        "paths": paths,
        "components": components,
    });
    if is_guarded {
        document["security"] = json!([{ "token": [] }]);
    }
    Ok(document)
}

/// Adds what can be answered to any request.
fn everywhere(paths: &mut Map<String, Value>, described: &Described) {
    let mut common = vec![("503", "Unavailable")];
    if described.access.is_on() {
        common.extend([
            ("401", "Unauthorized"),
            ("403", "Forbidden"),
            ("429", "TooMany"),
        ]);
    }
    if described.loopback {
        common.extend([("403", "Foreign"), ("421", "Misdirected")]);
    }
    let operations = paths
        .values_mut()
        .filter_map(Value::as_object_mut)
        .flat_map(|path| path.values_mut());
    for operation in operations.filter_map(Value::as_object_mut) {
        let Some(responses) = operation
            .get_mut("responses")
            .and_then(Value::as_object_mut)
        else {
            continue;
        };
        for (status, name) in &common {
            let reference = json!({ "$ref": format!("#/components/responses/{name}") });
            responses.entry(*status).or_insert(reference);
        }
    }
}
