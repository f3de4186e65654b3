//! What the headers of a read say: freshness, the representation's tag, pages; and what a reader's headers ask for.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use sha2::{Digest, Sha256};

use super::Problem;
use crate::query::Freshness;
use crate::query::catalog::{Readable, Standing};
use crate::query::plan::Plan;
use crate::query::scan::Parameter;
use crate::query::sql::Statement;

/// What an answer says besides its body.
#[derive(Debug)]
pub(super) struct Answered {
    headers: HeaderMap,
}

impl Answered {
    pub(super) async fn new(live: &Readable, fresh: &Freshness, min_position: Option<i64>) -> Self {
        let head = *live.upstream.head.borrow();
        let mut answered = Self {
            headers: HeaderMap::new(),
        };
        answered.set("gobo-position", fresh.position);
        answered.set("gobo-head-position", head.head.max(fresh.position));
        answered.set("gobo-generation", live.generation);
        answered.set("gobo-revision", fresh.revision);
        // What never moves on is not late.
        if live.standing == Standing::Live
            && let Some(lag) = live.slot.lag(live, fresh.position).await
        {
            answered.set("gobo-lag-seconds", format!("{:.3}", lag.as_secs_f64()));
        }
        if fresh.dead_letters > 0 {
            answered.set("gobo-dead-letters", dead_letters(fresh, min_position));
        }
        answered
    }

    /// Marks rows that are older than was asked for.
    pub(super) fn stale(mut self) -> Self {
        self.set("gobo-stale", "true");
        self.set("preference-applied", "stale=ok");
        self
    }

    /// Adds the headers to a response.
    pub(super) fn with(mut self, mut response: Response, tag: Option<&str>) -> Response {
        if let Some(tag) = tag {
            self.set("etag", tag);
        }
        self.set("cache-control", "no-cache");
        response.headers_mut().extend(self.headers);
        response
    }

    fn set(&mut self, name: &'static str, value: impl ToString) {
        // Numbers, and texts of our own making: always valid.
        if let Ok(value) = HeaderValue::try_from(value.to_string()) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// `3`, or `3; positions="17 23"` for a reader who asked for a position beyond them.
fn dead_letters(fresh: &Freshness, min_position: Option<i64>) -> String {
    let mut text = fresh.dead_letters.to_string();
    let upto = min_position.unwrap_or(i64::MIN);
    let positions = fresh.dead_positions.iter().filter(|p| **p <= upto);
    let positions: Vec<String> = positions.map(i64::to_string).collect();
    if !positions.is_empty() {
        text.push_str(&format!("; positions=\"{}\"", positions.join(" ")));
    }
    text
}

/// How the rows are represented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// An array of rows, or the row that a key names.
    Json,
    /// Exactly one row.
    Object,
}

const OBJECT: &str = "application/vnd.pgrst.object+json";

impl Format {
    /// The first media type that a reader accepts and that there is.
    pub(super) fn negotiate(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut accepted = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .peekable();
        if accepted.peek().is_none() {
            return Ok(Format::Json);
        }
        accepted
            .find_map(|range| {
                let range = range.split(';').next().unwrap_or_default().trim();
                match range.to_ascii_lowercase().as_str() {
                    OBJECT => Some(Format::Object),
                    "application/json" | "application/*" | "*/*" => Some(Format::Json),
                    _ => None,
                }
            })
            .ok_or_else(|| {
                Problem::new(
                    StatusCode::NOT_ACCEPTABLE,
                    "not_acceptable",
                    "rows are not available in any of the accepted media types",
                )
                .with_hint(format!("accept application/json or {OBJECT}"))
            })
    }

    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Format::Json => "application/json; charset=utf-8",
            Format::Object => "application/vnd.pgrst.object+json; charset=utf-8",
        })
    }
}

/// Whether a reader prefers old rows to none.
pub(super) fn prefers_stale(headers: &HeaderMap) -> bool {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']))
        .any(|preference| preference.trim().eq_ignore_ascii_case("stale=ok"))
}

/// Identifies what a query shows, the revision aside: the same for the same statement and values only.
pub(super) fn representation(statement: &Statement, format: Format) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    add(&statement.text);
    // The first three say which generation and freshness are meant, not which rows.
    for bound in statement.parameters.iter().skip(3) {
        add(bound.text.as_deref().unwrap_or_default());
    }
    add(match format {
        Format::Json => "json",
        Format::Object => "object",
    });
    hash.finalize()[..8]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Whether `If-None-Match` names the tag, compared weakly as RFC 9110 has it.
pub(super) fn matches(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|candidate| candidate.strip_prefix("W/").unwrap_or(candidate) == tag)
}

/// Which rows these are, and where the next ones are.
pub(super) fn page(
    headers: &mut HeaderMap,
    uri: &Uri,
    parameters: &[Parameter<'_>],
    plan: &Plan<'_>,
    count: u64,
    next: Option<&str>,
) {
    // After a cursor nobody knows how many rows came before.
    if plan.after.is_none() {
        let offset = plan.offset.unsigned_abs();
        let range = match count {
            0 => "*/*".to_owned(),
            count => format!("{offset}-{}/*", offset + count - 1),
        };
        if let Ok(range) = HeaderValue::try_from(range) {
            headers.insert(header::CONTENT_RANGE, range);
        }
    }
    let Some(next) = next else { return };
    let kept = parameters
        .iter()
        .filter(|parameter| !["cursor", "offset"].contains(&parameter.name.as_str()))
        .map(|parameter| parameter.raw);
    let query: Vec<&str> = kept.collect();
    let separator = if query.is_empty() { "" } else { "&" };
    let link = format!(
        "<{}?{}{separator}cursor={next}>; rel=\"next\"",
        uri.path(),
        query.join("&")
    );
    for (name, value) in [
        (header::LINK, link.as_str()),
        (HeaderName::from_static("gobo-next-cursor"), next),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}
