//! JSON as PostgreSQL's `jsonb` writes it (`jsonb_out`, `numeric_out` and `escape_json` in its sources).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Error, Result};

/// The event store refuses deeper nesting, so nothing in a row needs it.
const DEEPEST: usize = 100;
/// `numeric` has at most so many digits before and after the point.
const MOST_WHOLE_DIGITS: i64 = 131_072;
const MOST_FRACTION_DIGITS: i64 = 16_383;

pub(super) fn write(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    value(serde_json::from_str(text)?, DEEPEST, &mut out)?;
    Ok(out)
}

/// A member's name, borrowed where it holds no escapes.
#[derive(Deserialize, PartialEq, Eq)]
struct Name<'n>(#[serde(borrow)] Cow<'n, str>);

impl Ord for Name<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.len(), self.0.as_bytes()).cmp(&(other.0.len(), other.0.as_bytes()))
    }
}

impl PartialOrd for Name<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn value(raw: &RawValue, depth: usize, out: &mut String) -> Result {
    let text = raw.get();
    if depth == 0 {
        return Err(Error::new("JSON nested deeper than 100"));
    }
    match text.as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<Name<'_>, &RawValue> = serde_json::from_str(text)?;
            let mut separator = "";
            out.push('{');
            for (name, member) in members {
                out.push_str(separator);
                string(&name.0, out)?;
                out.push_str(": ");
                value(member, depth - 1, out)?;
                separator = ", ";
            }
            out.push('}');
            Ok(())
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(text)?;
            let mut separator = "";
            out.push('[');
            for element in elements {
                out.push_str(separator);
                value(element, depth - 1, out)?;
                separator = ", ";
            }
            out.push(']');
            Ok(())
        }
        Some(b'"') => string(&serde_json::from_str::<Name<'_>>(text)?.0, out),
        Some(b'-' | b'0'..=b'9') => number(text, out),
        _ => {
            out.push_str(text);
            Ok(())
        }
    }
}

fn string(text: &str, out: &mut String) -> Result {
    out.push('"');
    for character in text.chars() {
        match character {
            '\0' => return Err(Error::new("PostgreSQL cannot store U+0000 in jsonb")),
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing to a String cannot fail.
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    Ok(())
}

/// A number without exponent, its digits after the point kept: 1.50e1 is 15.0.
fn number(text: &str, out: &mut String) -> Result {
    let too_large = || Error::new(format_args!("the number {text:.40} does not fit a jsonb"));
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (digits, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (
            &unsigned[..at],
            unsigned[at + 1..].parse::<i32>().map_err(|_| too_large())?,
        ),
        None => (unsigned, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let significant = format!("{whole}{fraction}");
    let zero = significant.bytes().all(|digit| digit == b'0');
    let scale = (fraction.len() as i64 - i64::from(exponent)).max(0);
    // Where the point stands, counted from the first digit.
    let point = whole.len() as i64 + i64::from(exponent);
    if scale > MOST_FRACTION_DIGITS || (!zero && point > MOST_WHOLE_DIGITS) {
        return Err(too_large());
    }
    if negative && !zero {
        out.push('-');
    }
    let digit = |place: i64| {
        let digit = usize::try_from(place)
            .ok()
            .and_then(|place| significant.as_bytes().get(place));
        char::from(digit.copied().unwrap_or(b'0'))
    };
    let first = (0..point).find(|place| digit(*place) != '0');
    match first {
        Some(first) if !zero => out.extend((first..point).map(digit)),
        _ => out.push('0'),
    }
    if scale > 0 {
        out.push('.');
        out.extend((point..point + scale).map(digit));
    }
    Ok(())
}
