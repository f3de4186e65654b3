//! Lines of JSON become tuples for COPY.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{ImportError, json_text};
use crate::event::{Micros, moment};
use crate::frame::{write_count, write_field};

/// The columns of a tuple, in order; the position is the server's to draw.
pub(super) const COLUMNS: &str = "stream_id, version, type, data, metadata, event_id, occurred_at";
const COLUMN_COUNT: i16 = 7;
/// UUID version 5 of "gobo:import" among URLs. A line without an event_id gets one made from this, the import's name and
/// the line's number.
const NAMESPACE: Uuid = Uuid::from_u128(0x1a26_38b5_6c51_5874_87df_5351_d8dd_b438);

/// Consecutive lines that are stored together or not at all.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// One tuple after the other; the versions are still to be filled in.
    pub(super) tuples: Vec<u8>,
    pub(super) records: Vec<Record>,
    /// The streams of the records, each once.
    pub(super) streams: Vec<String>,
    /// How far the input has been read at the end of this chunk.
    pub(super) end: Mark,
}

/// The streams of a chunk that is being made, by their names.
pub(crate) type Known<'a> = HashMap<Cow<'a, str>, usize>;

/// A place in the decompressed input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) bytes: u64,
    pub(super) lines: u64,
    /// SHA-256 of everything before it.
    pub(super) prefix: [u8; 32],
}

impl Mark {
    /// Before the first byte.
    pub(super) fn nothing() -> Self {
        Self {
            bytes: 0,
            lines: 0,
            prefix: Sha256::digest([]).into(),
        }
    }
}

/// One line's event.
#[derive(Debug)]
pub(super) struct Record {
    /// From 1.
    pub(super) line: u64,
    /// Index into the chunk's streams.
    pub(super) stream: usize,
    /// As the line says.
    pub(super) version: Option<i64>,
    pub(super) event_id: Uuid,
    /// As the line says.
    pub(super) occurred_at: Option<Micros>,
    pub(super) tuple: Range<usize>,
    /// Where the eight bytes of the version are.
    version_at: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    stream_id: Cow<'a, str>,
    version: Option<i64>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    event_id: Option<Uuid>,
    #[serde(borrow)]
    occurred_at: Option<Cow<'a, str>>,
}

/// Makes chunks out of text.
#[derive(Debug)]
pub(crate) struct Parser {
    /// Of the event ids that are made here.
    namespace: Uuid,
    /// When events happened whose lines do not say.
    now: Micros,
}

impl Parser {
    pub(crate) fn new(import: &str, now: Micros) -> Self {
        Self {
            namespace: Uuid::new_v5(&NAMESPACE, import.as_bytes()),
            now,
        }
    }

    /// Parses whole lines, of which `first` is the number of the first one.
    pub(super) fn chunk(&self, text: &[u8], first: u64) -> Result<Chunk, ImportError> {
        let mut chunk = Chunk {
            tuples: Vec::with_capacity(text.len()),
            ..Chunk::default()
        };
        let mut known = Known::new();
        for (number, line) in (first..).zip(text.split_inclusive(|&byte| byte == b'\n')) {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            self.line(&mut chunk, &mut known, line, number, None)
                .map_err(|reason| ImportError::Line {
                    line: number,
                    reason,
                })?;
        }
        Ok(chunk)
    }

    /// Adds one line to a chunk; one that is refused changes nothing. `moment` is when its event happened if it does not say.
    pub(crate) fn line<'a>(
        &self,
        chunk: &mut Chunk,
        known: &mut Known<'a>,
        line: &'a [u8],
        number: u64,
        moment: Option<Micros>,
    ) -> Result<(), String> {
        // The parser would take an array as well.
        if line.first() != Some(&b'{') {
            return Err("it is not a JSON object".to_owned());
        }
        let line: Line<'a> = serde_json::from_slice(line).map_err(|error| not_a_record(&error))?;
        check(&line)?;
        let occurred_at = match &line.occurred_at {
            None => moment,
            Some(text) => Some(moment::parse(text).ok_or_else(|| {
                format!("occurred_at {text:?} is not a moment such as 2026-01-31T12:00:00.5Z")
            })?),
        };
        let event_id = line
            .event_id
            .unwrap_or_else(|| Uuid::new_v5(&self.namespace, number.to_string().as_bytes()));

        let tuples = &mut chunk.tuples;
        let start = tuples.len();
        write_count(tuples, COLUMN_COUNT);
        write_field(tuples, Some(line.stream_id.as_bytes()));
        write_field(tuples, Some(&[0; 8]));
        let version_at = tuples.len() - 8;
        write_field(tuples, Some(line.kind.as_bytes()));
        write_field(tuples, Some(line.data.get().as_bytes()));
        write_field(tuples, line.metadata.map(|text| text.get().as_bytes()));
        write_field(tuples, Some(event_id.as_bytes()));
        let happened = occurred_at.unwrap_or(self.now);
        write_field(tuples, Some(&happened.to_be_bytes()));
        let tuple = start..tuples.len();

        let stream = match known.get(&line.stream_id) {
            Some(&index) => index,
            None => {
                chunk.streams.push(line.stream_id.clone().into_owned());
                known.insert(line.stream_id, chunk.streams.len() - 1);
                chunk.streams.len() - 1
            }
        };
        chunk.records.push(Record {
            line: number,
            stream,
            version: line.version,
            event_id,
            occurred_at,
            tuple,
            version_at,
        });
        Ok(())
    }
}

impl Chunk {
    /// Fills in a record's version.
    pub(super) fn set_version(&mut self, record: usize, version: i64) {
        let at = self.records[record].version_at;
        self.tuples[at..at + 8].copy_from_slice(&version.to_be_bytes());
    }

    /// Whether two records have the same fields, whatever versions are filled in.
    pub(super) fn same_content(&self, one: usize, other: usize) -> bool {
        let around_version = |index: usize| {
            let Record {
                tuple, version_at, ..
            } = &self.records[index];
            (
                &self.tuples[tuple.start..*version_at],
                &self.tuples[version_at + 8..tuple.end],
            )
        };
        around_version(one) == around_version(other)
    }
}

fn check(line: &Line<'_>) -> Result<(), String> {
    for (name, text, limit) in [
        ("stream_id", &line.stream_id, 512),
        ("type", &line.kind, 256),
    ] {
        if text.is_empty() || text.len() > limit {
            return Err(format!(
                "its {name} has {} bytes, not 1 to {limit}",
                text.len()
            ));
        }
        if text.contains('\0') {
            return Err(format!("its {name} contains NUL"));
        }
    }
    if line.data.get() == "null" {
        return Err("its data is missing".to_owned());
    }
    if line.version.is_some_and(|version| version < 0) {
        return Err("its version is negative".to_owned());
    }
    let metadata = line.metadata.map(RawValue::get);
    if metadata.is_some_and(|text| !text.starts_with('{')) {
        return Err("its metadata is not an object".to_owned());
    }
    let mut refusals = std::iter::once(line.data.get())
        .chain(metadata)
        .filter_map(json_text::refusal);
    refusals.next().map_or(Ok(()), Err)
}

/// The parser's message without its line, which is always 1.
fn not_a_record(error: &serde_json::Error) -> String {
    let whole = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match whole.strip_suffix(&place) {
        Some(message) if error.column() > 0 => format!("{message} (column {})", error.column()),
        Some(message) => message.to_owned(),
        None => whole,
    }
}
