//! `/health/live`: the process answers. `/health/ready`: it can do its work.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use deadpool_postgres::Pool;
use serde_json::{Value, json};

use crate::access::{Access, Identity};
use crate::db::describe_pool;
use crate::ownership::Activity;
use crate::query::rules::ADMIN;
use crate::redis::Redis;

/// How long the database may take to answer a probe.
const PROBE: Duration = Duration::from_secs(2);
/// Probes in quick succession share one answer.
const FRESH: Duration = Duration::from_millis(200);

/// How far the engine has come.
pub struct Health {
    pool: Pool,
    activity: Activity,
    redis: Option<Redis>,
    access: Access,
    stage: Mutex<Stage>,
    probed: tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>,
}

/// The stages of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The database is waited for, and its schema brought up to date.
    Migrating,
    /// The deployed plugins are loaded.
    Loading,
    /// Everything runs.
    Running,
    /// The process ends.
    Stopping,
}

impl Health {
    /// At the beginning. `pool` is asked whether the database answers, `activity` whether the loops can go on, `redis`, if
    /// there is one, whether it does, and `access` whether the keys in its files are those that count.
    pub fn new(pool: Pool, activity: Activity, redis: Option<Redis>, access: Access) -> Self {
        Self {
            pool,
            activity,
            redis,
            access,
            stage: Mutex::new(Stage::Migrating),
            probed: tokio::sync::Mutex::default(),
        }
    }

    /// Notes the stage that has been reached.
    pub fn reached(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    fn stage(&self) -> Stage {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn database(&self) -> Result<(), String> {
        let mut probed = self.probed.lock().await;
        if let Some((at, answer)) = &*probed
            && at.elapsed() < FRESH
        {
            return answer.clone();
        }
        let probe = async {
            let client = self.pool.get().await.map_err(|e| describe_pool(&e))?;
            client
                .batch_execute("select 1")
                .await
                .map_err(|e| crate::db::describe(&e))
        };
        let answer = tokio::time::timeout(PROBE, probe)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", PROBE.as_secs())));
        *probed = Some((Instant::now(), answer.clone()));
        answer
    }
}

/// The two paths.
pub fn router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .with_state(health)
}

async fn live() -> Json<Value> {
    Json(json!({ "status": "live" }))
}

async fn ready(
    State(health): State<Arc<Health>>,
    identity: Option<Extension<Arc<Identity>>>,
) -> Response {
    // Who may not administer the engine learns what is not ready, and not why: the reasons name what is deployed.
    let tells_why = identity.is_some_and(|Extension(identity)| identity.may(ADMIN));
    let database = health.database().await;
    let stage = health.stage();
    let component = |ok: bool, why: &str| match ok {
        true => json!({ "status": "ok" }),
        false if tells_why => json!({ "status": "not ready", "detail": why }),
        false => json!({ "status": "not ready" }),
    };
    let troubles: Vec<String> = health.activity.troubles().into_values().collect();
    let ready = database.is_ok() && stage == Stage::Running && troubles.is_empty();
    // Everything works without Redis, only slower; and with keys that were read before, only not with newer ones.
    let redis = health.redis.as_ref().map(|redis| redis.observed().trouble);
    let keys = health.access.trouble();
    let degraded = matches!(redis, Some(Some(_))) || keys.is_some();
    let mut body = json!({
        "status": match ready {
            true if degraded => "degraded",
            true => "ready",
            false => "not ready",
        },
        "components": {
            "database": component(database.is_ok(), database.as_ref().err().map_or("", String::as_str)),
            "schema": component(stage > Stage::Migrating, "the schema is not up to date yet"),
            "registry": component(stage > Stage::Loading, "the deployed plugins are not loaded yet"),
            "projections": component(troubles.is_empty(), &troubles.join("; ")),
            "engine": component(stage == Stage::Running, if stage == Stage::Stopping { "stopping" } else { "starting" }),
        },
    });
    let keys = health.access.has_keys().then_some(keys);
    for (name, trouble) in [("redis", redis), ("jwt_keys", keys)] {
        let said = match trouble {
            None => continue,
            Some(None) => json!({ "status": "ok" }),
            Some(Some(why)) if tells_why => json!({ "status": "degraded", "detail": why }),
            Some(Some(_)) => json!({ "status": "degraded" }),
        };
        body["components"][name] = said;
    }
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}
