//! One stream alone: what operators ask for, and the set that replaces all rows of the stream.

use std::sync::Arc;

use super::change_set::{ChangeSet, RowChange};
use super::{Checkpoint, Writer};
use crate::event::{Micros, Position};

/// A stream whose rows are to be computed anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamWish {
    /// The stream.
    pub stream_id: String,
    /// When it was asked for, so that a wish that is repeated meanwhile is not taken for fulfilled.
    pub asked: Micros,
}

/// A stream whose rows a transaction replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// What was asked for.
    pub wish: StreamWish,
    /// How many rows the stream has now.
    pub rows: i64,
}

/// A dead letter of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLetter {
    /// The event.
    pub position: Position,
    /// An operator gave it up.
    pub is_discarded: bool,
    /// Later events of its stream were processed without it.
    pub is_skipped: bool,
}

impl Writer {
    /// The streams whose rows are to be computed anew, in the order in which that was asked for.
    pub async fn stream_wishes(&self) -> Result<Vec<StreamWish>, tokio_postgres::Error> {
        let rows = self
            .client
            .query(
                include_str!("../sql/stream_wishes.sql"),
                &[&self.target.generation],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(StreamWish {
                    stream_id: row.try_get(0)?,
                    asked: row.try_get(1)?,
                })
            })
            .collect()
    }

    /// All dead letters of a stream, in order.
    pub async fn stream_letters(
        &self,
        stream_id: &str,
    ) -> Result<Vec<StreamLetter>, tokio_postgres::Error> {
        let sql = "select position, state = 'discarded', state = 'skipped' from gobo.dead_letters \
                    where generation = $1 and stream_id = $2 order by position";
        let rows = self
            .client
            .query(sql, &[&self.target.generation, &stream_id])
            .await?;
        rows.iter()
            .map(|row| {
                Ok(StreamLetter {
                    position: row.try_get(0)?,
                    is_discarded: row.try_get(1)?,
                    is_skipped: row.try_get(2)?,
                })
            })
            .collect()
    }

    /// Says why a wish is not fulfilled. Whoever is not the owner says nothing, nor does code that is not the owner's any more:
    /// the code that has come in its place may fulfil it.
    pub async fn decline(
        &self,
        from: &Checkpoint,
        wish: &StreamWish,
        why: &str,
    ) -> Result<(), tokio_postgres::Error> {
        let sql = include_str!("../sql/stream_declined.sql");
        let (generation, hash) = (&self.target.generation, self.target.hash.0.as_slice());
        let (stream, asked, epoch) = (&wish.stream_id, &wish.asked, &from.epoch);
        self.client
            .execute(sql, &[generation, stream, asked, &why, epoch, &hash])
            .await
            .map(drop)
    }
}

impl ChangeSet {
    /// Makes the set, which has what all events of `stream` do together, replace the rows that the stream has in read
    /// model `model`, given by their keys: those that are not made any more are deleted. What was made and deleted on the
    /// way leaves nothing to do.
    pub fn replace(&mut self, model: usize, stream: &Arc<str>, keys: Vec<Arc<[u8]>>) {
        let rows = &mut self.models[model];
        let made = rows.len();
        rows.retain(|_, change| change.row.is_some());
        self.rows -= made - rows.len();
        for key in keys {
            rows.entry(key).or_insert_with(|| {
                self.rows += 1;
                RowChange {
                    row: None,
                    position: 0,
                    recorded_at: 0,
                    stream: Some(stream.clone()),
                    owner: Some(stream.clone()),
                }
            });
        }
    }

    /// Rows that exist afterwards.
    pub fn remaining(&self) -> usize {
        let rows = self.models.iter().flat_map(|rows| rows.values());
        rows.filter(|change| change.row.is_some()).count()
    }
}
