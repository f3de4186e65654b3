//! The rows that a handler reads and writes.

use std::any::TypeId;

use crate::column::KeyOf;
use crate::frame::{self, FrameReader};
use crate::hash::same;
use crate::read_model::Visit;
use crate::{Error, ReadModel, ReadModels, Result};

mod slots;

use slots::{AnySlots, Change, Lookup, Slots, Stored, Write};

/// The rows of the projection's read models, as they stand at this event.
///
/// Every event sees what earlier events wrote. A row that the engine has not
/// handed over yet answers with an error that `?` passes on; the row is then
/// fetched, and the event handled again. Such a discarded run may see rows that
/// lack the effects of other events, so a handler should answer the unexpected
/// with an error and not with a panic.
#[derive(Default)]
pub struct Rows {
    types: Vec<TypeId>,
    tables: Vec<Box<dyn AnySlots>>,
    /// The frames that the engine has answered with.
    frames: Vec<Vec<u8>>,
    /// The rows to be asked for: read model and slot.
    wanted: Vec<(usize, u32)>,
    /// The key that is being looked up; kept for its allocation.
    key: Vec<u8>,
    event: u32,
    writes: u32,
    met_pending: bool,
    refused: Option<String>,
}

impl Visit for Rows {
    fn read_model<R: ReadModel>(&mut self) {
        self.types.push(TypeId::of::<R>());
        self.tables.push(Box::new(Slots::<R>::default()));
    }
}

impl Rows {
    /// The row with this key, or `None`.
    ///
    /// # Errors
    /// When the row is not loaded yet: pass it on with `?`.
    pub fn get<R: ReadModel>(&mut self, key: impl KeyOf<R::Key>) -> Result<Option<&R>> {
        let (place, slot) = self.load::<R>(key)?;
        Ok(slots::<R>(&mut self.tables, place)?.row(slot))
    }

    /// Whether there is a row with this key.
    ///
    /// # Errors
    /// When the row is not loaded yet: pass it on with `?`.
    pub fn exists<R: ReadModel>(&mut self, key: impl KeyOf<R::Key>) -> Result<bool> {
        Ok(self.get::<R>(key)?.is_some())
    }

    /// Writes a whole row, whether there is one with its key or not. It need not be loaded.
    pub fn upsert<R: ReadModel>(&mut self, row: R) {
        self.key.clear();
        row.write_key(&mut self.key);
        let write = self.next_write();
        let written = self.place::<R>().and_then(|place| {
            row.check()
                .map_err(|error| in_table::<R>(&self.key, &error))?;
            let slots = slots::<R>(&mut self.tables, place)?;
            let slot = slots.slot(&self.key);
            slots.put(slot, row, write);
            Ok(())
        });
        self.remember(written);
    }

    /// Changes the row with this key, at once, and returns what `change` returns.
    ///
    /// # Errors
    /// When there is no such row, or it is not loaded yet.
    pub fn modify<R: ReadModel, T>(
        &mut self,
        key: impl KeyOf<R::Key>,
        change: impl FnOnce(&mut R) -> T,
    ) -> Result<T> {
        let (place, slot) = self.load::<R>(key)?;
        self.change(place, slot, None::<fn() -> R>, change)
    }

    /// Changes the row with this key; when there is none, `insert` makes it first.
    ///
    /// # Errors
    /// When the row is not loaded yet.
    pub fn modify_or_insert<R: ReadModel, T>(
        &mut self,
        key: impl KeyOf<R::Key>,
        insert: impl FnOnce() -> R,
        change: impl FnOnce(&mut R) -> T,
    ) -> Result<T> {
        let (place, slot) = self.load::<R>(key)?;
        self.change(place, slot, Some(insert), change)
    }

    /// Deletes the row with this key, if there is one. It need not be loaded.
    pub fn delete<R: ReadModel>(&mut self, key: impl KeyOf<R::Key>) {
        let write = self.next_write();
        let deleted = self.find::<R>(key).and_then(|(place, slot)| {
            slots::<R>(&mut self.tables, place)?.delete(slot, write);
            Ok(())
        });
        self.remember(deleted);
    }

    /// Says that this row will be needed, so that it is fetched together with others.
    pub fn want<R: ReadModel>(&mut self, key: impl KeyOf<R::Key>) {
        let wanted = self.find::<R>(key).and_then(|(place, slot)| {
            if slots::<R>(&mut self.tables, place)?.ask(slot) {
                self.wanted.push((place, slot));
            }
            Ok(())
        });
        self.remember(wanted);
    }

    /// The slot of this key, whatever it holds. Leaves the key's bytes in `self.key`.
    #[inline]
    fn find<R: ReadModel>(&mut self, key: impl KeyOf<R::Key>) -> Result<(usize, u32)> {
        let place = self.place::<R>()?;
        self.key.clear();
        key.write_key(&mut self.key);
        let slot = slots::<R>(&mut self.tables, place)?.slot(&self.key);
        Ok((place, slot))
    }

    /// The slot of this key, which holds a row or is known to hold none.
    #[inline]
    fn load<R: ReadModel>(&mut self, key: impl KeyOf<R::Key>) -> Result<(usize, u32)> {
        let place = self.place::<R>()?;
        self.key.clear();
        key.write_key(&mut self.key);
        let slots = slots::<R>(&mut self.tables, place)?;
        let slot = slots.slot(&self.key);
        match slots.lookup(slot) {
            Lookup::Known => return Ok((place, slot)),
            Lookup::Stored(Stored { frame, start }) => {
                let mut frame = FrameReader::new(&self.frames[frame as usize][start as usize..]);
                let row = frame.tuple().and_then(|_| R::read(&mut frame));
                let row = row.map_err(|error| in_table::<R>(&self.key, &error))?;
                slots.fill(slot, row);
                return Ok((place, slot));
            }
            Lookup::Unknown => self.wanted.push((place, slot)),
            Lookup::Asked => {}
        }
        self.met_pending = true;
        Err(Error::pending())
    }

    /// Runs `change` on the row in this slot, which `insert` makes when there is none, and refuses what must not come
    /// out of it. The key's bytes are in `self.key`.
    #[inline]
    fn change<R: ReadModel, T>(
        &mut self,
        place: usize,
        slot: u32,
        insert: Option<impl FnOnce() -> R>,
        change: impl FnOnce(&mut R) -> T,
    ) -> Result<T> {
        let write = self.next_write();
        let slots = slots::<R>(&mut self.tables, place)?;
        if let (None, Some(insert)) = (slots.row(slot), insert) {
            slots.put(slot, insert(), write);
        }
        let Some(row) = slots.row_to_change(slot, write) else {
            let key = R::TABLE.show_key(&self.key);
            return Err(Error::new(format_args!(
                "no row in read model `{}` with {key}",
                R::TABLE.name
            )));
        };
        let result = change(row);
        let new_key = &mut self.key;
        new_key.clear();
        row.write_key(new_key);
        let checked = row.check().map_err(|error| in_table::<R>(new_key, &error));
        let key = slots.key(slot);
        let same_key = if same(key, new_key) {
            Ok(())
        } else {
            let (old, new) = (R::TABLE.show_key(key), R::TABLE.show_key(new_key));
            Err(Error::new(format_args!(
                "read model `{}`: the row with {old} came back with {new}; delete the one and upsert the other",
                R::TABLE.name
            )))
        };
        if let Err(error) = same_key.and(checked) {
            self.remember(Err(Error::new(&error)));
            return Err(error);
        }
        Ok(result)
    }

    fn place<R: ReadModel>(&self) -> Result<usize> {
        let sought = TypeId::of::<R>();
        self.types
            .iter()
            .position(|declared| *declared == sought)
            .ok_or_else(|| {
                Error::new(format_args!(
                    "the projection does not own `{}`: name it in `type ReadModels`",
                    R::TABLE.name
                ))
            })
    }

    fn next_write(&mut self) -> Write {
        self.writes += 1;
        Write {
            event: self.event,
            sequence: self.writes,
        }
    }

    /// Keeps an error that the handler has no chance to pass on.
    fn remember(&mut self, result: Result) {
        if let Err(error) = result {
            self.refused.get_or_insert_with(|| error.to_string());
        }
    }
}

/// The read model at this place. A function of the tables alone, so that the rest of [`Rows`] stays free to be used.
#[inline]
fn slots<R: ReadModel>(tables: &mut [Box<dyn AnySlots>], place: usize) -> Result<&mut Slots<R>> {
    let slots = tables[place].as_any_mut().downcast_mut();
    slots.ok_or_else(|| Error::new(format_args!("`{}` is out of its place", R::TABLE.name)))
}

fn in_table<R: ReadModel>(key: &[u8], error: &Error) -> Error {
    Error::new(format_args!(
        "read model `{}`, {}: {error}",
        R::TABLE.name,
        R::TABLE.show_key(key)
    ))
}

/// The session's side.
impl Rows {
    pub(crate) fn of<M: ReadModels>() -> Self {
        let mut rows = Self::default();
        M::visit(&mut rows);
        rows
    }

    /// Forgets what handlers wrote, and keeps what the engine answered.
    pub(crate) fn restart(&mut self) {
        for table in &mut self.tables {
            table.restart();
        }
        self.writes = 0;
    }

    pub(crate) fn begin_event(&mut self, index: u32) {
        self.event = index;
        self.met_pending = false;
        self.refused = None;
        while self.next_overwritten().is_some() {}
    }

    /// A read model that is declared per stream, and an event whose write to one of its rows the running event has
    /// overwritten; each is given once.
    pub(crate) fn next_overwritten(&mut self) -> Option<(&'static str, u32)> {
        self.tables
            .iter_mut()
            .find_map(|table| table.next_overwritten())
    }

    /// Whether the running event met a row that is not loaded, even if its handler hid it.
    pub(crate) fn has_met_pending(&self) -> bool {
        self.met_pending
    }

    /// An error of the running event that could not be returned.
    pub(crate) fn take_refused(&mut self) -> Result {
        self.refused
            .take()
            .map_or(Ok(()), |message| Err(Error::new(message)))
    }

    pub(crate) fn wants_any(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// The frame that asks for the wanted rows.
    pub(crate) fn need(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.wanted.len() * 32);
        for (place, slot) in &self.wanted {
            self.tables[*place].write_need(*slot, *place as i16, &mut out);
        }
        out
    }

    /// Takes the rows that the last `need` asked for.
    pub(crate) fn answer(&mut self, bytes: Vec<u8>) -> Result {
        let number = self.frames.len() as u32;
        let mut rows = FrameReader::new(&bytes);
        for (place, slot) in std::mem::take(&mut self.wanted) {
            let start = rows.offset() as u32;
            let fields = rows.clone().tuple()?;
            rows.skip_tuple()?;
            let stored = (fields > 0).then_some(Stored {
                frame: number,
                start,
            });
            self.tables[place].answer(slot, stored, fields)?;
        }
        if !rows.is_at_end() {
            return Err(Error::new("more rows than were asked for"));
        }
        self.frames.push(bytes);
        Ok(())
    }

    /// The frame of all changes, the last one of every key, in the order of their events.
    pub(crate) fn changes(&self) -> Vec<u8> {
        let mut changes: Vec<(Change, usize)> = Vec::new();
        for (place, table) in self.tables.iter().enumerate() {
            table.changes(&mut |change| changes.push((change, place)));
        }
        changes.sort_unstable_by_key(|(change, _)| change.write.sequence);
        let mut out = Vec::with_capacity(changes.len() * 96);
        for (change, place) in changes {
            let table = &self.tables[place];
            frame::begin_tuple(&mut out, 3 + table.width(change));
            frame::field(&mut out, |out| {
                out.extend_from_slice(&(change.write.event as i32).to_be_bytes())
            });
            frame::field(&mut out, |out| {
                out.extend_from_slice(&(place as i16).to_be_bytes())
            });
            table.write_change(change, &mut out);
        }
        out
    }
}
