//! A decimal as PostgreSQL sends `numeric`: digits in base 10,000, aligned to the point.

use super::{Decimal, POWERS};
use crate::column::{ColumnType, Scalar};
use crate::{Error, Result};

const BASE: u128 = 10_000;
const NEGATIVE: u16 = 0x4000;
/// 39 decimal digits and up to three zeros of alignment fill at most eleven digits in base 10,000.
const MOST_DIGITS: usize = 11;

impl Scalar for Decimal {
    const TYPE: ColumnType = ColumnType::Numeric;

    fn encode(&self, out: &mut Vec<u8>) {
        let mut digits = [0_u16; MOST_DIGITS];
        let (count, places) = split(self.mantissa.unsigned_abs(), self.scale, &mut digits);
        let significant = &digits[..count];
        // The least significant digits come first in `digits`, and last on the wire, without zeros at the end.
        let trailing = significant.iter().take_while(|digit| **digit == 0).count();
        let sent = &significant[trailing..];
        let weight = if sent.is_empty() {
            0
        } else {
            count as i16 - 1 - places
        };
        let sign = if self.is_negative() { NEGATIVE } else { 0 };
        out.extend_from_slice(&(sent.len() as i16).to_be_bytes());
        out.extend_from_slice(&weight.to_be_bytes());
        out.extend_from_slice(&sign.to_be_bytes());
        out.extend_from_slice(&u16::from(self.scale).to_be_bytes());
        for digit in sent.iter().rev() {
            out.extend_from_slice(&digit.to_be_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        read(bytes).ok_or_else(|| {
            Error::new("a numeric with more than 38 digits, more than 28 of them after the point, or no finite value")
        })
    }
}

/// Digits in base 10,000, least significant first, without zeros at the most significant end;
/// and how many of them come after the point.
fn split(mantissa: u128, scale: u8, digits: &mut [u16; MOST_DIGITS]) -> (usize, i16) {
    let places = scale.div_ceil(4);
    // The last digit is filled up with zeros: the scale of 1.5 is 1, and its digits are 1 and 5000.
    let padding = [1, 10, 100, 1000][usize::from(places * 4 - scale)];
    let mut count = 0;
    let mut push = |digit: u64| {
        // A remainder of 10,000.
        digits[count] = digit as u16;
        count += 1;
    };
    match u64::try_from(mantissa)
        .ok()
        .and_then(|mantissa| mantissa.checked_mul(padding))
    {
        Some(mut rest) => {
            while rest != 0 {
                push(rest % BASE as u64);
                rest /= BASE as u64;
            }
        }
        None => {
            // The lowest digit by itself: the padded mantissa might not fit.
            let unit = BASE / u128::from(padding);
            push((mantissa % unit) as u64 * padding);
            let mut rest = mantissa / unit;
            while rest != 0 {
                push((rest % BASE) as u64);
                rest /= BASE;
            }
        }
    }
    (count, i16::from(places))
}

fn read(bytes: &[u8]) -> Option<Decimal> {
    let (header, digits) = bytes.split_first_chunk::<8>()?;
    let [a, b, c, d, e, f, g, h] = *header;
    let count = usize::try_from(i16::from_be_bytes([a, b])).ok()?;
    let weight = i32::from(i16::from_be_bytes([c, d]));
    let negative = match u16::from_be_bytes([e, f]) {
        0 => false,
        NEGATIVE => true,
        _ => return None,
    };
    let scale = u16::from_be_bytes([g, h]);
    if digits.len() != count * 2 || u32::from(scale) > Decimal::MAX_SCALE {
        return None;
    }
    let mut mantissa: i128 = 0;
    // The exponent of the next digit, seen from the scale: what it is multiplied with is 10^(4 * weight + scale).
    let mut exponent = weight * 4 + i32::from(scale);
    for digit in digits.chunks_exact(2) {
        let digit = i128::from(u16::from_be_bytes([digit[0], digit[1]]));
        if digit >= BASE as i128 {
            return None;
        }
        let value = match usize::try_from(exponent) {
            Ok(exponent) if digit != 0 => digit.checked_mul(*POWERS.get(exponent)?)?,
            Ok(_) => 0,
            // The last digit reaches beyond the scale, with zeros only.
            Err(_) => {
                let beyond = *POWERS.get(exponent.unsigned_abs() as usize)?;
                if digit % beyond != 0 {
                    return None;
                }
                digit / beyond
            }
        };
        mantissa = mantissa.checked_add(value)?;
        exponent -= 4;
    }
    Decimal::fitting(if negative { -mantissa } else { mantissa }, scale as u8)
}
