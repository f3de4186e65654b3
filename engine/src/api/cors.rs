//! Web pages of other origins: which of them may use the API, by configuration.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{self, Next};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_service::Service;

use crate::config::Cors;

/// What a page may send along. `apikey` and `x-client-info` are what PostgREST's clients add.
const SENT: [&str; 13] = [
    "accept",
    "accept-profile",
    "apikey",
    "authorization",
    "content-type",
    "gobo-min-position",
    "if-match",
    "if-none-match",
    "last-event-id",
    "prefer",
    "range",
    "range-unit",
    "x-client-info",
];

/// What a page may look at in an answer.
const SHOWN: [&str; 19] = [
    "content-location",
    "content-profile",
    "content-range",
    "etag",
    "gobo-dead-letters",
    "gobo-generation",
    "gobo-head-position",
    "gobo-lag-seconds",
    "gobo-next-cursor",
    "gobo-position",
    "gobo-read-model",
    "gobo-revision",
    "gobo-stale",
    "link",
    "location",
    "preference-applied",
    "range-unit",
    "retry-after",
    "www-authenticate",
];

/// Answers preflights of pages that may ask, and says to browsers which pages may see answers. Whatever else asks for OPTIONS gets
/// the answer that it would get without all this.
pub(super) fn in_front(router: Router, cors: Cors) -> Router {
    let plain = router.clone();
    let layer = layer(&cors);
    let cors = Arc::new(cors);
    let choose = move |request: Request, next: Next| {
        let is_passed_by = request.method() == Method::OPTIONS && !is_preflight(&cors, &request);
        let mut plain = plain.clone();
        async move {
            match is_passed_by {
                false => next.run(request).await,
                true => match plain.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                },
            }
        }
    };
    router.layer(layer).layer(middleware::from_fn(choose))
}

/// Whether a browser asks for a page that may ask.
fn is_preflight(cors: &Cors, request: &Request) -> bool {
    let headers = request.headers();
    let origin = headers.get(header::ORIGIN).and_then(|o| o.to_str().ok());
    headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        && origin.is_some_and(|origin| cors.allows(origin))
}

/// Passwords that a browser keeps are not among what pages may send: a page has a token of its own.
fn layer(cors: &Cors) -> CorsLayer {
    let origins = match cors.origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        // Each was checked with the configuration.
        false => AllowOrigin::list(
            cors.origins
                .iter()
                .filter_map(|o| HeaderValue::try_from(o).ok()),
        ),
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::HEAD, Method::POST])
        .allow_headers(SENT.map(HeaderName::from_static))
        .expose_headers(SHOWN.map(HeaderName::from_static))
        .max_age(Duration::from_secs(cors.max_age_seconds))
}
