//! Who is let in: every path asks for a role, and every request has to show that it has it.
//!
//! | path | role |
//! |---|---|
//! | `/health/..`, `/` (which only says where the console is) | none |
//! | `/read/..`, `/openapi.json` | `read`, or one that some read model names |
//! | `/streams/..` | `append` |
//! | `/events`, `/metrics` (unless it is open), `/console`, `/admin`, and everything else | `admin` |

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, StatusCode, Uri, header};

use super::problem::Problem;
use crate::access::jwt::Invalid;
use crate::access::{APPEND, Access, Credential, Denied, Identity, Peer, READ};
use crate::query::rules::ADMIN;

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    Reading,
    Role(&'static str),
}

/// Finds out who asks and whether they may, and notes the [`Identity`] with the request.
pub(super) fn admit(access: &Access, request: &mut Request) -> Result<(), Problem> {
    let need = need(request.uri().path(), access.has_open_metrics());
    let peer = peer(access, request);
    let identity = match (identify(access, request, peer), need) {
        (Ok(identity), _) => identity,
        // What is there for everybody is also there for somebody with a token that has expired.
        (Err(_), Need::Nothing) => return Ok(()),
        (Err(problem), _) => return Err(problem),
    };
    let is_allowed = match need {
        Need::Nothing => true,
        Need::Reading => access.rules().may_read_something(&identity.viewer),
        Need::Role(role) => identity.may(role),
    };
    if !is_allowed {
        return Err(forbidden(request.uri(), need, &identity));
    }
    if need != Need::Nothing {
        let admitted = access.admit(&identity, peer);
        admitted.map_err(|wait| {
            too_many(
                wait,
                "too many requests from here (access.requests_per_second)",
            )
        })?;
    }
    request.extensions_mut().insert(identity.coming_from(peer));
    Ok(())
}

fn too_many(wait: Duration, what: impl Into<String>) -> Problem {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", what)
        .with_header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
}

/// Where a request comes from: as the proxy says whose header is trusted, else whoever has connected.
fn peer(access: &Access, request: &Request) -> Peer {
    let connected = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let connected = connected.map(|ConnectInfo(address)| address.ip());
    let told = access.address_header().and_then(|name| {
        // The last one: what stands before it came with the request, and may be anything.
        let value = request.headers().get_all(name).iter().next_back()?;
        last_address(value.as_bytes())
    });
    Peer::new(told.or(connected))
}

/// The last address of a list, whatever bytes stand before it: `192.0.2.1`, `2001:db8::1`, `[2001:db8::1]`, either with a port.
fn last_address(list: &[u8]) -> Option<IpAddr> {
    let last = list.rsplit(|byte| *byte == b',').next()?;
    let last = std::str::from_utf8(last).ok()?.trim();
    if let Ok(address) = last.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    let bare = last
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(last).parse().ok()
}

fn need(path: &str, has_open_metrics: bool) -> Need {
    // Paths are compared as they come. A router that understood others (%2F, %61) would find them refused here.
    let first = path.strip_prefix('/').unwrap_or(path);
    let (room, has_more) = match first.split_once('/') {
        Some((room, _)) => (room, true),
        None => (first, false),
    };
    match (room, has_more) {
        ("", false) | ("health", true) => Need::Nothing,
        ("metrics", false) if has_open_metrics => Need::Nothing,
        ("read", true) | ("openapi.json", false) => Need::Reading,
        ("streams", true) => Need::Role(APPEND),
        _ => Need::Role(ADMIN),
    }
}

fn identify(access: &Access, request: &Request, peer: Peer) -> Result<Arc<Identity>, Problem> {
    let path = request.uri().path();
    let credential = Credential::of(request.headers());
    if let Ok(Some(credential)) = &credential
        && credential.is_password()
        && !request.method().is_safe()
        && !is_console(path)
    {
        // A browser adds a password that it was told once to every request, also to one that a foreign page makes. The
        // console knows its own forms; nothing else does.
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "password_not_allowed",
            "a token in place of a password is for reading, and for the console",
        )
        .with_hint("send it as Authorization: Bearer TOKEN")
        .with_header(header::WWW_AUTHENTICATE, challenge(path, None)));
    }
    let credential = credential
        .as_ref()
        .map(Option::as_ref)
        .map_err(|error| *error);
    access
        .identify(credential, peer)
        .map_err(|denied| refused(path, &denied))
}

fn is_console(path: &str) -> bool {
    path == "/console" || path.starts_with("/console/")
}

/// Whether problems are told as PostgREST tells them.
pub(super) fn is_reading(path: &str) -> bool {
    need(path, false) == Need::Reading
}

fn refused(path: &str, denied: &Denied) -> Problem {
    tracing::debug!(path, %denied, "refused");
    let code = match denied {
        Denied::Missing => "credentials_missing",
        Denied::Malformed(_) => "credentials_malformed",
        Denied::UnknownToken | Denied::Unwanted(_) => "token_unknown",
        Denied::Jwt(Invalid::Unreadable | Invalid::Header(_) | Invalid::Signature) => "jwt_invalid",
        Denied::Jwt(Invalid::Expired) => "jwt_expired",
        Denied::Jwt(Invalid::NotYet) => "jwt_not_yet_valid",
        Denied::Jwt(Invalid::Audience | Invalid::Issuer | Invalid::Claim(_)) => "jwt_claims",
        Denied::Unknowable => return Problem::unavailable(denied.to_string()),
        Denied::TooMany(wait) => return too_many(*wait, denied.to_string()),
    };
    let error = match denied {
        Denied::Missing => None,
        _ => Some(denied.to_string()),
    };
    let problem = Problem::new(StatusCode::UNAUTHORIZED, code, denied.to_string())
        .with_header(header::WWW_AUTHENTICATE, challenge(path, error.as_deref()));
    match denied {
        Denied::Missing => problem.with_hint(
            "send Authorization: Bearer TOKEN, with a token of `gobo token new` or a JWT, as the engine is configured",
        ),
        _ => problem,
    }
}

/// What `WWW-Authenticate` says: a browser asks its user for a password only where there are pages for people.
fn challenge(path: &str, error: Option<&str>) -> HeaderValue {
    if is_console(path) {
        return HeaderValue::from_static(
            "Basic realm=\"gobo: any name, and a token as password\", charset=\"UTF-8\"",
        );
    }
    let text = match error {
        None => "Bearer realm=\"gobo\"".to_owned(),
        Some(error) => {
            let error = error.replace(['"', '\\'], "'");
            format!("Bearer realm=\"gobo\", error=\"invalid_token\", error_description=\"{error}\"")
        }
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Bearer realm=\"gobo\""))
}

fn forbidden(uri: &Uri, need: Need, identity: &Identity) -> Problem {
    let path = uri.path();
    let role = match need {
        Need::Role(role) => role,
        Need::Reading | Need::Nothing => READ,
    };
    tracing::debug!(path, identity = identity.name, role, "forbidden");
    let challenge = HeaderValue::try_from(format!(
        "Bearer realm=\"gobo\", error=\"insufficient_scope\", scope=\"{role}\""
    ));
    let problem = Problem::new(
        StatusCode::FORBIDDEN,
        "role_missing",
        format!("this needs the role \"{role}\", which this identity does not have"),
    );
    match challenge {
        Ok(challenge) => problem.with_header(header::WWW_AUTHENTICATE, challenge),
        Err(_) => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_counts_whatever_stands_before_it() {
        for (list, expected) in [
            (&b"192.0.2.1"[..], "192.0.2.1"),
            (b"203.0.113.9, 192.0.2.1 ", "192.0.2.1"),
            (b"\xff\xfe,192.0.2.1", "192.0.2.1"),
            (b"192.0.2.1:4711", "192.0.2.1"),
            (b"2001:db8::1", "2001:db8::1"),
            (b"[2001:db8::1]", "2001:db8::1"),
            (b"[2001:db8::1]:4711", "2001:db8::1"),
        ] {
            assert_eq!(last_address(list), Some(expected.parse().unwrap()));
        }
        for list in [&b""[..], b"192.0.2.1,", b"unknown", b"[192.0.2.1", b"\xff"] {
            assert_eq!(last_address(list), None);
        }
    }

    #[test]
    fn every_path_that_is_not_known_is_an_administrators() {
        let check = |path: &str, expected: Need| assert_eq!(need(path, false), expected, "{path}");
        check("/health/ready", Need::Nothing);
        check("/", Need::Nothing);
        check("/read/orders", Need::Reading);
        check("/read/orders/1", Need::Reading);
        check("/openapi.json", Need::Reading);
        check("/streams/a/events", Need::Role(APPEND));
        for path in [
            "/events",
            "/metrics",
            "/console",
            "/console/x",
            "/admin/projections",
            "//read/orders",
            "/Read/orders",
            "/%72ead/orders",
            "/read",
            "/health",
            "/x",
            "*",
            "",
        ] {
            let expected = if path.is_empty() {
                Need::Nothing
            } else {
                Need::Role(ADMIN)
            };
            check(path, expected);
        }
        assert_eq!(need("/metrics", true), Need::Nothing);
        assert_eq!(need("/metrics/x", true), Need::Role(ADMIN));
    }
}
