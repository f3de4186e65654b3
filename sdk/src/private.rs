//! What the macros' output calls. Not part of the interface.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, de};

use crate::{Error, Result};

/// Stops compilation at a name that the engine would refuse.
pub const fn check_projection_name(name: &str) {
    let bytes = name.as_bytes();
    assert!(
        !bytes.is_empty() && bytes.len() <= 63,
        "a projection's name has 1 to 63 characters"
    );
    assert!(
        bytes[0].is_ascii_lowercase(),
        "a projection's name begins with a small letter"
    );
    let mut at = 0;
    while at < bytes.len() {
        assert!(
            matches!(bytes[at], b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'),
            "a projection's name consists of small letters, digits, `_` and `-`"
        );
        at += 1;
    }
}

/// Reads an event's payload.
pub fn payload<'e, T: Deserialize<'e>>(data: &'e str) -> Result<T> {
    serde_json::from_str(data)
        .map_err(|error| Error::new(format_args!("its data does not fit: {error}")))
}

/// Names the column in an error.
pub fn in_column<T>(column: &str, result: Result<T>) -> Result<T> {
    result.map_err(|error| error.context(format_args!("column `{column}`")))
}

/// The error for a text that is none of an enum's variants.
pub fn no_variant(text: &str, variants: &str) -> Error {
    Error::new(format_args!("{text:?} is none of {variants}"))
}

/// Reads text without copying it, which serde's own `Option<Cow<str>>` would do.
pub fn optional_text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Cow<'de, str>>, D::Error> {
    struct Text;
    impl<'de> de::Visitor<'de> for Text {
        type Value = Option<Cow<'de, str>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or null")
        }
        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_some<D: Deserializer<'de>>(
            self,
            deserializer: D,
        ) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_str(self)
        }
        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(Cow::Owned(text.to_owned())))
        }
        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Some(Cow::Borrowed(text)))
        }
    }
    deserializer.deserialize_option(Text)
}

/// Reads an enum from a JSON string.
pub fn text_enum<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: fn(&str) -> Result<T>,
) -> Result<T, D::Error> {
    struct Variant<T>(fn(&str) -> Result<T>);
    impl<T> de::Visitor<'_> for Variant<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.0)(text).map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Variant(parse))
}

/// Text from a frame.
pub fn text(bytes: &[u8]) -> Result<&str> {
    crate::column::text(bytes)
}

/// Compiles for the type of a key column only.
pub const fn key_column<T: crate::column::KeyColumn>() {}

/// A type of a column by which a row refers to a key.
#[diagnostic::on_unimplemented(
    message = "a column of type `{Self}` cannot refer to a key",
    label = "not a key type, nor an `Option` of one",
    note = "keys are `bool`, `i16`, `i32`, `i64`, `String`, `Uuid`, `Date`, `Timestamp`, `Vec<u8>` and unit enums with `#[derive(Text)]`"
)]
pub trait RefersToKey {}

impl<T: crate::column::KeyColumn> RefersToKey for T {}
impl<T: crate::column::KeyColumn> RefersToKey for Option<T> {}

/// Compiles for the type of a column that can refer to a key only.
pub const fn referring_column<T: RefersToKey>() {}
