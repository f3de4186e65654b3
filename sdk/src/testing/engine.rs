//! What the engine does with a plugin, in memory and without PostgreSQL.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use super::TestEvent;
use crate::column::{Column, Scalar};
use crate::frame::{self, FrameReader};
use crate::log::LogLine;
use crate::read_model::{Table, Visit};
use crate::{Batch, Error, Failure, Projection, ReadModel, ReadModels, Result, Session, Step};

/// More rounds than any sensible handler needs.
const MOST_ROUNDS: usize = 100;

/// Runs a projection batch by batch and keeps its rows, as the engine does with PostgreSQL.
pub struct Engine<P> {
    pub(super) models: Vec<Model>,
    log: Vec<LogLine>,
    rounds: usize,
    projection: PhantomData<P>,
}

/// The rows of one read model.
pub(super) struct Model {
    row_type: TypeId,
    pub(super) table: Table,
    /// By the bytes of the key: the bytes of the row, and the position of the last event that changed it.
    pub(super) rows: BTreeMap<Vec<u8>, (Vec<u8>, i64)>,
    /// Reads a row and writes it again.
    rewrite: fn(&[u8]) -> Result<Vec<u8>>,
}

struct Models(Vec<Model>);

impl Visit for Models {
    fn read_model<R: ReadModel>(&mut self) {
        self.0.push(Model {
            row_type: TypeId::of::<R>(),
            table: R::TABLE,
            rows: BTreeMap::new(),
            rewrite: |bytes| {
                let mut rewritten = Vec::with_capacity(bytes.len());
                read::<R>(bytes)?.write(&mut rewritten);
                Ok(rewritten)
            },
        });
    }
}

fn read<R: ReadModel>(bytes: &[u8]) -> Result<R> {
    R::read(&mut FrameReader::new(bytes))
}

impl<P: Projection> Default for Engine<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Projection> Engine<P> {
    /// An engine with empty read models.
    #[must_use]
    pub fn new() -> Self {
        let mut models = Models(Vec::new());
        P::ReadModels::visit(&mut models);
        Self {
            models: models.0,
            log: Vec::new(),
            rounds: 0,
            projection: PhantomData,
        }
    }

    /// Runs one batch and keeps its changes.
    ///
    /// # Errors
    /// When the projection fails, or answers with something that the engine would refuse. Nothing is kept then.
    pub fn apply(&mut self, events: &[TestEvent]) -> Result<(), Failure> {
        let batch = Batch::new(encode(events), P::UPCASTS)?;
        let mut session = Session::<P>::new(&batch)?;
        let mut step = session.begin();
        for _ in 0..MOST_ROUNDS {
            match step {
                Ok(Step::Need(keys)) => {
                    self.rounds += 1;
                    step = session.resume(self.answer(&keys)?);
                }
                Ok(Step::Done(changes)) => {
                    self.log.extend(session.take_log());
                    return Ok(self.keep(&changes, events)?);
                }
                Err(failure) => {
                    self.log.extend(session.take_log());
                    return Err(failure);
                }
            }
        }
        Err(Error::new(format_args!(
            "after {MOST_ROUNDS} rounds the projection still asks for rows"
        ))
        .into())
    }

    /// The rows of a read model, in the order of their keys' bytes.
    ///
    /// # Panics
    /// When the projection does not own the read model.
    #[must_use]
    #[track_caller]
    pub fn rows<R: ReadModel>(&self) -> Vec<R> {
        let Some(model) = self
            .models
            .iter()
            .find(|model| model.row_type == TypeId::of::<R>())
        else {
            panic!("the projection does not own `{}`", R::TABLE.name);
        };
        let rows = model.rows.values().map(|(bytes, _)| read(bytes));
        match rows.collect() {
            Ok(rows) => rows,
            Err(error) => panic!("read model `{}`: {error}", R::TABLE.name),
        }
    }

    /// What the handlers logged.
    #[must_use]
    pub fn log(&self) -> &[LogLine] {
        &self.log
    }

    /// How often the projection asked for rows.
    #[must_use]
    pub fn rounds(&self) -> usize {
        self.rounds
    }

    fn answer(&self, keys: &[u8]) -> Result<Vec<u8>> {
        let mut frame = FrameReader::new(keys);
        let mut rows = Vec::new();
        while !frame.is_at_end() {
            let mut tuple = FrameReader::new(frame.skip_tuple()?);
            let fields = tuple.tuple()?;
            let model = self.model(&mut tuple)?;
            if fields != 1 + model.table.key.len() {
                return Err(Error::new(format_args!(
                    "a key of {} fields for `{}`",
                    fields - 1,
                    model.table.name
                )));
            }
            match model.rows.get(tuple.rest()) {
                Some((row, _)) => {
                    frame::begin_tuple(&mut rows, model.table.columns.len());
                    rows.extend_from_slice(row);
                }
                None => frame::begin_tuple(&mut rows, 0),
            }
        }
        Ok(rows)
    }

    fn model(&self, tuple: &mut FrameReader<'_>) -> Result<&Model> {
        let place: i16 = Column::read(tuple.field()?)?;
        let model = usize::try_from(place)
            .ok()
            .and_then(|place| self.models.get(place));
        model.ok_or_else(|| Error::new(format_args!("there is no read model {place}")))
    }

    fn keep(&mut self, changes: &[u8], events: &[TestEvent]) -> Result {
        let mut frame = FrameReader::new(changes);
        let mut last = 0;
        while !frame.is_at_end() {
            let mut tuple = FrameReader::new(frame.skip_tuple()?);
            tuple.tuple()?;
            let index: i32 = Column::read(tuple.field()?)?;
            let event = usize::try_from(index).ok().filter(|index| *index >= last);
            let Some((index, event)) = event.and_then(|index| Some((index, events.get(index)?)))
            else {
                return Err(Error::new(format_args!(
                    "a change by event {index} after one by event {last}"
                )));
            };
            last = index;
            let place: i16 = Column::read(tuple.field()?)?;
            let operation: i16 = Column::read(tuple.field()?)?;
            let place = usize::try_from(place)
                .ok()
                .filter(|place| *place < self.models.len());
            let model = place.map(|place| &mut self.models[place]);
            let model =
                model.ok_or_else(|| Error::new("a change of a read model that is not declared"))?;
            model.keep(operation, tuple.rest(), event.position)?;
        }
        Ok(())
    }
}

impl Model {
    fn keep(&mut self, operation: i16, content: &[u8], position: i64) -> Result {
        if operation == 1 {
            self.rows.remove(content);
            return Ok(());
        }
        if (self.rewrite)(content)? != content {
            return Err(Error::new(format_args!(
                "a row of `{}` reads back differently",
                self.table.name
            )));
        }
        let mut fields = Vec::with_capacity(self.table.columns.len());
        let mut frame = FrameReader::new(content);
        for _ in self.table.columns {
            let start = frame.offset();
            frame.field()?;
            fields.push(&content[start..frame.offset()]);
        }
        let key: Vec<u8> = self
            .table
            .key
            .iter()
            .flat_map(|place| fields[*place])
            .copied()
            .collect();
        self.rows.insert(key, (content.to_vec(), position));
        Ok(())
    }
}

/// The frame of a batch.
fn encode(events: &[TestEvent]) -> Vec<u8> {
    let mut out = Vec::new();
    for event in events {
        let mut event_id = [0; 16];
        event_id[8..].copy_from_slice(&event.position.to_be_bytes());
        frame::begin_tuple(&mut out, 9);
        event.position.write(&mut out);
        event.stream_id.write(&mut out);
        event.version.write(&mut out);
        event.event_type.write(&mut out);
        event.data.write(&mut out);
        event.metadata.write(&mut out);
        frame::field(&mut out, |out| {
            crate::Uuid::from_bytes(event_id).encode(out)
        });
        event.occurred_at.write(&mut out);
        event.occurred_at.write(&mut out);
    }
    out
}
