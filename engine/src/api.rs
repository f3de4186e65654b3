//! The HTTP face: one router, composed of one room per concern.

mod admission;
pub mod admin;
mod body;
pub mod console;
mod cors;
mod drain;
pub mod guard;
pub mod health;
pub mod metrics;
pub mod openapi;
pub mod problem;
pub mod read;
pub mod server;
pub mod streams;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use tower_service::Service;

use crate::access::Access;
use crate::config::Config;
use crate::feed::Hub;
use crate::feed::publish::Published;
use crate::redis::Redis;
use admin::Admin;
use guard::Guard;
use health::Health;
use openapi::Described;
use problem::Problem;
use read::Reader;
use streams::Streams;

/// What answers from the first moment on: health, and "not ready" for everything else until [`Front::open`].
#[derive(Clone)]
pub struct Front {
    health: Arc<Health>,
    behind: Arc<OnceLock<Router>>,
    guard: Arc<Guard>,
}

impl Front {
    /// A closed front.
    pub fn new(config: &Config, access: Access, health: Arc<Health>) -> Self {
        let guard = Guard::new(
            access,
            config.listen.ip().is_loopback(),
            config.api.max_requests,
            Duration::from_millis(config.api.request_timeout_ms),
        );
        let guard = guard.with_cors(config.access.cors.clone());
        Self {
            health,
            behind: Arc::default(),
            guard: Arc::new(guard),
        }
    }

    /// Lets requests through to `router`, from now on.
    pub fn open(&self, router: Router) {
        // Only the first counts; there is one composition in a process.
        let _ = self.behind.set(router);
    }

    /// The service for every connection.
    pub fn router(&self) -> Router {
        let behind = self.behind.clone();
        let router = health::router(self.health.clone())
            .fallback(move |request: Request| pass(behind.clone(), request));
        guard::guarded(router, self.guard.clone())
    }
}

/// One room per concern.
pub struct Rooms {
    /// `/streams`, `/events`
    pub streams: Streams,
    /// `/read`
    pub reader: Reader,
    /// `/openapi.json`
    pub described: Described,
    /// `/admin`, and `/console` on top of it
    pub admin: Admin,
    /// For `/metrics`.
    pub redis: Option<Redis>,
    /// For `/metrics`.
    pub published: Published,
    /// Who follows what, for `/metrics`.
    pub live: Hub,
}

/// Everything but health, composed.
pub fn router(config: &Config, rooms: Rooms) -> Router {
    let router = Router::new()
        .merge(streams::router(rooms.streams))
        .merge(rooms.reader.clone().router())
        .merge(openapi::router(rooms.described))
        .merge(console::router(rooms.admin.clone()))
        .merge(admin::router(rooms.admin.clone()))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed);
    let measured = metrics::Measured {
        admin: rooms.admin,
        reader: rooms.reader,
        redis: rooms.redis,
        published: rooms.published,
        live: rooms.live,
    };
    metrics::measured(router, measured).layer(DefaultBodyLimit::max(config.api.max_body_bytes))
}

async fn pass(behind: Arc<OnceLock<Router>>, request: Request) -> Response {
    match behind.get() {
        None => Problem::unavailable("the engine is starting: see /health/ready").into_response(),
        Some(router) => match router.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
    }
}

async fn not_found(request: Request) -> Problem {
    Problem::not_found(
        "no_such_path",
        format!("there is nothing at {}", request.uri().path()),
    )
    .with_hint(
        "Paths: /console, /openapi.json, /read/{read_model}, /streams/{stream_id}/events, /events, /admin/projections, /metrics, /health/live, /health/ready",
    )
}

async fn method_not_allowed(method: Method, request: Request) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{method} is not possible at {}", request.uri().path()),
    )
}
