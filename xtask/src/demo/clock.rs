//! Instants as microseconds since 1970, and their text. The demo needs no calendar library for that.

/// Microseconds in one minute.
pub(crate) const MINUTE: i64 = 60_000_000;

/// Microseconds in one day.
pub(crate) const DAY: i64 = 24 * 60 * MINUTE;

/// `2026-01-05T08:00:00.000000Z`
pub(crate) fn text(micros: i64) -> String {
    let (days, rest) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    let (year, month, day) = date(days);
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// The instant in RFC 3339 text, or `None` when it is anything else.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (day, time) = (text.get(..10)?, text.get(11..)?);
    let mut parts = day.split('-').map(|part| part.parse::<i64>().ok());
    let days = days(parts.next()??, parts.next()??, parts.next()??);
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (clock, offset) = time.split_at(zone);
    let mut parts = clock.splitn(3, ':');
    let (hour, minute) = (
        parts.next()?.parse::<i64>().ok()?,
        parts.next()?.parse::<i64>().ok()?,
    );
    let (second, fraction) = parts
        .next()?
        .split_once('.')
        .unwrap_or_else(|| (clock.get(6..).unwrap_or(""), ""));
    let micros: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    let local = days * DAY
        + (hour * 60 + minute) * MINUTE
        + second.parse::<i64>().ok()? * 1_000_000
        + micros;
    Some(local - offset_micros(offset)?)
}

fn offset_micros(offset: &str) -> Option<i64> {
    let sign = match offset.as_bytes().first()? {
        b'Z' | b'z' => return Some(0),
        b'-' => -1,
        _ => 1,
    };
    let (hours, minutes) = offset[1..].split_once(':').unwrap_or((&offset[1..], "0"));
    Some(sign * (hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?) * MINUTE)
}

/// Year, month and day of a day since 1970; Howard Hinnant's `civil_from_days`.
fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The reverse, `days_from_civil`.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_instant_is_the_same_instant() {
        let expected = Some(1_767_600_000_000_000);
        for spelling in [
            "2026-01-05T08:00:00Z",
            "2026-01-05T08:00:00.000000Z",
            "2026-01-05 08:00:00+00",
            "2026-01-05T09:30:00.0+01:30",
            "2026-01-05T05:00:00-03:00",
        ] {
            assert_eq!(parse(spelling), expected, "{spelling}");
        }
        assert_eq!(
            parse("2024-02-29T23:59:59.000001Z").map(text).as_deref(),
            Some("2024-02-29T23:59:59.000001Z")
        );
        assert_eq!(parse("next Tuesday"), None);
    }
}
