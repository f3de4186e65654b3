//! The event of a failure once more, on this machine alone.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, anyhow};
use serde::Serialize;
use serde_json::value::RawValue;

use super::shown;
use crate::change::Change;
use crate::cli::serve::block_on;
use crate::failure::{
    By, ErrorRecord, PluginRecord, Recorded, Unreadable, event_json, key_json, row_json,
};
use crate::host::{Frame, Host, Plugin};
use crate::projection::rerun::{Rerun, rerun};
use crate::read_model::ReadModel;

/// A file that cannot be used. The text names it and the reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(String);

impl From<Unreadable> for Unusable {
    fn from(error: Unreadable) -> Self {
        Self(error.to_string())
    }
}

/// What is told of a replay.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Whether the plugin processes the event.
    pub(super) processed: bool,
    pub(super) projection: String,
    pub(super) generation: i64,
    pub(super) position: i64,
    pub(super) stream_id: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) event: Option<Box<RawValue>>,
    /// How it failed then.
    pub(super) recorded: Past,
    /// What ran now.
    pub(super) plugin: PluginRecord,
    pub(super) same_bytes: bool,
    pub(super) logs: Vec<Line>,
    /// Why it fails now.
    pub(super) error: Option<String>,
    pub(super) backtrace: Vec<Frame>,
    /// What the plugin wants done.
    pub(super) changes: Vec<Shown>,
    pub(super) notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Past {
    pub(super) failed_at: String,
    pub(super) plugin: PluginRecord,
    pub(super) error: ErrorRecord,
}

#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) level: &'static str,
    pub(super) message: String,
}

/// A change, by column.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pub(super) position: i64,
    pub(super) read_model: String,
    pub(super) operation: &'static str,
    /// The row, or the key of a row to be deleted.
    pub(super) row: Option<Box<RawValue>>,
}

/// Runs the event of a file through a plugin, and says what comes out.
pub(super) fn run(file: &Path, plugin: &Path, json: bool) -> Result<()> {
    let recorded = Recorded::read(file).map_err(Unusable::from)?;
    let unusable = |why: String| Unusable(format!("{}: {why}", plugin.display()));
    let wasm = std::fs::read(plugin).map_err(|error| unusable(error.to_string()))?;
    let host = Host::new(recorded.limits(), None).map_err(Unusable)?;
    let loaded = (host.load(&wasm)).map_err(|error| unusable(error.to_string()))?;
    block_on(async {
        let ran = rerun(&loaded, &recorded).await.map_err(Unusable)?;
        let report = Report::new(recorded, &loaded, ran);
        let mut out = std::io::stdout().lock();
        match json {
            true => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
            false => write!(out, "{}", shown::text(&report))?,
        }
        match report.processed {
            true => Ok(()),
            false => Err(anyhow!(
                "the plugin does not process the event at position {}",
                report.position
            )),
        }
    })
}

impl Report {
    fn new(recorded: Recorded, plugin: &Plugin, ran: Rerun) -> Self {
        let models = &plugin.descriptor.read_models;
        let batch = &recorded.batch;
        let mut notes = notes(&recorded, plugin, &ran);
        let then = &recorded.failure.error;
        let (mut error, mut event, mut backtrace) = (None, 0, Vec::new());
        let mut changes = Vec::new();
        match ran.result {
            Err(fault) => {
                if fault.is_limit {
                    notes.push("the limits are those of the engine that wrote the file".into());
                }
                (error, backtrace) = (Some(fault.message), fault.backtrace);
                event = fault.event.unwrap_or(0) as usize;
            }
            Ok(done) => {
                let refused = recorded.refused.as_ref();
                if refused.is_some_and(|then| are_same((then, &recorded.models), (&done, models))) {
                    error = Some(then.message.clone());
                    notes.push(
                        "the plugin itself does not fail: PostgreSQL refused these very changes"
                            .into(),
                    );
                } else if then.by == By::Database {
                    notes.push(
                        "PostgreSQL refused what the plugin wanted then; only a database can tell whether it takes this"
                            .into(),
                    );
                }
                let shown = |change| Shown::new(change, models, batch);
                changes = done.iter().map(shown).collect();
            }
        }
        let now = PluginRecord::of(plugin);
        Self {
            processed: error.is_none(),
            projection: recorded.failure.projection.clone(),
            generation: recorded.failure.generation,
            position: batch.events()[event].position,
            stream_id: batch.stream_id(event).to_owned(),
            kind: batch.kind(event).to_owned(),
            event: event_json(batch, event),
            same_bytes: now.hash == recorded.failure.plugin.hash,
            plugin: now,
            logs: (ran.logs.into_iter())
                .map(|line| Line {
                    level: line.level,
                    message: line.message,
                })
                .collect(),
            error,
            backtrace,
            changes,
            notes,
            recorded: Past {
                failed_at: recorded.failure.failed_at().to_owned(),
                plugin: recorded.failure.plugin,
                error: recorded.failure.error,
            },
        }
    }
}

/// What a reader of the result should know.
fn notes(recorded: &Recorded, plugin: &Plugin, ran: &Rerun) -> Vec<String> {
    let failure = &recorded.failure;
    let mut notes = Vec::new();
    if plugin.descriptor.name != failure.projection {
        notes.push(format!(
            "this plugin is the projection \"{}\", the failure is one of \"{}\"",
            plugin.descriptor.name, failure.projection
        ));
    }
    let kind = recorded.batch.kind(0);
    let types = plugin.descriptor.event_types.as_ref();
    if types.is_some_and(|types| !types.iter().any(|wanted| wanted == kind)) {
        notes.push(format!(
            "this plugin does not ask for events of type \"{kind}\": an engine would not hand it this one"
        ));
    }
    if !recorded.has_all_rows() {
        notes.push("there were more rows than a file holds".into());
    }
    for what in &ran.unknown {
        notes.push(format!(
            "the file does not say, so there is no such row here: {what}"
        ));
    }
    let is_same = plugin.hash.to_string() == failure.plugin.hash;
    if is_same && ran.result.is_ok() && failure.error.by == By::Plugin {
        notes.push(
            "these very bytes failed then: they met a limit of time or memory that they do not meet here, or something is missing in the file"
                .into(),
        );
    }
    notes
}

/// Whether two plugins want the same done, each with its own read models.
fn are_same(a: (&[Change], &[ReadModel]), b: (&[Change], &[ReadModel])) -> bool {
    let named = |(changes, models): (&[Change], &[ReadModel])| -> Vec<_> {
        let change = |change: &Change| {
            let name = models[change.model].name.clone();
            (change.event, name, change.key.clone(), change.row.clone())
        };
        changes.iter().map(change).collect()
    };
    named(a) == named(b)
}

impl Shown {
    fn new(change: &Change, models: &[ReadModel], batch: &crate::event::Batch) -> Self {
        let model = &models[change.model];
        let (operation, row) = match &change.row {
            Some(row) => ("upsert", row_json(model, row)),
            None => ("delete", key_json(model, &change.key)),
        };
        Self {
            position: batch.events()[change.event as usize].position,
            read_model: model.name.clone(),
            operation,
            row: RawValue::from_string(row).ok(),
        }
    }
}
