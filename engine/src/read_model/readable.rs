//! Values as JSON for people, as PostgreSQL's `to_json` would write them.

use std::fmt::Write;

use super::{ColumnType, Scalar};
use crate::event::Micros;
use crate::frame::{Field, Reader};

/// Days from 0000-03-01, where the calendar's 400 years begin, to 2000-01-01.
const DAYS_BEFORE_2000: i64 = 730_425;
const DAY: i64 = 86_400_000_000;

/// Appends a field as JSON. What does not follow the rules of its type is written as its bytes.
pub fn write_json(json: &mut String, field: Field<'_>, kind: ColumnType) {
    let Some(bytes) = field else {
        json.push_str("null");
        return;
    };
    let before = json.len();
    let written = match kind {
        ColumnType::Scalar(scalar) => write_scalar(json, bytes, scalar),
        ColumnType::Array(scalar) => write_array(json, bytes, scalar),
    };
    if written.is_none() {
        json.truncate(before);
        write_bytes(json, bytes);
    }
}

/// Appends text as a JSON string.
pub fn write_string(json: &mut String, text: &str) {
    // Text is always JSON.
    json.push_str(&serde_json::to_string(text).unwrap_or_default());
}

fn write_scalar(json: &mut String, bytes: &[u8], kind: Scalar) -> Option<()> {
    let text = |bytes| std::str::from_utf8(bytes).ok();
    match kind {
        Scalar::Bool => json.push_str(if *bytes == [0] { "false" } else { "true" }),
        Scalar::Int2 => push(json, i16::from_be_bytes(bytes.try_into().ok()?)),
        Scalar::Int4 => push(json, i32::from_be_bytes(bytes.try_into().ok()?)),
        Scalar::Int8 => push(json, i64::from_be_bytes(bytes.try_into().ok()?)),
        Scalar::Float4 => {
            let number = f32::from_be_bytes(bytes.try_into().ok()?);
            write_float(json, number.is_finite(), &number, number)?;
        }
        Scalar::Float8 => {
            let number = f64::from_be_bytes(bytes.try_into().ok()?);
            write_float(json, number.is_finite(), &number, number)?;
        }
        Scalar::Numeric => write_numeric(json, bytes)?,
        Scalar::Text => write_string(json, text(bytes)?),
        Scalar::Bytea => write_bytes(json, bytes),
        Scalar::Uuid => write_string(json, &uuid::Uuid::from_slice(bytes).ok()?.to_string()),
        Scalar::Date => {
            let days = i32::from_be_bytes(bytes.try_into().ok()?);
            let (date, era) = date(i64::from(days));
            push(json, format_args!("\"{date}{era}\""));
        }
        Scalar::Timestamptz => {
            let micros = i64::from_be_bytes(bytes.try_into().ok()?);
            push(json, format_args!("\"{}\"", moment(micros)));
        }
        Scalar::Json => json.push_str(text(bytes)?),
        Scalar::Jsonb => json.push_str(text(bytes.get(1..)?)?),
    }
    Some(())
}

/// A moment as text: ISO 8601, UTC.
pub fn moment(micros: Micros) -> String {
    let (date, era) = date(micros.div_euclid(DAY));
    let of_day = micros.rem_euclid(DAY);
    let (seconds, fraction) = (of_day / 1_000_000, of_day % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let fraction = match fraction {
        0 => String::new(),
        _ => format!(".{fraction:06}").trim_end_matches('0').to_owned(),
    };
    format!("{date}T{hours:02}:{minutes:02}:{seconds:02}{fraction}+00:00{era}")
}

/// Howard Hinnant's `civil_from_days` for the proleptic Gregorian calendar, and what PostgreSQL adds before the year 1.
fn date(days_since_2000: i64) -> (String, &'static str) {
    let days = days_since_2000 + DAYS_BEFORE_2000;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (year, suffix) = if year > 0 {
        (year, "")
    } else {
        (1 - year, " BC")
    };
    (format!("{year:04}-{month:02}-{day:02}"), suffix)
}

fn write_float(
    json: &mut String,
    is_finite: bool,
    number: &impl serde::Serialize,
    shown: impl std::fmt::Display,
) -> Option<()> {
    match is_finite {
        true => json.push_str(&serde_json::to_string(number).ok()?),
        false => write_string(json, &shown.to_string()),
    }
    Some(())
}

/// Digits in groups of four around the decimal point; the contract's numerics are finite.
fn write_numeric(json: &mut String, bytes: &[u8]) -> Option<()> {
    let (words, _) = bytes.as_chunks::<2>();
    let words: Vec<i16> = words.iter().copied().map(i16::from_be_bytes).collect();
    let [_, weight, sign, scale, digits @ ..] = words.as_slice() else {
        return None;
    };
    let group = |place: i32| {
        let digit = usize::try_from(i32::from(*weight) - place).ok();
        digit.and_then(|index| digits.get(index)).copied()
    };
    if *sign != 0 {
        json.push('-');
    }
    let whole: String = (0..=i32::from(*weight).max(0))
        .rev()
        .map(|place| format!("{:04}", group(place).unwrap_or(0)))
        .collect();
    match whole.trim_start_matches('0') {
        "" => json.push('0'),
        whole => json.push_str(whole),
    }
    let scale = usize::try_from(*scale).ok()?;
    if scale > 0 {
        let groups = i32::try_from(scale.div_ceil(4)).ok()?;
        let decimals: String = (1..=groups)
            .map(|place| format!("{:04}", group(-place).unwrap_or(0)))
            .collect();
        push(json, format_args!(".{}", decimals.get(..scale)?));
    }
    Some(())
}

fn write_array(json: &mut String, bytes: &[u8], element: Scalar) -> Option<()> {
    json.push('[');
    // An empty array is its header alone; else the elements follow one dimension's length and lower bound.
    let mut reader = Reader::new(bytes.get(20..).unwrap_or_default());
    let mut first = true;
    while !reader.is_at_end() {
        if !std::mem::take(&mut first) {
            json.push(',');
        }
        write_json(json, reader.field().ok()?, ColumnType::Scalar(element));
    }
    json.push(']');
    Some(())
}

fn write_bytes(json: &mut String, bytes: &[u8]) {
    json.push_str("\"\\\\x");
    for byte in bytes {
        push(json, format_args!("{byte:02x}"));
    }
    json.push('"');
}

fn push(json: &mut String, what: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = write!(json, "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
        let (pairs, _) = digits.as_chunks::<2>();
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        pairs.iter().map(|pair| byte(pair).unwrap()).collect()
    }

    #[test]
    fn values_read_as_postgresql_writes_them() {
        // The first ones are FRAMES.md's vectors.
        for (kind, bytes, expected) in [
            (
                "numeric",
                "0003 0001 4000 0004 0001 0929 1a7c",
                "-12345.6780",
            ),
            ("numeric", "0000 0000 0000 0002", "0.00"),
            ("numeric", "0001 ffff 0000 0004 0001", "0.0001"),
            ("numeric", "0001 0002 0000 0000 0007", "700000000"),
            ("numeric", "0001 fffe 0000 0006 0064", "0.000001"),
            ("date", "00002279", "\"2024-02-29\""),
            ("date", "ffffffff", "\"1999-12-31\""),
            ("date", "fff4dbf8", "\"0001-12-31 BC\""),
            (
                "timestamptz",
                "fffffffffff0bdc0",
                "\"1999-12-31T23:59:59+00:00\"",
            ),
            (
                "timestamptz",
                "0000000000000001",
                "\"2000-01-01T00:00:00.000001+00:00\"",
            ),
            ("jsonb", "01 7b2261223a20317d", "{\"a\": 1}"),
            (
                "text[]",
                "00000001 00000001 00000019 00000002 00000001 00000001 61 ffffffff",
                "[\"a\",null]",
            ),
            ("int4[]", "00000000 00000000 00000017", "[]"),
            ("int8", "ffffffffffffffff", "-1"),
            ("bool", "01", "true"),
            ("float8", "7ff8000000000000", "\"NaN\""),
            ("float8", "3ff8000000000000", "1.5"),
            ("float4", "3dcccccd", "0.1"),
            ("bytea", "00ff", "\"\\\\x00ff\""),
            ("text", "6122", "\"a\\\"\""),
            (
                "uuid",
                "00000000000000000000000000000001",
                "\"00000000-0000-0000-0000-000000000001\"",
            ),
            // Not what the type promises.
            ("int8", "01", "\"\\\\x01\""),
        ] {
            let mut json = String::new();
            write_json(&mut json, Some(&hex(bytes)), kind.parse().unwrap());
            assert_eq!(json, expected, "{kind} {bytes}");
        }
        let mut json = String::new();
        write_json(&mut json, None, "text".parse().unwrap());
        assert_eq!(json, "null");
    }
}
