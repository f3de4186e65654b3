//! What has to happen when a generation has come far enough: promote it, call it done, drop it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::promote::REST;
use super::{GenerationError, Generations};
use crate::progress::Progress;
use crate::read_model::schema::SchemaError;
use crate::registry::{Catalog, Purpose, State, tell};
use crate::shutdown::Shutdown;

/// How often it looks while something is being built.
const BUILDING: Duration = Duration::from_millis(250);
/// How often it looks for what is to be dropped.
const COLLECT: Duration = Duration::from_secs(1);
/// Commits are a hint to look, but not more often than this.
const RARELY: Duration = Duration::from_millis(20);
/// How long one attempt to promote may take: nothing else happens meanwhile.
const PATIENCE: Duration = Duration::ZERO;

impl Generations {
    /// Looks until shutdown. Every node does, and it does not matter which one acts.
    pub async fn run(self, progress: Progress, mut shutdown: Shutdown) {
        let mut catalog = self.registry.catalog();
        let mut commits = progress.commits();
        let mut collected = Instant::now();
        let mut resting = HashMap::new();
        loop {
            let picture = catalog.borrow_and_update().clone();
            let is_building = self.advance(&picture, &mut resting).await;
            if collected.elapsed() >= COLLECT {
                collected = Instant::now();
                if let Err(error) = self.collect().await {
                    tracing::warn!(%error, "generations cannot be collected now");
                }
            }
            let pause = if is_building { BUILDING } else { COLLECT };
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(pause) => {}
                changed = catalog.changed() => if changed.is_err() { return },
                _ = commits.changed(), if is_building => tokio::time::sleep(RARELY).await,
            }
        }
    }

    /// Takes every generation on that is there, but those that are `resting`. Gives whether there is one on its way.
    async fn advance(&self, catalog: &Catalog, resting: &mut HashMap<i64, Instant>) -> bool {
        let mut is_building = false;
        resting.retain(|_, until| *until > Instant::now());
        self.still_tried(|candidate| {
            (catalog.generations.get(&candidate))
                .is_some_and(|deployed| deployed.facts.state == State::Building)
        });
        for deployed in catalog.generations.values() {
            let facts = &deployed.facts;
            if facts.state != State::Building || facts.paused {
                continue;
            }
            is_building = true;
            if resting.contains_key(&facts.generation) {
                continue;
            }
            let done = match facts.purpose {
                Purpose::Projection => {
                    self.promote_when_ready(&facts.projection, facts.generation)
                        .await
                }
                Purpose::Replay | Purpose::Snapshot | Purpose::Verify => {
                    self.finish_when_done(facts.generation).await
                }
            };
            if let Err(GenerationError::Behind(_)) = done {
                resting.insert(facts.generation, Instant::now() + REST);
            } else if let Err(error) = done {
                let (projection, generation) = (&facts.projection, facts.generation);
                tracing::warn!(projection, generation, %error, "cannot be taken on now");
            }
        }
        is_building
    }

    async fn promote_when_ready(
        &self,
        projection: &str,
        generation: i64,
    ) -> Result<(), GenerationError> {
        let client = self.pool.get().await?;
        let ready = client
            .query_opt(include_str!("ready.sql"), &[&generation])
            .await?
            .is_some();
        drop(client);
        if !ready {
            return Ok(());
        }
        let trouble = match self.promote(projection, generation, PATIENCE).await {
            Ok(_) => return Ok(()),
            Err(GenerationError::Conflict(why)) => why,
            // Another node was faster.
            Err(GenerationError::NoGeneration { .. }) => return Ok(()),
            // Somebody has to do something about it; until then it is held.
            Err(GenerationError::Schema(
                error @ (SchemaError::Taken { .. }
                | SchemaError::Dependents { .. }
                | SchemaError::Privilege(_)),
            )) => {
                let client = self.pool.get().await?;
                client
                    .execute(
                        "update gobo.generations set hold = true, trouble = $2 where id = $1 and state = 'building'",
                        &[&generation, &error.to_string()],
                    )
                    .await?;
                return Err(error.into());
            }
            Err(error) => return Err(error),
        };
        let client = self.pool.get().await?;
        client
            .execute(
                "update gobo.generations set trouble = $2 where id = $1 and state = 'building' and trouble is distinct from $2",
                &[&generation, &trouble],
            )
            .await?;
        Ok(())
    }

    async fn finish_when_done(&self, generation: i64) -> Result<(), GenerationError> {
        let client = self.pool.get().await?;
        let done = client
            .execute(
                "update gobo.generations g set state = 'done' from gobo.checkpoints c \
                  where g.id = $1 and c.generation = g.id and g.state = 'building' and not g.bulk and c.position >= g.until",
                &[&generation],
            )
            .await?;
        if done == 1 {
            tell(&**client).await?;
            drop(client);
            self.registry.look_again().await;
        }
        Ok(())
    }
}
