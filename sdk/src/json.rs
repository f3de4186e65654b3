//! JSON values: [`Json`] for `jsonb` columns, [`JsonText`] for `json` columns, [`JsonObject`] for upcasting.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::column::{ColumnType, Scalar, text};
use crate::{Error, Result};

mod canonical;

/// A JSON value, stored as `jsonb`.
///
/// It is kept as the text that PostgreSQL would give back: members sorted by
/// length and then by bytes, the last of doubled members, numbers without
/// exponent. So a row reads the same whether it comes from the database or was
/// written a moment ago.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json(Box<str>);

impl Json {
    /// Reads JSON text.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Self(canonical::write(text)?.into_boxed_str()))
    }

    /// The JSON of any serialisable value.
    pub fn new(value: &impl Serialize) -> Result<Self> {
        Self::parse(&serde_json::to_string(value)?)
    }

    /// The value as a Rust type.
    pub fn get<'j, T: Deserialize<'j>>(&'j self) -> Result<T> {
        Ok(serde_json::from_str(&self.0)?)
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for Json {
    const TYPE: ColumnType = ColumnType::Jsonb;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        out.extend_from_slice(self.0.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        match bytes.split_first() {
            // PostgreSQL's text is canonical already; the engine normalises in the same way.
            Some((1, json)) => Ok(Self(text(json)?.into())),
            _ => Err(Error::new("a jsonb that does not begin with version 1")),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::parse(raw.get()).map_err(serde::de::Error::custom)
    }
}

/// JSON text exactly as it was written, stored as `json`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct JsonText(Box<str>);

impl JsonText {
    /// Reads JSON text.
    pub fn parse(text: &str) -> Result<Self> {
        let raw: &RawValue = serde_json::from_str(text)?;
        Ok(Self(raw.get().into()))
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for JsonText {
    const TYPE: ColumnType = ColumnType::Json;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        Ok(Self(text(bytes)?.into()))
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(raw.get().into()))
    }
}

macro_rules! shown_as_text {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
                raw.serialize(serializer)
            }
        }
    )*};
}

shown_as_text!(Json, JsonText);

/// An event's data on its way to a newer shape. Members that are not touched keep their text, digit for digit.
#[derive(Debug, Default)]
pub struct JsonObject(BTreeMap<String, Box<RawValue>>);

impl JsonObject {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Ok(Self(serde_json::from_str(text)?))
    }

    pub(crate) fn to_text(&self) -> Result<String> {
        Ok(serde_json::to_string(&self.0)?)
    }

    /// Whether there is such a member.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A member's value, `None` when there is no such member.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let member = self
            .0
            .get(name)
            .map(|raw| serde_json::from_str(raw.get()))
            .transpose();
        member.map_err(|error| Error::new(format_args!("member {name:?}: {error}")))
    }

    /// Adds or replaces a member.
    pub fn set(&mut self, name: &str, value: impl Serialize) -> Result {
        self.0
            .insert(name.to_owned(), serde_json::value::to_raw_value(&value)?);
        Ok(())
    }

    /// Adds a member unless there is one of this name.
    pub fn set_default(&mut self, name: &str, value: impl Serialize) -> Result {
        if self.contains(name) {
            Ok(())
        } else {
            self.set(name, value)
        }
    }

    /// Gives a member another name; nothing happens when there is no such member.
    pub fn rename(&mut self, from: &str, to: &str) {
        if let Some(value) = self.0.remove(from) {
            self.0.insert(to.to_owned(), value);
        }
    }

    /// Removes a member and returns its value.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>> {
        let value = self.get(name)?;
        self.0.remove(name);
        Ok(value)
    }
}
