//! The safe head: up to which position nothing can appear any more. No clock decides it (but for the one inexact fence).
//!
//! Positions become visible out of order: a transaction draws 7, another draws 8 and commits first. Whoever reads up to
//! 8 then and goes on from there never sees 7. The rule against it, for every look at the database:
//!
//! 1. Read `H`, the sequence's last value.
//! 2. *Then*, in a statement with a snapshot of its own, read `L`: the transactions that hold the lock which comes before
//!    drawing a value and is kept past the moment the row is visible.
//! 3. Everything up to `H` is settled as soon as every transaction of `L` has ended, for a reader whose snapshot is taken
//!    after that was seen.
//!
//! A transaction that is in this look's `L`, but was not in the last one's, has drawn nothing up to the last look's `H`:
//! it took its lock later. So it is enough to remember for each holder the `H` of the look before it was first seen. The
//! lowest of these is settled; without any holder, this look's `H` is. That is the rule applied to every earlier look.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use futures_util::future::join;
use tokio_postgres::{Client, Row, Statement};

use super::columns::{Table, failed, refused};
use super::{Fence, SourceError};
use crate::event::Position;

/// How many positions one look follows without a hole while writers are waited for.
const PREFIX: i64 = 20_000;

/// Looks at the database again and again, for as long as one session lasts.
///
/// Nothing is kept beyond the session. After a crash of the server the sequence may give values a second time: those
/// whose WAL was never flushed, so that no transaction that drew them is committed. An `H` from before the crash would
/// call them settled. What a reader may have applied of them is undone as well, because its checkpoint is in the same
/// WAL, behind them: either both survive or the checkpoint is lost with the events.
pub(super) struct Lookout {
    fence: Fence,
    sequence: String,
    head: Statement,
    holders: Statement,
    prefix: Statement,
    settled: Settled,
}

/// What one look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) safe: Position,
    pub(super) head: Position,
}

impl Lookout {
    pub(super) async fn new(
        client: &Client,
        table: &Table,
        fence: Fence,
    ) -> Result<Self, SourceError> {
        let prepare = async |sql: &str| {
            client
                .prepare(sql)
                .await
                .map_err(|e| failed(&e, &table.sequence))
        };
        Ok(Self {
            fence,
            sequence: table.sequence.clone(),
            head: prepare(&table.head_sql()).await?,
            holders: prepare(include_str!("sql/fence.sql")).await?,
            prefix: prepare(&table.prefix_sql()).await?,
            settled: Settled::default(),
        })
    }

    /// Everything up to `position` is known to be settled: it is a checkpoint that has been verified in this session's
    /// lifetime.
    pub(super) fn raise(&mut self, position: Position) {
        self.settled.raise(position);
    }

    /// Looks once.
    pub(super) async fn look(
        &mut self,
        client: &Client,
        table: &Table,
    ) -> Result<Look, SourceError> {
        let locks = self.fence.is_exact();
        let wider = self.fence == Fence::Transaction;
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&table.oid, &table.sequence_oid, &locks, &wider];
        // Sent together, in this order; the server runs one after the other, each with a snapshot of its own.
        let (head, holders) = join(
            client.query_one(&self.head, &[]),
            client.query_opt(&self.holders, &parameters),
        )
        .await;
        let lost = |e: tokio_postgres::Error| failed(&e, &self.sequence);
        let head: Position = head.map_err(lost)?.get(0);
        let sequence = holders
            .map_err(lost)?
            .ok_or_else(|| refused(format!("the sequence {} was dropped", self.sequence)))?;
        // Rechecked after `head` was read: a CACHE that was raised in between would already count.
        self.check_sequence(&sequence, head)?;
        match self.fence {
            Fence::Timeout(milliseconds) => {
                let patience = Duration::from_millis(milliseconds);
                self.settled.by_time(head, Instant::now(), patience);
            }
            Fence::Table | Fence::Transaction => {
                self.settled.by_locks(head, sequence.get("holders"));
            }
        }
        if self.settled.safe < head {
            self.follow(client).await?;
        }
        let safe = self.settled.safe;
        Ok(Look { safe, head })
    }

    /// Positions that follow the settled ones without a hole and are visible are settled: nothing fits in between.
    async fn follow(&mut self, client: &Client) -> Result<(), SourceError> {
        let row = client
            .query_one(&self.prefix, &[&self.settled.safe, &PREFIX])
            .await
            .map_err(|e| failed(&e, "the events after the safe head"))?;
        self.settled.raise(row.get(0));
        Ok(())
    }

    fn check_sequence(&self, row: &Row, head: Position) -> Result<(), SourceError> {
        let name = &self.sequence;
        let cache: i64 = row.get("seqcache");
        if cache != 1 {
            return Err(refused(format!(
                "the sequence {name} has CACHE {cache}: sessions hold back blocks of values and use them late; run: alter \
                 sequence {name} cache 1, reconnect every writer, and start again"
            )));
        }
        let increment: i64 = row.get("seqincrement");
        if increment != 1 {
            return Err(refused(format!(
                "the sequence {name} has INCREMENT {increment}, not 1"
            )));
        }
        if row.get("seqcycle") {
            return Err(refused(format!("the sequence {name} has CYCLE")));
        }
        if head < self.settled.head {
            return Err(refused(format!(
                "the sequence {name} fell from {} to {head}: it was set back, and gives positions a second time",
                self.settled.head
            )));
        }
        Ok(())
    }
}

/// What is settled, and by what the rest is held up.
#[derive(Debug, Default)]
struct Settled {
    safe: Position,
    /// The last look's `H`.
    head: Position,
    /// Per transaction of the last look's `L`: the `H` of the look before it was first seen.
    holders: HashMap<String, Position>,
    /// When which `H` was read, for the fence by time.
    drawn: VecDeque<(Instant, Position)>,
}

impl Settled {
    fn raise(&mut self, position: Position) {
        self.safe = self.safe.max(position);
    }

    fn by_locks(&mut self, head: Position, now: Vec<String>) {
        let lowest = self
            .holders
            .values()
            .copied()
            .min()
            .unwrap_or(self.head)
            .min(self.head);
        let bound = |name: &String| match self.holders.get(name) {
            Some(bound) => *bound,
            // PREPARE TRANSACTION keeps the name (until a restart, which ends this session). Servers without the fixes
            // of November 2021 give a prepared transaction a new name of this form: it may be any of the old holders.
            None if name.starts_with("-1/") => lowest,
            None => self.head,
        };
        let holders: HashMap<String, Position> = now
            .into_iter()
            .map(|name| {
                let bound = bound(&name);
                (name, bound)
            })
            .collect();
        let settled = holders.values().copied().min().unwrap_or(head);
        self.holders = holders;
        self.head = head;
        self.raise(settled);
    }

    fn by_time(&mut self, head: Position, now: Instant, patience: Duration) {
        // Sixteen marks per patience are fine enough, and bound the queue.
        let due = self
            .drawn
            .back()
            .is_none_or(|(at, _)| now.duration_since(*at) >= patience / 16);
        if due && head > self.safe {
            self.drawn.push_back((now, head));
        }
        self.head = head;
        while let Some((at, drawn)) = self.drawn.front().copied() {
            if now.duration_since(at) < patience {
                break;
            }
            self.raise(drawn);
            self.drawn.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(looks: &[(Position, &[&str])]) -> Vec<Position> {
        let mut settled = Settled::default();
        looks
            .iter()
            .map(|(head, holders)| {
                settled.by_locks(*head, holders.iter().map(|h| (*h).to_owned()).collect());
                settled.safe
            })
            .collect()
    }

    #[test]
    fn without_writers_everything_that_was_drawn_is_safe() {
        assert_eq!(looks(&[(0, &[]), (7, &[]), (9, &[])]), [0, 7, 9]);
    }

    #[test]
    fn a_writer_holds_back_what_was_not_known_settled_before_it_came() {
        assert_eq!(
            looks(&[(5, &[]), (9, &["3/1"]), (12, &["3/1"]), (12, &[])]),
            [5, 5, 5, 12]
        );
    }

    #[test]
    fn overlapping_writers_do_not_hold_back_for_ever() {
        // Each look has a writer, but the first one's look is settled when the first one has ended.
        assert_eq!(
            looks(&[
                (5, &["3/1"]),
                (9, &["3/1", "4/1"]),
                (12, &["4/1"]),
                (20, &["5/1"])
            ]),
            [0, 0, 5, 12]
        );
    }

    #[test]
    fn a_prepared_transaction_under_a_new_name_holds_back_as_under_its_old_one() {
        assert_eq!(
            looks(&[(5, &[]), (9, &["3/1"]), (12, &["-1/730"]), (12, &[])]),
            [5, 5, 5, 12]
        );
    }

    #[test]
    fn the_time_fence_settles_what_was_drawn_long_enough_ago() {
        let start = Instant::now();
        let patience = Duration::from_millis(160);
        let mut settled = Settled::default();
        let mut at = |milliseconds, head| {
            settled.by_time(head, start + Duration::from_millis(milliseconds), patience);
            settled.safe
        };
        assert_eq!(at(0, 5), 0);
        assert_eq!(at(100, 9), 0);
        assert_eq!(at(165, 9), 5);
        assert_eq!(at(265, 9), 9);
    }
}
