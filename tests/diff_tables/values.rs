//! Values: when they are equal, and how they are shown.

use serde_json::json;

use super::{Tables, counts, keys};

/// A value of each type, another one, and how both are shown.
const VALUES: &[(&str, &str, &str, &str, &str)] = &[
    ("bool", "true", "false", "true", "false"),
    ("int2", "1", "-32768", "1", "-32768"),
    ("int4", "1", "2", "1", "2"),
    (
        "int8",
        "9007199254740993",
        "9007199254740992",
        "9007199254740993",
        "9007199254740992",
    ),
    ("float4", "0.1", "0.2", "0.1", "0.2"),
    (
        "float8",
        "0.1",
        "0.10000000000000002",
        "0.1",
        "0.10000000000000002",
    ),
    ("float8", "0.0", "'-0'", "0", "-0"),
    ("float8", "'NaN'", "1", "NaN", "1"),
    (
        "float8",
        "'Infinity'",
        "'-Infinity'",
        "Infinity",
        "-Infinity",
    ),
    ("numeric", "1.0", "1.00", "1.0", "1.00"),
    (
        "numeric",
        "12345678901234567890.123456789",
        "12345678901234567890.123456788",
        "12345678901234567890.123456789",
        "12345678901234567890.123456788",
    ),
    ("numeric", "'NaN'", "0", "NaN", "0"),
    ("text", "'a'", "'A'", "a", "A"),
    ("text", "''", "' '", "", " "),
    (
        "text",
        "E'two\\nlines \"q\"'",
        "'x'",
        "two\nlines \"q\"",
        "x",
    ),
    ("bytea", "'\\x00ff'", "'\\x'", "\\x00ff", "\\x"),
    (
        "uuid",
        "'67e55044-10b1-426f-9247-bb680e5fe0c8'",
        "'00000000-0000-0000-0000-000000000000'",
        "67e55044-10b1-426f-9247-bb680e5fe0c8",
        "00000000-0000-0000-0000-000000000000",
    ),
    (
        "date",
        "'2026-01-31'",
        "'2026-02-01'",
        "2026-01-31",
        "2026-02-01",
    ),
    (
        "timestamptz",
        "'2026-01-31 12:00:00.000001+02'",
        "'2026-01-31 12:00:00+02'",
        "2026-01-31 10:00:00.000001+00",
        "2026-01-31 10:00:00+00",
    ),
    (
        "json",
        "'{\"a\":1}'",
        "'{\"a\": 1}'",
        "{\"a\":1}",
        "{\"a\": 1}",
    ),
    (
        "jsonb",
        "'{\"a\": 1.0}'",
        "'{\"a\": 1.00}'",
        "{\"a\": 1.0}",
        "{\"a\": 1.00}",
    ),
    (
        "text[]",
        "'{a,NULL,\"b c\"}'",
        "'{a,b}'",
        "{a,NULL,\"b c\"}",
        "{a,b}",
    ),
    ("int8[]", "'{}'", "'{1}'", "{}", "{1}"),
    ("numeric[]", "'{1.0}'", "'{1.00}'", "{1.0}", "{1.00}"),
    (
        "bytea[]",
        "array['\\x00'::bytea]",
        "array['\\x01'::bytea]",
        "{\"\\\\x00\"}",
        "{\"\\\\x01\"}",
    ),
];

#[tokio::test]
async fn values_of_every_type_are_compared_by_their_bytes_and_shown_without_loss() {
    let columns: Vec<String> = VALUES
        .iter()
        .enumerate()
        .map(|(place, value)| format!("c{place} {}?", value.0))
        .collect();
    let columns = format!("id int4, {}", columns.join(", "));
    let mut tables = Tables::same("everything", &columns, &["id"]).await;
    let all = |values: Vec<&str>| values.join(", ");
    let old = all(VALUES.iter().map(|value| value.1).collect());
    let new = all(VALUES.iter().map(|value| value.2).collect());
    let null = all(VALUES.iter().map(|_| "null").collect());
    let row = |id: i32, values: &str| format!("{id}, {values}");
    let (a, b) = (
        [
            row(1, &old),
            row(2, &old),
            row(3, &old),
            row(4, &null),
            row(5, &null),
        ],
        [
            row(1, &old),
            row(2, &new),
            row(3, &null),
            row(4, &new),
            row(5, &null),
        ],
    );
    tables
        .rows(1, "everything", &a.each_ref().map(String::as_str))
        .await;
    tables
        .rows(2, "everything", &b.each_ref().map(String::as_str))
        .await;

    let rows = tables.matched().await;
    assert_eq!((rows.a, rows.b), (5, 5));
    assert_eq!(counts(&rows), (0, 0, 3));
    assert_eq!(keys(&rows.samples.changed), [["2"], ["3"], ["4"]]);
    for (place, (kind, _, _, old, new)) in VALUES.iter().enumerate() {
        assert_eq!(rows.columns[place].name, format!("c{place}"));
        assert_eq!(rows.columns[place].r#type, *kind);
        assert_eq!(rows.columns[place].changed, 3, "{kind}: {old} {new}");
        let seen = |row: usize| {
            let change = &rows.samples.changed[row].changes[place];
            (change.a.as_deref(), change.b.as_deref())
        };
        assert_eq!(seen(0), (Some(*old), Some(*new)), "{kind}");
        assert_eq!(seen(1), (Some(*old), None), "{kind}");
        assert_eq!(seen(2), (None, Some(*new)), "{kind}");
    }
}

#[tokio::test]
async fn a_json_null_is_not_null_and_jsonb_knows_no_white_space() {
    let mut tables = Tables::same("docs", "id int4, doc jsonb?, raw json?", &["id"]).await;
    tables
        .rows(
            1,
            "docs",
            &["1, 'null', 'null'", r#"2, '{"b":1,"a":2}', null"#],
        )
        .await;
    tables
        .rows(
            2,
            "docs",
            &["1, null, null", r#"2, '{"a": 2, "b": 1}', null"#],
        )
        .await;
    let rows = tables.matched().await;
    assert_eq!(
        serde_json::to_value(&rows.samples.changed).unwrap(),
        json!([{ "key": ["1"], "changes": [
            { "column": "doc", "a": "null", "b": null }, { "column": "raw", "a": "null", "b": null },
        ] }])
    );
}

#[tokio::test]
async fn large_values_are_equal_however_they_are_stored_and_cut_when_shown() {
    let mut tables = Tables::same("big", "id int4, body text?", &["id"]).await;
    tables
        .sql("alter table gobo_g1.big alter body set storage external")
        .await;
    let same = "1, repeat('ä1', 100000)";
    tables
        .rows(1, "big", &[same, "2, repeat('ä1', 100000) || 'x'"])
        .await;
    tables
        .rows(2, "big", &[same, "2, repeat('ä1', 100000) || 'y'"])
        .await;
    let rows = tables.matched().await;
    assert_eq!(counts(&rows), (0, 0, 1));
    let change = &rows.samples.changed[0].changes[0];
    let (a, b) = (change.a.as_deref().unwrap(), change.b.as_deref().unwrap());
    for text in [a, b] {
        assert!(text.contains("... (200001 characters, sha256 "), "{text}");
        assert!(text.chars().count() < 2_200);
    }
    assert_ne!(a, b, "values that are cut still look different");
}
