//! The media type of an answer: which one a reader gets of those that it accepts.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::Problem;
use crate::query::sql::Lines;

/// How the rows are represented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// How one row is written.
    pub(super) lines: Lines,
    /// Exactly one row, on its own.
    pub(super) is_single: bool,
    /// A stream of events, see [`super::live`].
    pub(super) is_live: bool,
}

const JSON: Format = Format {
    lines: Lines::Json,
    is_single: false,
    is_live: false,
};

/// A range of media types, as `Accept` names it.
struct Accepted {
    name: String,
    /// Columns that are NULL are to be left out.
    strips_nulls: bool,
    /// Thousandths.
    quality: u16,
}

impl Accepted {
    fn read(range: &str) -> Self {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let mut accepted = Self {
            name,
            strips_nulls: false,
            quality: 1_000,
        };
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "nulls" => accepted.strips_nulls = value.trim().trim_matches('"') == "stripped",
                "q" => accepted.quality = quality(value.trim()),
                _ => {}
            }
        }
        accepted
    }

    /// What it stands for here, if anything.
    fn format(&self) -> Option<Format> {
        let lines = match self.strips_nulls {
            true => Lines::Stripped,
            false => Lines::Json,
        };
        let (lines, is_single) = match self.name.as_str() {
            "" | "application/json" | "application/*" | "*/*" => return Some(JSON),
            "text/event-stream" => {
                return Some(Format {
                    is_live: true,
                    ..JSON
                });
            }
            "application/vnd.pgrst.array+json" | "application/vnd.pgrst.array" => (lines, false),
            "application/vnd.pgrst.object+json" | "application/vnd.pgrst.object" => (lines, true),
            "text/csv" | "text/*" => (Lines::Csv, false),
            _ => return None,
        };
        Some(Format {
            lines,
            is_single,
            is_live: false,
        })
    }
}

/// Thousandths of a weight such as `0.8`; one that makes no sense does not count.
fn quality(text: &str) -> u16 {
    let weight: f32 = text.parse().unwrap_or(1.0);
    // A cast of a float saturates, and makes 0 of what is not a number.
    (weight * 1_000.0).clamp(0.0, 1_000.0) as u16
}

impl Format {
    /// The media type that there is and that a reader likes best; of several that it likes the same, the first.
    pub(super) fn negotiate(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut accepted: Vec<Accepted> = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(Accepted::read)
            .collect();
        if accepted.is_empty() {
            return Ok(JSON);
        }
        accepted.sort_by_key(|accepted| std::cmp::Reverse(accepted.quality));
        let found = accepted
            .iter()
            .filter(|accepted| accepted.quality > 0)
            .find_map(Accepted::format);
        found.ok_or_else(|| not_acceptable(&accepted))
    }

    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match (self.lines, self.is_single) {
            (Lines::Json, false) => "application/json; charset=utf-8",
            (Lines::Json, true) => "application/vnd.pgrst.object+json; charset=utf-8",
            (Lines::Stripped, false) => {
                "application/vnd.pgrst.array+json;nulls=stripped; charset=utf-8"
            }
            (Lines::Stripped, true) => {
                "application/vnd.pgrst.object+json;nulls=stripped; charset=utf-8"
            }
            (Lines::Csv, _) => "text/csv; charset=utf-8",
        })
    }
}

fn not_acceptable(accepted: &[Accepted]) -> Problem {
    let names: Vec<&str> = accepted.iter().map(|a| a.name.as_str()).collect();
    let shown: String = names.join(", ").chars().take(200).collect();
    Problem::new(
        StatusCode::NOT_ACCEPTABLE,
        "not_acceptable",
        format!("None of these media types are available: {shown}"),
    )
    .with_hint(
        "accept application/json, application/vnd.pgrst.object+json (one row), text/csv, or the first two with \
         ;nulls=stripped as application/vnd.pgrst.array+json and application/vnd.pgrst.object+json",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiate(values: &[&'static str]) -> Option<HeaderValue> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT, value.parse().unwrap());
        }
        Format::negotiate(&headers).ok().map(Format::content_type)
    }

    #[test]
    fn the_best_liked_of_what_there_is_is_taken() {
        let json = "application/json; charset=utf-8";
        let csv = "text/csv; charset=utf-8";
        let object = "application/vnd.pgrst.object+json; charset=utf-8";
        for (accept, expected) in [
            (&[][..], json),
            (&["*/*"], json),
            (&["text/html, */*;q=0.8"], json),
            (&["text/csv"], csv),
            (&["text/csv;q=0.5, application/json"], json),
            (&["application/json;q=0.1", "text/csv"], csv),
            (&["text/csv, application/json"], csv),
            (&["application/json;q=0, text/csv;q=0.001"], csv),
            (&["Application/VND.pgrst.object+JSON"], object),
            (&["application/vnd.pgrst.object"], object),
            (&["application/vnd.pgrst.array+json"], json),
            (&["application/vnd.pgrst.array"], json),
            (
                &["application/vnd.pgrst.array+json;nulls=stripped"],
                "application/vnd.pgrst.array+json;nulls=stripped; charset=utf-8",
            ),
            (
                &["application/vnd.pgrst.object+json; nulls=stripped; q=1"],
                "application/vnd.pgrst.object+json;nulls=stripped; charset=utf-8",
            ),
        ] {
            assert_eq!(negotiate(accept).unwrap(), expected, "{accept:?}");
        }
        for accept in ["image/png", "application/json;q=0", "text/html, image/*"] {
            assert_eq!(negotiate(&[accept]), None, "{accept}");
        }
    }
}
