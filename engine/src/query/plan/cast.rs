//! Casts: which type a name means, and between which types PostgreSQL has a cast.

use crate::query::parse::Name;
use crate::query::{Refusal, nearest};
use crate::read_model::{ColumnType, Scalar};

/// Other names of the contract's types.
const SYNONYMS: [(&str, Scalar); 10] = [
    ("boolean", Scalar::Bool),
    ("smallint", Scalar::Int2),
    ("int", Scalar::Int4),
    ("integer", Scalar::Int4),
    ("bigint", Scalar::Int8),
    ("real", Scalar::Float4),
    ("double precision", Scalar::Float8),
    ("decimal", Scalar::Numeric),
    ("varchar", Scalar::Text),
    ("timestamp with time zone", Scalar::Timestamptz),
];

const ALL: [Scalar; 14] = [
    Scalar::Bool,
    Scalar::Int2,
    Scalar::Int4,
    Scalar::Int8,
    Scalar::Float4,
    Scalar::Float8,
    Scalar::Numeric,
    Scalar::Text,
    Scalar::Bytea,
    Scalar::Uuid,
    Scalar::Date,
    Scalar::Timestamptz,
    Scalar::Json,
    Scalar::Jsonb,
];

/// The type of this name.
pub(super) fn find(name: &Name) -> Result<ColumnType, Refusal> {
    let text = name.text.to_ascii_lowercase();
    let (base, is_array) = match text.strip_suffix("[]") {
        Some(base) => (base, true),
        None => (text.as_str(), false),
    };
    let kind = match SYNONYMS.iter().find(|entry| entry.0 == base) {
        Some(&(_, scalar)) if is_array => Ok(ColumnType::Array(scalar)),
        Some(&(_, scalar)) => Ok(ColumnType::Scalar(scalar)),
        None => text.parse(),
    };
    kind.map_err(|_| {
        let shown: String = name.text.chars().take(40).collect();
        let names = || ALL.map(Scalar::name).into_iter();
        let known = names().chain(SYNONYMS.map(|entry| entry.0));
        let hint = match nearest(base, known) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("the types are {}", names().collect::<Vec<_>>().join(", ")),
        };
        let message = format!("there is no type \"{shown}\" to cast to");
        Refusal::new("unknown_type", message, hint).at(&name.place)
    })
}

/// Whether PostgreSQL can cast one to the other (the value may still not fit).
pub(super) fn is_possible(from: ColumnType, to: ColumnType) -> bool {
    match (from, to) {
        _ if from == to => true,
        // Through the types' text, which all have.
        (ColumnType::Scalar(Scalar::Text), _) | (_, ColumnType::Scalar(Scalar::Text)) => true,
        (ColumnType::Array(from), ColumnType::Array(to)) => {
            is_possible(ColumnType::Scalar(from), ColumnType::Scalar(to))
        }
        (ColumnType::Scalar(from), ColumnType::Scalar(to)) => between(from, to),
        _ => false,
    }
}

/// The types that a value of this type can be cast to, as a hint.
pub(super) fn targets(from: ColumnType) -> String {
    let names: Vec<String> = ALL
        .into_iter()
        .flat_map(|scalar| [ColumnType::Scalar(scalar), ColumnType::Array(scalar)])
        .filter(|kind| *kind != ColumnType::Array(Scalar::Json))
        .filter(|kind| *kind != ColumnType::Array(Scalar::Jsonb))
        .filter(|kind| is_possible(from, *kind))
        .map(|kind| kind.to_string())
        .collect();
    format!("it can be cast to {}", names.join(", "))
}

fn between(from: Scalar, to: Scalar) -> bool {
    let is_number = |kind| {
        matches!(
            kind,
            Scalar::Int2
                | Scalar::Int4
                | Scalar::Int8
                | Scalar::Float4
                | Scalar::Float8
                | Scalar::Numeric
        )
    };
    match (from, to) {
        (Scalar::Bool, Scalar::Int4) | (Scalar::Int4, Scalar::Bool) => true,
        (Scalar::Date, Scalar::Timestamptz) | (Scalar::Timestamptz, Scalar::Date) => true,
        (Scalar::Json, Scalar::Jsonb) | (Scalar::Jsonb, Scalar::Json) => true,
        (Scalar::Jsonb, Scalar::Bool) => true,
        (Scalar::Jsonb, to) => is_number(to),
        (from, to) => is_number(from) && is_number(to),
    }
}
