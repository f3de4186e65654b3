//! A decimal as text, and in JSON.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Decimal, POWERS};
use crate::{Error, Result};

/// What `serde_json` calls a value that it hands over as its raw text. Were it to
/// change the name, strings and integers would still be read, and fractions in
/// numbers refused: never rounded.
const RAW_JSON: &str = "$serde_json::private::RawValue";

pub(super) fn parse(text: &str) -> Result<Decimal> {
    let refuse = |why: &str| Error::new(format_args!("{text:?} {why}"));
    let number = || refuse("is not a decimal number");
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (digits, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (
            &unsigned[..at],
            unsigned[at + 1..].parse::<i32>().map_err(|_| number())?,
        ),
        None => (unsigned, 0),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return Err(number()),
        None => (digits, ""),
    };
    if whole.is_empty() {
        return Err(number());
    }
    let too_large = || refuse("has more than 38 digits");
    let mut small: u64 = 0;
    let mut mantissa: i128 = 0;
    for (place, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        if !digit.is_ascii_digit() {
            return Err(number());
        }
        let digit = digit - b'0';
        // Eighteen digits fit into 64 bits, which are much cheaper to multiply.
        if place < 18 {
            small = small * 10 + u64::from(digit);
            mantissa = i128::from(small);
        } else {
            mantissa = mantissa
                .checked_mul(10)
                .and_then(|m| m.checked_add(i128::from(digit)))
                .ok_or_else(too_large)?;
        }
    }
    let scale = fraction.len() as i64 - i64::from(exponent);
    let mantissa = if negative { -mantissa } else { mantissa };
    if scale > i64::from(Decimal::MAX_SCALE) {
        return Err(refuse("has more than 28 digits after the point"));
    }
    let (mantissa, scale) = match usize::try_from(scale) {
        Ok(scale) => (Some(mantissa), scale as u8),
        // 25e2: zeros take the place of the exponent.
        Err(_) if mantissa == 0 => (Some(0), 0),
        Err(_) => {
            let power = usize::try_from(-scale)
                .ok()
                .and_then(|zeros| POWERS.get(zeros));
            (power.and_then(|power| mantissa.checked_mul(*power)), 0)
        }
    };
    mantissa
        .and_then(|mantissa| Decimal::fitting(mantissa, scale))
        .ok_or_else(too_large)
}

impl FromStr for Decimal {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        parse(text)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.mantissa.unsigned_abs().to_string();
        let scale = usize::from(self.scale);
        let text = if scale == 0 {
            digits
        } else {
            let digits = format!("{digits:0>width$}", width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            format!("{whole}.{fraction}")
        };
        f.pad_integral(!self.is_negative(), "", &text)
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(RAW_JSON, Visitor)
    }
}

struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Decimal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a decimal number, as a number or a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Decimal, E> {
        parse(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Decimal, E> {
        Ok(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Decimal, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Decimal, E> {
        Err(E::custom(
            "a decimal number that has been through a float; write it as a string",
        ))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Decimal, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Decimal, A::Error> {
        match map.next_key::<&str>()? {
            Some(RAW_JSON) => map.next_value_seed(RawText),
            _ => Err(de::Error::invalid_type(de::Unexpected::Map, &self)),
        }
    }
}

/// The raw text of a JSON value: a number, or a string in quotes.
struct RawText;

impl<'de> de::DeserializeSeed<'de> for RawText {
    type Value = Decimal;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Decimal, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl de::Visitor<'_> for RawText {
    type Value = Decimal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the text of a JSON value")
    }

    fn visit_str<E: de::Error>(self, raw: &str) -> Result<Decimal, E> {
        let unexpected = |what| Err(E::invalid_type(what, &Visitor));
        match raw.as_bytes().first() {
            Some(b'"') if raw.contains('\\') => {
                let text: String = serde_json::from_str(raw).map_err(E::custom)?;
                parse(&text).map_err(E::custom)
            }
            Some(b'"') => parse(raw.trim_matches('"')).map_err(E::custom),
            Some(b'{') => unexpected(de::Unexpected::Map),
            Some(b'[') => unexpected(de::Unexpected::Seq),
            Some(b'n') => unexpected(de::Unexpected::Unit),
            Some(b't') => unexpected(de::Unexpected::Bool(true)),
            Some(b'f') => unexpected(de::Unexpected::Bool(false)),
            _ => parse(raw).map_err(E::custom),
        }
    }
}
