//! Column types: which Rust type is stored as which PostgreSQL type, and its bytes.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::frame::{self, FrameReader, fixed};
use crate::{Date, Decimal, Error, Json, JsonText, Result, Timestamp, Uuid};

/// A PostgreSQL type of `wit/FRAMES.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are PostgreSQL's")]
pub enum ColumnType {
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
    /// A one-dimensional array.
    Array(&'static ColumnType),
}

impl ColumnType {
    /// The name in the descriptor.
    #[must_use]
    pub fn name(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Bool => "bool",
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Float4 => "float4",
            Self::Float8 => "float8",
            Self::Numeric => "numeric",
            Self::Text => "text",
            Self::Bytea => "bytea",
            Self::Uuid => "uuid",
            Self::Date => "date",
            Self::Timestamptz => "timestamptz",
            Self::Json => "json",
            Self::Jsonb => "jsonb",
            Self::Array(element) => return Cow::Owned(format!("{}[]", element.name())),
        })
    }

    /// PostgreSQL's number for the type, which the header of an array carries.
    const fn oid(self) -> i32 {
        match self {
            Self::Bool => 16,
            Self::Bytea => 17,
            Self::Int8 => 20,
            Self::Int2 => 21,
            Self::Int4 => 23,
            Self::Text => 25,
            Self::Json => 114,
            Self::Float4 => 700,
            Self::Float8 => 701,
            Self::Date => 1082,
            Self::Timestamptz => 1184,
            Self::Numeric => 1700,
            Self::Uuid => 2950,
            Self::Jsonb => 3802,
            Self::Array(_) => 0,
        }
    }
}

/// A type with a PostgreSQL type of its own, never NULL.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be stored in a column",
    label = "this type has no PostgreSQL counterpart",
    note = "columns are `bool`, `i16`, `i32`, `i64`, `f32`, `f64`, `Decimal`, `String`, `Vec<u8>`, `Uuid`, `Date`, `Timestamp`, `Json`, `JsonText`, `Vec` and `Option` of them, and unit enums with `#[derive(Text)]`",
    note = "PostgreSQL has no unsigned integers: take the next larger signed one"
)]
pub trait Scalar: Sized {
    /// Its PostgreSQL type.
    const TYPE: ColumnType;

    /// Appends the value's bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads the value back.
    fn decode(bytes: &[u8]) -> Result<Self>;

    /// Refuses a value that PostgreSQL could not store.
    #[inline]
    fn check(&self) -> Result {
        Ok(())
    }
}

/// A type that a read model's field can have: every [`Scalar`], and `Option` of it for a column that may be NULL.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be stored in a column",
    label = "this type has no PostgreSQL counterpart"
)]
pub trait Column: Sized {
    /// Its PostgreSQL type.
    const TYPE: ColumnType;
    /// Whether the column may be NULL.
    const NULLABLE: bool;

    /// Appends the field, its length included.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads the field back.
    fn read(field: Option<&[u8]>) -> Result<Self>;

    /// Refuses a value that PostgreSQL could not store.
    fn check(&self) -> Result;
}

impl<T: Scalar> Column for T {
    const TYPE: ColumnType = T::TYPE;
    const NULLABLE: bool = false;

    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        frame::field(out, |out| self.encode(out));
    }

    fn read(field: Option<&[u8]>) -> Result<Self> {
        T::decode(field.ok_or_else(|| Error::new("NULL in a column that is not nullable"))?)
    }

    #[inline]
    fn check(&self) -> Result {
        Scalar::check(self)
    }
}

impl<T: Scalar> Column for Option<T> {
    const TYPE: ColumnType = T::TYPE;
    const NULLABLE: bool = true;

    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => Column::write(value, out),
            None => frame::null(out),
        }
    }

    fn read(field: Option<&[u8]>) -> Result<Self> {
        field.map(T::decode).transpose()
    }

    #[inline]
    fn check(&self) -> Result {
        self.as_ref().map_or(Ok(()), Scalar::check)
    }
}

/// A type that can be part of a key.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a key",
    label = "not a key type",
    note = "keys are `bool`, `i16`, `i32`, `i64`, `String`, `Uuid`, `Date`, `Timestamp`, `Vec<u8>` and unit enums with `#[derive(Text)]`"
)]
pub trait KeyColumn: Scalar {}

/// A value that names a row whose key is `K`: `&str` for a `String`, a tuple for a key of several columns.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a key of type `{K}`",
    label = "expected `{K}` or a reference to it",
    note = "a key of several columns is a tuple in the order of the `#[key]` fields"
)]
pub trait KeyOf<K> {
    /// Appends the key's fields.
    fn write_key(&self, out: &mut Vec<u8>);
}

impl<K, T: KeyOf<K> + ?Sized> KeyOf<K> for &T {
    #[inline]
    fn write_key(&self, out: &mut Vec<u8>) {
        T::write_key(self, out);
    }
}

impl KeyOf<String> for str {
    #[inline]
    fn write_key(&self, out: &mut Vec<u8>) {
        frame::field(out, |out| out.extend_from_slice(self.as_bytes()));
    }
}

impl KeyOf<String> for Cow<'_, str> {
    #[inline]
    fn write_key(&self, out: &mut Vec<u8>) {
        KeyOf::<String>::write_key(&**self, out);
    }
}

impl KeyOf<Vec<u8>> for [u8] {
    #[inline]
    fn write_key(&self, out: &mut Vec<u8>) {
        frame::field(out, |out| out.extend_from_slice(self));
    }
}

macro_rules! keys {
    ($($type:ty),*) => {$(
        impl KeyColumn for $type {}
        impl KeyOf<$type> for $type {
            #[inline]
            fn write_key(&self, out: &mut Vec<u8>) {
                Column::write(self, out);
            }
        }
    )*};
}

keys!(bool, i16, i32, i64, String, Uuid, Date, Timestamp, Vec<u8>);

macro_rules! composite_keys {
    ($($key:ident $given:ident $index:tt),*) => {
        impl<$($key: KeyColumn, $given: KeyOf<$key>),*> KeyOf<($($key,)*)> for ($($given,)*) {
            #[inline]
            fn write_key(&self, out: &mut Vec<u8>) {
                $(self.$index.write_key(out);)*
            }
        }
    };
}

composite_keys!(A KA 0, B KB 1);
composite_keys!(A KA 0, B KB 1, C KC 2);
composite_keys!(A KA 0, B KB 1, C KC 2, D KD 3);
composite_keys!(A KA 0, B KB 1, C KC 2, D KD 3, E KE 4);
composite_keys!(A KA 0, B KB 1, C KC 2, D KD 3, E KE 4, F KF 5);

macro_rules! numbers {
    ($($type:ty => $column:ident),*) => {$(
        impl Scalar for $type {
            const TYPE: ColumnType = ColumnType::$column;

            #[inline]
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }

            fn decode(bytes: &[u8]) -> Result<Self> {
                Ok(Self::from_be_bytes(fixed(bytes)?))
            }
        }
    )*};
}

numbers!(i16 => Int2, i32 => Int4, i64 => Int8, f32 => Float4, f64 => Float8);

impl Scalar for bool {
    const TYPE: ColumnType = ColumnType::Bool;

    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        match bytes {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Error::new("a bool is one byte, 0 or 1")),
        }
    }
}

impl Scalar for String {
    const TYPE: ColumnType = ColumnType::Text;

    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        text(bytes).map(str::to_owned)
    }

    #[inline]
    fn check(&self) -> Result {
        if self.as_bytes().contains(&0) {
            return Err(Error::new("PostgreSQL cannot store U+0000 in text"));
        }
        Ok(())
    }
}

impl Scalar for Vec<u8> {
    const TYPE: ColumnType = ColumnType::Bytea;

    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        Ok(bytes.to_vec())
    }
}

/// Text from a frame.
pub(crate) fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| Error::new("text that is not UTF-8"))
}

/// What an array can hold: a scalar, or `Option` of one where elements may be NULL.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the element of an array column",
    note = "arrays of arrays and of JSON are not supported: use a `Json` column"
)]
pub trait Element: Column {
    /// The element's type, with an address of its own for [`ColumnType::Array`].
    const ELEMENT: &'static ColumnType;

    /// Whether this element is NULL.
    fn is_null(&self) -> bool {
        false
    }
}

macro_rules! elements {
    ($($type:ty),*) => {$(
        impl Element for $type {
            const ELEMENT: &'static ColumnType = &<$type as Scalar>::TYPE;
        }
        impl Element for Option<$type> {
            const ELEMENT: &'static ColumnType = &<$type as Scalar>::TYPE;

            fn is_null(&self) -> bool {
                self.is_none()
            }
        }
    )*};
}

elements!(
    bool,
    i16,
    i32,
    i64,
    f32,
    f64,
    Decimal,
    String,
    Vec<u8>,
    Uuid,
    Date,
    Timestamp
);

impl<T: Element> Scalar for Vec<T> {
    const TYPE: ColumnType = ColumnType::Array(T::ELEMENT);

    fn encode(&self, out: &mut Vec<u8>) {
        let dimensions = i32::from(!self.is_empty());
        let flags = i32::from(self.iter().any(Element::is_null));
        for header in [dimensions, flags, T::ELEMENT.oid()] {
            out.extend_from_slice(&header.to_be_bytes());
        }
        if self.is_empty() {
            return;
        }
        // The elements of a Vec that fits into a guest's memory can be counted in 32 bits.
        out.extend_from_slice(&(self.len() as i32).to_be_bytes());
        out.extend_from_slice(&1_i32.to_be_bytes());
        for element in self {
            element.write(out);
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        array(bytes)?.map(|element| T::read(element?)).collect()
    }

    fn check(&self) -> Result {
        self.iter().try_for_each(Column::check)
    }
}

/// The elements of an array.
fn array(bytes: &[u8]) -> Result<impl Iterator<Item = Result<Option<&[u8]>>>> {
    let header = |index: usize| -> Result<i32> {
        let bytes = bytes.get(index * 4..index * 4 + 4);
        Ok(i32::from_be_bytes(fixed(bytes.unwrap_or_default())?))
    };
    let (count, start) = match header(0)? {
        0 => (0, 12),
        1 => (header(3)?, 20),
        more => return Err(Error::new(format_args!("an array of {more} dimensions"))),
    };
    let mut fields = FrameReader::new(bytes.get(start..).unwrap_or_default());
    Ok((0..count).map(move |_| fields.field()))
}

/// A field as a person would write it, for messages.
#[must_use]
pub fn display(column: ColumnType, field: Option<&[u8]>) -> String {
    let Some(bytes) = field else {
        return "NULL".to_owned();
    };
    shown(column, bytes).unwrap_or_else(|_| hex(bytes))
}

fn shown(column: ColumnType, bytes: &[u8]) -> Result<String> {
    Ok(match column {
        ColumnType::Bool => bool::decode(bytes)?.to_string(),
        ColumnType::Int2 => i16::decode(bytes)?.to_string(),
        ColumnType::Int4 => i32::decode(bytes)?.to_string(),
        ColumnType::Int8 => i64::decode(bytes)?.to_string(),
        ColumnType::Float4 => f32::decode(bytes)?.to_string(),
        ColumnType::Float8 => f64::decode(bytes)?.to_string(),
        ColumnType::Numeric => Decimal::decode(bytes)?.to_string(),
        ColumnType::Text => format!("{:?}", text(bytes)?),
        ColumnType::Json => JsonText::decode(bytes)?.to_string(),
        ColumnType::Jsonb => Json::decode(bytes)?.to_string(),
        ColumnType::Bytea => hex(bytes),
        ColumnType::Uuid => Uuid::decode(bytes)?.to_string(),
        ColumnType::Date => Date::decode(bytes)?.to_string(),
        ColumnType::Timestamptz => Timestamp::decode(bytes)?.to_string(),
        ColumnType::Array(element) => {
            let elements: Result<Vec<String>> = array(bytes)?
                .map(|field| Ok(display(*element, field?)))
                .collect();
            format!("[{}]", elements?.join(", "))
        }
    })
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::from("\\x");
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
