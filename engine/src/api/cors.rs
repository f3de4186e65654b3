//! Web pages of other origins: which of them may use the API, by configuration.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::config::Cors;

/// What a page may send along. `apikey` and `x-client-info` are what PostgREST's clients add.
const SENT: [&str; 12] = [
    "accept",
    "accept-profile",
    "apikey",
    "authorization",
    "content-type",
    "if-match",
    "if-none-match",
    "last-event-id",
    "prefer",
    "range",
    "range-unit",
    "x-client-info",
];

/// What a page may look at in an answer.
const SHOWN: [&str; 20] = [
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
    "gobo-reached",
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

/// Answers preflights, and says to browsers which pages may see answers. Passwords that a browser keeps are not among what
/// pages may send: a page has a token of its own.
pub(super) fn layer(cors: &Cors) -> CorsLayer {
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
