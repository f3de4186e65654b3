//! Times, days, identifiers, JSON: what they read, write and refuse; and the bytes of sdk/wit/FRAMES.md.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use gobo_sdk::column::Column;
use gobo_sdk::{Date, Decimal, Json, JsonText, Timestamp, Uuid};
use proptest::prelude::*;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn field(value: &impl Column) -> String {
    let mut bytes = Vec::new();
    value.write(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn fields_have_the_documented_bytes() {
    let check = |found: String, expected: &str| assert_eq!(found, expected.replace(' ', ""));
    check(
        field(&"-12345.6780".parse::<Decimal>().unwrap()),
        "0000000e 0003 0001 4000 0004 0001 0929 1a7c",
    );
    check(
        field(&"0.00".parse::<Decimal>().unwrap()),
        "00000008 0000 0000 0000 0002",
    );
    check(
        field(&"0.0001".parse::<Decimal>().unwrap()),
        "0000000a 0001 ffff 0000 0004 0001",
    );
    check(
        field(&"2024-02-29".parse::<Date>().unwrap()),
        "00000004 00002279",
    );
    check(
        field(&time("1999-12-31T23:59:59Z")),
        "00000008 fffffffffff0bdc0",
    );
    check(
        field(&Json::parse("{\"a\":1}").unwrap()),
        "00000009 01 7b2261223a20317d",
    );
    check(
        field(&vec![Some("a".to_owned()), None]),
        "0000001d 00000001 00000001 00000019 00000002 00000001 00000001 61 ffffffff",
    );
    check(
        field(&Vec::<i32>::new()),
        "0000000c 00000000 00000000 00000017",
    );
    check(field(&None::<i64>), "ffffffff");
    check(field(&vec![1_u8, 255]), "00000002 01ff");
    check(field(&true), "00000001 01");
    check(field(&-2_i16), "00000002 fffe");
    check(field(&1.5_f32), "00000004 3fc00000");
    check(field(&"ü".to_owned()), "00000002 c3bc");
    check(
        field(&Uuid::from_bytes([7; 16])),
        "00000010 07070707070707070707070707070707",
    );
    check(
        field(&JsonText::parse(" {\"b\":1,\"a\":2} ").unwrap()),
        "0000000d 7b2262223a312c2261223a327d",
    );
}

#[track_caller]
fn reads_back<T: Column + PartialEq + std::fmt::Debug>(value: T) {
    let mut bytes = Vec::new();
    value.write(&mut bytes);
    let field = if bytes[..4] == [0xff; 4] {
        None
    } else {
        Some(&bytes[4..])
    };
    assert_eq!(T::read(field).unwrap(), value);
}

#[test]
fn every_type_reads_back() {
    reads_back(false);
    reads_back(i16::MIN);
    reads_back(i32::MIN);
    reads_back(i64::MAX);
    reads_back(-0.5_f32);
    reads_back(f64::MIN_POSITIVE);
    reads_back("ß\u{1f600}".to_owned());
    reads_back(vec![0_u8, 1]);
    reads_back(None::<Decimal>);
    reads_back(Some(time("2024-02-29T12:00:00.5Z")));
    reads_back(vec![Decimal::new(150, 2), Decimal::ZERO]);
    reads_back(vec![Some(1_i64), None, Some(-1)]);
    reads_back(Vec::<Uuid>::new());
    reads_back(Some(vec![true, false]));
    reads_back(Json::parse("[1, {\"a\": null}]").unwrap());
}

#[test]
fn values_that_the_database_could_not_store_are_refused() {
    assert!("a\0b".to_owned().check().is_err());
    assert!(vec!["a\0b".to_owned()].check().is_err());
    assert!(Some("\0".to_owned()).check().is_err());
    for micros in [i64::MAX, i64::MIN] {
        assert!(Timestamp::from_micros(micros).check().is_err());
    }
    for days in [i32::MAX, i32::MIN] {
        assert!(Date::from_days(days).check().is_err());
    }
}

#[test]
fn times_are_read_and_written_as_rfc_3339() {
    for text in [
        "2024-02-29T12:30:00.25Z",
        "2000-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "9999-12-31T23:59:59Z",
    ] {
        assert_eq!(time(text).to_string(), text);
    }
    assert_eq!(
        time("2024-03-01 00:30:00+01:00"),
        time("2024-02-29T23:30:00Z")
    );
    assert_eq!(
        time("2024-02-29T12:00:00.1000000-00:30"),
        time("2024-02-29t12:30:00.1z")
    );
    assert_eq!(
        Timestamp::from_unix_millis(1_709_210_000_123).to_string(),
        "2024-02-29T12:33:20.123Z"
    );
}

#[test]
fn what_is_no_time_is_refused() {
    let texts = [
        "",
        "2024-02-29",
        "2023-02-29T00:00:00Z",
        "2024-02-29T24:00:00Z",
        "2024-02-29T00:00:00",
        "2024-02-29T00:00:00.Z",
        "2024-02-29T00:00:00.1234567Z",
        "2024-02-29T00:00:00+1:00",
        "2024-2-29T00:00:00Z",
        "2024-02-29T00:00:00Zx",
        "2024-13-01T00:00:00Z",
        "+024-02-29T00:00:00Z",
        "ü024-02-29T00:00:00Z",
    ];
    for text in texts {
        assert!(Timestamp::parse(text).is_err(), "{text}");
    }
}

#[test]
fn times_are_cut_to_minute_hour_and_day_before_2000_too() {
    for (text, minute, hour, day) in [
        (
            "2024-02-29T12:34:56.7Z",
            "2024-02-29T12:34:00Z",
            "2024-02-29T12:00:00Z",
            "2024-02-29T00:00:00Z",
        ),
        (
            "1999-12-31T23:59:59.9Z",
            "1999-12-31T23:59:00Z",
            "1999-12-31T23:00:00Z",
            "1999-12-31T00:00:00Z",
        ),
    ] {
        assert_eq!(time(text).truncate_to_minute(), time(minute));
        assert_eq!(time(text).truncate_to_hour(), time(hour));
        assert_eq!(time(text).truncate_to_day(), time(day));
        assert_eq!(time(text).date().midnight(), time(day));
    }
}

#[test]
fn times_take_durations() {
    let second = std::time::Duration::from_secs(1);
    assert_eq!(
        time("2024-02-29T23:59:59Z") + second,
        time("2024-03-01T00:00:00Z")
    );
    assert_eq!(
        time("2024-03-01T00:00:00Z") - second,
        time("2024-02-29T23:59:59Z")
    );
    assert_eq!(
        time("2024-03-01T00:00:00Z").since(time("2024-02-29T23:59:59Z")),
        Some(second)
    );
    assert_eq!(
        time("2024-02-29T23:59:59Z").since(time("2024-03-01T00:00:00Z")),
        None
    );
}

#[test]
fn identifiers_are_read_with_and_without_hyphens() {
    let uuid: Uuid = "01234567-89ab-cdef-0123-456789ABCDEF".parse().unwrap();
    assert_eq!(uuid.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
    assert_eq!(
        "0123456789abcdef0123456789abcdef".parse::<Uuid>().unwrap(),
        uuid
    );
    for text in [
        "",
        "01234567-89ab-cdef-0123-456789abcde",
        "0123456789abcdef-0123-0123-456789abc",
        "g1234567-89ab-cdef-0123-456789abcdef",
    ] {
        assert!(Uuid::parse(text).is_err(), "{text}");
    }
}

#[test]
fn json_is_kept_as_the_database_would_write_it() {
    let cases = [
        (
            r#"{"bb":1,"a":2,"c":[ ],"a":{} }"#,
            r#"{"a": {}, "c": [], "bb": 1}"#,
        ),
        (
            r#"[1.50e1, 1E2, -0, -0.0, 1e-3, 0.10, 1.5e3, 0e5, 12.34e1]"#,
            "[15.0, 100, 0, 0.0, 0.001, 0.10, 1500, 0, 123.4]",
        ),
        (
            r#""\u00fc\/\u0001\b\f\n\r\t\"\\""#,
            r#""ü/\u0001\b\f\n\r\t\"\\""#,
        ),
        (r#"{"\u0061":null,"é":true}"#, r#"{"a": null, "é": true}"#),
        ("  false ", "false"),
        (
            "123456789012345678901234567890.10",
            "123456789012345678901234567890.10",
        ),
    ];
    for (text, canonical) in cases {
        let json = Json::parse(text).unwrap();
        assert_eq!(json.as_str(), canonical);
        assert_eq!(Json::parse(canonical).unwrap(), json);
    }
}

#[test]
fn json_that_the_database_could_not_store_is_refused() {
    let deep = "[".repeat(101) + &"]".repeat(101);
    for text in [
        "",
        "{",
        "[1,]",
        "\"\\u0000\"",
        "{\"\\u0000\":1}",
        "\"\\ud800\"",
        "1e200000",
        "1e-20000",
        "NaN",
        &deep,
    ] {
        assert!(Json::parse(text).is_err(), "{text}");
    }
}

#[test]
fn json_converts_from_and_to_rust() {
    let json = Json::new(&vec![1, 2]).unwrap();
    assert_eq!(json.as_str(), "[1, 2]");
    assert_eq!(json.get::<Vec<i32>>().unwrap(), [1, 2]);
    assert_eq!(gobo_sdk::serde_json::to_string(&json).unwrap(), "[1, 2]");
}

proptest! {
    #[test]
    fn every_day_has_one_date(days in -730_000..2_900_000_i32) {
        let date = Date::from_days(days);
        let (year, month, day) = date.year_month_day();
        prop_assert_eq!(Date::new(year, month, day), Some(date));
        if (0..=9999).contains(&year) {
            prop_assert_eq!(date.to_string().parse::<Date>().unwrap(), date);
        }
    }

    #[test]
    fn every_time_reads_back(micros in -60_000_000_000_000_000..250_000_000_000_000_000_i64) {
        let time = Timestamp::from_micros(micros);
        prop_assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
    }
}
