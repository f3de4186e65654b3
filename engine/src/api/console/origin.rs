//! Forms are taken from the console's own pages alone. The guard before it lets pages of every port of this machine ask;
//! for a form, which needs nobody's leave to be sent anywhere, that is too much.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::layout::Failed;
use crate::api::problem::Problem;

/// Refuses what was not sent by a page of this very address.
pub(super) async fn own_forms_only(request: Request, next: Next) -> Response {
    if request.method().is_safe() || is_own(request.uri(), request.headers()) {
        return next.run(request).await;
    }
    Failed(Problem::new(
        StatusCode::FORBIDDEN,
        "foreign_form",
        "the form was not sent by a page of this console, so nothing was changed; programs use /admin/projections",
    ))
    .into_response()
}

/// Browsers say where a form comes from, in one of two headers or in both. Whoever says nothing is not believed: all
/// browsers of recent years do.
fn is_own(uri: &Uri, headers: &HeaderMap) -> bool {
    let authority = uri.authority().map(|authority| authority.as_str());
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let Some(host) = authority.or(host) else {
        return false;
    };
    let sites = headers
        .get_all("sec-fetch-site")
        .iter()
        .map(|site| site == "same-origin");
    let origins = headers.get_all(header::ORIGIN).iter().map(|origin| {
        let origin = origin.to_str().ok().and_then(|o| o.split_once("://"));
        origin.is_some_and(|(_, of)| of.eq_ignore_ascii_case(host))
    });
    let mut said = sites.chain(origins).peekable();
    said.peek().is_some() && said.all(|is_own| is_own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_of_the_same_address_may_send_forms() {
        let check = |said: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "localhost:7171".parse().unwrap());
            for (name, value) in said {
                headers.append(*name, value.parse().unwrap());
            }
            is_own(&Uri::from_static("/console/projections/a/retry"), &headers)
        };
        assert!(check(&[("origin", "http://localhost:7171")]));
        assert!(check(&[("sec-fetch-site", "same-origin")]));
        assert!(check(&[
            ("origin", "http://LOCALHOST:7171"),
            ("sec-fetch-site", "same-origin")
        ]));
        for said in [
            &[][..],
            &[("origin", "null")],
            &[("origin", "http://localhost:3000")],
            &[("origin", "http://127.0.0.1:7171")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "none")],
            &[
                ("origin", "http://localhost:7171"),
                ("sec-fetch-site", "cross-site"),
            ],
            &[
                ("origin", "http://localhost:7171"),
                ("origin", "http://example.org"),
            ],
        ] {
            assert!(!check(said), "{said:?}");
        }
    }
}
