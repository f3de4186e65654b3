//! The characters of a query: percent-decoding, and a scanner that knows where it stands.

use std::time::Duration;

use super::{Limits, Place, Refusal};

/// One parameter of a query string, decoded, with the text that it was written as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter<'q> {
    /// The decoded name.
    pub name: String,
    /// The decoded value.
    pub value: String,
    /// `name=value` as it was written.
    pub raw: &'q str,
}

/// Splits a query string into its parameters.
pub fn parameters<'q>(query: &'q str, limits: &Limits) -> Result<Vec<Parameter<'q>>, Refusal> {
    if query.len() > limits.query_bytes {
        return Err(Refusal::new(
            "query_too_large",
            format!(
                "the query string has {} bytes; at most {} are possible",
                query.len(),
                limits.query_bytes
            ),
            "ask in several queries, each with a part of the values; or for a range of them: id=gte.1&id=lte.1000",
        ));
    }
    let mut parameters = Vec::new();
    for raw in query.split('&').filter(|raw| !raw.is_empty()) {
        let (name, value) = raw.split_once('=').unwrap_or((raw, ""));
        let name = decode(name, Plus::IsSpace)?;
        let value = decode(value, Plus::IsSpace);
        parameters.push(Parameter {
            value: value.map_err(|refusal| refusal.at(&Place::of(&name, 1)))?,
            name,
            raw,
        });
    }
    Ok(parameters)
}

/// What `+` means: a space in query strings, itself in paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plus {
    /// As HTML forms write it.
    IsSpace,
    /// As RFC 3986 has it.
    IsPlus,
}

/// Text as one segment of a path, or as a value in a query.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Reads a duration: `500ms`, `2s`.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().ok()?;
    match &text[digits..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

/// Decodes percent escapes. Refused: malformed escapes, what is not UTF-8, and NUL, which PostgreSQL cannot store.
pub fn decode(text: &str, plus: Plus) -> Result<String, Refusal> {
    let bad = |what: &str, hint: &str| {
        let shown: String = text.chars().take(80).collect();
        let refusal = Refusal::new("invalid_encoding", format!("\"{shown}\" {what}"), hint);
        match plus {
            Plus::IsSpace => refusal,
            Plus::IsPlus => refusal.at(&Place::Path),
        }
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' if plus == Plus::IsSpace => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|b| (b as char).to_digit(16));
                match (digit(), digit()) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => {
                        return Err(bad(
                            "has a % that two hexadecimal digits do not follow",
                            "write a percent sign itself as %25",
                        ));
                    }
                }
            }
            other => other,
        });
    }
    if bytes.contains(&0) {
        return Err(bad(
            "contains a NUL, which no value can contain",
            "leave %00 out: PostgreSQL cannot store it, so nothing has such a value",
        ));
    }
    String::from_utf8(bytes).map_err(|_| {
        bad(
            "is not UTF-8 once it is decoded",
            "encode text as UTF-8 before its bytes are written with percent signs: é is %C3%A9",
        )
    })
}

/// What a value is written as.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// What refusals of it are called.
    pub(super) code: &'static str,
    /// How it is written, for refusals that know no better.
    pub(super) hint: &'static str,
}

/// A place that a scanner can come back to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark(usize);

/// Reads a decoded value from left to right.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    parameter: &'a str,
    text: &'a str,
    at: usize,
    form: Form,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(parameter: &'a str, text: &'a str, form: Form) -> Self {
        Self {
            parameter,
            text,
            at: 0,
            form,
        }
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn is_done(&self) -> bool {
        self.at == self.text.len()
    }

    pub(super) fn place(&self) -> Place {
        Place::of(self.parameter, self.text[..self.at].chars().count() + 1)
    }

    pub(super) fn refuse(&self, message: impl Into<String>) -> Refusal {
        Refusal::new(self.form.code, message, self.form.hint).at(&self.place())
    }

    /// Goes past `token` if it is next.
    pub(super) fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// Goes past `token`, which must be next.
    pub(super) fn expect(&mut self, token: &str) -> Result<(), Refusal> {
        if self.take(token) {
            return Ok(());
        }
        Err(match self.rest().chars().next() {
            Some(found) => self.refuse(format!("expected \"{token}\", found \"{found}\"")),
            None => self.refuse(format!("expected \"{token}\" at the end")),
        })
    }

    /// The next character.
    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Goes past blanks, which may stand around what separates.
    pub(super) fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    /// Goes past `token` with blanks around it, which must be next.
    pub(super) fn expect_spaced(&mut self, token: &str) -> Result<(), Refusal> {
        self.skip_blanks();
        self.expect(token)?;
        self.skip_blanks();
        Ok(())
    }

    /// Goes past `token` with blanks around it if it is next.
    pub(super) fn take_spaced(&mut self, token: &str) -> bool {
        let rest = self.rest().trim_start_matches([' ', '\t']);
        let found = rest.starts_with(token);
        if found {
            self.skip_blanks();
            self.at += token.len();
            self.skip_blanks();
        }
        found
    }

    /// Where it stands, to come back to.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.at)
    }

    /// Comes back.
    pub(super) fn reset(&mut self, mark: Mark) {
        self.at = mark.0;
    }

    /// So many bytes, which end between characters.
    pub(super) fn bytes(&mut self, count: usize) -> &'a str {
        let taken = self.rest().get(..count).unwrap_or_default();
        self.at += taken.len();
        taken
    }

    /// Everything up to one of `stops`, or to the end.
    pub(super) fn until(&mut self, stops: &[char]) -> &'a str {
        let rest = self.rest();
        let taken = &rest[..rest.find(stops).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    /// Everything that is left.
    pub(super) fn all(&mut self) -> &'a str {
        let rest = self.rest();
        self.at = self.text.len();
        rest
    }

    /// A text in double quotes, in which a backslash takes the next character as it is; `None` when there is no quote.
    pub(super) fn quoted(&mut self) -> Result<Option<String>, Refusal> {
        let opening = self.place();
        if !self.take("\"") {
            return Ok(None);
        }
        let mut text = String::new();
        let mut characters = self.rest().char_indices();
        while let Some((offset, character)) = characters.next() {
            match character {
                '"' => {
                    self.at += offset + 1;
                    return Ok(Some(text));
                }
                '\\' => match characters.next() {
                    Some((_, escaped)) => text.push(escaped),
                    None => break,
                },
                other => text.push(other),
            }
        }
        Err(self
            .refuse("this quoted text has no closing quote")
            .hint("end it with \"; a quote or backslash within it is written \\\" and \\\\")
            .at(&opening))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_bad_ones_refused() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(
                decode(text, Plus::IsSpace).ok().as_deref(),
                expected,
                "{text}"
            );
        };
        check("a+b%2Bc", Some("a b+c"));
        check("%C3%A9", Some("é"));
        check("%e2%82%ac", Some("€"));
        check("%C3", None);
        check("%", None);
        check("%4", None);
        check("%zz", None);
        check("%+1", None);
        check("a%00b", None);
        assert_eq!(decode("a+b", Plus::IsPlus).unwrap(), "a+b");
    }

    #[test]
    fn a_query_string_that_is_too_long_is_refused() {
        let limits = Limits {
            query_bytes: 5,
            ..Limits::default()
        };
        assert_eq!(parameters("a=b&c", &limits).unwrap().len(), 2);
        assert_eq!(
            parameters("a=b&cd", &limits).unwrap_err().code,
            "query_too_large"
        );
    }
}
