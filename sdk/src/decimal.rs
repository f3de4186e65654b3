//! [`Decimal`]: exact decimal numbers, for money and quantities.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul, MulAssign, Neg, Sub, SubAssign};

use crate::{Error, Result};

mod binary;
mod text;

/// The powers of ten that fit into an `i128`.
const POWERS: [i128; 39] = {
    let mut powers = [1; 39];
    let mut exponent = 1;
    while exponent < 39 {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};

/// An exact decimal number: up to 38 digits, of which up to 28 after the point. Stored as `numeric`.
///
/// The scale, how many digits follow the point, is part of the value as it is
/// shown and stored (`1.50`), and no part of its comparison (`1.50 == 1.5`).
/// `+`, `-` and `*` are exact; they panic when the result does not fit, the
/// `checked_` methods return `None`. There is no `/`: a division says how many
/// digits it keeps and how it rounds, see [`Decimal::div`].
#[derive(Clone, Copy, Default)]
pub struct Decimal {
    mantissa: i128,
    scale: u8,
}

/// What happens to the digits that a result has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest; a half away from zero: 2.5 becomes 3, -2.5 becomes -3.
    HalfUp,
    /// To the nearest; a half to the even neighbour: 2.5 becomes 2, 3.5 becomes 4.
    HalfEven,
    /// Towards zero.
    Down,
    /// Away from zero.
    Up,
    /// Towards minus infinity.
    Floor,
    /// Towards plus infinity.
    Ceiling,
}

impl Decimal {
    /// 0, with no digit after the point.
    pub const ZERO: Self = Self {
        mantissa: 0,
        scale: 0,
    };
    /// 1, with no digit after the point.
    pub const ONE: Self = Self {
        mantissa: 1,
        scale: 0,
    };
    /// The most digits after the point.
    pub const MAX_SCALE: u32 = 28;

    /// `mantissa / 10^scale`: `Decimal::new(12550, 2)` is 125.50.
    ///
    /// # Panics
    /// When the scale exceeds [`Decimal::MAX_SCALE`].
    #[must_use]
    pub const fn new(mantissa: i64, scale: u32) -> Self {
        assert!(
            scale <= Self::MAX_SCALE,
            "a Decimal has at most 28 digits after the point"
        );
        Self {
            mantissa: mantissa as i128,
            scale: scale as u8,
        }
    }

    /// Reads `-12.50`, as text or as a number stands in JSON (`1.25e3` is 1250).
    pub fn parse(text: &str) -> Result<Self> {
        text::parse(text)
    }

    /// The digits without the point: 12550 of 125.50.
    #[must_use]
    pub const fn mantissa(self) -> i128 {
        self.mantissa
    }

    /// The number of digits after the point.
    #[must_use]
    pub const fn scale(self) -> u32 {
        self.scale as u32
    }

    /// Whether it is zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// Whether it is below zero.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.mantissa < 0
    }

    /// Whether it is above zero.
    #[must_use]
    pub const fn is_positive(self) -> bool {
        self.mantissa > 0
    }

    /// Without its sign.
    #[must_use]
    pub const fn abs(self) -> Self {
        // The mantissa is never i128::MIN: it has at most 38 digits.
        Self {
            mantissa: self.mantissa.abs(),
            ..self
        }
    }

    /// The sum, or `None` when it does not fit.
    #[must_use]
    pub fn checked_add(self, rhs: Self) -> Option<Self> {
        if self.scale == rhs.scale {
            return Self::fitting(self.mantissa.checked_add(rhs.mantissa)?, self.scale);
        }
        let scale = self.scale.max(rhs.scale);
        let sum = self.widened(scale)?.checked_add(rhs.widened(scale)?)?;
        Self::fitting(sum, scale)
    }

    /// The difference, or `None` when it does not fit.
    #[must_use]
    pub fn checked_sub(self, rhs: Self) -> Option<Self> {
        self.checked_add(-rhs)
    }

    /// The product, or `None` when it does not fit. Its scale is the sum of both scales.
    #[must_use]
    pub fn checked_mul(self, rhs: Self) -> Option<Self> {
        let mut mantissa = multiply(self.mantissa, rhs.mantissa)?;
        let mut scale = self.scale + rhs.scale;
        while u32::from(scale) > Self::MAX_SCALE {
            if mantissa % 10 != 0 {
                return None;
            }
            mantissa /= 10;
            scale -= 1;
        }
        Self::fitting(mantissa, scale)
    }

    /// The quotient with `scale` digits after the point, rounded as asked:
    /// `total.div(quantity, 8, Rounding::HalfUp)?`.
    ///
    /// # Errors
    /// Division by zero, and a quotient that does not fit.
    pub fn div(self, rhs: Self, scale: u32, rounding: Rounding) -> Result<Self> {
        if rhs.is_zero() {
            return Err(Error::new(format_args!("division of {self} by zero")));
        }
        self.quotient(rhs, scale, rounding).ok_or_else(|| {
            Error::new(format_args!(
                "{self} / {rhs} with {scale} digits after the point does not fit a Decimal"
            ))
        })
    }

    fn quotient(self, rhs: Self, scale: u32, rounding: Rounding) -> Option<Self> {
        if scale > Self::MAX_SCALE {
            return None;
        }
        let negative = self.is_negative() != rhs.is_negative();
        let (mut left, mut right) = (self.mantissa.unsigned_abs(), rhs.mantissa.unsigned_abs());
        // How many digits the dividend gains before integers are divided: at least -28, at most 56.
        let shift = scale as i32 + i32::from(rhs.scale) - i32::from(self.scale);
        let mut missing = usize::try_from(shift).unwrap_or(0);
        if shift < 0 {
            right = right.checked_mul(power(shift.unsigned_abs() as usize)?)?;
        } else if let Some(widened) = power(missing).and_then(|power| left.checked_mul(power)) {
            (left, missing) = (widened, 0);
        }
        let (mut quotient, mut rest) = divide(left, right);
        // What did not fit is divided as on paper, digit by digit.
        for _ in 0..missing {
            let (digit, remainder) = divide(rest.checked_mul(10)?, right);
            quotient = quotient.checked_mul(10)?.checked_add(digit)?;
            rest = remainder;
        }
        let quotient = rounded(quotient, rest, right, negative, rounding)?;
        Self::fitting(quotient, scale as u8)
    }

    /// The same number with exactly `scale` digits after the point, rounded where it has more.
    ///
    /// # Errors
    /// When the number does not fit with so many digits.
    pub fn round(self, scale: u32, rounding: Rounding) -> Result<Self> {
        let rounded = if scale < self.scale() {
            self.quotient(Self::ONE, scale, rounding)
        } else {
            self.with_zeros(scale)
        };
        rounded.ok_or_else(|| {
            Error::new(format_args!(
                "{self} with {scale} digits after the point does not fit a Decimal"
            ))
        })
    }

    /// The same number with exactly `scale` digits after the point.
    ///
    /// # Errors
    /// When a digit other than 0 would be lost, or the number does not fit.
    pub fn rescale(self, scale: u32) -> Result<Self> {
        let rescaled = self.round(scale, Rounding::Down)?;
        if scale < self.scale() && rescaled != self {
            return Err(Error::new(format_args!(
                "{self} has more than {scale} digits after the point"
            )));
        }
        Ok(rescaled)
    }

    /// The same number without zeros at the end: 1.50 becomes 1.5.
    #[must_use]
    pub fn normalize(mut self) -> Self {
        while self.scale > 0 && self.mantissa % 10 == 0 {
            self.mantissa /= 10;
            self.scale -= 1;
        }
        self
    }

    /// The same number at a scale that is not smaller.
    fn with_zeros(self, scale: u32) -> Option<Self> {
        let scale = u8::try_from(scale)
            .ok()
            .filter(|scale| u32::from(*scale) <= Self::MAX_SCALE)?;
        Self::fitting(self.widened(scale)?, scale)
    }

    /// The mantissa at a scale that is not smaller.
    #[inline]
    fn widened(self, scale: u8) -> Option<i128> {
        multiply(self.mantissa, POWERS[usize::from(scale - self.scale)])
    }

    /// Keeps to 38 digits, so that every value can be written in decimal and negated.
    #[inline]
    fn fitting(mantissa: i128, scale: u8) -> Option<Self> {
        const LIMIT: i128 = POWERS[38];
        (mantissa > -LIMIT && mantissa < LIMIT).then_some(Self { mantissa, scale })
    }
}

/// Two factors of 64 bits need no check, which is the costly part: their product has at most 126 bits.
#[inline]
fn multiply(left: i128, right: i128) -> Option<i128> {
    match (i64::try_from(left), i64::try_from(right)) {
        (Ok(left), Ok(right)) => Some(i128::from(left) * i128::from(right)),
        _ => left.checked_mul(right),
    }
}

fn power(exponent: usize) -> Option<u128> {
    POWERS.get(exponent).map(|power| power.unsigned_abs())
}

/// Quotient and remainder. WebAssembly divides 64 bits with one instruction and 128 bits with a long routine.
fn divide(left: u128, right: u128) -> (u128, u128) {
    match (u64::try_from(left), u64::try_from(right)) {
        (Ok(left), Ok(right)) => (u128::from(left / right), u128::from(left % right)),
        _ => (left / right, left % right),
    }
}

fn rounded(
    quotient: u128,
    rest: u128,
    divisor: u128,
    negative: bool,
    rounding: Rounding,
) -> Option<i128> {
    let half = rest.cmp(&(divisor - rest));
    let up = rest != 0
        && match rounding {
            Rounding::Down => false,
            Rounding::Up => true,
            Rounding::Floor => negative,
            Rounding::Ceiling => !negative,
            Rounding::HalfUp => half != Ordering::Less,
            Rounding::HalfEven => {
                half == Ordering::Greater || (half == Ordering::Equal && quotient % 2 == 1)
            }
        };
    let magnitude = i128::try_from(quotient.checked_add(u128::from(up))?).ok()?;
    Some(if negative { -magnitude } else { magnitude })
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.scale == other.scale {
            return self.mantissa.cmp(&other.mantissa);
        }
        let scale = self.scale.max(other.scale);
        match (self.widened(scale), other.widened(scale)) {
            (Some(left), Some(right)) => left.cmp(&right),
            // Only the one with the smaller scale is ever widened: if that overflows, it has the larger magnitude.
            (None, _) => self.mantissa.cmp(&0),
            (_, None) => 0.cmp(&other.mantissa),
        }
    }
}

impl Hash for Decimal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let normal = self.normalize();
        (
            normal.mantissa,
            if normal.is_zero() { 0 } else { normal.scale },
        )
            .hash(state);
    }
}

macro_rules! operators {
    ($($operator:ident $method:ident $assign:ident $assign_method:ident $checked:ident $sign:literal;)*) => {$(
        impl $operator for Decimal {
            type Output = Self;
            #[track_caller]
            #[inline]
            fn $method(self, rhs: Self) -> Self {
                match self.$checked(rhs) {
                    Some(result) => result,
                    None => panic!(concat!("{} ", $sign, " {} does not fit a Decimal"), self, rhs),
                }
            }
        }

        impl $assign for Decimal {
            #[track_caller]
            #[inline]
            fn $assign_method(&mut self, rhs: Self) {
                *self = $operator::$method(*self, rhs);
            }
        }
    )*};
}

operators! {
    Add add AddAssign add_assign checked_add "+";
    Sub sub SubAssign sub_assign checked_sub "-";
    Mul mul MulAssign mul_assign checked_mul "*";
}

impl Neg for Decimal {
    type Output = Self;
    fn neg(self) -> Self {
        Self {
            mantissa: -self.mantissa,
            ..self
        }
    }
}

impl Sum for Decimal {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

macro_rules! from_integers {
    ($($type:ty),*) => {$(
        impl From<$type> for Decimal {
            fn from(value: $type) -> Self {
                Self { mantissa: i128::from(value), scale: 0 }
            }
        }
    )*};
}

from_integers!(i16, i32, i64, u8, u16, u32, u64);

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
