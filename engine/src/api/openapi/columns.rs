//! Columns: the JSON of their values, and what they can be filtered by.

use serde_json::{Value, json};

use crate::query::plan;
use crate::read_model::{Column, ColumnType, Scalar};

/// The JSON Schema of a column's values.
pub(super) fn schema(column: &Column) -> Value {
    let mut schema = match column.kind {
        ColumnType::Scalar(scalar) => of_scalar(scalar, column.nullable),
        ColumnType::Array(scalar) => {
            let items = of_scalar(scalar, true);
            json!({ "type": kinds("array", column.nullable), "items": items })
        }
    };
    schema["description"] = json!(about(column));
    schema
}

/// What the author says of it, and its type.
fn about(column: &Column) -> String {
    let kind = format!("PostgreSQL: {}.", column.kind);
    match &column.comment {
        None => kind,
        Some(comment) => format!("{comment}\n\n{kind}"),
    }
}

fn of_scalar(scalar: Scalar, nullable: bool) -> Value {
    let kind = |name: &str| kinds(name, nullable);
    match scalar {
        Scalar::Bool => json!({ "type": kind("boolean") }),
        Scalar::Int2 => {
            json!({ "type": kind("integer"), "minimum": i16::MIN, "maximum": i16::MAX })
        }
        Scalar::Int4 => json!({ "type": kind("integer"), "format": "int32" }),
        Scalar::Int8 => json!({ "type": kind("integer"), "format": "int64" }),
        // JSON has no numbers for these three.
        Scalar::Float4 | Scalar::Float8 => json!({ "anyOf": [
            { "type": kind("number") },
            { "enum": ["NaN", "Infinity", "-Infinity"] },
        ]}),
        Scalar::Numeric => json!({ "type": kind("number") }),
        Scalar::Text => json!({ "type": kind("string") }),
        Scalar::Bytea => json!({ "type": kind("string"), "pattern": "^\\\\x([0-9a-f]{2})*$" }),
        Scalar::Uuid => json!({ "type": kind("string"), "format": "uuid" }),
        // No format: PostgreSQL also has years before the first and after the 9999th.
        Scalar::Date | Scalar::Timestamptz => json!({ "type": kind("string") }),
        Scalar::Json | Scalar::Jsonb => json!({}),
    }
}

fn kinds(name: &str, nullable: bool) -> Value {
    match nullable {
        true => json!([name, "null"]),
        false => json!(name),
    }
}

/// A value of this type as a query writes it.
pub(super) fn example(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Scalar(Scalar::Bool) => "true",
        ColumnType::Scalar(Scalar::Int2 | Scalar::Int4 | Scalar::Int8) => "10",
        ColumnType::Scalar(Scalar::Float4 | Scalar::Float8 | Scalar::Numeric) => "1.5",
        ColumnType::Scalar(Scalar::Text) => "abc",
        ColumnType::Scalar(Scalar::Bytea) => "\\x00ff",
        ColumnType::Scalar(Scalar::Uuid) => "0190a5d6-7b3c-7def-8123-456789abcdef",
        ColumnType::Scalar(Scalar::Date) => "2026-01-31",
        ColumnType::Scalar(Scalar::Timestamptz) => "2026-01-31T12:30:00Z",
        ColumnType::Scalar(Scalar::Json | Scalar::Jsonb) => "{\"a\":1}",
        ColumnType::Array(Scalar::Bool) => "{true,false}",
        ColumnType::Array(Scalar::Uuid) => "{0190a5d6-7b3c-7def-8123-456789abcdef}",
        ColumnType::Array(Scalar::Date) => "{2026-01-31}",
        ColumnType::Array(Scalar::Timestamptz) => "{\"2026-01-31T12:30:00Z\"}",
        ColumnType::Array(Scalar::Bytea) => "{\"\\\\x00ff\"}",
        ColumnType::Array(_) => "{1,2}",
    }
}

/// The query parameter that filters by a column.
pub(super) fn filter(column: &Column) -> Value {
    let (name, kind) = (&column.name, column.kind);
    let examples: serde_json::Map<String, Value> = operators(kind)
        .into_iter()
        .map(|(operator, value)| {
            let example = json!({ "value": format!("{operator}.{value}") });
            (operator.replace('.', "_"), example)
        })
        .collect();
    json!({
        "name": name,
        "in": "query",
        "description": format!("Rows of which the column passes this test; may be repeated. {}", about(column)),
        "schema": { "type": "string", "pattern": PATTERN },
        "examples": examples,
    })
}

/// Every test begins so; what follows depends on the column's type.
const PATTERN: &str = r"^(not\.)?(eq|neq|gt|gte|lt|lte|isdistinct|in|is|like|ilike|match|imatch|fts|plfts|phfts|wfts|cs|cd|ov)(\([^)]*\))?\.";

/// The operators for columns of a type, with values.
fn operators(kind: ColumnType) -> Vec<(String, String)> {
    let value = example(kind);
    let quoted = format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
    let mut operators = Vec::new();
    for operator in plan::operators(kind) {
        let operand = match operator {
            "is" if kind == ColumnType::Scalar(Scalar::Bool) => "true".to_owned(),
            "is" => "null".to_owned(),
            "in" => format!("({quoted})"),
            "like" | "ilike" => "*b*".to_owned(),
            "match" | "imatch" => "^a.c$".to_owned(),
            "fts" | "plfts" | "phfts" | "wfts" => "abc".to_owned(),
            _ => value.to_owned(),
        };
        operators.push((operator.to_owned(), operand));
    }
    if operators.iter().any(|(operator, _)| operator == "eq") {
        operators.push(("not.eq".to_owned(), value.to_owned()));
    }
    operators
}
