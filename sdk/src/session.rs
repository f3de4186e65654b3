//! One batch, from its events to its changes: the logic behind `begin` and `resume`.

use crate::event::{Batch, RawEvent};
use crate::log::{self, LogLine};
use crate::{Error, Events, Meta, Projection, Result, Rows};

/// What a call leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The rows that are missing; `resume` takes them.
    Need(Vec<u8>),
    /// The changes of the whole batch.
    Done(Vec<u8>),
}

/// The event that could not be processed, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its index in the batch.
    pub event: u32,
    /// Type, position, stream, version, and the error.
    pub message: String,
}

/// A batch on its way through a projection.
///
/// The events are decoded once. The handlers run over all of them; if none met a
/// row that is not loaded, the result stands. Otherwise the run only served to
/// learn which rows are needed: an event after one that met a missing row may
/// have seen rows without that event's effects, so nothing of the run is kept,
/// and when the rows are there the handlers run again from the first event on.
/// Undoing nothing, no row is ever copied for the sake of an undo.
pub struct Session<'b, P: Projection> {
    events: Vec<(u32, Meta<'b>, P::Event<'b>)>,
    /// The event whose data could not be read. Events after it are not handled, so the first one at fault is named.
    unreadable: Option<(u32, String)>,
    rows: Rows,
    lines: Vec<LogLine>,
}

impl<'b, P: Projection> Session<'b, P> {
    /// Decodes a batch.
    ///
    /// # Errors
    /// When the frame is not as `wit/FRAMES.md` says.
    pub fn new(batch: &'b Batch) -> Result<Self, Failure> {
        let mut session = Self {
            events: Vec::with_capacity(batch.count()),
            unreadable: None,
            rows: Rows::of::<P::ReadModels>(),
            lines: Vec::new(),
        };
        for (index, event) in batch.events().enumerate() {
            let index = index as u32;
            let RawEvent { meta, data } = event.map_err(|error| Failure {
                event: index,
                message: error.to_string(),
            })?;
            match data.and_then(|data| P::Event::decode(meta.event_type, data)) {
                Ok(Some(event)) => session.events.push((index, meta, event)),
                Ok(None) => {}
                Err(error) => {
                    session.unreadable = Some((index, meta.failure(&error)));
                    break;
                }
            }
        }
        Ok(session)
    }

    /// Processes what needs no row.
    pub fn begin(&mut self) -> Result<Step, Failure> {
        for (index, at, event) in &self.events {
            self.rows.begin_event(*index);
            P::want(event, at, &mut self.rows);
        }
        if self.rows.wants_any() {
            return Ok(Step::Need(self.rows.need()));
        }
        self.run()
    }

    /// Takes the rows that the last step asked for, and goes on.
    pub fn resume(&mut self, rows: Vec<u8>) -> Result<Step, Failure> {
        self.rows.answer(rows).map_err(|error| Failure {
            event: 0,
            message: format!("the rows that the engine handed over: {error}"),
        })?;
        self.rows.restart();
        self.run()
    }

    /// What the handlers logged, once the batch is done or has failed.
    pub fn take_log(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.lines)
    }

    fn run(&mut self) -> Result<Step, Failure> {
        log::clear();
        let outcome = self.handle_all();
        let lines = log::take();
        if !matches!(outcome, Ok(Step::Need(_))) {
            self.lines = lines;
        }
        outcome
    }

    fn handle_all(&mut self) -> Result<Step, Failure> {
        let mut collecting = false;
        for (index, at, event) in &self.events {
            self.rows.begin_event(*index);
            #[cfg(target_arch = "wasm32")]
            crate::guest::handling(at.position);
            let handled = P::handle(event, at, &mut self.rows);
            collecting |= self.rows.has_met_pending();
            // An error after a missing row may come from the effects that are missing. It will come again if not.
            let handled = self.rows.take_refused().and(handled);
            let handled = handled.and_then(|()| one_stream(&self.events, at, &mut self.rows));
            if let (Err(error), false) = (handled, collecting) {
                return Err(Failure {
                    event: *index,
                    message: at.failure(&error),
                });
            }
        }
        if collecting && self.rows.wants_any() {
            return Ok(Step::Need(self.rows.need()));
        }
        match &self.unreadable {
            Some((event, message)) => Err(Failure {
                event: *event,
                message: message.clone(),
            }),
            None => Ok(Step::Done(self.rows.changes())),
        }
    }
}

/// Refuses that an event changes a row, declared per stream, which an event of another stream has changed in this batch.
/// The engine sees only the last change of each row: what happens within a batch must not go unnoticed.
fn one_stream<E>(events: &[(u32, Meta<'_>, E)], at: &Meta<'_>, rows: &mut Rows) -> Result {
    while let Some((table, earlier)) = rows.next_overwritten() {
        let Ok(place) = events.binary_search_by_key(&earlier, |(index, ..)| *index) else {
            continue;
        };
        let other = events[place].1.stream_id;
        if other != at.stream_id {
            return Err(Error::new(format_args!(
                "a row of read model \"{table}\", which is declared per_stream, is changed by events of two streams \
                 ({other:?} and {:?}): remove per_stream, or put the stream into its key",
                at.stream_id
            )));
        }
    }
    Ok(())
}

/// The failure of a batch whose frame cannot be read.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            event: 0,
            message: error.to_string(),
        }
    }
}
