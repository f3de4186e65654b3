//! The newest events of a source, read once for all readers at the head.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Limits;
use crate::event::{Batch, Position};

/// Everything in `(from, through]`, bounded in bytes: the oldest batches give way.
#[derive(Debug)]
pub(super) struct Ring {
    from: Position,
    through: Position,
    bytes: usize,
    capacity: usize,
    batches: VecDeque<Arc<Batch>>,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            from: Position::MAX,
            through: Position::MAX,
            bytes: 0,
            capacity,
            batches: VecDeque::new(),
        }
    }

    /// Forgets everything; the next batch starts after `position`.
    pub(super) fn restart(&mut self, position: Position) {
        *self = Self {
            from: position,
            through: position,
            ..Self::new(self.capacity)
        };
    }

    /// Nothing can be served until the next restart: the session that read the events is lost.
    pub(super) fn close(&mut self) {
        *self = Self::new(self.capacity);
    }

    /// Appends what follows `through`.
    pub(super) fn push(&mut self, batch: Batch) {
        self.through = batch.through;
        self.bytes += batch.frame().len();
        self.batches.push_back(Arc::new(batch));
        while self.bytes > self.capacity {
            let Some(oldest) = self.batches.pop_front() else {
                break;
            };
            self.bytes -= oldest.frame().len();
            self.from = oldest.through;
        }
    }

    /// The batches that hold what comes after `after`, and up to where; `None` when that is no longer there.
    pub(super) fn since(&self, after: Position) -> Option<(Vec<Arc<Batch>>, Position)> {
        if after < self.from {
            return None;
        }
        let first = self.batches.partition_point(|b| b.through <= after);
        Some((self.batches.range(first..).cloned().collect(), self.through))
    }
}

/// The wanted events of `batches` in `(after, through]`, as far as `limits` allow.
pub(super) fn select(
    batches: &[Arc<Batch>],
    after: Position,
    through: Position,
    types: Option<&[String]>,
    limits: &Limits,
) -> Batch {
    let mut found = Batch::empty(after.max(through));
    for batch in batches {
        let first = batch.events().partition_point(|e| e.position <= after);
        for index in first..batch.len() {
            if batch.events()[index].position > through {
                return found;
            }
            let wanted = types.is_none_or(|types| types.iter().any(|t| t == batch.kind(index)));
            if !wanted {
                continue;
            }
            found.push_from(batch, index);
            if found.len() >= limits.max_events || found.frame().len() >= limits.max_bytes {
                found.through = batch.events()[index].position;
                return found;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{write_count, write_field};

    fn batch(events: &[(Position, &str)], through: Position) -> Batch {
        let mut batch = Batch::empty(through);
        for (position, kind) in events {
            let mut tuple = Vec::new();
            write_count(&mut tuple, 9);
            write_field(&mut tuple, Some(&position.to_be_bytes()));
            write_field(&mut tuple, Some(b"stream"));
            write_field(&mut tuple, Some(&0i64.to_be_bytes()));
            write_field(&mut tuple, Some(kind.as_bytes()));
            write_field(&mut tuple, Some(b"{}"));
            write_field(&mut tuple, None);
            write_field(&mut tuple, Some(&[7; 16]));
            write_field(&mut tuple, Some(&0i64.to_be_bytes()));
            write_field(&mut tuple, Some(&0i64.to_be_bytes()));
            batch.push(&tuple).unwrap();
        }
        batch
    }

    fn positions(batch: &Batch) -> Vec<Position> {
        batch.events().iter().map(|e| e.position).collect()
    }

    const ALL: Limits = Limits {
        max_events: 100,
        max_bytes: 1 << 20,
        upto: None,
    };

    #[test]
    fn serves_what_follows_a_position_and_filters_by_type() {
        let mut ring = Ring::new(1 << 20);
        ring.restart(10);
        ring.push(batch(&[(11, "a"), (13, "b")], 14));
        ring.push(batch(&[(15, "a")], 15));
        let (batches, through) = ring.since(11).unwrap();
        let found = select(&batches, 11, through, None, &ALL);
        assert_eq!((positions(&found), found.through), (vec![13, 15], 15));
        let only = ["a".to_owned()];
        let found = select(&batches, 11, through, Some(&only), &ALL);
        assert_eq!((positions(&found), found.through), (vec![15], 15));
        let found = select(&batches, 11, 14, None, &ALL);
        assert_eq!((positions(&found), found.through), (vec![13], 14));
        let one = Limits {
            max_events: 1,
            ..ALL
        };
        let found = select(&batches, 10, through, None, &one);
        assert_eq!((positions(&found), found.through), (vec![11], 11));
    }

    #[test]
    fn a_reader_before_the_oldest_batch_must_read_on_its_own() {
        let mut ring = Ring::new(batch(&[(11, "a"), (12, "a")], 12).frame().len());
        assert!(ring.since(10).is_none());
        ring.restart(10);
        assert!(ring.since(9).is_none());
        ring.push(batch(&[(11, "a"), (12, "a")], 12));
        assert!(ring.since(10).is_some());
        ring.push(batch(&[(13, "a")], 13));
        assert!(ring.since(11).is_none());
        assert_eq!(ring.since(12).unwrap().0.len(), 1);
    }
}
