//! `application/problem+json` (RFC 9457), with PostgREST's `code`, `details` and `hint`.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::db::Cause;

/// An answer that says what went wrong, and what to do about it.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    /// A stable identifier that programs can branch on, such as `version_conflict`.
    code: &'static str,
    /// What happened, in a sentence.
    detail: String,
    details: Option<serde_json::Value>,
    hint: Option<String>,
    // Boxed, because a `Result` is as large as its largest variant.
    headers: Option<Box<HeaderMap>>,
}

/// The members of the JSON object.
#[derive(Serialize)]
struct Body<'p> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: &'p str,
    /// The same sentence under the name that PostgREST's clients read.
    message: &'p str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: &'p Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: &'p Option<String>,
}

impl Problem {
    /// Whether it says that something does not exist.
    pub fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    /// A problem with a status, a stable code, and a sentence for people.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            details: None,
            hint: None,
            headers: None,
        }
    }

    /// 400 with a code and a sentence.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 404 with a code and a sentence.
    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// 503, for a database that is away; the client should try again.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// Adds how to mend it.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds machine-readable details.
    pub fn with_details(mut self, details: serde_json::Value) -> Self {
        self.details = Some(details);
        self
    }

    /// Adds a header to the answer.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.get_or_insert_default().insert(name, value);
        self
    }

    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What happened, in a sentence.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl From<tokio_postgres::Error> for Problem {
    /// For statements that are not expected to fail: either the database is away, or it is our fault.
    fn from(error: tokio_postgres::Error) -> Self {
        let what = crate::db::describe(&error);
        match crate::db::cause(&error) {
            Cause::Infrastructure => {
                Self::unavailable(format!("the database cannot answer now: {what}"))
            }
            Cause::Value => {
                Self::bad_request("bad_value", format!("the database refuses a value: {what}"))
            }
            Cause::Statement => {
                tracing::error!(error = %what, "a statement failed unexpectedly");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", what)
            }
        }
    }
}

impl From<deadpool_postgres::PoolError> for Problem {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(error) => error.into(),
            other => Self::unavailable(format!("no database connection is free: {other}")),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            message: &self.detail,
            details: &self.details,
            hint: &self.hint,
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(more) = self.headers {
            headers.extend(*more);
        }
        response
    }
}
