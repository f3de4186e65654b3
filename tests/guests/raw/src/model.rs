//! The two read models, and the descriptor that declares them.

use serde_json::{Value, json};

use crate::frame::{Tuple, hex};

/// The columns of `raw` after `id`: name, type, and the field of the sample value.
pub const COLUMNS: [(&str, &str, &str); 26] = [
    ("c_bool", "bool", "01"),
    ("c_int2", "int2", "fffe"),
    ("c_int4", "int4", "0001e240"),
    ("c_int8", "int8", "0000000000000000"),
    ("c_float4", "float4", "3fc00000"),
    ("c_float8", "float8", "c00921fb54442d18"),
    ("c_numeric", "numeric", "0003 0001 4000 0004 0001 0929 1a7c"),
    ("c_text", "text", "67c3bc6e"),
    ("c_bytea", "bytea", "00ff10"),
    ("c_uuid", "uuid", "00000000000000000000000000000001"),
    ("c_date", "date", "00002279"),
    ("c_timestamptz", "timestamptz", "fffffffffff0bdc0"),
    ("c_json", "json", "7b2262223a312c2261223a327d"),
    ("c_jsonb", "jsonb", "01 7b2261223a20317d"),
    (
        "c_bools",
        "bool[]",
        "00000001 00000000 00000010 00000002 00000001 00000001 01 00000001 00",
    ),
    (
        "c_int2s",
        "int2[]",
        "00000001 00000000 00000015 00000001 00000001 00000002 0007",
    ),
    ("c_int4s", "int4[]", "00000000 00000000 00000017"),
    (
        "c_int8s",
        "int8[]",
        "00000001 00000000 00000014 00000001 00000001 00000008 0000000000000007",
    ),
    (
        "c_float4s",
        "float4[]",
        "00000001 00000000 000002bc 00000001 00000001 00000004 3fc00000",
    ),
    (
        "c_float8s",
        "float8[]",
        "00000001 00000000 000002bd 00000001 00000001 00000008 3ff8000000000000",
    ),
    (
        "c_numerics",
        "numeric[]",
        "00000001 00000000 000006a4 00000001 00000001 00000008 0000 0000 0000 0002",
    ),
    (
        "c_texts",
        "text[]",
        "00000001 00000001 00000019 00000002 00000001 00000001 61 ffffffff",
    ),
    (
        "c_byteas",
        "bytea[]",
        "00000001 00000000 00000011 00000001 00000001 00000001 ff",
    ),
    (
        "c_uuids",
        "uuid[]",
        "00000001 00000000 00000b86 00000001 00000001 00000010 00000000000000000000000000000001",
    ),
    (
        "c_dates",
        "date[]",
        "00000001 00000000 0000043a 00000001 00000001 00000004 00002279",
    ),
    (
        "c_timestamptzs",
        "timestamptz[]",
        "00000001 00000000 000004a0 00000001 00000001 00000008 0000000000000001",
    ),
];

/// What the sample values are, as PostgreSQL writes them with `::text`.
pub const SAMPLE_TEXT: [&str; 26] = [
    "true",
    "-2",
    "123456",
    "0",
    "1.5",
    "-3.141592653589793",
    "-12345.6780",
    "gün",
    "\\x00ff10",
    "00000000-0000-0000-0000-000000000001",
    "2024-02-29",
    "1999-12-31 23:59:59+00",
    "{\"b\":1,\"a\":2}",
    "{\"a\": 1}",
    "{t,f}",
    "{7}",
    "{}",
    "{7}",
    "{1.5}",
    "{1.5}",
    "{0.00}",
    "{a,NULL}",
    "{\"\\\\xff\"}",
    "{00000000-0000-0000-0000-000000000001}",
    "{2024-02-29}",
    "{\"2000-01-01 00:00:00.000001+00\"}",
];

/// The place of a column among the fields of a row of `raw`.
#[must_use]
pub fn place(column: &str) -> Option<usize> {
    COLUMNS
        .iter()
        .position(|(name, _, _)| *name == column)
        .map(|place| place + 1)
}

/// A row of `raw` with NULL in every column but the key.
#[must_use]
pub fn nulls(id: &str) -> Tuple {
    let mut row = vec![None; COLUMNS.len() + 1];
    row[0] = Some(id.as_bytes().to_vec());
    row
}

/// A row of `raw` with the sample values.
///
/// # Errors
/// When a sample is not hexadecimal.
pub fn sample(id: &str) -> Result<Tuple, String> {
    let mut row = nulls(id);
    for (field, (_, _, sample)) in row[1..].iter_mut().zip(COLUMNS) {
        *field = Some(hex(sample)?);
    }
    Ok(row)
}

/// The descriptor, as DESCRIPTOR.md describes it.
#[must_use]
pub fn descriptor() -> String {
    let mut columns = vec![json!({"name": "id", "type": "text"})];
    columns.extend(
        COLUMNS
            .iter()
            .map(|(name, kind, _)| json!({"name": name, "type": kind, "nullable": true})),
    );
    let raw: Value = json!({"name": "raw", "columns": columns, "key": ["id"], "indexes": [{"columns": ["c_int8"]}]});
    let pairs = json!({
        "name": "raw_pairs",
        "comment": "A key of two columns.",
        "columns": [
            {"name": "a", "type": "text"},
            {"name": "b", "type": "int4"},
            {"name": "n", "type": "int8", "comment": "The sum."},
        ],
        "key": ["a", "b"],
    });
    let owned = json!({
        "name": "raw_owned",
        "comment": "A row belongs to the stream that made it.",
        "per_stream": true,
        "columns": [{"name": "id", "type": "text"}, {"name": "n", "type": "int8", "comment": "The sum."}],
        "key": ["id"],
    });
    json!({"descriptor": 1, "name": "raw", "version": "1", "event_types": ["Raw"], "read_models": [raw, pairs, owned]})
        .to_string()
}
