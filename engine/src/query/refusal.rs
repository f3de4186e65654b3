//! Why a query is refused: what is wrong, where, and how to mend it. There is no refusal without all three.

use std::fmt;

/// Why a query is refused: always the reader's to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A stable identifier, such as `unknown_column`.
    pub code: &'static str,
    /// What is wrong, in a sentence.
    pub message: String,
    /// How to mend it.
    pub hint: String,
    /// Where it is.
    pub place: Place,
    /// What there is to choose from, for programs.
    pub details: Option<Box<serde_json::Value>>,
}

/// A place in what a reader sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a parameter.
    Parameter {
        /// The parameter's name, or the beginning of a long one.
        name: String,
        /// The character in the parameter's decoded value, counted from 1.
        at: usize,
    },
    /// In no single parameter.
    Query,
    /// Before the question mark.
    Path,
    /// In a header.
    Header(&'static str),
}

/// Characters of a parameter's name in a place.
const SHOWN: usize = 80;

impl Place {
    /// A character in a parameter's decoded value, counted from 1.
    pub(crate) fn of(parameter: &str, at: usize) -> Self {
        match parameter {
            "" => Place::Query,
            name => Place::Parameter {
                name: name.chars().take(SHOWN).collect(),
                at,
            },
        }
    }
}

impl Refusal {
    /// It is somewhere in the query string until [`Self::at`] says where.
    pub(crate) fn new(
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            code,
            message: message.into(),
            hint: hint.into(),
            place: Place::Query,
            details: None,
        }
    }

    /// The same with a better hint.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    pub(crate) fn at(mut self, place: &Place) -> Self {
        self.place = place.clone();
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.place {
            Place::Parameter { name, at } => write!(f, " (parameter {name}, character {at})"),
            // The sentence says it.
            Place::Query | Place::Path | Place::Header(_) => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}
