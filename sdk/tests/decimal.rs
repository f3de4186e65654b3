//! Decimals: exact, refusing what they cannot hold.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use gobo_sdk::column::Scalar;
use gobo_sdk::{Decimal, Rounding};
use proptest::prelude::*;

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn refused(text: &str, why: &str) {
    let error = text.parse::<Decimal>().unwrap_err().to_string();
    assert!(error.contains(why), "{text}: {error}");
}

#[test]
fn text_keeps_its_digits() {
    for text in [
        "0",
        "-0.10",
        "1.50",
        "12345678901234567890123456789012345678",
        "0.0000000000000000000000000001",
    ] {
        assert_eq!(decimal(text).to_string(), text);
    }
    for (text, plain) in [
        ("1.25e3", "1250"),
        ("1E-2", "0.01"),
        ("1.5e1", "15"),
        ("-0", "0"),
        ("0e99", "0"),
        ("007", "7"),
    ] {
        assert_eq!(decimal(text).to_string(), plain);
    }
}

#[test]
fn what_is_no_number_or_does_not_fit_is_refused() {
    for text in [
        "", "-", ".", "1.", ".5", "+1", "1,5", "0x1", "1e", "NaN", "1_000", "--1", " 1", "١",
    ] {
        refused(text, "is not a decimal number");
    }
    refused(
        "123456789012345678901234567890123456789",
        "more than 38 digits",
    );
    refused("1e38", "more than 38 digits");
    refused("1e2000000000", "more than 38 digits");
    refused(
        "0.00000000000000000000000000001",
        "more than 28 digits after the point",
    );
    refused("1e-29", "more than 28 digits after the point");
}

#[test]
fn arithmetic_is_exact() {
    assert_eq!((decimal("0.1") + decimal("0.2")).to_string(), "0.3");
    assert_eq!((decimal("1.50") - decimal("1.5")).to_string(), "0.00");
    assert_eq!(
        (decimal("-1.25") * decimal("0.300")).to_string(),
        "-0.37500"
    );
    assert_eq!(
        (decimal("99999999999999999999.99") * decimal("10")).to_string(),
        "999999999999999999999.90"
    );
    assert_eq!(
        Decimal::from(7_u64).checked_add(decimal("99999999999999999999999999999999999999")),
        None
    );
    assert_eq!(decimal("1e20").checked_mul(decimal("1e20")), None);
}

#[test]
#[should_panic(expected = "99999999999999999999999999999999999999 + 1 does not fit a Decimal")]
fn an_operator_that_overflows_says_what_was_calculated() {
    let _ = decimal("99999999999999999999999999999999999999") + Decimal::ONE;
}

#[test]
fn division_rounds_as_asked() {
    let round = |text: &str, rounding| decimal(text).round(0, rounding).unwrap().to_string();
    let cases = [
        (Rounding::HalfUp, ["3", "4", "-3", "2", "-2"]),
        (Rounding::HalfEven, ["2", "4", "-2", "2", "-2"]),
        (Rounding::Down, ["2", "3", "-2", "2", "-2"]),
        (Rounding::Up, ["3", "4", "-3", "3", "-3"]),
        (Rounding::Floor, ["2", "3", "-3", "2", "-3"]),
        (Rounding::Ceiling, ["3", "4", "-2", "3", "-2"]),
    ];
    for (rounding, expected) in cases {
        assert_eq!(
            ["2.5", "3.5", "-2.5", "2.4", "-2.4"].map(|text| round(text, rounding)),
            expected,
            "{rounding:?}"
        );
    }
}

#[test]
fn division_names_its_failures() {
    let error = decimal("1.5")
        .div(Decimal::ZERO, 2, Rounding::Down)
        .unwrap_err();
    assert_eq!(error.to_string(), "division of 1.5 by zero");
    let error = decimal("1e37")
        .div(decimal("0.001"), 2, Rounding::Down)
        .unwrap_err();
    assert!(error.to_string().contains("does not fit a Decimal"));
    assert_eq!(
        decimal("1")
            .div(decimal("3"), 28, Rounding::HalfUp)
            .unwrap()
            .to_string(),
        format!("0.{}", "3".repeat(28))
    );
}

#[test]
fn rescaling_never_loses_a_digit() {
    assert_eq!(decimal("1.500").rescale(1).unwrap().to_string(), "1.5");
    assert_eq!(decimal("1.5").rescale(3).unwrap().to_string(), "1.500");
    assert!(decimal("1.55").rescale(1).is_err());
}

#[test]
fn json_numbers_and_strings_are_read_digit_for_digit() {
    let read = |json: &str| gobo_sdk::serde_json::from_str::<Decimal>(json);
    assert_eq!(
        read("1234567890123456789.125").unwrap().to_string(),
        "1234567890123456789.125"
    );
    assert_eq!(read("\"101.250\"").unwrap().to_string(), "101.250");
    assert_eq!(read("\"\\u0031.5\"").unwrap().to_string(), "1.5");
    assert_eq!(read("1e2").unwrap().to_string(), "100");
    for json in [
        "null",
        "true",
        "{}",
        "[]",
        "\"\"",
        "\"1,5\"",
        "\" 1\"",
        "\"\\\"1\"",
    ] {
        assert!(read(json).is_err(), "{json}");
    }
    let value = gobo_sdk::serde_json::json!("2.50");
    assert_eq!(
        gobo_sdk::serde_json::from_value::<Decimal>(value)
            .unwrap()
            .to_string(),
        "2.50"
    );
    assert_eq!(
        gobo_sdk::serde_json::to_string(&decimal("2.50")).unwrap(),
        "\"2.50\""
    );
}

#[test]
fn numeric_bytes_are_those_of_the_documentation() {
    let cases = [
        ("-12345.6780", "00030001400000040001 09291a7c"),
        ("0.00", "0000000000000002"),
        ("0.0001", "0001ffff000000040001"),
        ("10000", "00010001000000000001"),
        ("0.00001", "0001fffe0000000503e8"),
    ];
    for (text, expected) in cases {
        let mut bytes = Vec::new();
        decimal(text).encode(&mut bytes);
        assert_eq!(hex(&bytes), expected.replace(' ', ""), "{text}");
        assert_eq!(Decimal::decode(&bytes).unwrap().to_string(), text);
    }
}

#[test]
fn numeric_bytes_that_are_no_decimal_are_refused() {
    let cases: [&[u8]; 5] = [
        &[0, 0, 0, 0, 0xc0, 0, 0, 0],
        &[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10],
        &[0, 1, 0, 99, 0, 0, 0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 0, 0, 29],
        &[0, 1, 0, 0],
    ];
    for bytes in cases {
        assert!(Decimal::decode(bytes).is_err(), "{}", hex(bytes));
    }
}

prop_compose! {
    fn any_decimal()(mantissa in -(10_i128.pow(38) - 1)..10_i128.pow(38), shorter in 0_u32..38, scale in 0_u32..=28) -> Decimal {
        let digits = format!("{:0>29}", (mantissa / 10_i128.pow(shorter)).unsigned_abs());
        let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
        let sign = if mantissa < 0 { "-" } else { "" };
        let point = if scale > 0 { "." } else { "" };
        decimal(&format!("{sign}{whole}{point}{fraction}"))
    }
}

proptest! {
    #[test]
    fn text_and_bytes_read_back_as_they_were(value in any_decimal()) {
        let text = value.to_string();
        prop_assert_eq!(decimal(&text).to_string(), text.clone());
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        prop_assert_eq!(Decimal::decode(&bytes).unwrap().to_string(), text);
    }

    #[test]
    fn sums_agree_with_integers(left in -1_000_000_000_000_i64..1_000_000_000_000, right in -1_000_000_000_000_i64..1_000_000_000_000, scale in 0_u32..6) {
        let (a, b) = (Decimal::new(left, scale), Decimal::new(right, scale));
        prop_assert_eq!(a + b, Decimal::new(left + right, scale));
        prop_assert_eq!((a + b) - b, a);
        prop_assert_eq!((a * b).mantissa(), i128::from(left) * i128::from(right));
        prop_assert_eq!(a.cmp(&b), left.cmp(&right));
    }

    #[test]
    fn order_and_equality_ignore_the_scale(left in any_decimal(), right in any_decimal()) {
        prop_assert_eq!(left.cmp(&right), right.cmp(&left).reverse());
        prop_assert_eq!(left.normalize(), left);
        if let Some(difference) = left.checked_sub(right) {
            prop_assert_eq!(left.cmp(&right), difference.cmp(&Decimal::ZERO));
        }
    }

    #[test]
    fn a_quotient_is_the_nearest_below(left in any_decimal(), right in any_decimal(), scale in 0_u32..12) {
        prop_assume!(!right.is_zero());
        if let Ok(quotient) = left.div(right, scale, Rounding::Floor) {
            let unit = Decimal::new(1, scale);
            let below = quotient.checked_mul(right);
            let above = quotient.checked_add(unit).and_then(|above| above.checked_mul(right));
            if let (Some(below), Some(above)) = (below, above) {
                let (low, high) = if right.is_negative() { (above, below) } else { (below, above) };
                prop_assert!(low <= left && left <= high);
                prop_assert!(below == left || above != left);
            }
        }
    }
}
