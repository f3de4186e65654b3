//! Failures as files: everything that is needed to run an event that could not be processed once more, elsewhere, with the
//! same plugin or a mended one and without a database (`gobo replay --frame`).
//!
//! A file is one JSON object, format version 1:
//!
//! | member | what |
//! |---|---|
//! | `gobo_failure` | the version of the format: 1 |
//! | `written_by`, `failed_at` | the engine's version; when, by its clock |
//! | `projection`, `generation`, `position` | what failed, where |
//! | `plugin` | `hash` (sha256 of its bytes), `name`, `version` |
//! | `error` | `message`; `by`: `plugin`, or `database` when PostgreSQL refused a key or the rows; `backtrace`, innermost first |
//! | `event` | the event, to be read by people |
//! | `limits` | what the plugin was allowed, as `[limits]` of gobo.toml has it |
//! | `batch` | the events as they were handed to `begin` (FRAMES.md), in base64 |
//! | `read_models` | `name`, `per_stream`, `key`, and `columns` with `name`, `type`, `nullable`, in the order of fields |
//! | `rows` | every row that the plugin was given: `read_model`, `key` and `row` as fields in base64, `row` null when there was none; `refused` when PostgreSQL did not take the key |
//! | `rows_complete` | false when there were more rows than a file holds |
//! | `changes` | what PostgreSQL refused, in base64, when it did: `event` (index), `read_model`, `key`, `row` (null deletes) |
//!
//! Readers ignore members that they do not know. A file holds the event's data and rows as they are, secrets included: it is
//! written for its owner alone.

mod fit;
mod folder;
mod read;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::change::{Change, Need};
use crate::event::{Batch, Position, now_micros};
use crate::frame::{Field, Reader};
use crate::host::{Frame, Limits, Plugin};
use crate::read_model::ReadModel;
use crate::read_model::readable::{moment, write_json, write_string};
pub use fit::Found;
pub use folder::Folder;
pub use read::{Recorded, Unreadable};

/// The version of the format.
pub const FORMAT: u64 = 1;

/// Bytes of rows that a file holds at most.
const MOST_ROWS: usize = 64 << 20;

/// What a batch that failed leaves behind besides a message.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Where the plugin was, the innermost function first.
    pub backtrace: Vec<Frame>,
    /// The rows that it was given.
    pub given: Given,
    /// What it wanted done, when PostgreSQL refused that.
    pub changes: Option<Vec<Change>>,
}

/// The rows that a plugin was given. They are kept for a batch of one event only: an event that fails among others is run
/// alone before it is blamed.
#[derive(Debug, Default)]
pub struct Given {
    rows: Vec<(Need, Answer)>,
    bytes: usize,
    is_kept: bool,
    is_cut: bool,
}

/// What became of a key that a plugin asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Row(Arc<[u8]>),
    Absent,
    /// PostgreSQL does not take such a key.
    Refused,
}

impl Given {
    /// Nothing yet, for a batch of so many events.
    pub fn new(events: usize) -> Self {
        Self {
            is_kept: events == 1,
            ..Self::default()
        }
    }

    /// The plugin is given a row, or told that there is none.
    pub fn note(&mut self, need: &Need, row: Option<&Arc<[u8]>>) {
        let answer = row.map_or(Answer::Absent, |row| Answer::Row(row.clone()));
        self.push(need, answer);
    }

    /// PostgreSQL refused to look these keys up.
    pub fn refuse(&mut self, needs: &[Need]) {
        for need in needs {
            self.push(need, Answer::Refused);
        }
    }

    /// There were rows that nobody noted.
    pub fn cut(&mut self) {
        self.is_cut = true;
    }

    fn push(&mut self, need: &Need, answer: Answer) {
        if !self.is_kept {
            return;
        }
        self.bytes += need.key.len();
        if let Answer::Row(row) = &answer {
            self.bytes += row.len();
        }
        match self.bytes <= MOST_ROWS {
            true => self.rows.push((need.clone(), answer)),
            false => self.is_cut = true,
        }
    }
}

/// The content of a file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    #[serde(rename = "gobo_failure")]
    format: u64,
    written_by: String,
    failed_at: String,
    /// The projection.
    pub projection: String,
    /// Its generation.
    pub generation: i64,
    /// The event that could not be processed.
    pub position: Position,
    /// The plugin that failed.
    pub plugin: PluginRecord,
    /// How it failed.
    pub error: ErrorRecord,
    /// The event, for people.
    pub event: Box<RawValue>,
    limits: LimitsRecord,
    read_models: Vec<ModelRecord>,
    rows_complete: bool,
    rows: Vec<RowRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changes: Option<Vec<ChangeRecord>>,
    batch: Base64,
}

/// Which plugin failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PluginRecord {
    /// sha256 of its bytes.
    pub hash: String,
    /// What it calls itself.
    pub name: String,
    /// Its author's version.
    pub version: String,
}

/// How it failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorRecord {
    /// The text.
    pub message: String,
    /// Who refused.
    pub by: By,
    /// Where the plugin was, the innermost function first.
    #[serde(default)]
    pub backtrace: Vec<Frame>,
}

/// Who refused to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The plugin, or the engine on its behalf.
    Plugin,
    /// PostgreSQL did not take a key or a row.
    Database,
}

#[derive(Debug, Serialize, Deserialize)]
struct LimitsRecord {
    memory_bytes: usize,
    batch_time_ms: u64,
    output_bytes: usize,
    log_lines: usize,
    message_bytes: usize,
    keys_per_batch: usize,
    rounds: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct ModelRecord {
    name: String,
    per_stream: bool,
    key: Vec<String>,
    columns: Vec<ColumnRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ColumnRecord {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    nullable: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct RowRecord {
    read_model: String,
    key: Base64,
    row: Option<Base64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    refused: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct ChangeRecord {
    event: u32,
    read_model: String,
    key: Base64,
    row: Option<Base64>,
}

/// Bytes, as base64 in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Base64(Arc<[u8]>);

impl From<Base64> for String {
    fn from(bytes: Base64) -> Self {
        base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &bytes.0)
    }
}

impl TryFrom<String> for Base64 {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text)
            .map(|bytes| Self(bytes.into()))
    }
}

impl Failure {
    /// Describes how the first event of `batch` failed. `None` when there is no event.
    pub fn new(
        projection: &str,
        generation: i64,
        plugin: &Plugin,
        batch: &Batch,
        message: &str,
        evidence: &Evidence,
    ) -> Option<Self> {
        let models = &plugin.descriptor.read_models;
        let given = &evidence.given;
        let is_refused = |(_, answer): &(Need, Answer)| *answer == Answer::Refused;
        let by = match evidence.changes.is_some() || given.rows.iter().any(is_refused) {
            true => By::Database,
            false => By::Plugin,
        };
        let mut asked = HashSet::new();
        let once = (given.rows.iter()).filter(|(need, _)| asked.insert((need.model, &need.key)));
        let changes = evidence.changes.as_ref().map(|changes| {
            let record = |change| ChangeRecord::new(change, models);
            changes.iter().map(record).collect()
        });
        Some(Self {
            format: FORMAT,
            written_by: format!("gobo {}", env!("CARGO_PKG_VERSION")),
            failed_at: moment(now_micros()),
            projection: projection.to_owned(),
            generation,
            position: batch.events().first()?.position,
            plugin: PluginRecord::of(plugin),
            error: ErrorRecord {
                message: message.to_owned(),
                by,
                backtrace: evidence.backtrace.clone(),
            },
            event: event_json(batch, 0)?,
            limits: LimitsRecord::of(plugin.limits()),
            read_models: models.iter().map(ModelRecord::of).collect(),
            rows_complete: !given.is_cut,
            rows: once.map(|row| RowRecord::new(row, models)).collect(),
            changes,
            batch: Base64(batch.frame().into()),
        })
    }

    /// When it failed.
    pub fn failed_at(&self) -> &str {
        &self.failed_at
    }
}

impl PluginRecord {
    /// Names a plugin.
    pub fn of(plugin: &Plugin) -> Self {
        Self {
            hash: plugin.hash.to_string(),
            name: plugin.descriptor.name.clone(),
            version: plugin.descriptor.version.clone(),
        }
    }
}

impl LimitsRecord {
    fn of(limits: &Limits) -> Self {
        Self {
            memory_bytes: limits.memory_bytes,
            batch_time_ms: u64::try_from(limits.batch_time.as_millis()).unwrap_or(u64::MAX),
            output_bytes: limits.output_bytes,
            log_lines: limits.log_lines,
            message_bytes: limits.message_bytes,
            keys_per_batch: limits.keys_per_batch,
            rounds: limits.rounds,
        }
    }

    /// The same for a host that runs one plugin alone. A module that was built for debugging may be larger than a deployed one.
    fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            memory_bytes: self.memory_bytes,
            batch_time: Duration::from_millis(self.batch_time_ms),
            output_bytes: self.output_bytes,
            log_lines: self.log_lines,
            message_bytes: self.message_bytes,
            keys_per_batch: self.keys_per_batch,
            rounds: self.rounds,
            module_bytes: default.module_bytes.max(1 << 30),
            concurrent_instances: 1,
        }
    }
}

impl ModelRecord {
    fn of(model: &ReadModel) -> Self {
        let columns = model.columns.iter().map(|column| ColumnRecord {
            name: column.name.clone(),
            kind: column.kind.to_string(),
            nullable: column.nullable,
        });
        Self {
            name: model.name.clone(),
            per_stream: model.per_stream,
            key: model.key_columns().map(|key| key.name.clone()).collect(),
            columns: columns.collect(),
        }
    }
}

impl RowRecord {
    fn new((need, answer): &(Need, Answer), models: &[ReadModel]) -> Self {
        let row = match answer {
            Answer::Row(row) => Some(Base64(row.clone())),
            Answer::Absent | Answer::Refused => None,
        };
        Self {
            read_model: models[need.model].name.clone(),
            key: Base64(need.key.clone()),
            row,
            refused: *answer == Answer::Refused,
        }
    }
}

impl ChangeRecord {
    fn new(change: &Change, models: &[ReadModel]) -> Self {
        Self {
            event: change.event,
            read_model: models[change.model].name.clone(),
            key: Base64(change.key.clone()),
            row: change.row.clone().map(Base64),
        }
    }
}

/// Event `index` of `batch` as one JSON object.
pub fn event_json(batch: &Batch, index: usize) -> Option<Box<RawValue>> {
    let mut reader = Reader::new(batch.tuple(index));
    let mut fields = Vec::new();
    reader.tuple(&mut fields).ok()?;
    let [_, _, version, _, _, _, _, occurred_at, recorded_at] = fields[..] else {
        return None;
    };
    let int8 = |field: Field<'_>| Some(i64::from_be_bytes(field?.try_into().ok()?));
    let head = &batch.events()[index];
    let mut json = format!("{{\"position\":{},\"stream_id\":", head.position);
    write_string(&mut json, batch.stream_id(index));
    json.push_str(&format!(",\"version\":{},\"type\":", int8(version)?));
    write_string(&mut json, batch.kind(index));
    json.push_str(&format!(
        ",\"data\":{},\"metadata\":{},\"event_id\":\"{}\",\"occurred_at\":\"{}\",\"recorded_at\":\"{}\"}}",
        batch.data(index),
        batch.metadata(index).unwrap_or("null"),
        head.event_id,
        moment(int8(occurred_at)?),
        moment(int8(recorded_at)?),
    ));
    RawValue::from_string(json).ok()
}

/// The fields of a row as one JSON object, by column.
pub fn row_json(model: &ReadModel, row: &[u8]) -> String {
    object(model.columns.iter(), row)
}

/// The fields of a key as one JSON object, by column.
pub fn key_json(model: &ReadModel, key: &[u8]) -> String {
    object(model.key_columns(), key)
}

fn object<'c>(
    columns: impl Iterator<Item = &'c crate::read_model::Column>,
    fields: &[u8],
) -> String {
    let mut reader = Reader::new(fields);
    let mut json = String::from("{");
    for (number, column) in columns.enumerate() {
        // What is shown was decoded before.
        let Ok(field) = reader.field() else { break };
        if number > 0 {
            json.push(',');
        }
        write_string(&mut json, &column.name);
        json.push(':');
        write_json(&mut json, field, column.kind);
    }
    json.push('}');
    json
}
