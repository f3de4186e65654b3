//! One entry of a stream: its fields become a line of JSON, as an import reads it.

use std::borrow::Cow;

use redis::Value;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::event::Micros;

/// Microseconds from 1970 to 2000.
const EPOCH_2000: i64 = 946_684_800_000_000;
/// Milliseconds from 1970 to the year 9999.
const LAST_MILLISECOND: i64 = 253_370_764_800_000;

/// Which fields of an entry hold what.
#[derive(Debug, Clone)]
pub struct Fields {
    /// The event's stream.
    pub stream_id: String,
    /// The event's type.
    pub kind: String,
    /// What happened, as JSON.
    pub data: String,
    /// What is noted beside it, as a JSON object; may be missing or empty.
    pub metadata: String,
    /// The event's identity, a UUID; may be missing or empty.
    pub event_id: String,
    /// When it happened; may be missing or empty.
    pub occurred_at: String,
}

/// An entry as Redis has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: String,
    /// In their order, as they are: fields may repeat, and hold any bytes.
    pub(super) fields: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Serialize)]
struct Line<'a> {
    stream_id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    data: &'a RawValue,
    metadata: Option<&'a RawValue>,
    event_id: Cow<'a, str>,
    occurred_at: Option<&'a str>,
}

impl Entry {
    /// The entries of a reply; each is `[id, [field, value, ...]]`. `None` stands for one that was deleted meanwhile.
    pub(super) fn all(reply: Value) -> Option<Vec<Option<Entry>>> {
        let Value::Array(entries) = reply else {
            return None;
        };
        entries.into_iter().map(Self::one).collect()
    }

    fn one(reply: Value) -> Option<Option<Entry>> {
        let Value::Array(parts) = reply else {
            return matches!(reply, Value::Nil).then_some(None);
        };
        let [id, fields]: [Value; 2] = parts.try_into().ok()?;
        let id = String::from_utf8(bytes(id)?).ok()?;
        let Value::Array(flat) = fields else {
            // Redis before version 7 tells of a deleted entry in this way.
            return Some(None);
        };
        let mut flat = flat.into_iter();
        let mut fields = Vec::with_capacity(flat.len() / 2);
        while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
            fields.push((bytes(name)?, bytes(value)?));
        }
        Some(Some(Entry { id, fields }))
    }

    /// The entry as a line of an import, or what is wrong with it.
    pub(super) fn line(&self, fields: &Fields, namespace: &Uuid) -> Result<Vec<u8>, String> {
        let made = || Uuid::new_v5(namespace, self.id.as_bytes()).to_string();
        let metadata = self.text(&fields.metadata)?;
        let line = Line {
            stream_id: self.required(&fields.stream_id, "stream_id", "--stream-field")?,
            kind: self.required(&fields.kind, "type", "--type-field")?,
            data: json(
                &fields.data,
                self.required(&fields.data, "data", "--data-field")?,
            )?,
            metadata: metadata
                .map(|text| json(&fields.metadata, text))
                .transpose()?,
            event_id: self
                .text(&fields.event_id)?
                .map_or_else(|| made().into(), Cow::Borrowed),
            occurred_at: self.text(&fields.occurred_at)?,
        };
        serde_json::to_vec(&line).map_err(|error| error.to_string())
    }

    /// Its place in the stream: ids are two numbers.
    pub(super) fn place(&self) -> (u64, u64) {
        let mut parts = self.id.splitn(2, '-').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// When it was added, if its id is one that Redis made: those begin with the milliseconds since 1970.
    pub(super) fn moment(&self) -> Option<Micros> {
        let (milliseconds, _) = self.id.split_once('-')?;
        let milliseconds: i64 = milliseconds.parse().ok()?;
        let plausible = EPOCH_2000 / 1_000..=LAST_MILLISECOND;
        plausible
            .contains(&milliseconds)
            .then(|| milliseconds * 1_000 - EPOCH_2000)
    }

    fn required(&self, field: &str, what: &str, option: &str) -> Result<&str, String> {
        self.text(field)?.ok_or_else(|| {
            let names = self.fields.iter().map(|(name, _)| String::from_utf8_lossy(name));
            let names: Vec<_> = names.collect();
            format!(
                "its {what} is missing: there is no field \"{field}\" with a value (its fields: {}); name the field with {option}",
                names.join(", ")
            )
        })
    }

    /// The value of a field; `None` when it is missing or empty.
    fn text(&self, field: &str) -> Result<Option<&str>, String> {
        let found = (self.fields.iter()).find(|(name, _)| name == field.as_bytes());
        match found {
            None => Ok(None),
            Some((_, value)) => match std::str::from_utf8(value) {
                Ok(text) => Ok((!text.is_empty()).then_some(text)),
                Err(_) => Err(format!("its field \"{field}\" is not UTF-8")),
            },
        }
    }
}

fn json<'t>(field: &str, text: &'t str) -> Result<&'t RawValue, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("its field \"{field}\" is not JSON: {error}"))
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields {
            stream_id: "stream_id".into(),
            kind: "type".into(),
            data: "data".into(),
            metadata: "metadata".into(),
            event_id: "event_id".into(),
            occurred_at: "occurred_at".into(),
        }
    }

    fn entry(id: &str, fields: &[(&str, &str)]) -> Entry {
        let fields = fields.iter();
        let fields = fields.map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into()));
        Entry {
            id: id.to_owned(),
            fields: fields.collect(),
        }
    }

    #[test]
    fn a_field_cannot_smuggle_members_into_the_event() {
        let attack = entry(
            "1-1",
            &[
                ("stream_id", "a\",\"type\":\"Forged"),
                ("type", "T"),
                ("data", "{\"n\": 1}\n"),
            ],
        );
        let line = attack.line(&fields(), &Uuid::nil()).unwrap();
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(line["stream_id"], "a\",\"type\":\"Forged");
        assert_eq!(line["type"], "T");
        let attack = entry(
            "1-1",
            &[
                ("stream_id", "a"),
                ("type", "T"),
                ("data", "1,\"type\":\"Forged\""),
            ],
        );
        let error = attack.line(&fields(), &Uuid::nil()).unwrap_err();
        assert!(error.contains("its field \"data\" is not JSON"), "{error}");
    }

    #[test]
    fn an_id_that_redis_made_says_when_and_others_do_not() {
        let moment = |id: &str| entry(id, &[]).moment();
        assert_eq!(moment("946684800000-0"), Some(0));
        assert_eq!(moment("946684800001-7"), Some(1_000));
        for other in ["0-1", "1-1", "946684799999-0", "18446744073709551615-1"] {
            assert_eq!(moment(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_what_is_there_and_the_option() {
        let error = entry("1-1", &[("payload", "{}"), ("kind", "T")])
            .line(&fields(), &Uuid::nil())
            .unwrap_err();
        for part in ["stream_id", "payload, kind", "--stream-field"] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    }
}
