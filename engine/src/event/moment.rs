//! Moments as text, by the same grammar as the SQL function `gobo.moment`.

use crate::event::Micros;

/// Days from 2000-01-01 to 1970-01-01.
const UNIX_EPOCH: i64 = -10_957;

/// Reads ISO 8601 with an offset, such as `2026-01-31T12:00:00.5+01:00`; more than six decimals are rounded.
pub(crate) fn parse(text: &str) -> Option<Micros> {
    let bytes = text.as_bytes();
    if !text.is_ascii() || bytes.len() < 17 {
        return None;
    }
    if bytes[4] != b'-' || bytes[7] != b'-' || bytes[13] != b':' || !b"Tt ".contains(&bytes[10]) {
        return None;
    }
    let (year, month, day) = (
        digits(&text[..4])?,
        digits(&text[5..7])?,
        digits(&text[8..10])?,
    );
    let (hour, minute) = (digits(&text[11..13])?, digits(&text[14..16])?);
    let mut rest = &text[16..];
    let mut micros = 0;
    if let Some(seconds) = rest.strip_prefix(':') {
        let whole = digits(seconds.get(..2)?)?;
        if whole > 59 {
            return None;
        }
        micros = whole * 1_000_000;
        rest = &seconds[2..];
        if let Some(fraction) = rest.strip_prefix('.') {
            let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if !(1..=9).contains(&length) {
                return None;
            }
            let nanos = digits(&fraction[..length])? * 10_i64.pow(9 - u32::try_from(length).ok()?);
            micros += (nanos + 500) / 1_000;
            rest = &fraction[length..];
        }
    }
    let days = days_since_2000(year, month, day)?;
    if hour > 23 || minute > 59 {
        return None;
    }
    let minutes = (days * 24 + hour) * 60 + minute - offset(rest)?;
    Some(minutes * 60_000_000 + micros)
}

/// Minutes east of UTC.
fn offset(text: &str) -> Option<i64> {
    let sign = match text.bytes().next()? {
        b'Z' | b'z' if text.len() == 1 => return Some(0),
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = match text.len() {
        3 => (&text[1..], "00"),
        5 => (&text[1..3], &text[3..]),
        6 if text.as_bytes()[3] == b':' => (&text[1..3], &text[4..]),
        _ => return None,
    };
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    (hours <= 15 && minutes <= 59).then_some(sign * (hours * 60 + minutes))
}

fn digits(text: &str) -> Option<i64> {
    let number = text.bytes().all(|byte| byte.is_ascii_digit());
    number.then(|| text.parse().ok()).flatten()
}

/// Howard Hinnant's `days_from_civil` for the proleptic Gregorian calendar, years 1 to 9999.
fn days_since_2000(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year == 0 || !(1..=length).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468 + UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_counted_from_2000() {
        let day = 86_400_000_000;
        for (text, micros) in [
            ("2000-01-01T00:00:00Z", 0),
            ("2000-01-01 00:00Z", 0),
            ("2000-01-01T01:30:00+01:30", 0),
            ("2000-01-01t00:00:00.0000005z", 1),
            ("1999-12-31T23:59:59.25-00", -750_000),
            ("1970-01-01T00:00:00Z", -946_684_800_000_000),
            ("2000-03-01T00:00:00+0000", 60 * day),
            ("2024-02-29T00:00:00Z", 0x2279 * day),
        ] {
            assert_eq!(parse(text), Some(micros), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "infinity",
            "now",
            "2000-01-01",
            "2000-01-01T00:00:00",
            "2001-02-29T00:00:00Z",
            "2000-13-01T00:00:00Z",
            "2000-01-01T24:00:00Z",
            "2000-01-01T00:60:00Z",
            "2000-01-01T00:00:60Z",
            "2000-01-01T00:00:00.Z",
            "2000-01-01T00:00:00+16:00",
            "0000-01-01T00:00:00Z",
            "2000-01-01T00:00:00ZZ",
            "2000-01-01T00:00:0",
            "2000-01-0\u{e9}T00:00:00Z",
            "20000-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
