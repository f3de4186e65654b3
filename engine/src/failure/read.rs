//! File -> [`Recorded`]. The file comes from anywhere: everything that is relied upon is checked.

use std::collections::HashMap;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::{Answer, ChangeRecord, FORMAT, Failure, LimitsRecord, ModelRecord, RowRecord};
use crate::change::Change;
use crate::event::Batch;
use crate::frame::Reader;
use crate::host::Limits;
use crate::read_model::{Column, ReadModel, value};

/// The largest file that is read: base64 and all, about three times what the engine writes at most.
const MOST_BYTES: u64 = 1 << 30;

/// A file that is of no use. The text names the file and the reason.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct Unreadable {
    path: PathBuf,
    why: String,
}

/// A file's content, checked.
#[derive(Debug)]
pub struct Recorded {
    /// The file's own words.
    pub failure: Failure,
    /// The events.
    pub batch: Batch,
    /// Read models as the plugin that failed declared them.
    pub models: Vec<ReadModel>,
    /// What PostgreSQL refused, if that was the failure.
    pub refused: Option<Vec<Change>>,
    pub(super) rows: HashMap<Place, Answer>,
}

/// A read model, by its index, and a key in it.
type Place = (usize, Arc<[u8]>);

impl Recorded {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, Unreadable> {
        let refuse = |why: String| Unreadable {
            path: path.to_owned(),
            why,
        };
        let mut text = Vec::new();
        let file = std::fs::File::open(path).map_err(|error| refuse(error.to_string()))?;
        file.take(MOST_BYTES + 1)
            .read_to_end(&mut text)
            .map_err(|error| refuse(error.to_string()))?;
        match text.len() as u64 > MOST_BYTES {
            true => Err(refuse(format!(
                "it has more than {MOST_BYTES} bytes, which no failure has"
            ))),
            false => Self::parse(&text).map_err(refuse),
        }
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        // The version is read first: a later format may lack members that this one has.
        #[derive(Deserialize)]
        struct Version {
            gobo_failure: Option<u64>,
        }
        let broken = |error: serde_json::Error| match error.is_eof() {
            true => format!("the file is cut off: {error}"),
            false => format!("this is not a failure that gobo has kept: {error}"),
        };
        let version: Version = serde_json::from_slice(text).map_err(broken)?;
        match version.gobo_failure {
            Some(FORMAT) => {}
            Some(other) => {
                return Err(format!(
                    "it has format version {other}, this gobo reads version {FORMAT}: use the gobo that wrote it, or a newer one"
                ));
            }
            None => {
                return Err(
                    "this is not a failure that gobo has kept: it has no member \"gobo_failure\""
                        .into(),
                );
            }
        }
        let failure: Failure = serde_json::from_slice(text).map_err(broken)?;
        failure.limits.check()?;
        let batch = batch(&failure.batch.0)?;
        let models = (failure.read_models.iter())
            .map(ModelRecord::model)
            .collect::<Result<Vec<_>, _>>()?;
        let mut rows = HashMap::new();
        for (number, record) in failure.rows.iter().enumerate() {
            let (place, answer) =
                (record.check(&models)).map_err(|why| format!("rows[{number}]: {why}"))?;
            rows.insert(place, answer);
        }
        let refused = failure.changes.as_ref().map(|changes| {
            let change = |record: &ChangeRecord| record.change(&models, batch.len());
            changes.iter().map(change).collect::<Result<Vec<_>, _>>()
        });
        let refused = refused
            .transpose()
            .map_err(|why| format!("changes: {why}"))?;
        Ok(Self {
            batch,
            models,
            refused,
            rows,
            failure,
        })
    }

    /// What the plugin was allowed.
    pub fn limits(&self) -> Limits {
        self.failure.limits.limits()
    }

    /// Whether the file holds every row that the plugin was given.
    pub fn has_all_rows(&self) -> bool {
        self.failure.rows_complete
    }
}

fn batch(frame: &[u8]) -> Result<Batch, String> {
    let mut batch = Batch::empty(0);
    let mut reader = Reader::new(frame);
    let mut fields = Vec::new();
    while !reader.is_at_end() {
        let pushed = reader
            .tuple(&mut fields)
            .and_then(|tuple| batch.push(tuple));
        pushed.map_err(|error| format!("batch: {error}"))?;
    }
    match batch.events().last() {
        Some(last) => batch.through = last.position,
        None => return Err("batch: it has no event".into()),
    }
    Ok(batch)
}

impl LimitsRecord {
    fn check(&self) -> Result<(), String> {
        const GIB: u64 = 1 << 30;
        let checks: [(&str, u64, RangeInclusive<u64>); 7] = [
            ("memory_bytes", self.memory_bytes as u64, 1 << 16..=4 * GIB),
            ("batch_time_ms", self.batch_time_ms, 1..=3_600_000),
            ("output_bytes", self.output_bytes as u64, 1..=GIB),
            ("log_lines", self.log_lines as u64, 0..=100_000),
            ("message_bytes", self.message_bytes as u64, 1..=GIB),
            ("keys_per_batch", self.keys_per_batch as u64, 1..=GIB),
            ("rounds", self.rounds as u64, 1..=1_000_000),
        ];
        for (name, found, range) in checks {
            if !range.contains(&found) {
                return Err(format!(
                    "limits.{name}: {found} is not between {} and {}",
                    range.start(),
                    range.end()
                ));
            }
        }
        Ok(())
    }
}

impl ModelRecord {
    fn model(&self) -> Result<ReadModel, String> {
        let place = format!("read model \"{}\"", self.name);
        let mut columns = Vec::new();
        for column in &self.columns {
            columns.push(Column {
                name: column.name.clone(),
                kind: (column.kind.parse()).map_err(|why| format!("{place}: {why}"))?,
                nullable: column.nullable,
                comment: None,
            });
        }
        let key = self.key.iter().map(|key| {
            let found = columns.iter().position(|column| column.name == *key);
            found.ok_or_else(|| format!("{place}: its key has a column \"{key}\" that it lacks"))
        });
        Ok(ReadModel {
            name: self.name.clone(),
            comment: None,
            per_stream: self.per_stream,
            key: key.collect::<Result<_, _>>()?,
            columns,
            indexes: Vec::new(),
            references: Vec::new(),
        })
    }
}

impl RowRecord {
    fn check(&self, models: &[ReadModel]) -> Result<(Place, Answer), String> {
        let (index, model) = find(models, &self.read_model)?;
        check_fields(model.key_columns(), &self.key.0)?;
        let answer = match &self.row {
            Some(row) => {
                check_fields(model.columns.iter(), &row.0)?;
                Answer::Row(row.0.clone())
            }
            None if self.refused => Answer::Refused,
            None => Answer::Absent,
        };
        Ok(((index, self.key.0.clone()), answer))
    }
}

impl ChangeRecord {
    fn change(&self, models: &[ReadModel], events: usize) -> Result<Change, String> {
        let (index, model) = find(models, &self.read_model)?;
        check_fields(model.key_columns(), &self.key.0)?;
        if let Some(row) = &self.row {
            check_fields(model.columns.iter(), &row.0)?;
        }
        if self.event as usize >= events {
            return Err(format!("there is no event {}", self.event));
        }
        Ok(Change {
            event: self.event,
            model: index,
            key: self.key.0.clone(),
            row: self.row.as_ref().map(|row| row.0.clone()),
        })
    }
}

fn find<'m>(models: &'m [ReadModel], name: &str) -> Result<(usize, &'m ReadModel), String> {
    let found = models
        .iter()
        .enumerate()
        .find(|(_, model)| model.name == name);
    found.ok_or_else(|| format!("there is no read model \"{name}\""))
}

fn check_fields<'c>(
    columns: impl Iterator<Item = &'c Column>,
    fields: &[u8],
) -> Result<(), String> {
    let mut reader = Reader::new(fields);
    for column in columns {
        let field = reader.field().map_err(|error| error.to_string())?;
        value::check(field, column).map_err(|why| format!("column \"{}\": {why}", column.name))?;
    }
    match reader.is_at_end() {
        true => Ok(()),
        false => Err("more fields than columns".into()),
    }
}
