//! `as_of`: which point in the past a query is about.

use std::fmt;

use super::scan::{Parameter, encode};
use super::{Place, Refusal};
use crate::event::{Micros, Position, moment};

/// The name of the parameter.
const NAME: &str = "as_of";
/// Bytes of a label: it is part of names that people type.
const LABEL: usize = 63;

/// A point in the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AsOf {
    /// After the event at this position.
    Position(Position),
    /// Before the first event that was stored later. The text is as it was given.
    Time(Micros, String),
    /// Where the generation of this name is.
    Label(String),
}

impl AsOf {
    /// Reads digits, a moment with its offset from UTC, or a label.
    pub fn parse(text: &str) -> Option<Self> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().map(Self::Position);
        }
        if is_label(text) {
            return Some(Self::Label(text.to_owned()));
        }
        moment::parse(text).map(|micros| Self::Time(micros, text.to_owned()))
    }
}

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Position(position) => write!(f, "position {position}"),
            Self::Time(_, text) => f.write_str(text),
            Self::Label(label) => write!(f, "\"{label}\""),
        }
    }
}

/// Where it stands in a query.
pub fn place() -> Place {
    Place::of(NAME, 1)
}

/// Whether a generation can be called so: a letter, then letters, digits, `_` and `-`, all in lower case.
pub fn is_label(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && text.len() <= LABEL
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
}

/// The point in the past that a query is about, if it is about one.
pub fn find(parameters: &[Parameter<'_>]) -> Result<Option<AsOf>, Refusal> {
    let Some(parameter) = parameters.iter().find(|p| p.name == NAME) else {
        return Ok(None);
    };
    let fresh = ["min_position", "max_lag"];
    if let Some(other) = parameters.iter().find(|p| fresh.contains(&p.name.as_str())) {
        return Err(Refusal::new(
            "unsupported_parameter",
            format!(
                "as_of and {} exclude each other: what is asked for as of a point in the past never moves on",
                other.name
            ),
            "leave one of them out",
        )
        .at(&Place::of(&other.name, 1)));
    }
    match AsOf::parse(&parameter.value) {
        Some(as_of) => Ok(Some(as_of)),
        None => {
            let shown: String = parameter.value.chars().take(80).collect();
            let message = format!("\"{shown}\" is no position, no time and no label");
            Err(Refusal::new("invalid_as_of", message, format!(
                    "write a position (1234), a time with its offset ({}), or a label (before-the-sale); \
                     a plus sign is written %2B in a URL",
                    "2026-01-31T12:30:00Z"
                ))
                .at(&place()))
        }
    }
}

/// The same as the value of a URL's parameter.
pub fn encoded(as_of: &AsOf) -> String {
    match as_of {
        AsOf::Position(position) => position.to_string(),
        AsOf::Time(_, text) | AsOf::Label(text) => encode(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_in_the_past_is_a_position_a_time_or_a_label() {
        let check = |text: &str, expected: Option<AsOf>| assert_eq!(AsOf::parse(text), expected);
        let time = |micros, text: &str| Some(AsOf::Time(micros, text.into()));
        check("0", Some(AsOf::Position(0)));
        check("1234", Some(AsOf::Position(1234)));
        check("99999999999999999999", None);
        check("-1", None);
        check(
            "2000-01-01T00:00:01Z",
            time(1_000_000, "2000-01-01T00:00:01Z"),
        );
        check(
            "2000-01-01T01:00:00+01:00",
            time(0, "2000-01-01T01:00:00+01:00"),
        );
        check("2000-01-01T01:00:00", None);
        check(
            "before-the-sale_2",
            Some(AsOf::Label("before-the-sale_2".into())),
        );
        check("Before", None);
        check("", None);
        check(&"a".repeat(63), Some(AsOf::Label("a".repeat(63))));
        check(&"a".repeat(64), None);
    }
}
