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
//! Nothing here is awaited and nothing here reads: [`Convoys::next`] says what a reader has to do now. The windows divide
//! among them as many bytes as the source's ring may hold; one that is too large, because another one has begun, takes
//! nothing more until it is small enough.

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
        let holding = self.convoys.values().filter(|convoy| convoy.may_hold());
        let share = self.capacity / holding.count().max(1);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{write_count, write_field};

    const CAPACITY: usize = 8 * 400;

    /// One event of the type `kind` at each position in `(after, through]`.
    fn batch(after: Position, through: Position, kind: &str) -> Batch {
        let mut batch = Batch::empty(through);
        for position in after + 1..=through {
            let mut tuple = Vec::new();
            write_count(&mut tuple, 9);
            write_field(&mut tuple, Some(&position.to_be_bytes()));
            for text in ["stream", "\0\0\0\0\0\0\0\0", kind, "{}"] {
                write_field(&mut tuple, Some(text.as_bytes()));
            }
            write_field(&mut tuple, None);
            write_field(&mut tuple, Some(&[7; 16]));
            write_field(&mut tuple, Some(&0i64.to_be_bytes()));
            write_field(&mut tuple, Some(&0i64.to_be_bytes()));
            batch.push(&tuple).unwrap();
        }
        batch
    }

    struct Road {
        convoys: Convoys,
        now: Instant,
        a: Vec<String>,
        b: Vec<String>,
    }

    impl Road {
        fn new() -> Self {
            Self {
                convoys: Convoys::new(CAPACITY),
                now: Instant::now(),
                a: vec!["a".into()],
                b: vec!["b".into()],
            }
        }

        /// What reader `id` has to do; the readers 1 and 2 want other types, the rest want all.
        fn ask(&mut self, id: Id, after: Position) -> String {
            self.ask_in(1, id, after)
        }

        fn ask_in(&mut self, epoch: u64, id: Id, after: Position) -> String {
            let (a, b) = (self.a.clone(), self.b.clone());
            let types = match id {
                1 => Some(&a[..]),
                2 => Some(&b[..]),
                _ => None,
            };
            let ask = Ask {
                id,
                after,
                types,
                epoch,
            };
            match self.convoys.next(&ask, self.now) {
                Next::Take(batches, through) => format!("take {} to {through}", batches.len()),
                Next::Alone(Position::MAX) => "alone".into(),
                Next::Alone(bound) => format!("alone to {bound}"),
                Next::Lead(chunk) => {
                    let types = chunk.types.map_or("all".into(), |types| types.join("+"));
                    format!("lead {types} from {}", chunk.after)
                }
                Next::Wait => "wait".into(),
            }
        }

        /// Reader `id`, who leads, has read for everybody.
        fn push(&mut self, id: Id, after: Position, through: Position, types: Option<&[&str]>) {
            let chunk = Chunk {
                after,
                types: types.map(|types| types.iter().map(|t| (*t).to_owned()).collect()),
                max_bytes: 0,
            };
            let ask = Ask {
                id,
                after,
                types: None,
                epoch: 1,
            };
            self.convoys.push(&ask, chunk, batch(after, through, "a"));
            self.convoys.resign(id);
        }

        fn pass(&mut self, milliseconds: u64) {
            self.now += Duration::from_millis(milliseconds);
        }
    }

    #[test]
    fn one_reads_for_all_that_are_near() {
        let mut road = Road::new();
        assert_eq!(road.ask(1, 0), "alone");
        assert_eq!(road.ask(2, 0), "lead a+b from 0");
        assert_eq!(road.ask(1, 0), "wait");
        road.push(2, 0, 3, Some(&["a", "b"]));
        assert_eq!(road.ask(1, 0), "take 1 to 3");
        assert_eq!(road.ask(1, 3), "lead a+b from 3");
        assert_eq!(road.ask(2, 1), "take 1 to 3");
        assert_eq!(road.ask(2, 3), "wait");
        road.push(1, 3, 5, Some(&["a", "b"]));
        assert_eq!(road.ask(2, 3), "take 1 to 5");
        // Who is left has the rest, and goes on alone.
        road.convoys.leave(2);
        assert_eq!(road.ask(1, 4), "take 1 to 5");
        assert_eq!(road.ask(1, 5), "alone");
    }

    #[test]
    fn who_joins_reads_alone_what_was_not_read_for_it() {
        let mut road = Road::new();
        assert_eq!(road.ask(1, 100), "alone");
        assert_eq!(road.ask(2, 50), "alone to 100");
        assert_eq!(road.ask(2, 100), "lead a+b from 100");
        road.push(2, 100, 103, Some(&["a", "b"]));
        assert_eq!(road.ask(3, 90), "alone to 100");
        assert_eq!(road.ask(3, 100), "alone to 103");
        assert_eq!(road.ask(3, 103), "lead all from 103");
        road.push(3, 103, 105, None);
        assert_eq!(road.ask(1, 100), "take 2 to 105");
        assert_eq!(road.ask(3, 103), "take 1 to 105");
    }

    #[test]
    fn readers_that_are_far_apart_do_not_wait_for_each_other() {
        let mut road = Road::new();
        let far = 5 * REACH;
        assert_eq!(road.ask(1, far), "alone");
        assert_eq!(road.ask(2, 0), "alone");
        assert_eq!(road.ask(3, 0), "lead all from 0");
        road.push(3, 0, 3, None);
        assert_eq!(road.ask(2, 0), "take 1 to 3");
        assert_eq!(road.ask(1, far + 10), "alone");
        // One that goes back belongs to others.
        assert_eq!(road.ask(1, 1), "take 1 to 3");
    }

    #[test]
    fn nobody_is_stuck_behind_one_that_does_not_come_back_with_what_it_read() {
        let mut road = Road::new();
        assert_eq!(road.ask(1, 0), "alone");
        assert_eq!(road.ask(2, 0), "lead a+b from 0");
        road.convoys.resign(2);
        assert_eq!(road.ask(1, 0), "lead a+b from 0");
        road.convoys.part(1);
        road.convoys.resign(1);
        assert_eq!(road.ask(2, 0), "alone");
        assert_eq!(road.ask(3, 0), "lead all from 0");
        assert_eq!(road.ask(2, 0), "wait");
        road.pass(10_000);
        assert_eq!(road.ask(2, 0), "lead all from 0");
        // Too late: somebody else does it now.
        road.push(3, 0, 9, None);
        assert_eq!(road.ask(3, 0), "wait");
        road.push(2, 0, 7, None);
        assert_eq!(road.ask(3, 0), "take 1 to 7");
    }

    /// Reader 3 has read ahead until it has to wait for reader 4, which stays at 0.
    fn full() -> (Road, Position) {
        let mut road = Road::new();
        assert_eq!(road.ask(4, 0), "alone");
        let mut after = 0;
        loop {
            match &road.ask(3, after)[..] {
                "wait" => return (road, after),
                _ => road.push(3, after, after + 3, None),
            }
            after += 3;
            assert!(after < 100, "the window is never full");
        }
    }

    #[test]
    fn a_full_window_is_waited_for_and_then_the_slow_stay_behind_together() {
        let (mut road, front) = full();
        assert_eq!(road.ask(5, 0), format!("take {} to {front}", front / 3));
        for _ in 0..19 {
            road.pass(100);
            assert_eq!(road.ask(3, front), "wait");
        }
        road.pass(200);
        assert_eq!(road.ask(3, front), "alone");
        assert_eq!(road.ask(4, 0), "lead all from 0");
        assert_eq!(road.ask(5, 0), "wait");
        road.push(4, 0, front, None);
        assert_eq!(road.ask(4, 0), format!("take 1 to {front}"));
        // It has caught up.
        assert_eq!(road.ask(4, front), format!("lead all from {front}"));
        assert_eq!(road.ask(3, front), "wait");
    }

    #[test]
    fn a_slow_one_that_goes_on_is_not_left_behind() {
        let (mut road, mut front) = full();
        for round in 0..50 {
            for _ in 0..5 {
                assert_eq!(road.ask(3, front), "wait");
                road.pass(100);
            }
            let first = (round + 1) * 3;
            assert!(road.ask(4, first - 3).starts_with("take"));
            assert!(road.ask(4, first).starts_with("take"));
            assert_eq!(road.ask(3, front), format!("lead all from {front}"));
            road.push(3, front, front + 3, None);
            front += 3;
            road.pass(500);
        }
    }

    #[test]
    fn nothing_is_served_that_another_session_vouched_for() {
        let mut road = Road::new();
        assert_eq!(road.ask(1, 0), "alone");
        assert_eq!(road.ask(3, 0), "lead all from 0");
        road.push(3, 0, 3, None);
        assert_eq!(road.ask(1, 0), "take 1 to 3");
        assert_eq!(road.ask_in(2, 1, 0), "lead all from 0");
        assert_eq!(road.ask_in(1, 3, 0), "alone");
        // Read in the first epoch.
        road.push(1, 0, 3, None);
        assert_eq!(road.ask_in(2, 3, 0), "lead all from 0");
    }
}
