//! Checks of single values: what passes is what PostgreSQL accepts and would return, byte for byte.

use crate::frame::{Field, Reader};

use super::jsonb;
use super::{Column, ColumnType, Scalar};

/// Checks a field against its column. Gives the bytes that PostgreSQL would return when they differ from the field's.
pub fn check(field: Field<'_>, column: &Column) -> Result<Option<Vec<u8>>, String> {
    let Some(bytes) = field else {
        return match column.nullable {
            true => Ok(None),
            false => Err("NULL in a column that is not nullable".to_owned()),
        };
    };
    match column.kind {
        ColumnType::Scalar(Scalar::Jsonb) => {
            let [1, text @ ..] = bytes else {
                return Err("jsonb does not begin with version byte 1".to_owned());
            };
            let mut normal = vec![1];
            jsonb::normalize(utf8(text)?, &mut normal)?;
            Ok((normal != bytes).then_some(normal))
        }
        ColumnType::Scalar(scalar) => check_scalar(bytes, scalar).map(|()| None),
        ColumnType::Array(element) => check_array(bytes, element).map(|()| None),
    }
}

fn check_scalar(bytes: &[u8], kind: Scalar) -> Result<(), String> {
    if let Some(width) = kind.width()
        && bytes.len() != width
    {
        return Err(format!(
            "{} bytes where {} has {width}",
            bytes.len(),
            kind.name()
        ));
    }
    match kind {
        Scalar::Bool if bytes[0] > 1 => Err("a bool is neither 0 nor 1".to_owned()),
        Scalar::Date => finite(bytes == i32::MAX.to_be_bytes() || bytes == i32::MIN.to_be_bytes()),
        Scalar::Timestamptz => {
            finite(bytes == i64::MAX.to_be_bytes() || bytes == i64::MIN.to_be_bytes())
        }
        Scalar::Numeric => check_numeric(bytes),
        Scalar::Text => {
            if utf8(bytes)?.contains('\0') {
                return Err("the text contains U+0000, which PostgreSQL cannot store".to_owned());
            }
            Ok(())
        }
        Scalar::Json | Scalar::Jsonb => jsonb::check_syntax(utf8(bytes)?),
        _ => Ok(()),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8: {error}"))
}

fn finite(is_infinite: bool) -> Result<(), String> {
    match is_infinite {
        true => Err("an infinite date or time".to_owned()),
        false => Ok(()),
    }
}

/// Only the one canonical form of each number passes: PostgreSQL would strip zero digits, drop the sign of zero and cut
/// what exceeds the display scale, and the row read back would differ from the row written.
fn check_numeric(bytes: &[u8]) -> Result<(), String> {
    let (header, digits) = bytes
        .split_at_checked(8)
        .ok_or("a numeric has fewer than 8 bytes")?;
    let part = |at: usize| i16::from_be_bytes([header[at], header[at + 1]]);
    let (count, weight, sign, scale) = (part(0), part(2), part(4), part(6));
    if usize::try_from(count).ok() != Some(digits.len() / 2) || digits.len() % 2 != 0 {
        return Err(format!(
            "a numeric announces {count} digits and has {} bytes of them",
            digits.len()
        ));
    }
    let (pairs, _) = digits.as_chunks::<2>();
    let mut digits = pairs.iter().copied().map(i16::from_be_bytes);
    if !(0..=0x3fff).contains(&scale) {
        return Err(format!(
            "a numeric's display scale is {scale}; 0 to 16383 are possible"
        ));
    }
    if sign != 0 && sign != 0x4000 {
        return Err("a numeric is NaN or infinite, or its sign is malformed".to_owned());
    }
    if !digits.clone().all(|digit| (0..10_000).contains(&digit)) {
        return Err("a numeric has a digit outside 0 to 9999".to_owned());
    }
    let Some(first) = digits.next() else {
        return match (weight, sign) {
            (0, 0) => Ok(()),
            _ => Err("a numeric zero has a weight or a sign".to_owned()),
        };
    };
    let last = digits.next_back().unwrap_or(first);
    if first == 0 || last == 0 {
        return Err("a numeric has leading or trailing zero digits".to_owned());
    }
    // The last digit's decimal places: four per group behind the point, less its own trailing zeros.
    let zeros = (1..4).take_while(|&n| last % 10i16.pow(n) == 0).count() as i32;
    let places = (i32::from(count) - i32::from(weight) - 1) * 4 - zeros;
    if places > i32::from(scale) {
        return Err(format!(
            "a numeric has {places} decimal places and a display scale of {scale}"
        ));
    }
    Ok(())
}

fn check_array(bytes: &[u8], element: Scalar) -> Result<(), String> {
    let word = |at: usize| -> Result<u32, String> {
        bytes
            .get(at..at + 4)
            .and_then(|word| word.try_into().ok())
            .map(u32::from_be_bytes)
            .ok_or_else(|| "an array's header is cut off".to_owned())
    };
    let (dimensions, flags, oid) = (word(0)?, word(4)?, word(8)?);
    if oid != element.oid() {
        return Err(format!(
            "an array's elements have type oid {oid}, not {} ({})",
            element.oid(),
            element.name()
        ));
    }
    if dimensions == 0 {
        return match (flags, bytes.len()) {
            (0, 12) => Ok(()),
            _ => Err("an empty array has flags or elements".to_owned()),
        };
    }
    let (length, lower) = (word(12)?, word(16)?);
    if dimensions != 1 || length == 0 || lower != 1 {
        return Err(
            "an array has more than one dimension, a lower bound other than 1, or one dimension without elements"
                .to_owned(),
        );
    }
    let mut reader = Reader::new(&bytes[20..]);
    let mut has_null = 0;
    for _ in 0..length {
        match reader
            .field()
            .map_err(|error| format!("an array: {error}"))?
        {
            None => has_null = 1,
            Some(value) => check_scalar(value, element)?,
        }
    }
    if flags != has_null || !reader.is_at_end() {
        return Err("an array's flags or length do not fit its elements".to_owned());
    }
    Ok(())
}
