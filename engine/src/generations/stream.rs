//! One stream alone: the wish is left in the database, the loop that owns the live generation fulfils it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{GenerationError, Generations, find, tell};

/// Between two looks at what became of a wish.
const LOOK: Duration = Duration::from_millis(25);
/// Bytes of a stream's name.
const MOST: usize = 10_000;

/// A stream whose rows were to be computed anew, and what became of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StreamRebuild {
    /// The generation whose rows they are.
    pub generation: i64,
    /// The stream.
    pub stream_id: String,
    /// When it was asked for.
    pub requested_at: String,
    /// When it was done, or given up.
    pub finished_at: Option<String>,
    /// How many rows the stream has now.
    pub rows: Option<i64>,
    /// Why its rows are as they were.
    pub error: Option<String>,
}

impl Generations {
    /// Asks for the rows of one stream to be computed anew, and waits for it for at most `patience`.
    pub async fn rebuild_stream(
        &self,
        projection: &str,
        stream_id: &str,
        patience: Duration,
    ) -> Result<StreamRebuild, GenerationError> {
        if stream_id.is_empty() || stream_id.len() > MOST || stream_id.contains('\0') {
            return Err(GenerationError::Invalid(format!(
                "\"stream_id\" names a stream, in 1 to {MOST} bytes"
            )));
        }
        let (generation, runs) = self.wish(projection, stream_id).await?;
        let patience = if runs { patience } else { Duration::ZERO };
        let deadline = Instant::now() + patience;
        loop {
            let all = self.stream_rebuilds(generation, Some(stream_id)).await?;
            let found = all.into_iter().next().ok_or_else(|| {
                GenerationError::Conflict(format!(
                    "generation {generation} of projection \"{projection}\" was dropped meanwhile"
                ))
            })?;
            if found.finished_at.is_some() || Instant::now() >= deadline {
                return Ok(found);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The streams of the live generation that were asked for, the last one first.
    pub async fn rebuilt_streams(
        &self,
        projection: &str,
    ) -> Result<Vec<StreamRebuild>, GenerationError> {
        let known = self.known_now(projection).await?;
        self.stream_rebuilds(known.live, None).await
    }

    /// Leaves the wish, and gives the generation that is to fulfil it, and whether that runs at present.
    async fn wish(
        &self,
        projection: &str,
        stream_id: &str,
    ) -> Result<(i64, bool), GenerationError> {
        self.load_ahead(projection).await?;
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        let known = find(&transaction, projection).await?;
        let known = known.ok_or_else(|| GenerationError::NoProjection(projection.to_owned()))?;
        let plugin = self.registry.load_stored(known.hash).await?;
        let mut models = plugin.descriptor.read_models.iter();
        if let Some(model) = models.find(|model| !model.per_stream) {
            return Err(GenerationError::Conflict(format!(
                "read model \"{}\" is not declared per_stream, so nobody knows which of its rows are this stream's \
                 (to compute all rows anew: gobo rebuild {projection})",
                model.name
            )));
        }
        transaction
            .batch_execute("set local synchronous_commit = on")
            .await?;
        transaction
            .execute(
                "insert into gobo.stream_rebuilds (generation, stream_id) values ($1, $2) \
                 on conflict (generation, stream_id) do update \
                    set requested_at = clock_timestamp(), finished_at = null, rows = null, error = null",
                &[&known.live, &stream_id],
            )
            .await?;
        let row = transaction
            .query_one(
                "select not g.paused and c.error is null \
                   from gobo.generations g join gobo.checkpoints c on c.generation = g.id where g.id = $1",
                &[&known.live],
            )
            .await?;
        tell(&*transaction).await?;
        transaction.commit().await?;
        Ok((known.live, row.get(0)))
    }

    async fn stream_rebuilds(
        &self,
        generation: i64,
        stream_id: Option<&str>,
    ) -> Result<Vec<StreamRebuild>, GenerationError> {
        let client = self.pool.get().await?;
        let rows = client
            .query(include_str!("streams.sql"), &[&generation, &stream_id])
            .await?;
        Ok(rows
            .iter()
            .map(|row| StreamRebuild {
                generation,
                stream_id: row.get(0),
                requested_at: row.get(1),
                finished_at: row.get(2),
                rows: row.get(3),
                error: row.get(4),
            })
            .collect())
    }
}
