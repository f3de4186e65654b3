//! What the headers of a read say: freshness, the representation's tag, pages; and what a reader's headers ask for.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use sha2::{Digest, Sha256};

use super::Problem;
use super::format::Format;
use super::prefer::Preferences;
use crate::query::Freshness;
use crate::query::catalog::{Readable, Standing};
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
            && let Some(lag) = lag(live, fresh.position, head.safe).await
        {
            answered.set("gobo-lag-seconds", format!("{lag:.3}"));
        }
        if fresh.dead_letters > 0 {
            answered.set("gobo-dead-letters", dead_letters(fresh, min_position));
        }
        answered
    }

    /// Says which preferences were followed, and marks rows that are older than was asked for.
    pub(super) fn applied(&mut self, preferences: &Preferences, is_stale: bool) {
        if is_stale {
            self.set("gobo-stale", "true");
        }
        if let Some(applied) = preferences.applied(is_stale) {
            self.set("preference-applied", applied);
        }
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

    pub(super) fn set(&mut self, name: &'static str, value: impl ToString) {
        // Numbers, and texts that are known to be valid.
        if let Ok(value) = HeaderValue::try_from(value.to_string()) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// Seconds by which the oldest event that is not applied is old. Unknown when the source does not answer.
async fn lag(live: &Readable, position: i64, safe: i64) -> Option<f64> {
    if position >= safe {
        return Some(0.0);
    }
    match (live.upstream.age_after)(position).await {
        Ok(age) => Some(age.unwrap_or_default().as_secs_f64()),
        Err(error) => {
            tracing::debug!(%error, model = live.model.name, "the lag is unknown");
            None
        }
    }
}

/// `3`, or `3; positions="17 23"` for a reader who asked for a position beyond them.
fn dead_letters(fresh: &Freshness, min_position: Option<i64>) -> String {
    let mut text = fresh.dead_letters.to_string();
    if min_position.is_some() && !fresh.dead_positions.is_empty() {
        let positions: Vec<String> = fresh.dead_positions.iter().map(i64::to_string).collect();
        text.push_str(&format!("; positions=\"{}\"", positions.join(" ")));
    }
    text
}

/// What a reader's headers decide about an answer.
pub(super) const VARY: HeaderValue =
    HeaderValue::from_static("accept, accept-profile, prefer, range");

/// `Accept-Profile`: the schema that a reader wants to read from, if it names one; there is only one.
pub(super) fn profile<'h>(
    headers: &'h HeaderMap,
    schema: &str,
) -> Result<Option<&'h str>, Problem> {
    let Some(profile) = headers.get(HeaderName::from_static("accept-profile")) else {
        return Ok(None);
    };
    match profile.to_str() {
        Ok(profile) if profile.trim() == schema => Ok(Some(profile)),
        profile => {
            let shown: String = profile.unwrap_or_default().chars().take(80).collect();
            Err(Problem::new(
                StatusCode::NOT_ACCEPTABLE,
                "unknown_schema",
                format!("Invalid schema: {shown}"),
            )
            .with_hint(format!("Only the following schemas are exposed: {schema}")))
        }
    }
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
    // How rows are written is in the statement.
    add(match format.is_single {
        false => "rows",
        true => "row",
    });
    hash.finalize()[..8]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Whether `If-None-Match` names the tag, compared weakly as RFC 9110 has it.
pub(in crate::api) fn matches(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|candidate| candidate.strip_prefix("W/").unwrap_or(candidate) == tag)
}
