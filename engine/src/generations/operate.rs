//! What operators ask for: rebuild, roll back, cancel, pause, resume.

use std::time::Duration;

use serde::Serialize;
use tokio_postgres::Transaction;

use super::{
    GenerationError, Generations, Plan, Promoted, begin_beside, cancel_candidate, decide, hash_of,
    record, tell,
};
use crate::event::Position;
use crate::host::PluginHash;

/// How long a rollback waits for a generation that has followed the events: the switch needs a moment without long
/// readers.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a generation is released again that the service holds meanwhile.
const RELEASES: usize = 3;

/// What was done, or begun.
#[derive(Debug, Clone, Serialize)]
pub struct Decision {
    /// The projection's name.
    pub projection: String,
    /// What was done, in a word.
    pub outcome: &'static str,
    /// The generation that it was done to.
    pub generation: i64,
    /// The same in a sentence.
    pub detail: String,
}

/// What the database has of a projection.
pub(crate) struct Known {
    pub(crate) live: i64,
    pub(crate) source: String,
    pub(crate) hash: PluginHash,
    pub(crate) candidate: Option<(i64, PluginHash)>,
}

/// Looks a projection up; `None` if there is no such one.
pub(crate) async fn find(
    transaction: &Transaction<'_>,
    projection: &str,
) -> Result<Option<Known>, tokio_postgres::Error> {
    let row = transaction
        .query_opt(include_str!("known.sql"), &[&projection])
        .await?;
    Ok(row.map(|row| Known::read(&row)))
}

pub(super) async fn known(
    transaction: &Transaction<'_>,
    projection: &str,
) -> Result<Known, GenerationError> {
    find(transaction, projection)
        .await?
        .ok_or_else(|| GenerationError::NoProjection(projection.to_owned()))
}

impl Known {
    fn read(row: &tokio_postgres::Row) -> Self {
        let candidate: (Option<i64>, Option<&[u8]>) = (row.get(3), row.get(4));
        Self {
            live: row.get(0),
            source: row.get(1),
            hash: hash_of(row.get(2)),
            candidate: candidate.0.zip(candidate.1.map(hash_of)),
        }
    }
}

impl Generations {
    /// Computes all rows anew, beside the live ones. What is under way already goes on, unless it is to begin again
    /// `from_scratch`.
    pub async fn rebuild(
        &self,
        projection: &str,
        hold: bool,
        from_scratch: bool,
    ) -> Result<Decision, GenerationError> {
        self.load_ahead(projection).await?;
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        decide(&transaction).await?;
        let known = known(&transaction, projection).await?;
        let hash = known.candidate.map_or(known.hash, |(_, hash)| hash);
        if let Some((candidate, _)) = known.candidate.filter(|_| !from_scratch) {
            transaction
                .execute(
                    "update gobo.generations set hold = hold or $2, trouble = case when not $2 then trouble end where id = $1",
                    &[&candidate, &hold],
                )
                .await?;
            tell(&*transaction).await?;
            transaction.commit().await?;
            return Ok(Decision {
                projection: projection.to_owned(),
                outcome: "unchanged",
                generation: candidate,
                detail: format!(
                    "generation {candidate} is being filled already (to begin again: --from-scratch, to give it up: gobo cancel {projection})"
                ),
            });
        }
        let plugin = self.registry.load_stored(hash).await?;
        let plan = Plan {
            hold,
            ..Plan::new(
                projection,
                &known.source,
                &plugin,
                "an operator asked for it",
            )
        };
        let why = "it begins again from scratch";
        let (generation, detail) = begin_beside(&transaction, &plan, known.live, why).await?;
        tell(&*transaction).await?;
        transaction.commit().await?;
        self.registry.look_again().await;
        Ok(Decision {
            projection: projection.to_owned(),
            outcome: "rebuilding",
            generation,
            detail,
        })
    }

    /// Promotes the candidate of a projection, or the generation that is named. One that is not as far yet is promoted when
    /// it is.
    pub async fn promote_named(
        &self,
        projection: &str,
        generation: Option<i64>,
        patience: Duration,
    ) -> Result<Decision, GenerationError> {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        decide(&transaction).await?;
        let known = known(&transaction, projection).await?;
        let candidate = generation.or(known.candidate.map(|(id, _)| id));
        let candidate = candidate.ok_or_else(|| GenerationError::NoGeneration {
            projection: projection.to_owned(),
            what: "that waits to be promoted".into(),
        })?;
        if !release(&transaction, projection, &known, candidate).await? {
            // Nothing is committed: what is on its way goes on.
            return Err(GenerationError::Conflict(match candidate == known.live {
                true => format!("generation {candidate} is the live one already"),
                false => format!(
                    "generation {candidate} cannot be promoted: `gobo generations {projection}` shows what can"
                ),
            }));
        }
        tell(&*transaction).await?;
        transaction.commit().await?;
        drop(client);
        self.registry.look_again().await;
        self.promote_or_wait(projection, candidate, patience).await
    }

    /// Goes back to what was live before: to the previous bytes after a hot swap, to the previous generation after a
    /// promotion.
    pub async fn rollback(&self, projection: &str) -> Result<Decision, GenerationError> {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        decide(&transaction).await?;
        let known = known(&transaction, projection).await?;
        let last = transaction
            .query_opt(include_str!("last.sql"), &[&projection])
            .await?;
        let swapped_from = last.and_then(|last| {
            let previous: Option<&[u8]> = last.get("previous_hash");
            let is_live = last.get::<_, i64>("generation") == known.live;
            previous.filter(|_| is_live).map(hash_of)
        });
        if let Some(previous) = swapped_from {
            // Bytes that cannot run here are refused before anything changes.
            self.registry.load_stored(previous).await?;
            let decision = restore(&transaction, projection, &known, previous).await?;
            tell(&*transaction).await?;
            transaction.commit().await?;
            drop(client);
            self.registry.look_again().await;
            return Ok(decision);
        }
        let kept = transaction
            .query_opt(
                "select id from gobo.generations where projection = $1 and purpose = 'projection' and state = 'kept' \
                  order by retired_at desc nulls last limit 1",
                &[&projection],
            )
            .await?
            .ok_or_else(|| {
                GenerationError::Conflict(format!(
                    "projection \"{projection}\" has nothing to go back to: no earlier generation is kept (generations.keep), and the live one's code was not swapped"
                ))
            })?;
        let generation: i64 = kept.get(0);
        release(&transaction, projection, &known, generation).await?;
        tell(&*transaction).await?;
        transaction.commit().await?;
        drop(client);
        self.registry.look_again().await;
        self.promote_or_wait(projection, generation, PATIENCE).await
    }

    async fn promote_or_wait(
        &self,
        projection: &str,
        generation: i64,
        patience: Duration,
    ) -> Result<Decision, GenerationError> {
        let mut promoted = self.promote(projection, generation, patience).await;
        for _ in 0..RELEASES {
            if !matches!(promoted, Err(GenerationError::NoGeneration { .. }))
                || !self.release_again(generation).await?
            {
                break;
            }
            promoted = self.promote(projection, generation, patience).await;
        }
        match promoted {
            Ok(promoted) => Ok(promoted.into()),
            Err(GenerationError::Conflict(why) | GenerationError::Behind(why)) => Ok(Decision {
                projection: projection.to_owned(),
                outcome: "waiting",
                generation,
                detail: format!(
                    "generation {generation} becomes the live one as soon as it can: {why}"
                ),
            }),
            Err(GenerationError::NoGeneration { .. }) => {
                // Somebody else was faster: the service, on this node or on another one.
                let client = self.pool.get().await?;
                let row = client
                    .query_opt(
                        "select c.position from gobo.projections p join gobo.checkpoints c on c.generation = p.live \
                          where p.name = $1 and p.live = $2",
                        &[&projection, &generation],
                    )
                    .await?;
                match row {
                    Some(row) => Ok(Decision {
                        projection: projection.to_owned(),
                        outcome: "promoted",
                        generation,
                        detail: format!(
                            "generation {generation} is live now, at position {}",
                            row.get::<_, Position>(0)
                        ),
                    }),
                    None => Err(GenerationError::Conflict(format!(
                        "generation {generation} is not a candidate any more"
                    ))),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The service may have tried in between, and holds the generation for the trouble that it met: whoever asks has to meet
    /// that as well. One that somebody else holds has no trouble.
    async fn release_again(&self, generation: i64) -> Result<bool, GenerationError> {
        let client = self.pool.get().await?;
        let released = client
            .execute(
                "update gobo.generations set hold = false, trouble = null where id = $1 and state = 'building' and hold and trouble is not null",
                &[&generation],
            )
            .await?;
        Ok(released == 1)
    }

    /// Gives up a generation that is not live: the candidate, or the one that is named. Its tables are dropped.
    pub async fn cancel(
        &self,
        projection: &str,
        generation: Option<i64>,
    ) -> Result<Decision, GenerationError> {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        decide(&transaction).await?;
        let known = known(&transaction, projection).await?;
        let named = generation.filter(|named| known.candidate.map(|(id, _)| id) != Some(*named));
        let why = "an operator cancelled it";
        let (generation, detail) = match named {
            None => {
                let cancelled = cancel_candidate(&transaction, projection, why).await?;
                let cancelled = cancelled.ok_or_else(|| GenerationError::NoGeneration {
                    projection: projection.to_owned(),
                    what: "that is being filled".into(),
                })?;
                (
                    cancelled,
                    format!(
                        "generation {cancelled} is cancelled; generation {} stays live",
                        known.live
                    ),
                )
            }
            Some(named) if named == known.live => {
                return Err(GenerationError::Conflict(format!(
                    "generation {named} is the live one: `gobo remove {projection}` removes the projection with all that it has"
                )));
            }
            Some(named) => {
                let dropped = transaction
                    .execute(
                        "update gobo.generations set state = 'dropping', reason = $3, label = null \
                          where projection = $1 and id = $2 and state <> 'dropping'",
                        &[&projection, &named, &why],
                    )
                    .await?;
                if dropped == 0 {
                    return Err(GenerationError::NoGeneration {
                        projection: projection.to_owned(),
                        what: named.to_string(),
                    });
                }
                (
                    named,
                    format!("generation {named} is given up; its tables are dropped"),
                )
            }
        };
        tell(&*transaction).await?;
        transaction.commit().await?;
        self.registry.look_again().await;
        Ok(Decision {
            projection: projection.to_owned(),
            outcome: "cancelled",
            generation,
            detail,
        })
    }

    /// Stops or resumes all generations of a projection, or one of them. Readers go on reading what there is.
    pub async fn pause(
        &self,
        projection: &str,
        generation: Option<i64>,
        paused: bool,
    ) -> Result<Decision, GenerationError> {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        decide(&transaction).await?;
        let known = known(&transaction, projection).await?;
        // Resuming the projection does not wake a kept generation that was told not to follow.
        let changed = transaction
            .execute(
                "update gobo.generations set paused = $3 \
                  where projection = $1 and state in ('building', 'live', 'kept') \
                    and case when $2::bigint is null then $3 or state <> 'kept' or $4 else id = $2 end",
                &[&projection, &generation, &paused, &self.config.generations.follow_kept],
            )
            .await?;
        if let (Some(generation), 0) = (generation, changed) {
            return Err(GenerationError::NoGeneration {
                projection: projection.to_owned(),
                what: format!("{generation} that runs"),
            });
        }
        tell(&*transaction).await?;
        transaction.commit().await?;
        self.registry.look_again().await;
        let what = match generation {
            Some(generation) => format!("generation {generation} of projection \"{projection}\""),
            None => format!("projection \"{projection}\""),
        };
        let (outcome, detail) = match paused {
            true => (
                "paused",
                format!("{what} stops after the batch in flight; its rows stay readable"),
            ),
            false => ("resumed", format!("{what} goes on from its checkpoint")),
        };
        Ok(Decision {
            projection: projection.to_owned(),
            outcome,
            generation: generation.unwrap_or(known.live),
            detail,
        })
    }
}

/// Makes a generation one that is promoted as soon as it can be, in the place of any other. `false` if it cannot.
async fn release(
    transaction: &Transaction<'_>,
    projection: &str,
    known: &Known,
    generation: i64,
) -> Result<bool, GenerationError> {
    let there = transaction
        .query_opt(
            "select from gobo.generations where projection = $1 and id = $2",
            &[&projection, &generation],
        )
        .await?;
    if there.is_none() {
        return Err(GenerationError::NoGeneration {
            projection: projection.to_owned(),
            what: generation.to_string(),
        });
    }
    if known.candidate.is_some_and(|(id, _)| id != generation) {
        cancel_candidate(
            transaction,
            projection,
            "another generation is promoted instead",
        )
        .await?;
    }
    let released = transaction
        .execute(
            "update gobo.generations set state = 'building', hold = false, paused = false, trouble = null \
              where projection = $1 and id = $2 and purpose = 'projection' and state in ('building', 'kept')",
            &[&projection, &generation],
        )
        .await?;
    Ok(released == 1)
}

impl From<Promoted> for Decision {
    fn from(promoted: Promoted) -> Self {
        Self {
            projection: promoted.projection,
            outcome: "promoted",
            generation: promoted.generation,
            detail: promoted.detail,
        }
    }
}

/// Gives the live generation the bytes back that it had before a hot swap.
async fn restore(
    transaction: &Transaction<'_>,
    projection: &str,
    known: &Known,
    previous: PluginHash,
) -> Result<Decision, GenerationError> {
    let why = "the code of the live generation goes back";
    cancel_candidate(transaction, projection, why).await?;
    let row = transaction
        .query_one(
            include_str!("../deploy/swap.sql"),
            &[&known.live, &previous.0.as_slice()],
        )
        .await?;
    transaction
        .execute(
            "update gobo.generations set plugin_hash = $2, deployed_at = now() where id = $1",
            &[&known.live, &previous.0.as_slice()],
        )
        .await?;
    let detail = format!(
        "generation {} goes on from position {} with the code that it had before; rows that the newer code wrote are not undone (to compute them anew: gobo rebuild {projection})",
        known.live,
        row.get::<_, Position>(0)
    );
    let generation = known.live;
    record(
        transaction,
        projection,
        generation,
        "restored",
        &previous,
        Some(&known.hash),
        &detail,
    )
    .await?;
    Ok(Decision {
        projection: projection.to_owned(),
        outcome: "restored",
        generation,
        detail,
    })
}
