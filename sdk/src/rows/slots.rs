//! The rows of one read model during a batch: one slot per key.

use std::any::Any;

use crate::frame;
use crate::hash::{Found, Index, hash, same};
use crate::{Error, ReadModel, Result};

/// The event that wrote, and the place of the write among all of the batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    pub(super) event: u32,
    pub(super) sequence: u32,
}

/// A written slot.
#[derive(Clone, Copy)]
pub(super) struct Change {
    pub(super) slot: u32,
    pub(super) write: Write,
}

/// Where a row lies that the engine handed over: which answer, and the offset of its tuple.
#[derive(Clone, Copy)]
pub(super) struct Stored {
    pub(super) frame: u32,
    pub(super) start: u32,
}

/// What reading a slot leads to.
pub(super) enum Lookup {
    /// The slot holds a row, or is known to hold none.
    Known,
    /// The row is in an answer of the engine and has to be decoded.
    Stored(Stored),
    /// Nobody has asked the engine yet; now somebody has.
    Unknown,
    /// The engine has been asked and has not answered.
    Asked,
}

/// What the engine knows of a row.
enum Source {
    Unknown,
    Asked,
    Absent,
    Stored(Stored),
}

/// What the handlers see.
enum State<R> {
    Unread,
    Absent,
    Present(R),
}

struct Slot<R> {
    hash: u64,
    key: (u32, u32),
    source: Source,
    state: State<R>,
    written: Option<Write>,
}

pub(super) struct Slots<R> {
    index: Index,
    slots: Vec<Slot<R>>,
    keys: Vec<u8>,
    /// Of a read model that is declared per stream: the events whose writes the running event has overwritten.
    overwritten: Vec<u32>,
}

impl<R> Default for Slots<R> {
    fn default() -> Self {
        Self {
            index: Index::default(),
            slots: Vec::new(),
            keys: Vec::new(),
            overwritten: Vec::new(),
        }
    }
}

impl<R: ReadModel> Slots<R> {
    /// The slot of a key, a new one when the key is new.
    #[inline]
    pub(super) fn slot(&mut self, key: &[u8]) -> u32 {
        let hash = hash(key);
        let is = |slot: u32| self.slots[slot as usize].hash == hash && same(self.key(slot), key);
        match self.index.find(hash, is) {
            Found::Slot(slot) => slot,
            Found::Free(free) => self.add(free, hash, key),
        }
    }

    fn add(&mut self, free: usize, hash: u64, key: &[u8]) -> u32 {
        let slot = self.slots.len() as u32;
        let start = self.keys.len() as u32;
        self.keys.extend_from_slice(key);
        self.slots.push(Slot {
            hash,
            key: (start, self.keys.len() as u32),
            source: Source::Unknown,
            state: State::Unread,
            written: None,
        });
        self.index
            .insert(free, slot, |slot| self.slots[slot as usize].hash);
        slot
    }

    pub(super) fn key(&self, slot: u32) -> &[u8] {
        let (start, end) = self.slots[slot as usize].key;
        &self.keys[start as usize..end as usize]
    }

    pub(super) fn row(&self, slot: u32) -> Option<&R> {
        match &self.slots[slot as usize].state {
            State::Present(row) => Some(row),
            State::Unread | State::Absent => None,
        }
    }

    pub(super) fn row_to_change(&mut self, slot: u32, write: Write) -> Option<&mut R> {
        self.row(slot)?;
        match &mut self.written(slot, write).state {
            State::Present(row) => Some(row),
            State::Unread | State::Absent => None,
        }
    }

    #[inline]
    pub(super) fn lookup(&mut self, slot: u32) -> Lookup {
        let slot = &mut self.slots[slot as usize];
        match (&slot.state, &slot.source) {
            (State::Present(_) | State::Absent, _) => Lookup::Known,
            (State::Unread, Source::Stored(stored)) => Lookup::Stored(*stored),
            (State::Unread, Source::Absent) => {
                slot.state = State::Absent;
                Lookup::Known
            }
            (State::Unread, Source::Asked) => Lookup::Asked,
            (State::Unread, Source::Unknown) => {
                slot.source = Source::Asked;
                Lookup::Unknown
            }
        }
    }

    /// Whether the row has to be asked for, and was not yet.
    pub(super) fn ask(&mut self, slot: u32) -> bool {
        matches!(self.lookup(slot), Lookup::Unknown)
    }

    pub(super) fn fill(&mut self, slot: u32, row: R) {
        self.slots[slot as usize].state = State::Present(row);
    }

    pub(super) fn put(&mut self, slot: u32, row: R, write: Write) {
        self.written(slot, write).state = State::Present(row);
    }

    pub(super) fn delete(&mut self, slot: u32, write: Write) {
        self.written(slot, write).state = State::Absent;
    }

    /// Notes a write, and which event's it replaces.
    #[inline]
    fn written(&mut self, slot: u32, write: Write) -> &mut Slot<R> {
        let slot = &mut self.slots[slot as usize];
        let earlier = slot.written.replace(write);
        if R::TABLE.per_stream
            && let Some(earlier) = earlier
            && earlier.event != write.event
        {
            self.overwritten.push(earlier.event);
        }
        slot
    }
}

/// What can be done without knowing the row's type.
pub(super) trait AnySlots {
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn restart(&mut self);
    fn write_need(&self, slot: u32, place: i16, out: &mut Vec<u8>);
    fn answer(&mut self, slot: u32, stored: Option<Stored>, fields: usize) -> Result;
    fn changes(&self, each: &mut dyn FnMut(Change));
    /// The read model's name, and an event whose write the running event has overwritten; each is given once.
    fn next_overwritten(&mut self) -> Option<(&'static str, u32)>;
    /// The number of fields that a change carries: a row's, or a key's for a delete.
    fn width(&self, change: Change) -> usize;
    fn write_change(&self, change: Change, out: &mut Vec<u8>);
}

impl<R: ReadModel> AnySlots for Slots<R> {
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn restart(&mut self) {
        for slot in &mut self.slots {
            slot.state = State::Unread;
            slot.written = None;
        }
    }

    fn write_need(&self, slot: u32, place: i16, out: &mut Vec<u8>) {
        frame::begin_tuple(out, 1 + R::TABLE.key.len());
        frame::field(out, |out| out.extend_from_slice(&place.to_be_bytes()));
        out.extend_from_slice(self.key(slot));
    }

    fn answer(&mut self, slot: u32, stored: Option<Stored>, fields: usize) -> Result {
        let columns = R::TABLE.columns.len();
        self.slots[slot as usize].source = match stored {
            None => Source::Absent,
            Some(stored) if fields == columns => Source::Stored(stored),
            Some(_) => {
                return Err(Error::new(format_args!(
                    "a row of `{}` has {fields} fields instead of {columns}",
                    R::TABLE.name
                )));
            }
        };
        Ok(())
    }

    fn changes(&self, each: &mut dyn FnMut(Change)) {
        for (slot, content) in self.slots.iter().enumerate() {
            if let Some(write) = content.written {
                each(Change {
                    slot: slot as u32,
                    write,
                });
            }
        }
    }

    fn next_overwritten(&mut self) -> Option<(&'static str, u32)> {
        Some((R::TABLE.name, self.overwritten.pop()?))
    }

    fn width(&self, change: Change) -> usize {
        if self.row(change.slot).is_some() {
            R::TABLE.columns.len()
        } else {
            R::TABLE.key.len()
        }
    }

    fn write_change(&self, change: Change, out: &mut Vec<u8>) {
        let row = self.row(change.slot);
        let operation = i16::from(row.is_none());
        frame::field(out, |out| out.extend_from_slice(&operation.to_be_bytes()));
        match row {
            Some(row) => row.write(out),
            None => out.extend_from_slice(self.key(change.slot)),
        }
    }
}
