//! JSON as PostgreSQL's `jsonb` would give it back: objects sorted by key length and bytes, the last of equal keys,
//! numbers as `numeric` prints them.

use std::collections::HashMap;

use serde_json::value::RawValue;

/// PostgreSQL's own limits of `numeric`: digits before and after the point.
const MAX_INTEGER_DIGITS: i64 = 131_072;
const MAX_SCALE: i64 = 16_383;
/// The depth to which JSON may nest, in events as in rows.
const MAX_DEPTH: usize = 100;

/// Checks that `text` is JSON.
pub fn check_syntax(text: &str) -> Result<(), String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map(|_| ())
        .map_err(|error| format!("not JSON: {error}"))
}

/// Appends the form in which PostgreSQL returns `text` from a `jsonb` column.
pub fn normalize(text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    value(text, out, 0)
}

fn value(text: &str, out: &mut Vec<u8>, depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("JSON nests deeper than {MAX_DEPTH}"));
    }
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    match text.as_bytes().first() {
        Some(b'{') => object(text, out, depth),
        Some(b'[') => array(text, out, depth),
        Some(b'"') => string(&parse::<String>(text)?, out),
        Some(b'-' | b'0'..=b'9') => {
            check_syntax(text)?;
            number(text, out)
        }
        _ => {
            check_syntax(text)?;
            out.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
}

fn parse<'t, T: serde::Deserialize<'t>>(text: &'t str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

fn object(text: &str, out: &mut Vec<u8>, depth: usize) -> Result<(), String> {
    let members: HashMap<String, &RawValue> = parse(text)?;
    let mut members: Vec<_> = members.into_iter().collect();
    members
        .sort_unstable_by(|(a, _), (b, _)| (a.len(), a.as_bytes()).cmp(&(b.len(), b.as_bytes())));
    out.push(b'{');
    for (index, (key, member)) in members.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        string(key, out)?;
        out.extend_from_slice(b": ");
        value(member.get(), out, depth + 1)?;
    }
    out.push(b'}');
    Ok(())
}

fn array(text: &str, out: &mut Vec<u8>, depth: usize) -> Result<(), String> {
    let elements: Vec<&RawValue> = parse(text)?;
    out.push(b'[');
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        value(element.get(), out, depth + 1)?;
    }
    out.push(b']');
    Ok(())
}

fn string(text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            0 => {
                return Err(
                    "JSON contains \\u0000, which PostgreSQL cannot store in jsonb".to_owned(),
                );
            }
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            1..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
    Ok(())
}

/// Writes a JSON number as `numeric` prints it: no exponent, no sign of zero, the digits behind the point that were given.
fn number(text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (
            mantissa,
            exponent
                .parse::<i64>()
                .ok()
                .filter(|e| e.abs() <= MAX_INTEGER_DIGITS * 2)
                .ok_or("a JSON number has an exponent that PostgreSQL's numeric cannot hold")?,
        ),
        None => (text, 0),
    };
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: Vec<u8> = integer.bytes().chain(fraction.bytes()).collect();
    // The point stands behind `point` digits; digits before the first and behind the last are zeros.
    let point = integer.len() as i64 + exponent;
    let scale = (fraction.len() as i64 - exponent).max(0);
    if point > MAX_INTEGER_DIGITS || scale > MAX_SCALE {
        return Err("a JSON number has more digits than PostgreSQL's numeric can hold".to_owned());
    }
    let digit = |index: i64| {
        usize::try_from(index)
            .ok()
            .and_then(|index| digits.get(index))
            .copied()
            .unwrap_or(b'0')
    };
    if negative && digits.iter().any(|&digit| digit != b'0') {
        out.push(b'-');
    }
    let first = (0..point)
        .find(|&index| digit(index) != b'0')
        .unwrap_or(point);
    if first >= point {
        out.push(b'0');
    }
    out.extend((first..point).map(digit));
    if scale > 0 {
        out.push(b'.');
        out.extend((point..point + scale).map(digit));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let mut out = Vec::new();
        normalize(text, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{text}");
    }

    #[test]
    fn normalizes_as_postgresql_does() {
        check(
            r#" {"bb":1,"a":[true, null ,"x\u00e9\/\u001f"],"b":2,"a":{}} "#,
            r#"{"a": {}, "b": 2, "bb": 1}"#,
        );
        check(r#"["a\n\u001f\"\\"]"#, r#"["a\n\u001f\"\\"]"#);
        for (number, expected) in [
            ("1.0", "1.0"),
            ("1e2", "100"),
            ("1.50e1", "15.0"),
            ("1E-3", "0.001"),
            ("-0", "0"),
            ("-0.0", "0.0"),
            ("0e5", "0"),
            ("-1.25e-2", "-0.0125"),
            (
                "123456789012345678901234567890.5",
                "123456789012345678901234567890.5",
            ),
            ("0.00e1", "0.0"),
            ("100e-2", "1.00"),
        ] {
            check(number, expected);
        }
    }

    #[test]
    fn refuses_what_jsonb_cannot_hold() {
        for text in [
            r#""\u0000""#,
            "1e999999",
            "1e-20000",
            "{",
            "01",
            "nul",
            "\"\\ud800\"",
            "",
        ] {
            assert!(normalize(text, &mut Vec::new()).is_err(), "{text}");
        }
    }
}
