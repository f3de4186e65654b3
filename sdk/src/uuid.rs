//! [`Uuid`]: an identifier of 16 bytes. Nothing here can make a new one: a projection has no randomness.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::column::{ColumnType, Scalar};
use crate::frame::fixed;
use crate::time::text_in_json;
use crate::{Error, Result};

/// A UUID. Reads and writes `01234567-89ab-cdef-0123-456789abcdef`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// From its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads 32 hexadecimal digits, with or without the four hyphens.
    pub fn parse(text: &str) -> Result<Self> {
        read(text)
            .map(Self)
            .ok_or_else(|| Error::new(format_args!("{text:?} is not a UUID")))
    }
}

fn read(text: &str) -> Option<[u8; 16]> {
    let hyphenated = match text.len() {
        36 => true,
        32 => false,
        _ => return None,
    };
    let mut bytes = [0; 16];
    let mut digits = 0;
    for (place, character) in text.bytes().enumerate() {
        if hyphenated && matches!(place, 8 | 13 | 18 | 23) {
            if character != b'-' {
                return None;
            }
            continue;
        }
        let digit = char::from(character).to_digit(16)? as u8;
        bytes[digits / 2] = bytes[digits / 2] << 4 | digit;
        digits += 1;
    }
    Some(bytes)
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            if matches!(place, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Scalar for Uuid {
    const TYPE: ColumnType = ColumnType::Uuid;

    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        Ok(Self(fixed(bytes)?))
    }
}

text_in_json!(Uuid, "a UUID");
