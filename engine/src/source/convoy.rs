//! One scan for all who rebuild at about the same place.
//!
//! A convoy is a number of readers that are near each other. On its own, a reader reads as any other does: on its own
//! connection, its types filtered by the server. Two and more share a window of chunks, each read once, with the types
//! of all of them. Each takes from the window what follows its position. Whoever finds nothing more there reads the next
//! chunk for everybody, with its own connection, while the others wait (or take what is there). Chunks that all have
//! passed are dropped.
//!
//! Nobody depends on another one:
//! - When the window is full, the fast wait for the slow: no longer than [`PATIENCE`] at once, and half of the time in
//!   the long run. Then the slow go on in a convoy of their own. They come back when they catch up.
//! - Who reads for everybody and fails, resigns: the next one tries. Who is dropped while it reads, resigns too. Who does
//!   not come back within [`ABSENCE`], is no longer waited for.
//! - An event that does not fit stops only those that want it: who cannot read for everybody reads for itself.
//!
//! Nothing here is awaited and nothing here reads: [`Convoys::next`] says what a reader has to do now. All of the
//! windows together hold what the source's ring may hold, and one more chunk per convoy.

mod group;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::{Batch, Position};
use group::{Convoy, Member};

/// How many positions may lie between two readers that begin to share.
pub(super) const REACH: Position = 200_000;

/// How much waiting for one reader is forgiven; half of the time that passes is forgiven as well.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the one who reads for everybody is waited for.
const ABSENCE: Duration = Duration::from_secs(10);

/// How often who waits looks again.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// So many chunks fill a window.
const CHUNKS: usize = 8;

/// Names a reader.
pub(super) type Id = u64;

/// Where a reader is and what it wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) id: Id,
    pub(super) after: Position,
    pub(super) types: Option<&'a [String]>,
    pub(super) epoch: u64,
}

/// What a reader has to do now.
#[derive(Debug)]
pub(super) enum Next {
    /// Take from these batches what it wants, up to this position.
    Take(Vec<Arc<Batch>>, Position),
    /// Read for itself, no further than this position.
    Alone(Position),
    /// Read this for everybody, and then give it to [`Convoys::push`] or [`Convoys::resign`].
    Lead(Chunk),
    /// Ask again after any change, or after a [`TICK`].
    Wait,
}

/// What is to be read for everybody.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) after: Position,
    pub(super) types: Option<Vec<String>>,
    pub(super) max_bytes: usize,
}

/// All convoys of a source.
#[derive(Debug)]
pub(super) struct Convoys {
    capacity: usize,
    epoch: u64,
    made: u64,
    convoys: BTreeMap<u64, Convoy>,
}

impl Convoys {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            epoch: 0,
            made: 0,
            convoys: BTreeMap::new(),
        }
    }

    /// Nothing that was read is served any more: the session that vouched for it is lost.
    pub(super) fn clear(&mut self) {
        for convoy in self.convoys.values_mut() {
            convoy.clear();
        }
    }

    /// What the reader has to do to get what follows its position, which is below the safe head.
    pub(super) fn next(&mut self, ask: &Ask<'_>, now: Instant) -> Next {
        if ask.epoch < self.epoch {
            return Next::Alone(Position::MAX);
        }
        if ask.epoch > self.epoch {
            self.clear();
            self.epoch = ask.epoch;
        }
        let key = self.place(ask, now);
        let sharing = self.convoys.values().filter(|convoy| convoy.len() > 1);
        let share = self.capacity / sharing.count().max(1);
        let convoy = self.convoys.entry(key).or_default();
        convoy.advance(ask.id, ask.after, now);
        if let Some(next) = convoy.serve(ask, now) {
            return next;
        }
        let max_bytes = (share / CHUNKS).max(1);
        if convoy.has_room(max_bytes, share) {
            return convoy.lead(ask, max_bytes, now);
        }
        match convoy.wait_for_slow(now) {
            None => Next::Wait,
            Some(slow) => {
                self.add(slow);
                // There is room now, or nobody left to share with.
                self.next(ask, now)
            }
        }
    }

    /// Takes what the reader has read for everybody. It is thrown away if things have changed meanwhile.
    pub(super) fn push(&mut self, ask: &Ask<'_>, chunk: Chunk, batch: Batch) {
        if self.epoch == ask.epoch
            && let Some(convoy) = self.home_mut(ask.id)
        {
            convoy.push(ask.id, chunk, batch);
        }
    }

    /// The reader no longer reads for everybody.
    pub(super) fn resign(&mut self, id: Id) {
        for convoy in self.convoys.values_mut() {
            convoy.resign(id);
        }
    }

    /// The reader has got everything up to `through`.
    pub(super) fn passed(&mut self, id: Id, through: Position, now: Instant) {
        if let Some(convoy) = self.home_mut(id) {
            convoy.advance(id, through, now);
        }
    }

    /// The reader goes on without the others, for now.
    pub(super) fn part(&mut self, id: Id) {
        if let Some(member) = self.take(id) {
            self.add(Convoy::of_seekers(vec![member]));
        }
    }

    /// The reader is not there any more.
    pub(super) fn leave(&mut self, id: Id) {
        self.take(id);
    }

    /// The convoy that the reader belongs to from now on.
    fn place(&mut self, ask: &Ask<'_>, now: Instant) -> u64 {
        let home = self.home(ask.id);
        let others = |(key, _): &(&u64, &Convoy)| Some(**key) != home;
        let others = self.convoys.iter().filter(others);
        let joined = match home.and_then(|key| self.convoys.get(&key)) {
            Some(convoy) if convoy.is_near(ask.after) => match convoy.has_seeker(ask.id) {
                false => home,
                true => others
                    .map(|(key, other)| (key, other.is_overtaken_at(ask.after)))
                    .find_map(|(key, overtaken)| overtaken.then_some(*key))
                    .or(home),
            },
            _ => others
                .map(|(key, other)| (other.distance(ask.after), *key))
                .filter(|(distance, _)| *distance <= REACH)
                .min()
                .map(|(_, key)| key),
        };
        match joined {
            Some(key) if joined == home => key,
            Some(key) => {
                self.take(ask.id);
                let convoy = self.convoys.entry(key).or_default();
                convoy.join(Member::new(ask, now));
                key
            }
            None => {
                self.take(ask.id);
                self.add(Convoy::of_seekers(vec![Member::new(ask, now)]))
            }
        }
    }

    fn add(&mut self, convoy: Convoy) -> u64 {
        self.made += 1;
        self.convoys.insert(self.made, convoy);
        self.made
    }

    fn home(&self, id: Id) -> Option<u64> {
        let mut all = self.convoys.iter();
        all.find_map(|(key, convoy)| convoy.has(id).then_some(*key))
    }

    fn home_mut(&mut self, id: Id) -> Option<&mut Convoy> {
        self.convoys.values_mut().find(|convoy| convoy.has(id))
    }

    fn take(&mut self, id: Id) -> Option<Member> {
        let key = self.home(id)?;
        let convoy = self.convoys.get_mut(&key)?;
        let member = convoy.take(id);
        if convoy.len() == 0 {
            self.convoys.remove(&key);
        }
        member
    }
}
