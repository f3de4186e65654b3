//! What the headers of a read say: freshness, the representation's tag, pages; and what a reader's headers ask for.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;

use super::Problem;
use super::prefer::Preferences;
use crate::query::catalog::{Readable, Standing};
use crate::query::{Freshness, Page};

/// What an answer says of its rows.
#[derive(Debug)]
pub(super) struct Answered {
    facts: Facts,
    headers: HeaderMap,
}

/// The same as the metadata of a body.
#[derive(Debug, Serialize)]
struct Facts {
    position: i64,
    head_position: i64,
    /// Unknown when the source does not answer; what never moves on is not late.
    lag_seconds: Option<f64>,
    generation: i64,
    revision: i64,
    /// The rows are older than was asked for.
    stale: bool,
    dead_letters: i64,
    /// The first of them, up to the position that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dead_positions: Vec<i64>,
}

/// What a body says besides its rows.
#[derive(Debug, Serialize)]
struct Metadata<'a> {
    #[serde(flatten)]
    facts: &'a Facts,
    /// Rows in this answer, and in all, where that was asked for.
    count: u64,
    total: Option<u64>,
    next_cursor: Option<&'a str>,
}

impl Answered {
    pub(super) async fn new(live: &Readable, fresh: &Freshness, min_position: Option<i64>) -> Self {
        let head = live.upstream.head.borrow().head;
        let lag = match live.standing {
            Standing::Live => live.slot.lag(live, fresh.position).await,
            Standing::Past => None,
        };
        let upto = min_position.unwrap_or(i64::MIN);
        let letters = fresh.dead_positions.iter().copied();
        Self {
            facts: Facts {
                position: fresh.position,
                head_position: head.max(fresh.position),
                lag_seconds: lag.map(|lag| (lag.as_secs_f64() * 1e3).round() / 1e3),
                generation: live.generation,
                revision: fresh.revision,
                stale: false,
                dead_letters: fresh.dead_letters,
                dead_positions: letters.filter(|position| *position <= upto).collect(),
            },
            headers: HeaderMap::with_capacity(16),
        }
    }

    /// Says which preferences were followed, and marks rows that are older than was asked for.
    pub(super) fn applied(&mut self, preferences: &Preferences, is_stale: bool) {
        self.facts.stale = is_stale;
        applied(&mut self.headers, preferences, is_stale);
    }

    /// A JSON body with its rows as one member, and what is known of them as the other.
    pub(super) fn around(&self, rows: &[u8], page: &Page) -> Bytes {
        let metadata = Metadata {
            facts: &self.facts,
            count: page.count,
            total: page.total,
            next_cursor: page.next.as_deref(),
        };
        let mut body = Vec::with_capacity(rows.len() + 512);
        body.extend_from_slice(b"{\"data\":");
        body.extend_from_slice(rows);
        body.extend_from_slice(b",\"metadata\":");
        // Numbers and texts: this cannot fail.
        body.extend(serde_json::to_vec(&metadata).unwrap_or_default());
        body.push(b'}');
        body.into()
    }

    /// Adds the headers to a response.
    pub(super) fn with(mut self, mut response: Response, tag: Option<&str>) -> Response {
        let facts = &self.facts;
        let numbers = [
            ("gobo-position", facts.position),
            ("gobo-head-position", facts.head_position),
            ("gobo-generation", facts.generation),
            ("gobo-revision", facts.revision),
        ];
        for (name, value) in numbers {
            let name = HeaderName::from_static(name);
            self.headers.insert(name, HeaderValue::from(value));
        }
        if let Some(lag) = facts.lag_seconds {
            self.set("gobo-lag-seconds", &format!("{lag:.3}"));
        }
        if self.facts.dead_letters > 0 {
            self.set("gobo-dead-letters", &self.facts.dead_letters());
        }
        if let Some(tag) = tag {
            self.set("etag", tag);
        }
        let no_cache = HeaderValue::from_static("no-cache");
        self.headers.insert(header::CACHE_CONTROL, no_cache);
        self.headers.insert(header::VARY, VARY);
        response.headers_mut().extend(self.headers);
        response
    }

    pub(super) fn set(&mut self, name: &'static str, value: &str) {
        set(&mut self.headers, name, value);
    }
}

/// Says which preferences were followed, and marks what is older than was asked for.
pub(super) fn applied(headers: &mut HeaderMap, preferences: &Preferences, is_stale: bool) {
    if let Some(applied) = preferences.applied(is_stale) {
        set(headers, "preference-applied", &applied);
    }
    if is_stale {
        set(headers, "gobo-stale", "true");
    }
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    // Texts that are known to be valid.
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

impl Facts {
    /// `3`, or `3; positions="17 23"` for a reader who asked for a position beyond them.
    fn dead_letters(&self) -> String {
        let mut text = self.dead_letters.to_string();
        let positions: Vec<String> = self.dead_positions.iter().map(i64::to_string).collect();
        if !positions.is_empty() {
            text.push_str(&format!("; positions=\"{}\"", positions.join(" ")));
        }
        text
    }
}

/// What a reader's headers decide about an answer.
pub(super) const VARY: HeaderValue =
    HeaderValue::from_static("accept, accept-profile, prefer, range");

/// What some clients call the schema that is read when nobody says otherwise.
const ALIAS: &str = "public";

/// `Accept-Profile`: the schema that a reader wants to read from, if it names one; there is only one.
pub(super) fn profile<'h>(
    headers: &'h HeaderMap,
    schema: &str,
) -> Result<Option<&'h str>, Problem> {
    let Some(profile) = headers.get(HeaderName::from_static("accept-profile")) else {
        return Ok(None);
    };
    match profile.to_str() {
        Ok(profile) if [schema, ALIAS].contains(&profile.trim()) => Ok(Some(profile)),
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

/// Whether `If-None-Match` names the tag, compared weakly as RFC 9110 has it.
pub(in crate::api) fn matches(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|candidate| strong(candidate) == strong(tag))
}

/// Whether `If-None-Match` names any tag at all.
pub(super) fn matches_any(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::IF_NONE_MATCH).iter();
    values.any(|value| value.as_bytes().trim_ascii() == b"*")
}

fn strong(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}
