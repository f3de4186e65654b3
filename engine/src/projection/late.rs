//! What streams that wait do to the events of others, and late retries to rows that have moved on: whatever a replay would
//! give otherwise is noticed, and the generation counts as diverged. Rows are never changed by that.
//!
//! The rows of a stream that waits are behind, and a retried event meets the rows of others ahead of it. In read models that
//! are declared per stream, every row says whose it is, so what was read tells:
//! - an event reads a row of another stream that waits, or a retried event a row that another stream has changed since:
//!   diverged;
//! - an event finds no row, or deletes one, while another stream waits: nobody can know yet whether that stream's events
//!   would have met it. The key is kept until nothing waits any more. A retried event that is earlier and writes a row
//!   there, or does not find the one that was deleted since, makes it diverged.
//!
//! In other read models any late retry may come out otherwise, so a projection that has one keeps no keys.

use std::collections::HashSet;
use std::fmt::Write;

use crate::change::{Change, Need};
use crate::event::Position;
use crate::frame::Reader;
use crate::read_model::rows::Row;
use crate::read_model::writer::{AbsentKey, ChangeSet};
use crate::read_model::{ColumnType, ReadModel, Scalar};

/// Looks at the rows that a batch reads.
pub(super) struct Lookout<'s> {
    models: &'s [ReadModel],
    waiting: &'s HashSet<String>,
    retried: Option<(&'s str, Position)>,
    /// The stream whose events are processed from nothing.
    alone: Option<&'s str>,
    seen: Seen,
}

/// What a batch has read that matters later.
#[derive(Default)]
pub(super) struct Seen {
    /// Why a replay would give other rows.
    reason: Option<String>,
    /// What was looked for in vain.
    missed: Vec<Need>,
    retried: Option<String>,
    watches: bool,
    /// Whether another stream waits that could have made what is not there.
    keeps: bool,
    /// What was read that belongs to a stream other than the one that is processed alone.
    foreign: Option<String>,
}

impl<'s> Lookout<'s> {
    /// For a batch that is processed while these streams wait, or for the event at a position of the `retried`
    /// stream, which is one of them or had the event skipped. A generation that has diverged has nothing left to notice.
    pub(super) fn new(
        models: &'s [ReadModel],
        waiting: &'s HashSet<String>,
        retried: Option<(&'s str, Position)>,
        diverged: bool,
    ) -> Self {
        let stream = retried.map(|(stream, _)| stream);
        let others = waiting.iter().any(|waits| stream != Some(waits));
        let watches = !diverged && (others || retried.is_some());
        let keeps = watches && others && models.iter().all(|model| model.per_stream);
        Self {
            models,
            waiting,
            retried,
            alone: None,
            seen: Seen {
                watches,
                keeps,
                retried: stream.filter(|_| watches).map(str::to_owned),
                ..Seen::default()
            },
        }
    }

    /// For a batch of the events of `stream`, which are processed once more from nothing. If that `settles` dead letters,
    /// they are processed late.
    pub(super) fn alone(
        models: &'s [ReadModel],
        waiting: &'s HashSet<String>,
        stream: &'s str,
        settles: bool,
    ) -> Self {
        let others = waiting.iter().any(|waits| stream != waits);
        Self {
            models,
            waiting,
            retried: None,
            alone: Some(stream),
            seen: Seen {
                watches: settles,
                keeps: settles && others,
                retried: Some(stream.to_owned()),
                ..Seen::default()
            },
        }
    }

    /// The batch reads a row, or finds that there is none.
    pub(super) fn saw(&mut self, need: &Need, row: Option<&Row>) {
        let model = &self.models[need.model];
        if let Some(stream) = self.alone {
            match row.and_then(|row| row.owner.as_ref()) {
                Some(owner) if *owner.stream != *stream => {
                    let key = key_text(model, &need.key);
                    self.seen.foreign.get_or_insert_with(|| {
                        format!(
                            "its events ask for row {key} of read model \"{}\", which belongs to stream \"{}\"",
                            model.name, owner.stream
                        )
                    });
                }
                None if self.seen.watches => self.seen.missed.push(need.clone()),
                _ => {}
            }
            return;
        }
        if !self.seen.watches || !model.per_stream {
            return;
        }
        let Some(row) = row else {
            if self.seen.keeps || self.retried.is_some() {
                self.seen.missed.push(need.clone());
            }
            return;
        };
        let Some(owner) = &row.owner else { return };
        let waits = self.waiting.contains(&*owner.stream);
        let reader = match self.retried {
            Some((stream, _)) if *stream == *owner.stream => return,
            Some((_, position)) if waits || owner.position > position => {
                "a late retry of another stream"
            }
            None if waits => "another stream while its own waits",
            _ => return,
        };
        if self.seen.reason.is_none() {
            let key = key_text(model, &need.key);
            self.seen.reason = Some(format!(
                "row {key} of read model \"{}\", which belongs to stream \"{}\", was read by {reader}",
                model.name, owner.stream
            ));
        }
    }

    /// What has been seen, when the batch is done.
    pub(super) fn end(self) -> Seen {
        self.seen
    }
}

impl Seen {
    /// What was read that belongs to a stream other than the one that is processed alone.
    pub(super) fn foreign(&self) -> Option<&str> {
        self.foreign.as_deref()
    }

    /// Adds to `set` what has to be known when a stream that waits is retried. `position` is the batch's last event.
    pub(super) fn note(
        &self,
        position: Position,
        changes: &[Change],
        models: &[ReadModel],
        set: &mut ChangeSet,
    ) {
        if let Some(reason) = &self.reason {
            set.diverge(position, reason);
        }
        if !self.keeps {
            return;
        }
        set.retried.clone_from(&self.retried);
        set.absent_at = position;
        // Where there is a row in the end, that stream's events will be refused.
        let made: HashSet<(usize, &[u8])> = (changes.iter())
            .filter(|change| change.row.is_some() && !self.missed.is_empty())
            .map(|change| (change.model, &*change.key))
            .collect();
        for need in &self.missed {
            if !made.contains(&(need.model, &*need.key)) {
                let key = AbsentKey::new(need.model, &need.key);
                set.absent.entry(key).or_insert(false);
            }
        }
        for change in changes {
            if change.row.is_none() && models[change.model].per_stream {
                let key = AbsentKey::new(change.model, &change.key);
                set.absent.insert(key, true);
            }
        }
    }

    /// The keys that a retried event wrote or found no row at, with what is to be said if one of them matters.
    pub(super) fn touched(&self, changes: &[Change], models: &[ReadModel]) -> Touched {
        let mut touched = Touched::default();
        let mut push = |index: usize, key: &[u8], written: bool| {
            let model = &models[index];
            if !model.per_stream {
                return;
            }
            touched.keys.push((AbsentKey::new(index, key), written));
            let key = key_text(model, key);
            touched.names.push(format!(
                "a late retry touched row {key} of read model \"{}\", which events of another stream had not found, or had deleted",
                model.name
            ));
        };
        for need in &self.missed {
            push(need.model, &need.key, false);
        }
        for change in changes {
            push(change.model, &change.key, true);
        }
        touched
    }
}

/// Keys, and as many reasons.
#[derive(Default)]
pub(super) struct Touched {
    pub(super) keys: Vec<(AbsentKey, bool)>,
    pub(super) names: Vec<String>,
}

/// A key for people: its columns, separated by commas.
fn key_text(model: &ReadModel, key: &[u8]) -> String {
    let mut reader = Reader::new(key);
    let mut text = String::new();
    for (place, column) in model.key_columns().enumerate() {
        if place > 0 {
            text.push(',');
        }
        let Ok(Some(field)) = reader.field() else {
            break;
        };
        text.push_str(&field_text(column.kind, field));
    }
    format!("\"{text}\"")
}

fn field_text(kind: ColumnType, field: &[u8]) -> String {
    let plain = match kind {
        ColumnType::Scalar(Scalar::Text) => std::str::from_utf8(field).ok().map(str::to_owned),
        ColumnType::Scalar(Scalar::Bool) => Some((field == [1]).to_string()),
        ColumnType::Scalar(Scalar::Int2 | Scalar::Int4 | Scalar::Int8) => {
            let negative = field.first().is_some_and(|byte| byte.cast_signed() < 0);
            let start = if negative { -1 } else { 0 };
            let number = (field.iter()).fold(start, |n: i64, &byte| n << 8 | i64::from(byte));
            Some(number.to_string())
        }
        ColumnType::Scalar(Scalar::Uuid) => {
            (uuid::Uuid::from_slice(field).ok()).map(|uuid| uuid.to_string())
        }
        ColumnType::Scalar(_) | ColumnType::Array(_) => None,
    };
    plain.unwrap_or_else(|| {
        field.iter().fold("\\x".to_owned(), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    })
}
