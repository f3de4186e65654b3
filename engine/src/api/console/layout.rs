//! What all pages share: the frame, the style, and the headers that allow nothing else.

use std::sync::LazyLock;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use crate::api::problem::Problem;

const STYLE: &str = include_str!("console.css");

/// Nothing is loaded, run or embedded. The style is known by its hash.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = BASE64.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// A page, not yet framed.
pub(super) struct Page {
    status: StatusCode,
    title: String,
    refresh_seconds: Option<u32>,
    body: Markup,
}

impl Page {
    /// A page with this title and this inside.
    pub(super) fn new(title: impl Into<String>, body: Markup) -> Self {
        Self {
            status: StatusCode::OK,
            title: title.into(),
            refresh_seconds: None,
            body,
        }
    }

    /// The browser loads it again and again.
    pub(super) fn refreshed_every(mut self, seconds: u32) -> Self {
        self.refresh_seconds = Some(seconds);
        self
    }

    /// Another status than 200.
    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    @if let Some(seconds) = self.refresh_seconds {
                        meta http-equiv="refresh" content=(seconds);
                    }
                    title { (self.title) " \u{b7} Gobo" }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    header {
                        nav aria-label="Console" { a.home href="/console" { "Gobo" } }
                    }
                    main { (self.body) }
                }
            }
        };
        let headers = [
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/html; charset=utf-8"),
            ),
            (header::CONTENT_SECURITY_POLICY, POLICY.clone()),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ),
            (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
            // Not "no-referrer": browsers would then not say where a form comes from.
            (
                header::REFERRER_POLICY,
                HeaderValue::from_static("same-origin"),
            ),
            (
                HeaderName::from_static("cross-origin-opener-policy"),
                HeaderValue::from_static("same-origin"),
            ),
        ];
        (self.status, headers, page.into_string()).into_response()
    }
}

/// A page that says why there is no other.
pub(super) struct Failed(pub(super) Problem);

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let status = problem.status();
        let title = status.canonical_reason().unwrap_or("Error");
        let body = html! {
            h1 { (title) }
            p.said { (problem.detail()) }
            p { a href="/console" { "All projections" } }
        };
        Page::new(title, body).with_status(status).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_policy_allows_the_very_style_that_the_page_has() {
        let response = Page::new("<t>", html! {}).into_response();
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].clone();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
        let text = String::from_utf8(body.unwrap().to_vec()).unwrap();
        assert!(text.contains("<title>&lt;t&gt; \u{b7} Gobo</title>"));
        let (_, rest) = text.split_once("<style>").unwrap();
        let (style, _) = rest.split_once("</style>").unwrap();
        let hash = BASE64.encode(Sha256::digest(style));
        let policy = policy.to_str().unwrap();
        assert!(policy.contains(&format!("style-src 'sha256-{hash}';")));
    }
}
