//! Column types: their names, how PostgreSQL calls them, and which may be part of a key.

use std::fmt;
use std::str::FromStr;

/// A typed column of a read model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Becomes the SQL comment.
    pub comment: Option<String>,
}

/// The type of a column: a scalar, or an array of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// One value.
    Scalar(Scalar),
    /// A one-dimensional array.
    Array(Scalar),
}

/// The scalar types of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "these are PostgreSQL's own type names")]
pub enum Scalar {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Text,
    Bytea,
    Uuid,
    Date,
    Timestamptz,
    Json,
    Jsonb,
}

/// Name, SQL type, oid of the type, oid of its array type (PostgreSQL's `pg_type.dat`; fixed for ever).
const SCALARS: [(Scalar, &str, &str, u32, u32); 14] = [
    (Scalar::Bool, "bool", "boolean", 16, 1000),
    (Scalar::Int2, "int2", "smallint", 21, 1005),
    (Scalar::Int4, "int4", "integer", 23, 1007),
    (Scalar::Int8, "int8", "bigint", 20, 1016),
    (Scalar::Float4, "float4", "real", 700, 1021),
    (Scalar::Float8, "float8", "double precision", 701, 1022),
    (Scalar::Numeric, "numeric", "numeric", 1700, 1231),
    (Scalar::Text, "text", "text", 25, 1009),
    (Scalar::Bytea, "bytea", "bytea", 17, 1001),
    (Scalar::Uuid, "uuid", "uuid", 2950, 2951),
    (Scalar::Date, "date", "date", 1082, 1182),
    (
        Scalar::Timestamptz,
        "timestamptz",
        "timestamp with time zone",
        1184,
        1185,
    ),
    (Scalar::Json, "json", "json", 114, 199),
    (Scalar::Jsonb, "jsonb", "jsonb", 3802, 3807),
];

impl Scalar {
    fn entry(self) -> &'static (Scalar, &'static str, &'static str, u32, u32) {
        &SCALARS[self as usize]
    }

    /// The name in descriptors.
    pub fn name(self) -> &'static str {
        self.entry().1
    }

    /// The name in SQL.
    pub fn sql(self) -> &'static str {
        self.entry().2
    }

    /// The type's oid.
    pub fn oid(self) -> u32 {
        self.entry().3
    }

    /// The oid of the type's array type.
    pub fn array_oid(self) -> u32 {
        self.entry().4
    }

    /// The fixed width of a value's bytes, if it has one.
    pub fn width(self) -> Option<usize> {
        match self {
            Scalar::Bool => Some(1),
            Scalar::Int2 => Some(2),
            Scalar::Int4 | Scalar::Float4 | Scalar::Date => Some(4),
            Scalar::Int8 | Scalar::Float8 | Scalar::Timestamptz => Some(8),
            Scalar::Uuid => Some(16),
            Scalar::Numeric | Scalar::Text | Scalar::Bytea | Scalar::Json | Scalar::Jsonb => None,
        }
    }
}

impl ColumnType {
    /// The name in SQL, array brackets included.
    pub fn sql(self) -> String {
        match self {
            ColumnType::Scalar(scalar) => scalar.sql().to_owned(),
            ColumnType::Array(scalar) => format!("{}[]", scalar.sql()),
        }
    }

    /// The type with this oid, if it is one of the contract's.
    pub fn from_oid(oid: u32) -> Option<Self> {
        SCALARS.iter().find_map(|entry| {
            if entry.3 == oid {
                Some(ColumnType::Scalar(entry.0))
            } else if entry.4 == oid {
                Some(ColumnType::Array(entry.0))
            } else {
                None
            }
        })
    }

    /// The type's oid.
    pub fn oid(self) -> u32 {
        match self {
            ColumnType::Scalar(scalar) => scalar.oid(),
            ColumnType::Array(scalar) => scalar.array_oid(),
        }
    }

    /// Whether the type may be part of a key: its equality must be that of its bytes.
    pub fn may_be_key(self) -> bool {
        match self {
            ColumnType::Array(_) => false,
            ColumnType::Scalar(scalar) => matches!(
                scalar,
                Scalar::Bool
                    | Scalar::Int2
                    | Scalar::Int4
                    | Scalar::Int8
                    | Scalar::Text
                    | Scalar::Uuid
                    | Scalar::Date
                    | Scalar::Timestamptz
                    | Scalar::Bytea
            ),
        }
    }

    /// Whether a B-tree index can hold it.
    pub fn may_be_indexed(self) -> bool {
        !matches!(self, ColumnType::Scalar(Scalar::Json | Scalar::Jsonb))
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ColumnType::Scalar(scalar) => f.write_str(scalar.name()),
            ColumnType::Array(scalar) => write!(f, "{}[]", scalar.name()),
        }
    }
}

impl FromStr for ColumnType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, array) = match text.strip_suffix("[]") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let known = || {
            let names: Vec<_> = SCALARS.iter().map(|entry| entry.1).collect();
            format!(
                "there is no column type \"{text}\"; the types are {}, and arrays such as text[]",
                names.join(", ")
            )
        };
        let scalar = SCALARS
            .iter()
            .find(|entry| entry.1 == name)
            .map(|entry| entry.0)
            .ok_or_else(known)?;
        match (scalar, array) {
            (Scalar::Json | Scalar::Jsonb, true) => {
                Err(format!("there are no arrays of {name}: store a JSON array"))
            }
            (scalar, true) => Ok(ColumnType::Array(scalar)),
            (scalar, false) => Ok(ColumnType::Scalar(scalar)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scalar_finds_its_own_entry() {
        for entry in SCALARS {
            assert_eq!(entry.0.entry().1, entry.1);
            assert_eq!(
                entry.1.parse::<ColumnType>().unwrap(),
                ColumnType::Scalar(entry.0)
            );
        }
    }
}
