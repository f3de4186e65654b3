//! Exact decimals as whole numbers of their smallest unit.

use std::fmt::{self, Display, Formatter};

/// `units` of 10^-`scale`. Two decimals are equal when their values are, whatever their scales.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decimal {
    units: i128,
    scale: u32,
}

impl Decimal {
    pub(crate) fn new(units: i128, scale: u32) -> Decimal {
        Decimal { units, scale }
    }

    /// `dividend / divisor` with `scale` places, halves up, for amounts that are not negative; `None`
    /// for a divisor of zero.
    pub(crate) fn quotient(dividend: Decimal, divisor: Decimal, scale: u32) -> Option<Decimal> {
        let top = dividend.units * 10_i128.pow(scale + divisor.scale);
        let bottom = divisor.units * 10_i128.pow(dividend.scale);
        if bottom == 0 {
            return None;
        }
        let units = (2 * top + bottom).div_euclid(2 * bottom);
        Some(Decimal { units, scale })
    }

    /// Reads `-12.50`; no exponent.
    pub(crate) fn parse(text: &str) -> Option<Decimal> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let units = format!("{whole}{fraction}").parse().ok()?;
        Some(Decimal {
            units,
            scale: u32::try_from(fraction.len()).ok()?,
        })
    }

    fn normal(self) -> (i128, u32) {
        let (mut units, mut scale) = (self.units, self.scale);
        while scale > 0 && units % 10 == 0 {
            units /= 10;
            scale -= 1;
        }
        (units, scale)
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Decimal) -> bool {
        self.normal() == other.normal()
    }
}

impl Display for Decimal {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let sign = if self.units < 0 { "-" } else { "" };
        let digits = format!(
            "{:0width$}",
            self.units.unsigned_abs(),
            width = self.scale as usize + 1
        );
        let (whole, fraction) = digits.split_at(digits.len() - self.scale as usize);
        let point = if fraction.is_empty() { "" } else { "." };
        write!(formatter, "{sign}{whole}{point}{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_in_text_comparison_and_division() {
        assert_eq!(Decimal::new(-105, 2).to_string(), "-1.05");
        assert_eq!(Decimal::new(5, 4).to_string(), "0.0005");
        assert_eq!(Decimal::parse("1.50"), Some(Decimal::new(15, 1)));
        assert_ne!(Decimal::parse("1.50"), Some(Decimal::new(151, 2)));
        let third = Decimal::quotient(Decimal::new(100, 2), Decimal::new(3, 0), 8);
        assert_eq!(
            third.map(|third| third.to_string()).as_deref(),
            Some("0.33333333")
        );
        let half = |units| Decimal::quotient(Decimal::new(units, 1), Decimal::new(10, 1), 0);
        assert_eq!(
            (half(24), half(25)),
            (Some(Decimal::new(2, 0)), Some(Decimal::new(3, 0)))
        );
    }
}
