//! `Prefer` (RFC 7240): what a reader would like, and what it gets of that.

use axum::http::{HeaderMap, HeaderName};

use super::Problem;
use super::errors::told;
use crate::query::{Place, sql};

/// What a reader would like. The first of several that contradict each other counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Preferences {
    /// How many rows there are in all, pages aside.
    pub(super) count: Option<Count>,
    /// What becomes of preferences that nobody knows.
    pub(super) handling: Option<Handling>,
    /// A stale answer is better than none.
    pub(super) stale_is_ok: bool,
    /// The body is to say what the headers say.
    pub(super) metadata: bool,
}

/// How rows are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Count {
    /// All of them, one by one.
    Exact,
    /// As many as the planner expects.
    Planned,
    /// One by one up to the row limit, and beyond it as many as the planner expects.
    Estimated,
}

impl Count {
    /// For answers of at most so many rows.
    pub(super) fn of_at_most(self, rows: u64) -> sql::Count {
        match self {
            Count::Exact => sql::Count::Exact,
            Count::Planned => sql::Count::Planned,
            Count::Estimated => sql::Count::Estimated { above: rows },
        }
    }
}

/// What becomes of preferences that nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handling {
    /// They are refused.
    Strict,
    /// They are passed over.
    Lenient,
}

/// Preferences that concern writes alone: clients send them with reads as well, and they are nobody's mistake.
const OF_WRITES: [&str; 5] = ["return", "resolution", "missing", "tx", "max-affected"];

impl Preferences {
    /// Reads every `Prefer` header. With `handling=strict`, one that is unknown is refused.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut preferences = Self::default();
        let mut unknown = Vec::new();
        let values = headers.get_all(HeaderName::from_static("prefer"));
        for preference in values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split([',', ';']))
            .map(str::trim)
            .filter(|preference| !preference.is_empty())
        {
            if !preferences.take(preference) {
                unknown.push(preference);
            }
        }
        match preferences.handling {
            Some(Handling::Strict) if !unknown.is_empty() => Err(refused(&unknown)),
            _ => Ok(preferences),
        }
    }

    /// Whether the preference is known.
    fn take(&mut self, preference: &str) -> bool {
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        let name = name.trim().to_ascii_lowercase();
        let value = value.trim().trim_matches('"');
        match (name.as_str(), value) {
            ("count", "exact") => self.count = self.count.or(Some(Count::Exact)),
            ("count", "planned") => self.count = self.count.or(Some(Count::Planned)),
            ("count", "estimated") => self.count = self.count.or(Some(Count::Estimated)),
            ("handling", "strict") => self.handling = self.handling.or(Some(Handling::Strict)),
            ("handling", "lenient") => self.handling = self.handling.or(Some(Handling::Lenient)),
            ("stale", "ok") => self.stale_is_ok = true,
            ("metadata", "") => self.metadata = true,
            (name, _) => return OF_WRITES.contains(&name),
        }
        true
    }

    /// What `Preference-Applied` says. That rows are stale is said where they are.
    pub(super) fn applied(&self, is_stale: bool) -> Option<String> {
        let count = self.count.map(|count| match count {
            Count::Exact => "count=exact",
            Count::Planned => "count=planned",
            Count::Estimated => "count=estimated",
        });
        let handling = self.handling.map(|handling| match handling {
            Handling::Strict => "handling=strict",
            Handling::Lenient => "handling=lenient",
        });
        let metadata = self.metadata.then_some("metadata");
        let stale = is_stale.then_some("stale=ok");
        let applied: Vec<&str> = [count, handling, metadata, stale]
            .into_iter()
            .flatten()
            .collect();
        (!applied.is_empty()).then(|| applied.join(", "))
    }
}

fn refused(unknown: &[&str]) -> Problem {
    let shown: Vec<String> = unknown
        .iter()
        .take(10)
        .map(|preference| preference.chars().take(80).collect())
        .collect();
    Problem::bad_request(
        "invalid_preferences",
        "Invalid preferences given with handling=strict",
    )
    .with_details(format!("Invalid preferences: {}", shown.join(", ")).into())
    .with_hint("leave them out, or leave handling=strict out")
    .with_place(told(&Place::Header("Prefer")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&'static str]) -> Result<Preferences, Problem> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("prefer", value.parse().unwrap());
        }
        Preferences::read(&headers)
    }

    #[test]
    fn preferences_may_stand_in_one_header_or_in_several_and_the_first_counts() {
        for values in [
            &["count=exact, handling=lenient,stale=ok"][..],
            &["count=exact", "handling=lenient; stale=ok"],
            &[
                "COUNT=\"exact\" , count=planned",
                "handling=lenient, handling=strict",
                "stale=ok",
            ],
        ] {
            let preferences = read(values).unwrap();
            assert_eq!(preferences.count, Some(Count::Exact), "{values:?}");
            assert_eq!(
                preferences.applied(true).unwrap(),
                "count=exact, handling=lenient, stale=ok"
            );
        }
        assert_eq!(read(&["return=minimal, x"]).unwrap().applied(false), None);
    }

    #[test]
    fn only_unknown_preferences_are_refused_and_only_when_handling_is_strict() {
        assert!(read(&["handling=strict, count=exact, tx=commit, return=minimal"]).is_ok());
        assert!(read(&["handling=lenient, anything, count=all"]).is_ok());
        for values in [
            &["anything, handling=strict"][..],
            &["handling=strict", "count=all"],
        ] {
            assert_eq!(read(values).unwrap_err().status(), 400, "{values:?}");
        }
    }
}
