//! What every request passes: who asks, how many at once, for how long, and what happens when a handler panics.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use futures_util::future::ready;
use futures_util::stream::once;
use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use tokio::sync::Semaphore;

use super::admission;
use super::cors;
use super::drain::Rest;
use super::problem::Problem;
use super::read::Live;
use crate::access::{Access, Identity};
use crate::config::Cors;

/// Bytes of the framework's own error texts.
const LONGEST_TEXT: usize = 4_096;

/// The rules.
pub struct Guard {
    access: Access,
    loopback: bool,
    cors: Option<Cors>,
    requests: Semaphore,
    /// Answers whose request is still read to its end.
    drains: Semaphore,
    timeout: Duration,
}

impl Guard {
    /// `loopback`: only requests that name this machine are let in.
    pub fn new(access: Access, loopback: bool, max_requests: usize, timeout: Duration) -> Self {
        Self {
            access,
            loopback,
            cors: None,
            requests: Semaphore::new(max_requests),
            drains: Semaphore::new(max_requests.div_ceil(4)),
            timeout,
        }
    }
}

impl Guard {
    /// The same, which also lets pages of other origins ask.
    pub fn with_cors(self, cors: Option<Cors>) -> Self {
        Self { cors, ..self }
    }
}

/// Puts the rules in front of `router`.
pub fn guarded(router: Router, guard: Arc<Guard>) -> Router {
    let cors = guard.cors.clone();
    let router = router.layer(middleware::from_fn_with_state(guard, check));
    match cors {
        // In front, because it answers those who ask without saying who they are whether they may ask.
        Some(cors) => cors::in_front(router, cors),
        None => router,
    }
}

async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let is_reading = admission::is_reading(request.uri().path());
    let (request, rest) = Rest::lend(request);
    let mut response = answer(&guard, request, next).await;
    if is_reading {
        // What went wrong before or around the room of readers is told as it tells it.
        response = super::read::as_postgrest(response).await;
    }
    if guard.access.is_on() {
        for_one_alone(response.headers_mut());
    }
    // Politeness has its bounds as well. Those who go without it may find the connection reset before they have read the answer.
    if let Ok(_permit) = guard.drains.try_acquire() {
        rest.drain().await;
    }
    response
}

/// Says to every cache on the way that somebody else would be answered otherwise.
fn for_one_alone(headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("authorization"));
    let said = headers
        .get(header::CACHE_CONTROL)
        .map(HeaderValue::as_bytes);
    let private = match said {
        // Nobody keeps it, and what else it says (`no-transform` of a stream) has to stay.
        Some(said) if said.starts_with(b"no-store") => return,
        Some(b"no-cache") => "private, no-cache",
        _ => "private, no-store",
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(private));
}

async fn answer(guard: &Guard, mut request: Request, next: Next) -> Response {
    if guard.loopback
        && let Err(problem) =
            names_this_machine(request.uri(), request.headers(), guard.cors.as_ref())
    {
        return problem.into_response();
    }
    if request.uri().to_string().contains("%00") {
        return Problem::bad_request(
            "bad_request",
            "the address contains %00: PostgreSQL cannot store U+0000, so nothing has such a name",
        )
        .with_hint("leave %00 out")
        .with_place(json!({"in": "address"}))
        .into_response();
    }
    let path = request.uri().path().to_owned();
    // Before it is looked at who asks: a signature costs more than this answer.
    let permit = guard.requests.try_acquire();
    // Readers who fill all places must not make a supervisor believe that the process is dead.
    if permit.is_err() && !path.starts_with("/health/") {
        return Problem::unavailable("too many requests at once (api.max_requests)")
            .with_hint("ask again after a moment")
            .into_response();
    }
    if let Err(problem) = admission::admit(&guard.access, &mut request) {
        return problem.into_response();
    }
    let identity = request.extensions().get::<Arc<Identity>>().cloned();
    let answering = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(guard.timeout, answering).await {
        Ok(Ok(response)) => {
            let response = as_problem(response).await;
            match identity {
                Some(identity) if guard.access.is_on() => {
                    while_it_counts(&guard.access, identity, response)
                }
                _ => response,
            }
        }
        Ok(Err(_)) => {
            tracing::error!(path, "a request handler panicked");
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the engine failed over this request; its log says more",
            )
            .into_response()
        }
        Err(_) => {
            Problem::unavailable("the request took longer than allowed (api.request_timeout_ms)")
                .with_hint("ask for less at once, or wait for less")
                .into_response()
        }
    }
}

/// A stream may outlive the token that it was asked for with. Then it ends, and whoever comes back shows another one.
fn while_it_counts(access: &Access, identity: Arc<Identity>, response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if !is_stream {
        return response;
    }
    let access = access.clone();
    let ended = async move { access.ended(&identity).await }
        .boxed()
        .shared();
    let has_ended = ended.clone();
    let last = once(async move { has_ended.now_or_never().map(|()| Ok(Live::DENIED.into())) });
    response.map(|body| {
        let body = body.into_data_stream().take_until(ended);
        Body::from_stream(body.chain(last.filter_map(ready)))
    })
}

/// Makes a problem of an error that the web framework answered in plain text: a path that is no UTF-8, a body too large.
async fn as_problem(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_text = kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !is_text || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), LONGEST_TEXT).await;
    let text = text.unwrap_or_default();
    let code = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "body_too_large",
        _ => "bad_request",
    };
    let detail = match std::str::from_utf8(&text) {
        Ok("") | Err(_) => "the request is not acceptable",
        Ok(text) => text,
    };
    Problem::new(status, code, detail).into_response()
}

/// Without access control, whoever can reach the port may do anything. A web page that the user has open can: by a
/// request to another origin, or with a name of its own that it lets point to 127.0.0.1 (DNS rebinding). Both are seen
/// here, because browsers say truthfully whom they believe to talk to and for which page.
fn names_this_machine(uri: &Uri, headers: &HeaderMap, cors: Option<&Cors>) -> Result<(), Problem> {
    let host = headers.get(header::HOST).map(|host| host.to_str());
    let named = match (uri.host(), host) {
        (Some(host), _) | (None, Some(Ok(host))) => Some(host),
        (None, Some(Err(_))) => Some(""),
        (None, None) => None,
    };
    if let Some(host) = named.filter(|host| !is_loopback(host)) {
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "foreign_host",
            format!("the request is for host \"{host}\", which is not this machine"),
        )
        .with_hint(
            "Use http://127.0.0.1 or http://localhost; a proxy has to set the Host header so.",
        ));
    }
    for origin in headers.get_all(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let host = origin.split_once("://").map(|(_, host)| host);
        let is_allowed = cors.is_some_and(|cors| cors.allows(origin));
        if !is_allowed && !host.is_some_and(is_loopback) {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "foreign_origin",
                format!("the request comes from a page of \"{origin}\", which is not this machine"),
            ));
        }
    }
    Ok(())
}

/// Whether `host`, with or without a port, is this machine itself.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) if port.is_empty() || port.starts_with(':') => name,
            _ => return false,
        },
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_nobody_keeps_stays_as_it_is_and_others_become_private() {
        for (said, expected) in [
            (Some("no-store"), "no-store"),
            (Some("no-store, no-transform"), "no-store, no-transform"),
            (Some("no-cache"), "private, no-cache"),
            (Some("public, max-age=60"), "private, no-store"),
            (None, "private, no-store"),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(said) = said {
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(said));
            }
            for_one_alone(&mut headers);
            assert_eq!(headers[header::CACHE_CONTROL], expected);
            assert_eq!(headers[header::VARY], "authorization");
        }
    }

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:7171",
            "127.1.2.3",
            "[::1]",
            "[::1]:7171",
            "localhost.",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "example.org",
            "127.0.0.1.example.org",
            "localhost.example.org:7171",
            "0.0.0.0",
            "192.168.0.1:7171",
            "",
            "[::1]example.org",
            "[::2]:1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn foreign_hosts_and_origins_are_refused() {
        let check = |host: &str, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            names_this_machine(&Uri::from_static("/events"), &headers, None)
                .map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(check("localhost:7171", None), Ok(()));
        assert_eq!(
            check("localhost:7171", Some("http://127.0.0.1:3000")),
            Ok(())
        );
        assert_eq!(check("example.org", None), Err(421));
        assert_eq!(
            check("localhost:7171", Some("https://example.org")),
            Err(403)
        );
        assert_eq!(check("localhost:7171", Some("null")), Err(403));
    }
}
