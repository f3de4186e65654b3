//! Values: whether a text can be a value of a column's type, judged before the database sees it.
//!
//! What passes is bound in text format, so that PostgreSQL's own input function has the last word. Stricter than that
//! function in one thing: a date that depends on the clock (`now`, `yesterday`) is refused, since the answer would
//! change without a change of the read model.

pub(super) mod array;

use uuid::Uuid;

use crate::read_model::{ColumnType, Scalar};

/// The text to bind for `text`, or why it is no value of the type.
pub(super) fn check(kind: ColumnType, text: &str) -> Result<String, Misfit> {
    let scalar = match kind {
        ColumnType::Array(element) => return elements(element, text).map(array::write),
        ColumnType::Scalar(scalar) => scalar,
    };
    let trimmed = text.trim();
    match scalar {
        Scalar::Bool => {
            let word = trimmed.to_ascii_lowercase();
            match BOOLS.iter().find(|words| words.1.contains(&word.as_str())) {
                Some((value, _)) => Ok((*value).to_owned()),
                None => Err(Misfit("write true or false".into())),
            }
        }
        Scalar::Int2 => integer(trimmed, i16::MIN.into(), i16::MAX.into()),
        Scalar::Int4 => integer(trimmed, i32::MIN.into(), i32::MAX.into()),
        Scalar::Int8 => integer(trimmed, i64::MIN, i64::MAX),
        Scalar::Float4 | Scalar::Float8 | Scalar::Numeric => accept(
            is_number(trimmed),
            trimmed,
            "write a number such as 12.50 or 1e6",
        ),
        Scalar::Text => Ok(text.to_owned()),
        Scalar::Bytea => {
            let hex = trimmed.strip_prefix("\\x").unwrap_or("-");
            let is_hex = hex.len().is_multiple_of(2) && hex.bytes().all(|b| b.is_ascii_hexdigit());
            accept(is_hex, trimmed, "write \\x and pairs of hexadecimal digits")
        }
        Scalar::Uuid => match Uuid::parse_str(trimmed) {
            Ok(uuid) => Ok(uuid.to_string()),
            Err(_) => Err(Misfit(
                "write it as 00000000-0000-0000-0000-000000000000".into(),
            )),
        },
        Scalar::Date => accept(is_date(trimmed), trimmed, "write it as 2026-01-31"),
        Scalar::Timestamptz => accept(
            is_timestamp(trimmed),
            trimmed,
            "write it as 2026-01-31T12:30:00Z; a plus sign is written %2B in a URL",
        ),
        Scalar::Json | Scalar::Jsonb => {
            let parsed = serde_json::from_str::<&serde_json::value::RawValue>(text);
            accept(parsed.is_ok(), text, "write JSON")
        }
    }
}

/// The elements of an array literal, each of which fits.
pub(super) fn elements(kind: Scalar, text: &str) -> Result<Vec<Option<String>>, Misfit> {
    let fit = |element: Option<String>| match element {
        Some(text) => check(ColumnType::Scalar(kind), &text).map(Some),
        None => Ok(None),
    };
    array::read(text)?.into_iter().map(fit).collect()
}

/// What PostgreSQL takes for a truth value.
const BOOLS: [(&str, [&str; 9]); 2] = [
    (
        "true",
        ["true", "tru", "tr", "t", "yes", "ye", "y", "on", "1"],
    ),
    (
        "false",
        ["false", "fals", "fal", "fa", "f", "no", "n", "off", "0"],
    ),
];

/// Why a text is no value of a type: how to write one.
#[derive(Debug)]
pub(super) struct Misfit(pub(super) String);

fn accept(fits: bool, text: &str, hint: &str) -> Result<String, Misfit> {
    match fits {
        true => Ok(text.to_owned()),
        false => Err(Misfit(hint.to_owned())),
    }
}

fn integer(text: &str, least: i64, greatest: i64) -> Result<String, Misfit> {
    match text.parse::<i64>() {
        Ok(number) if (least..=greatest).contains(&number) => Ok(number.to_string()),
        _ => Err(Misfit(format!(
            "write a whole number from {least} to {greatest}"
        ))),
    }
}

/// Digits with an optional sign, point and exponent; or one of the special values.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if ["nan", "infinity", "inf"].contains(&unsigned.to_ascii_lowercase().as_str()) {
        return true;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && exponent.len() <= 6 && digits(exponent)
    });
    exponent_fits && !(whole.is_empty() && fraction.is_empty()) && digits(whole) && digits(fraction)
}

/// `2026-01-31`, with ` BC` or more digits for other ages; or an infinity. Days and months are PostgreSQL's to judge.
fn is_date(text: &str) -> bool {
    if is_infinity(text) {
        return true;
    }
    let text = text.strip_suffix(" BC").unwrap_or(text);
    let parts: Vec<&str> = text.split('-').collect();
    matches!(parts[..], [year, month, day]
        if is_digits(year, 4..=7) && is_digits(month, 2..=2) && is_digits(day, 2..=2))
}

/// A date, and a time of day with an optional offset; without an offset it is UTC.
fn is_timestamp(text: &str) -> bool {
    if is_infinity(text) || is_date(text) {
        return true;
    }
    let text = text.strip_suffix(" BC").unwrap_or(text);
    let Some((date, time)) = text.split_once(['T', ' ']) else {
        return false;
    };
    let (clock, offset) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => time.split_at(at),
        None => (time, "Z"),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let pairs = |text: &str, counts: std::ops::RangeInclusive<usize>| {
        let pairs: Vec<&str> = text.split(':').collect();
        counts.contains(&pairs.len()) && pairs.iter().all(|pair| is_digits(pair, 2..=2))
    };
    let offset_fits = match offset.as_bytes() {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', ..] => pairs(&offset[1..], 1..=3) || is_digits(&offset[1..], 4..=4),
        _ => false,
    };
    is_date(date) && pairs(clock, 2..=3) && is_digits(fraction, 1..=9) && offset_fits
}

fn is_infinity(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    unsigned.eq_ignore_ascii_case("infinity")
}

fn is_digits(text: &str, count: std::ops::RangeInclusive<usize>) -> bool {
    count.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_judged_by_their_columns_type() {
        let check = |kind: &str, text: &str, expected: Option<&str>| {
            let kind: ColumnType = kind.parse().unwrap();
            assert_eq!(check(kind, text).ok().as_deref(), expected, "{kind} {text}");
        };
        check("bool", "TRUE", Some("true"));
        check("bool", "0", Some("false"));
        check("bool", "maybe", None);
        check("int2", "32767", Some("32767"));
        check("int2", "32768", None);
        check("int4", " +7 ", Some("7"));
        check("int8", "-9223372036854775808", Some("-9223372036854775808"));
        check("int8", "9223372036854775808", None);
        check("int8", "1.0", None);
        check("int8", "", None);
        check(
            "numeric",
            "123456789012345678901234567890.12",
            Some("123456789012345678901234567890.12"),
        );
        check("numeric", ".5", Some(".5"));
        check("numeric", "1e9999999", None);
        check("numeric", ".", None);
        check("numeric", "1,5", None);
        check("float8", "-Infinity", Some("-Infinity"));
        check("float8", "NaN", Some("NaN"));
        check("float8", "0x10", None);
        check("text", " ' or 1=1 -- ", Some(" ' or 1=1 -- "));
        check("bytea", "\\xDEad", Some("\\xDEad"));
        check("bytea", "\\x", Some("\\x"));
        check("bytea", "\\xabc", None);
        check("bytea", "abc", None);
        check(
            "uuid",
            "67E5504410B1426F9247BB680E5FE0C8",
            Some("67e55044-10b1-426f-9247-bb680e5fe0c8"),
        );
        check("uuid", "67e55044", None);
        check("date", "2026-01-31", Some("2026-01-31"));
        check("date", "0044-03-15 BC", Some("0044-03-15 BC"));
        check("date", "today", None);
        check("date", "31.01.2026", None);
        check("timestamptz", "now", None);
        check("timestamptz", "infinity", Some("infinity"));
        check("timestamptz", "2026-01-31", Some("2026-01-31"));
        check(
            "timestamptz",
            "2026-01-31T12:30Z",
            Some("2026-01-31T12:30Z"),
        );
        check(
            "timestamptz",
            "2026-01-31 12:30:59.123456+05:30",
            Some("2026-01-31 12:30:59.123456+05:30"),
        );
        check("timestamptz", "2026-01-31T12:30:00 05:30", None);
        check("timestamptz", "2026-01-31T12:30:00é", None);
        check("jsonb", "{\"a\":[1]}", Some("{\"a\":[1]}"));
        check("jsonb", "{a:1}", None);
        check("int4[]", "{1, 2,null}", Some("{\"1\",\"2\",NULL}"));
        check("int4[]", "{1,x}", None);
        check("date[]", "{now}", None);
        check("int4[]", "1,2", None);
    }
}
