//! Numbers, times and addresses as people read them.

use crate::query::scan::encode;

/// What stands for something unknown.
pub(super) const UNKNOWN: &str = "\u{2013}";

/// The page of a projection.
pub(super) fn projection_path(name: &str) -> String {
    format!("/console/projections/{}", encode(name))
}

/// A whole number with its digits in groups of three.
pub(super) fn number(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut grouped = String::from(if number < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A whole number, if it is known.
pub(super) fn maybe(known: Option<i64>) -> String {
    known.map_or(UNKNOWN.to_owned(), number)
}

/// Seconds as a length of time in one unit.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        ..60.0 => format!("{seconds:.1} s"),
        60.0..3_600.0 => format!("{:.0} min", seconds / 60.0),
        3_600.0..172_800.0 => format!("{:.1} h", seconds / 3_600.0),
        _ => format!("{:.0} days", seconds / 86_400.0),
    }
}

/// A time as PostgreSQL writes it in JSON, to the second.
pub(super) fn moment(at: &str) -> String {
    let second = at.get(..19).unwrap_or(at).replace('T', " ");
    match at.get(19..).and_then(|rest| rest.find(['+', '-', 'Z'])) {
        Some(zone) => format!("{second} {}", &at[19 + zone..]),
        None => second,
    }
}

/// The beginning of a text, and how many bytes were left out.
pub(super) fn beginning(text: &str, most: usize) -> (&str, usize) {
    let shown = &text[..text.floor_char_boundary(most)];
    (shown, text.len() - shown.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (given, expected) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (-1_234_567, "-1,234,567"),
            (i64::MIN, "-9,223,372,036,854,775,808"),
        ] {
            assert_eq!(number(given), expected);
        }
    }

    #[test]
    fn lengths_of_time_have_a_fitting_unit() {
        for (given, expected) in [
            (0.04, "0.0 s"),
            (59.9, "59.9 s"),
            (90.0, "2 min"),
            (5_400.0, "1.5 h"),
            (864_000.0, "10 days"),
        ] {
            assert_eq!(duration(given), expected);
        }
    }

    #[test]
    fn times_are_shown_to_the_second_with_their_zone() {
        for (given, expected) in [
            (
                "2026-01-02T03:04:05.678+00:00",
                "2026-01-02 03:04:05 +00:00",
            ),
            ("2026-01-02T03:04:05-03:30", "2026-01-02 03:04:05 -03:30"),
            ("infinity", "infinity"),
        ] {
            assert_eq!(moment(given), expected);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(beginning("aé", 2), ("a", 2));
        assert_eq!(beginning("aé", 3), ("aé", 0));
    }
}
