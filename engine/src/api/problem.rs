//! `application/problem+json` (RFC 9457), with PostgREST's `code`, `details` and `hint`.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use crate::db::Cause;

/// An answer that says what went wrong, and what to do about it.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    /// A stable identifier that programs can branch on, such as `version_conflict`.
    code: &'static str,
    /// What happened, in a sentence.
    detail: String,
    details: Option<Value>,
    hint: Option<String>,
    // Boxed, because a `Result` is as large as its largest variant.
    more: Box<More>,
}

/// What few problems have.
#[derive(Debug, Default)]
struct More {
    headers: HeaderMap,
    /// The database's own code, where it was the database that refused.
    sqlstate: Option<String>,
    /// Where in the request it is.
    place: Option<Value>,
}

/// The members of the JSON object. An inner `None` is written as null.
#[derive(Serialize)]
struct Body<'p> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    code: &'p str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'p str>,
    detail: &'p str,
    /// The same sentence under the name that PostgREST's clients read.
    message: &'p str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Option<&'p Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<Option<&'p str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'p Value>,
}

/// The problem that an answer tells, kept beside its bytes, so that a room whose clients expect other words can say it
/// again.
#[derive(Debug, Clone)]
pub(super) struct Told(pub(super) Arc<Problem>);

/// The other words.
#[derive(Debug)]
pub(super) struct Retold<'p> {
    pub(super) status: StatusCode,
    pub(super) code: &'p str,
    /// A text, or whatever those clients know there.
    pub(super) details: Option<&'p Value>,
    /// For programs.
    pub(super) context: Option<&'p Value>,
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
            more: Box::default(),
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
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// Adds the code that the database gave.
    pub fn with_sqlstate(mut self, code: &str) -> Self {
        self.more.sqlstate = Some(code.to_owned());
        self
    }

    /// Adds where in the request it is, for programs: `{"parameter": "or", "at": 10}`.
    pub fn with_place(mut self, place: Value) -> Self {
        self.more.place = Some(place);
        self
    }

    /// Adds a header to the answer.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.more.headers.insert(name, value);
        self
    }

    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The stable identifier.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What happened, in a sentence.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Machine-readable details.
    pub fn details(&self) -> Option<&Value> {
        self.details.as_ref()
    }

    /// The code that the database gave.
    pub fn sqlstate(&self) -> Option<&str> {
        self.more.sqlstate.as_deref()
    }

    /// Where in the request it is.
    pub fn place(&self) -> Option<&Value> {
        self.more.place.as_ref()
    }

    /// The body in other words; the code goes into `reason`.
    pub(super) fn retold(&self, words: &Retold<'_>) -> Vec<u8> {
        let body = Body {
            title: words.status.canonical_reason().unwrap_or("Error"),
            status: words.status.as_u16(),
            code: words.code,
            reason: Some(self.code),
            details: Some(words.details),
            hint: Some(self.hint.as_deref()),
            context: words.context,
            ..self.body()
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }

    fn body(&self) -> Body<'_> {
        Body {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            reason: None,
            detail: &self.detail,
            message: &self.detail,
            details: self.details.as_ref().or(self.place()).map(Some),
            hint: self.hint.as_deref().map(Some),
            context: None,
        }
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
    fn into_response(mut self) -> Response {
        let more = std::mem::take(&mut self.more.headers);
        let body = serde_json::to_vec(&self.body()).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.extend(more);
        response.extensions_mut().insert(Told(Arc::new(self)));
        response
    }
}
