//! Names, and JSON paths behind them.
//!
//! ```text
//! path  = name *(("->" | "->>") (key | index))
//! name  = quoted | characters except . , ( ) : " ! and ->
//! index = ["-"] digits
//! ```

use std::fmt;

use super::{Place, Refusal, Scanner};

/// The name of a column or relation, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The name.
    pub text: String,
    /// Where it stands.
    pub place: Place,
}

/// A column, or a place in its JSON, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The column.
    pub name: Name,
    /// The way into its JSON; empty: the column itself.
    pub steps: Vec<Step>,
}

/// One step into JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where it leads.
    pub key: Key,
    /// Whether it gives a text (`->>`) or JSON (`->`).
    pub as_text: bool,
}

/// A place in an object or array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// A member of an object.
    Member(String),
    /// An element of an array, counted from 0; from the end if it is negative.
    Element(i32),
}

impl fmt::Display for Step {
    /// The step as the grammar would say it, whatever is in its key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.as_text { "->>" } else { "->" })?;
        match &self.key {
            Key::Element(index) => write!(f, "{index}"),
            Key::Member(key) => {
                let mut characters = key.chars();
                let is_plain = characters.next().is_some_and(|c| c.is_ascii_alphabetic())
                    && characters.all(|c| c.is_ascii_alphanumeric() || c == '_');
                match is_plain {
                    true => f.write_str(key),
                    false => {
                        let escaped = key.replace('\\', "\\\\").replace('"', "\\\"");
                        write!(f, "\"{escaped}\"")
                    }
                }
            }
        }
    }
}

/// What ends a name or key that is not quoted, besides an arrow.
const STOPS: [char; 7] = ['.', ',', '(', ')', ':', '"', '!'];
const KEY_STOPS: [char; 6] = ['.', ',', '(', ')', ':', '>'];

/// A name with blanks around it.
pub(super) fn name(scanner: &mut Scanner<'_>) -> Result<Name, Refusal> {
    scanner.skip_blanks();
    let place = scanner.place();
    let text = match scanner.quoted()? {
        Some(text) => text,
        None => before_arrow(scanner, &STOPS).trim().to_owned(),
    };
    if text.is_empty() {
        return Err(scanner.refuse("expected a column's name"));
    }
    scanner.skip_blanks();
    Ok(Name { text, place })
}

/// A column, and the way into its JSON.
pub(super) fn path(scanner: &mut Scanner<'_>) -> Result<Path, Refusal> {
    Ok(Path {
        name: name(scanner)?,
        steps: steps(scanner)?,
    })
}

/// The way into a column's JSON, if there is one.
pub(super) fn steps(scanner: &mut Scanner<'_>) -> Result<Vec<Step>, Refusal> {
    let mut steps = Vec::new();
    loop {
        let as_text = scanner.take("->>");
        if !as_text && !scanner.take("->") {
            break;
        }
        steps.push(Step {
            key: key(scanner)?,
            as_text,
        });
    }
    scanner.skip_blanks();
    Ok(steps)
}

fn key(scanner: &mut Scanner<'_>) -> Result<Key, Refusal> {
    let place = scanner.place();
    if let Some(text) = scanner.quoted()? {
        return Ok(Key::Member(text));
    }
    let text = before_arrow(scanner, &KEY_STOPS).trim();
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_index = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let refusal = match text {
        "" => scanner.refuse("expected a key or an index"),
        _ if is_index => match text.parse() {
            Ok(index) => return Ok(Key::Element(index)),
            Err(_) => scanner.refuse("no array has so many elements").at(&place),
        },
        _ if text.starts_with('-') => scanner
            .refuse("an index has digits behind its sign")
            .at(&place),
        _ => return Ok(Key::Member(text.to_owned())),
    };
    Err(refusal.hint("write data->key, data->0 or, with reserved characters, data->\"a key\""))
}

/// The characters before one of `stops` or an arrow.
fn before_arrow<'a>(scanner: &mut Scanner<'a>, stops: &[char]) -> &'a str {
    let rest = scanner.rest();
    let stop = rest.find(stops).unwrap_or(rest.len());
    let arrow = rest.find("->").unwrap_or(rest.len());
    scanner.bytes(stop.min(arrow))
}
