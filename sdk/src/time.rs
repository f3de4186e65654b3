//! Moments and days: [`Timestamp`], [`Date`].

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::column::{ColumnType, Scalar};
use crate::frame::fixed;
use crate::{Error, Result};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Days from 0000-03-01, where the calendar arithmetic begins, to 2000-01-01.
const DAYS_TO_2000: i64 = 730_425;
/// The range of PostgreSQL: 4713-11-24 BC to 294276-12-31 and to 5874897-12-31.
const TIMESTAMPS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;
const DATES: std::ops::Range<i32> = -2_451_545..2_145_031_949;

/// A moment, to the microsecond. Stored as `timestamptz`; reads and writes RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since 2000-01-01 00:00:00 UTC, PostgreSQL's own count.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 2000-01-01 00:00:00 UTC.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// From milliseconds since 1970-01-01 00:00:00 UTC, the count of many producers.
    #[must_use]
    pub const fn from_unix_millis(millis: i64) -> Self {
        Self(
            millis
                .saturating_mul(1000)
                .saturating_sub(946_684_800 * SECOND),
        )
    }

    /// Reads RFC 3339: `2024-02-29T12:30:00.25Z`, `2024-02-29 12:30:00+01:00`. What is finer than a
    /// microsecond is refused.
    pub fn parse(text: &str) -> Result<Self> {
        parse_timestamp(text).ok_or_else(|| {
            Error::new(format_args!(
                "{text:?} is not an RFC 3339 time to the microsecond"
            ))
        })
    }

    /// The day, in UTC.
    #[must_use]
    pub fn date(self) -> Date {
        // The quotient of any i64 by the microseconds of a day fits.
        Date(self.0.div_euclid(DAY) as i32)
    }

    /// The beginning of the minute.
    #[must_use]
    pub const fn truncate_to_minute(self) -> Self {
        self.truncate(MINUTE)
    }

    /// The beginning of the hour, in UTC.
    #[must_use]
    pub const fn truncate_to_hour(self) -> Self {
        self.truncate(HOUR)
    }

    /// The beginning of the day, in UTC.
    #[must_use]
    pub const fn truncate_to_day(self) -> Self {
        self.truncate(DAY)
    }

    /// The time from `earlier` to `self`, or nothing when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<Duration> {
        (self >= earlier).then(|| Duration::from_micros(self.0.abs_diff(earlier.0)))
    }

    const fn truncate(self, unit: i64) -> Self {
        Self(self.0 - self.0.rem_euclid(unit))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Arithmetic stops at the ends of the range; what PostgreSQL cannot store is refused when the row is written.
impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(micros(rhs)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(micros(rhs)))
    }
}

impl AddAssign<Duration> for Timestamp {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl SubAssign<Duration> for Timestamp {
    fn sub_assign(&mut self, rhs: Duration) {
        *self = *self - rhs;
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.0.rem_euclid(DAY);
        let (hour, minute, second) = (time / HOUR, time / MINUTE % 60, time / SECOND % 60);
        write!(f, "{}T{hour:02}:{minute:02}:{second:02}", self.date())?;
        let fraction = time % SECOND;
        if fraction != 0 {
            let digits = format!("{fraction:06}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Scalar for Timestamp {
    const TYPE: ColumnType = ColumnType::Timestamptz;

    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        Ok(Self(i64::from_be_bytes(fixed(bytes)?)))
    }

    #[inline]
    fn check(&self) -> Result {
        if !TIMESTAMPS.contains(&self.0) {
            return Err(Error::new("a time outside of PostgreSQL's range"));
        }
        Ok(())
    }
}

/// A day. Stored as `date`; reads and writes `2024-02-29`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Date(i32);

impl Date {
    /// From days since 2000-01-01, PostgreSQL's own count.
    #[must_use]
    pub const fn from_days(days: i32) -> Self {
        Self(days)
    }

    /// Days since 2000-01-01.
    #[must_use]
    pub const fn days(self) -> i32 {
        self.0
    }

    /// A day of the Gregorian calendar, or nothing when there is no such day.
    #[must_use]
    pub fn new(year: i32, month: u32, day: u32) -> Option<Self> {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match month {
            2 => 28 + u32::from(leap),
            4 | 6 | 9 | 11 => 30,
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            _ => return None,
        };
        if day == 0 || day > length {
            return None;
        }
        // Years begin in March, so that the leap day comes last (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
        let (year, month, day) = (i64::from(year), i64::from(month), i64::from(day));
        let year = if month <= 2 { year - 1 } else { year };
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        i32::try_from(era * 146_097 + day_of_era - DAYS_TO_2000)
            .ok()
            .map(Self)
    }

    /// Year, month and day of the Gregorian calendar.
    #[must_use]
    pub fn year_month_day(self) -> (i32, u32, u32) {
        let days = i64::from(self.0) + DAYS_TO_2000;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 {
            shifted + 3
        } else {
            shifted - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        // 32 bits of days are fewer than 6 million years.
        (year as i32, month as u32, day as u32)
    }

    /// Reads `2024-02-29`.
    pub fn parse(text: &str) -> Result<Self> {
        parse_date(text)
            .ok_or_else(|| Error::new(format_args!("{text:?} is not a day like 2024-02-29")))
    }

    /// Midnight, in UTC.
    #[must_use]
    pub const fn midnight(self) -> Timestamp {
        Timestamp((self.0 as i64).saturating_mul(DAY))
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.year_month_day();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl fmt::Debug for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Scalar for Date {
    const TYPE: ColumnType = ColumnType::Date;

    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        Ok(Self(i32::from_be_bytes(fixed(bytes)?)))
    }

    #[inline]
    fn check(&self) -> Result {
        if !DATES.contains(&self.0) {
            return Err(Error::new("a day outside of PostgreSQL's range"));
        }
        Ok(())
    }
}

/// Exactly `length` digits at the start of `text`, and what follows.
fn digits(text: &str, length: usize) -> Option<(i64, &str)> {
    let (digits, rest) = text.split_at_checked(length)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, rest))
}

fn parse_date(text: &str) -> Option<Date> {
    let (year, rest) = digits(text, 4)?;
    let (month, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = digits(rest.strip_prefix('-')?, 2)?;
    // Four and two digits fit.
    rest.is_empty()
        .then(|| Date::new(year as i32, month as u32, day as u32))?
}

fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let date = parse_date(date)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (hour, rest) = digits(rest, 2)?;
    let (minute, rest) = digits(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = digits(rest.strip_prefix(':')?, 2)?;
    // 60 is a leap second; PostgreSQL, too, counts it as the next minute.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => parse_fraction(rest)?,
        None => (0, rest),
    };
    let offset = match rest.strip_prefix(['Z', 'z']) {
        Some("") => 0,
        Some(_) => return None,
        None => parse_offset(rest)?,
    };
    let time = hour * HOUR + minute * MINUTE + second * SECOND + fraction;
    Some(Timestamp(i64::from(date.0) * DAY + time - offset))
}

fn parse_fraction(text: &str) -> Option<(i64, &str)> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, rest) = text.split_at(length);
    if fraction.is_empty() || fraction.bytes().skip(6).any(|digit| digit != b'0') {
        return None;
    }
    let micros = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(6)
        .fold(0, |micros, digit| micros * 10 + i64::from(digit - b'0'));
    Some((micros, rest))
}

fn parse_offset(text: &str) -> Option<i64> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, rest) = digits(&text[1..], 2)?;
    let (minutes, rest) = digits(rest.strip_prefix(':')?, 2)?;
    (rest.is_empty() && hours < 24 && minutes < 60)
        .then_some(sign * (hours * HOUR + minutes * MINUTE))
}

macro_rules! text_in_json {
    ($type:ident, $expecting:literal) => {
        impl std::str::FromStr for $type {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                Self::parse(text)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        $type::parse(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}
pub(crate) use text_in_json;

text_in_json!(Timestamp, "an RFC 3339 time");
text_in_json!(Date, "a day like 2024-02-29");
