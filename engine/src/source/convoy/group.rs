//! One convoy: its members, and the window that they share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ABSENCE, Ask, Chunk, Id, Next, PATIENCE, REACH, TICK};
use crate::event::{Batch, Position};

/// Readers that are near each other, or one that is near to nobody.
#[derive(Debug, Default)]
pub(super) struct Convoy {
    members: Vec<Member>,
    /// There as soon as two share.
    window: Option<Window>,
    /// Who reads the next chunk, and since when.
    leader: Option<(Id, Instant)>,
    /// Since when somebody waits for room in the window.
    full: Option<Instant>,
}

/// One reader.
#[derive(Debug)]
pub(super) struct Member {
    id: Id,
    position: Position,
    types: Option<Vec<String>>,
    /// It found nobody, or was left behind: it looks for others whom it has caught up with.
    seeks: bool,
    /// How long it was waited for and is not forgiven, as of when.
    debt: Duration,
    judged: Instant,
}

/// Everything in `(from, through]` that somebody wanted when it was read, in chunks.
#[derive(Debug)]
struct Window {
    from: Position,
    through: Position,
    bytes: usize,
    chunks: VecDeque<Held>,
}

#[derive(Debug)]
struct Held {
    batch: Arc<Batch>,
    types: Option<Vec<String>>,
}

impl Convoy {
    /// A convoy of those that look for another one.
    pub(super) fn of_seekers(mut members: Vec<Member>) -> Self {
        for member in &mut members {
            member.seeks = true;
            member.debt = Duration::ZERO;
        }
        Self {
            members,
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it has a window, or is about to have one.
    pub(super) fn may_hold(&self) -> bool {
        self.window.is_some() || self.members.len() > 1
    }

    pub(super) fn has(&self, id: Id) -> bool {
        self.members.iter().any(|member| member.id == id)
    }

    pub(super) fn has_seeker(&self, id: Id) -> bool {
        let mut members = self.members.iter();
        members.any(|member| member.id == id && member.seeks)
    }

    pub(super) fn join(&mut self, member: Member) {
        self.members.push(member);
    }

    pub(super) fn take(&mut self, id: Id) -> Option<Member> {
        let index = self.members.iter().position(|member| member.id == id)?;
        Some(self.members.swap_remove(index))
    }

    pub(super) fn clear(&mut self) {
        self.window = None;
        self.leader = None;
        self.full = None;
    }

    pub(super) fn resign(&mut self, id: Id) {
        self.leader = self.leader.filter(|(leader, _)| *leader != id);
    }

    pub(super) fn push(&mut self, id: Id, chunk: Chunk, batch: Batch) {
        if self.leader.is_some_and(|(leader, _)| leader == id)
            && let Some(window) = &mut self.window
            && window.through == chunk.after
        {
            window.through = batch.through;
            window.bytes += batch.frame().len();
            window.chunks.push_back(Held {
                batch: Arc::new(batch),
                types: chunk.types,
            });
        }
    }

    /// How far a position is from where this convoy reads.
    pub(super) fn distance(&self, position: Position) -> Position {
        let (from, through) = match &self.window {
            Some(window) => (window.from, window.through),
            None => {
                let positions = self.members.iter().map(|member| member.position);
                let nearest = positions.min_by_key(|found| (found - position).abs());
                let nearest = nearest.unwrap_or(Position::MAX);
                (nearest, nearest)
            }
        };
        (from - position).max(position - through).max(0)
    }

    pub(super) fn is_near(&self, position: Position) -> bool {
        self.window.is_none() || self.distance(position) <= REACH
    }

    /// Whether who comes from behind and is at `position` has caught up.
    pub(super) fn is_overtaken_at(&self, position: Position) -> bool {
        match &self.window {
            Some(window) => window.from <= position && position <= window.through,
            None => {
                let last = self.members.iter().map(|member| member.position).min();
                last.is_some_and(|last| last <= position && position - last <= REACH)
            }
        }
    }

    /// Notes where a member is, and drops what everybody has passed.
    pub(super) fn advance(&mut self, id: Id, position: Position, now: Instant) {
        // Nobody may have waited all of the time: who waits looks once per tick.
        let waited = self.full.take().map_or(Duration::ZERO, |since| {
            now.duration_since(since).min(2 * TICK)
        });
        let first = self.window.as_ref().and_then(Window::first);
        for member in &mut self.members {
            let forgiven = now.duration_since(member.judged) / 2;
            member.debt = member.debt.saturating_sub(forgiven);
            member.judged = now;
            if first.is_some_and(|through| member.position < through) {
                member.debt += waited;
            }
            if member.id == id {
                member.position = position;
            }
        }
        let last = self.members.iter().map(|member| member.position).min();
        if let (Some(window), Some(last)) = (&mut self.window, last) {
            window.drop_through(last);
        }
    }

    /// What there is for a member; `None` when something has to be read for everybody first.
    pub(super) fn serve(&mut self, ask: &Ask<'_>, now: Instant) -> Option<Next> {
        if let Some(member) = self.members.iter_mut().find(|member| member.id == ask.id)
            && member.types.as_deref() != ask.types
        {
            member.types = ask.types.map(<[String]>::to_vec);
        }
        let is_alone = self.members.len() == 1;
        if self.window.is_none() && !is_alone {
            // Where the foremost is: the others have a little to read for themselves, and nothing is read twice by it.
            let start = self.members.iter().map(|member| member.position).max();
            self.window = start.map(Window::at);
        }
        match self.window.as_ref().and_then(|window| window.serve(ask)) {
            Some(next) => Some(next),
            None if is_alone => {
                self.window = None;
                Some(Next::Alone(Position::MAX))
            }
            None => {
                let (_, since) = self.leader?;
                (now.duration_since(since) < ABSENCE).then_some(Next::Wait)
            }
        }
    }

    pub(super) fn has_room(&self, bytes: usize, capacity: usize) -> bool {
        let held = self.window.as_ref().map_or(0, |window| window.bytes);
        held == 0 || held + bytes <= capacity
    }

    pub(super) fn lead(&mut self, ask: &Ask<'_>, max_bytes: usize, now: Instant) -> Next {
        self.leader = Some((ask.id, now));
        let mut types = Some(Vec::new());
        for member in &self.members {
            types = match (types, &member.types) {
                (Some(all), Some(some)) => Some([all, some.clone()].concat()),
                _ => None,
            };
        }
        if let Some(types) = &mut types {
            types.sort_unstable();
            types.dedup();
        }
        Next::Lead(Chunk {
            after: self.window.as_ref().map_or(ask.after, |w| w.through),
            types,
            max_bytes,
        })
    }

    fn holds_up(&self, member: &Member) -> bool {
        let first = self.window.as_ref().and_then(Window::first);
        first.is_some_and(|through| member.position < through)
    }

    /// Has those that hold the others up waited for, until they are no longer: then they stay behind together, and what
    /// was read ahead is not kept for them.
    pub(super) fn wait_for_slow(&mut self, now: Instant) -> Option<Self> {
        let mut slow = self.members.iter().filter(|member| self.holds_up(member));
        if !slow.any(|member| member.debt >= PATIENCE) {
            self.full = Some(now);
            return None;
        }
        let members = std::mem::take(&mut self.members);
        let (slow, fast) = members
            .into_iter()
            .partition(|member| self.holds_up(member));
        self.members = fast;
        for member in &mut self.members {
            // Else it would find those that it has just left behind.
            member.seeks = false;
        }
        Some(Self::of_seekers(slow))
    }
}

impl Member {
    pub(super) fn new(ask: &Ask<'_>, now: Instant) -> Self {
        Self {
            id: ask.id,
            position: ask.after,
            types: ask.types.map(<[String]>::to_vec),
            seeks: false,
            debt: Duration::ZERO,
            judged: now,
        }
    }
}

impl Window {
    fn at(position: Position) -> Self {
        Self {
            from: position,
            through: position,
            bytes: 0,
            chunks: VecDeque::new(),
        }
    }

    /// Where the first chunk ends.
    fn first(&self) -> Option<Position> {
        self.chunks.front().map(|held| held.batch.through)
    }

    fn drop_through(&mut self, position: Position) {
        while self.first().is_some_and(|through| through <= position)
            && let Some(held) = self.chunks.pop_front()
        {
            self.bytes -= held.batch.frame().len();
            self.from = held.batch.through;
        }
    }

    fn serve(&self, ask: &Ask<'_>) -> Option<Next> {
        if ask.after < self.from {
            return Some(Next::Alone(self.from));
        }
        let first = self
            .chunks
            .partition_point(|h| h.batch.through <= ask.after);
        // What was read before this reader came may lack its types.
        let mut rest = self.chunks.range(first..).peekable();
        let mut lacking = None;
        while let Some(held) = rest.next_if(|held| !held.has(ask.types)) {
            lacking = Some(Next::Alone(held.batch.through));
        }
        if lacking.is_some() {
            return lacking;
        }
        let batches: Vec<_> = rest
            .take_while(|held| held.has(ask.types))
            .map(|held| held.batch.clone())
            .collect();
        let through = batches.last()?.through;
        Some(Next::Take(batches, through))
    }
}

impl Held {
    fn has(&self, types: Option<&[String]>) -> bool {
        match (&self.types, types) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(read), Some(wanted)) => wanted.iter().all(|t| read.binary_search(t).is_ok()),
        }
    }
}
