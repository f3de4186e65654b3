//! A set of changes as parameters: arrays for `unnest`, tuples for the staging table.

use std::sync::Arc;

use bytes::Bytes;
use foldhash::HashMap;
use tokio_postgres::Statement;
use uuid::Uuid;

use super::change_set::{ChangeSet, RowChange};
use super::statements::Statements;
use super::{Params, Target};
use crate::db::RawParam;
use crate::event::Position;
use crate::frame::{write_count, write_field};
use crate::read_model::rows::element_oid;
use crate::read_model::unnest::{ArrayParam, push_fields};
use crate::read_model::{ReadModel, Scalar};

/// The changed rows of one read model as parameters.
pub(super) struct Encoded {
    pub(super) stage: Option<Bytes>,
    /// One array per column of the changed rows: the declared ones, then the engine's own. None when they are staged.
    pub(super) arrays: Vec<RawParam>,
    /// One array of the rows' streams, in a read model that is declared per stream.
    pub(super) streams: Option<RawParam>,
    pub(super) upserts: bool,
    pub(super) delete: Option<Vec<RawParam>>,
}

impl Encoded {
    pub(super) fn new(
        model: &ReadModel,
        rows: &HashMap<Arc<[u8]>, RowChange>,
        staged: bool,
    ) -> Self {
        let mut upserts: Vec<ArrayParam> = (model.columns.iter())
            .map(|column| ArrayParam::new(element_oid(column.kind)))
            .chain([
                ArrayParam::new(Scalar::Int8.oid()),
                ArrayParam::new(Scalar::Timestamptz.oid()),
            ])
            .collect();
        let mut streams = ArrayParam::new(Scalar::Text.oid());
        let mut upserted = false;
        let mut stage = copy_header();
        let columns = model.columns.len();
        for change in rows.values() {
            let Some(row) = &change.row else { continue };
            upserted = true;
            if staged {
                write_tuple(&mut stage, model, row, change, None);
                continue;
            }
            push_fields(&mut upserts[..columns], row).expect(CHECKED);
            upserts[columns].push(Some(&change.position.to_be_bytes()));
            upserts[columns + 1].push(Some(&change.recorded_at.to_be_bytes()));
            if let Some(stream) = &change.stream {
                streams.push(Some(stream.as_bytes()));
            }
        }
        let arrays = match staged {
            true => Vec::new(),
            false => upserts.into_iter().map(ArrayParam::finish).collect(),
        };
        let gone: Vec<_> = rows.iter().filter(|(_, change)| change.deletes()).collect();
        Self {
            stage: (staged && upserted).then(|| {
                stage.extend_from_slice(&COPY_END);
                stage.into()
            }),
            arrays,
            streams: (model.per_stream && !staged).then(|| streams.finish()),
            upserts: upserted,
            delete: (!gone.is_empty()).then(|| deletes(model, &gone)),
        }
    }
}

const CHECKED: &str = "rows were checked when they were decoded";

/// Rows to delete as parameters.
pub(super) fn deletes(model: &ReadModel, gone: &[(&Arc<[u8]>, &RowChange)]) -> Vec<RawParam> {
    let mut arrays = keys(model, gone.iter().map(|(key, _)| *key));
    if model.per_stream {
        let mut streams = ArrayParam::new(Scalar::Text.oid());
        for owner in gone.iter().filter_map(|(_, change)| change.owner.as_ref()) {
            streams.push(Some(owner.as_bytes()));
        }
        arrays.push(streams.finish());
    }
    arrays
}

/// Keys as one array per key column.
pub(super) fn keys<'a>(
    model: &ReadModel,
    keys: impl Iterator<Item = &'a Arc<[u8]>>,
) -> Vec<RawParam> {
    let mut arrays: Vec<ArrayParam> = (model.key_columns())
        .map(|column| ArrayParam::new(element_oid(column.kind)))
        .collect();
    for key in keys {
        push_fields(&mut arrays, key).expect(CHECKED);
    }
    arrays.into_iter().map(ArrayParam::finish).collect()
}

/// What comes before the tuples of a binary COPY.
pub(super) fn copy_header() -> Vec<u8> {
    b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec()
}

/// What comes after them.
pub(super) const COPY_END: [u8; 2] = (-1i16).to_be_bytes();

/// Appends a row as a tuple of a binary COPY: the declared columns, and those of `statements::own_columns`; the revision
/// last, if it is given.
pub(super) fn write_tuple(
    out: &mut Vec<u8>,
    model: &ReadModel,
    row: &[u8],
    change: &RowChange,
    revision: Option<i64>,
) {
    let own = 2 + usize::from(change.stream.is_some()) + usize::from(revision.is_some());
    // At most 200 columns (descriptor.rs) and four of the engine's.
    write_count(out, (model.columns.len() + own) as i16);
    out.extend_from_slice(row);
    write_field(out, Some(&change.position.to_be_bytes()));
    write_field(out, Some(&change.recorded_at.to_be_bytes()));
    if let Some(stream) = &change.stream {
        write_field(out, Some(stream.as_bytes()));
    }
    if let Some(revision) = revision {
        write_field(out, Some(&revision.to_be_bytes()));
    }
}

/// Dead letters and log lines as parameters.
#[derive(Default)]
pub(super) struct Notes<'a> {
    positions: Vec<Position>,
    streams: Vec<&'a str>,
    kinds: Vec<&'a str>,
    event_ids: Vec<Uuid>,
    states: Vec<&'a str>,
    messages: Vec<Option<&'a str>>,
    settled: Vec<Position>,
    diverged: bool,
    log_positions: Vec<Position>,
    levels: Vec<&'a str>,
    lines: Vec<&'a str>,
}

impl<'a> Notes<'a> {
    pub(super) fn of(set: &'a ChangeSet) -> Self {
        let mut notes = Notes {
            settled: set.settled.clone(),
            diverged: set.diverged,
            ..Notes::default()
        };
        for letter in &set.dead_letters {
            notes.positions.push(letter.position);
            notes.streams.push(&letter.stream_id);
            notes.kinds.push(&letter.kind);
            notes.event_ids.push(letter.event_id);
            notes.states.push(letter.state);
            notes.messages.push(letter.message.as_deref());
        }
        for log in &set.logs {
            notes.log_positions.push(log.position);
            notes.levels.push(log.level);
            notes.lines.push(&log.message);
        }
        notes
    }

    pub(super) fn push<'s>(
        &'s self,
        sequence: &mut Vec<(&'s Statement, Params<'s>)>,
        statements: &'s Statements,
        target: &'s Target,
    ) {
        let generation = &target.generation;
        if !self.positions.is_empty() {
            sequence.push((
                &statements.dead_letters,
                vec![
                    generation,
                    &self.positions,
                    &self.streams,
                    &self.kinds,
                    &self.event_ids,
                    &self.states,
                    &self.messages,
                ],
            ));
        }
        if !self.settled.is_empty() {
            sequence.push((&statements.settled, vec![generation, &self.settled]));
        }
        if self.diverged {
            sequence.push((&statements.diverged, vec![generation]));
        }
        if !self.lines.is_empty() {
            let projection = &target.projection;
            sequence.push((
                &statements.logs,
                vec![
                    projection,
                    generation,
                    &self.log_positions,
                    &self.levels,
                    &self.lines,
                ],
            ));
            sequence.push((&statements.trim_logs, vec![generation]));
        }
    }
}
