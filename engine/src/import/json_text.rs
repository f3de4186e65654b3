//! Whether a JSON text, known to be well formed, can also be stored and queried: the rules of the SQL function
//! `gobo.append`, without a round trip.

/// The deepest nesting of arrays and objects.
const MAX_DEPTH: usize = 100;
/// PostgreSQL's numeric: digits before the point, digits after it (manual, "Numeric Types").
const MAX_INTEGER_DIGITS: i64 = 131_072;
const MAX_FRACTION_DIGITS: i64 = 16_383;

/// Why the text cannot be stored; `None` when it can.
pub(super) fn refusal(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => match string(bytes, at) {
                Ok(end) => at = end,
                Err(reason) => return Some(reason),
            },
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Some(format!("it is nested deeper than {MAX_DEPTH}"));
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'0'..=b'9' => {
                let end = bytes[at..]
                    .iter()
                    .position(|b| !matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
                    .map_or(bytes.len(), |length| at + length);
                let number = &text[at - 1..end];
                if !fits_numeric(number) {
                    return Some(format!("the number {} is out of range", shortened(number)));
                }
                at = end;
            }
            _ => {}
        }
    }
    None
}

/// Passes over a string that begins at `at`, after its quotation mark; returns where it ends.
fn string(bytes: &[u8], mut at: usize) -> Result<usize, String> {
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return Ok(at + 1),
            b'\\' if bytes.get(at + 1) == Some(&b'u') => match escape(bytes, at) {
                Some(0) => {
                    return Err("it contains \\u0000, which PostgreSQL cannot store as text".into());
                }
                Some(0xd800..=0xdbff) if matches!(escape(bytes, at + 6), Some(0xdc00..=0xdfff)) => {
                    at += 12;
                }
                Some(unit @ 0xd800..=0xdfff) => {
                    return Err(format!("it contains the lone surrogate \\u{unit:04x}"));
                }
                _ => at += 6,
            },
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    Ok(at)
}

/// The code unit of the escape `\uXXXX` that begins at `at`, if there is one.
fn escape(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Whether PostgreSQL's numeric, and so jsonb, can hold an unsigned JSON number.
fn fits_numeric(number: &str) -> bool {
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        None if number.len() < MAX_FRACTION_DIGITS as usize => return true,
        None => (number, 0),
        Some((mantissa, exponent)) => match exponent.parse::<i32>() {
            Ok(exponent) => (mantissa, i64::from(exponent)),
            Err(_) => return false,
        },
    };
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
    if length(fraction).saturating_sub(exponent) > MAX_FRACTION_DIGITS {
        return false;
    }
    // Digits before the point, leading zeros not counted.
    let zeros = |text: &str| length(text) - length(text.trim_start_matches('0'));
    let digits = if integer.bytes().any(|b| b != b'0') {
        length(integer) - zeros(integer)
    } else if fraction.bytes().any(|b| b != b'0') {
        -zeros(fraction)
    } else {
        return true;
    };
    digits.saturating_add(exponent) <= MAX_INTEGER_DIGITS
}

fn shortened(number: &str) -> &str {
    &number[..number.len().min(40)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, fits: bool) {
        assert_eq!(refusal(text).is_none(), fits, "{text:.60}");
    }

    #[test]
    fn escapes_that_are_no_text_are_refused() {
        check(r#"{"a":"\u0001\\u0000\"\u00e9"}"#, true);
        check(r#""\ud83d\ude00""#, true);
        check(r#""\u0000""#, false);
        check(r#"{"\u0000":1}"#, false);
        check(r#""\\\u0000""#, false);
        check(r#""\ud83d""#, false);
        check(r#""\ud83dA""#, false);
        check(r#""\ud83d\u0041""#, false);
        check(r#""\ude00\ud83d""#, false);
    }

    #[test]
    fn a_hundred_levels_are_deep_enough() {
        check(&("[".repeat(100) + &"]".repeat(100)), true);
        check(&("[".repeat(101) + &"]".repeat(101)), false);
        check(&("{\"a\":".repeat(101) + "1" + &"}".repeat(101)), false);
        check(&format!("[{}]", vec!["[]"; 200].join(",")), true);
        check(&format!("\"{}\"", "[".repeat(200)), true);
    }

    #[test]
    fn numbers_fit_numeric() {
        for fits in [
            "0",
            "-1.50",
            "1e131071",
            "1e-16383",
            "0.5e131072",
            "0e999999",
            "12E+5",
        ] {
            check(fits, true);
        }
        for too_much in [
            "1e131072",
            "-1e131072",
            "1e-16384",
            "0e-16384",
            "1e99999999999",
            "10e131071",
        ] {
            check(too_much, false);
        }
        check(&"9".repeat(131_072), true);
        check(&"9".repeat(131_073), false);
        check(&format!("0.{}", "0".repeat(16_383)), true);
        check(&format!("0.{}", "0".repeat(16_384)), false);
    }
}
