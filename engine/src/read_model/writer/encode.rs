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
    pub(super) upsert: Option<Vec<RawParam>>,
    pub(super) delete: Option<Vec<RawParam>>,
}

impl Encoded {
    pub(super) fn new(
        model: &ReadModel,
        rows: &HashMap<Arc<[u8]>, RowChange>,
        staged: bool,
    ) -> Self {
        let checked = "rows were checked when they were decoded";
        let mut upserts: Vec<ArrayParam> = (model.columns.iter())
            .map(|column| ArrayParam::new(element_oid(column.kind)))
            .chain([
                ArrayParam::new(Scalar::Int8.oid()),
                ArrayParam::new(Scalar::Timestamptz.oid()),
            ])
            .collect();
        let mut streams = ArrayParam::new(Scalar::Text.oid());
        let mut deletes: Vec<ArrayParam> = (model.key_columns())
            .map(|column| ArrayParam::new(element_oid(column.kind)))
            .collect();
        let mut gone_streams = ArrayParam::new(Scalar::Text.oid());
        let (mut upserted, mut deleted) = (false, false);
        let mut stage = Vec::new();
        let columns = model.columns.len();
        for (key, change) in rows {
            if change.deletes() {
                push_fields(&mut deletes[..model.key.len()], key).expect(checked);
                if let Some(owner) = &change.owner {
                    gone_streams.push(Some(owner.as_bytes()));
                }
                deleted = true;
            }
            let Some(row) = &change.row else { continue };
            upserted = true;
            if staged {
                write_staged(&mut stage, columns, row, change);
                continue;
            }
            push_fields(&mut upserts[..columns], row).expect(checked);
            upserts[columns].push(Some(&change.position.to_be_bytes()));
            upserts[columns + 1].push(Some(&change.recorded_at.to_be_bytes()));
            if let Some(stream) = &change.stream {
                streams.push(Some(stream.as_bytes()));
            }
        }
        if model.per_stream {
            upserts.push(streams);
            deletes.push(gone_streams);
        }
        let upsert = match staged {
            true => Vec::new(),
            false => upserts.into_iter().map(ArrayParam::finish).collect(),
        };
        Self {
            stage: (staged && upserted).then(|| finish_stage(stage)),
            upsert: upserted.then_some(upsert),
            delete: deleted.then(|| deletes.into_iter().map(ArrayParam::finish).collect()),
        }
    }
}

fn write_staged(stage: &mut Vec<u8>, columns: usize, row: &[u8], change: &RowChange) {
    if stage.is_empty() {
        stage.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    }
    // At most 200 columns (descriptor.rs) and three of the engine's.
    write_count(
        stage,
        (columns + 2 + usize::from(change.stream.is_some())) as i16,
    );
    stage.extend_from_slice(row);
    write_field(stage, Some(&change.position.to_be_bytes()));
    write_field(stage, Some(&change.recorded_at.to_be_bytes()));
    if let Some(stream) = &change.stream {
        write_field(stage, Some(stream.as_bytes()));
    }
}

fn finish_stage(mut stage: Vec<u8>) -> Bytes {
    stage.extend_from_slice(&(-1i16).to_be_bytes());
    stage.into()
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
            sequence.push((&statements.trim_logs, vec![projection]));
        }
    }
}
