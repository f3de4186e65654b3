//! The switch: readers see one generation before it and another one after it.
//!
//! One transaction locks the live checkpoint, waits a moment for the candidate to be as far, and replaces the views. The
//! views' locks come last and are waited for briefly only, and not at all while a long transaction holds one: whoever reads
//! a view meanwhile would have to wait behind the switch.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;

use super::{GenerationError, Generations, LOCK, hash_of, record, tell};
use crate::event::Position;
use crate::host::PluginHash;
use crate::read_model::ReadModel;
use crate::read_model::schema::{self, SchemaError};

/// For how long the live generation's commits are held up for a candidate that is nearly as far.
const CATCHING_UP: Duration = Duration::from_millis(500);
/// Between two looks at the candidate meanwhile.
const LOOK: Duration = Duration::from_millis(3);
/// How long a switch waits for each view, and so how long a reader of that view can have to wait behind it.
const VIEWS: &str = "50ms";
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// The same after the live generation was held up in vain: its readers shall not notice.
pub(super) const REST: Duration = Duration::from_secs(2);
/// After this long, statements that take long and overlap without end no longer keep a switch from trying.
const BUSY: Duration = Duration::from_secs(10);

/// What a promotion led to.
#[derive(Debug, Clone, Serialize)]
pub struct Promoted {
    /// The projection's name.
    pub projection: String,
    /// The generation that is live now.
    pub generation: i64,
    /// The one that was live before.
    pub previous: i64,
    /// Where the new one is.
    pub position: Position,
    /// The same in a sentence.
    pub detail: String,
}

/// How an attempt ended that did no harm.
enum Attempt {
    Done(Promoted),
    NotYet(String),
    /// The candidate could not catch up in the moment that the live generation was held up for.
    Behind(String),
}

/// The two generations of a switch.
struct Switch {
    projection: String,
    live: i64,
    candidate: i64,
    hash: PluginHash,
    was_live: bool,
}

impl Generations {
    /// Makes generation `candidate` the live one as soon as it is as far as that; `Conflict` or `Behind` when it cannot be within
    /// `patience`.
    pub async fn promote(
        &self,
        projection: &str,
        candidate: i64,
        patience: Duration,
    ) -> Result<Promoted, GenerationError> {
        let started = Instant::now();
        loop {
            let is_busy = self.tried_since(candidate).elapsed() > BUSY;
            let (why, pause) = match self.try_promote(projection, candidate, is_busy).await? {
                Attempt::Done(promoted) => return Ok(promoted),
                Attempt::NotYet(why) => (GenerationError::Conflict(why), PAUSE),
                Attempt::Behind(why) => (GenerationError::Behind(why), REST),
            };
            if started.elapsed() + pause > patience {
                return Err(why);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_promote(
        &self,
        projection: &str,
        candidate: i64,
        is_busy: bool,
    ) -> Result<Attempt, GenerationError> {
        let mut client = self.pool.get().await?;
        let row = client
            .query_opt(include_str!("candidate.sql"), &[&projection, &candidate])
            .await?;
        let hash =
            row.map(|row| hash_of(row.get(0)))
                .ok_or_else(|| GenerationError::NoGeneration {
                    projection: projection.to_owned(),
                    what: format!("{candidate} that could be promoted"),
                })?;
        let models = self
            .registry
            .load_stored(hash)
            .await?
            .descriptor
            .read_models
            .clone();
        let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
        let views = &self.config.database.read_schema;
        let blocker = client
            .query_opt(include_str!("blockers.sql"), &[views, &names, &!is_busy])
            .await?;
        if let Some(blocker) = blocker {
            return Ok(Attempt::NotYet(blocker.get(0)));
        }
        let transaction = client.transaction().await?;
        let switched = self
            .switch(&transaction, projection, candidate, &models)
            .await;
        let done = match switched {
            Ok(Attempt::Done(done)) => done,
            Ok(not_yet) => return Ok(not_yet),
            Err(
                GenerationError::Schema(SchemaError::Database(error))
                | GenerationError::Database(error),
            ) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                return Ok(Attempt::NotYet(
                    "somebody holds a lock on the views or the checkpoints; trying again".into(),
                ));
            }
            Err(error) => return Err(error),
        };
        transaction.commit().await?;
        tracing::info!(
            projection,
            generation = candidate,
            previous = done.previous,
            position = done.position,
            "{}",
            done.detail
        );
        self.registry.look_again().await;
        Ok(Attempt::Done(done))
    }

    async fn switch(
        &self,
        transaction: &Transaction<'_>,
        projection: &str,
        candidate: i64,
        models: &[ReadModel],
    ) -> Result<Attempt, GenerationError> {
        transaction
            .batch_execute("set local synchronous_commit = on; set local lock_timeout = '500ms'")
            .await?;
        let locked: bool = transaction
            .query_one("select pg_try_advisory_xact_lock($1)", &[&LOCK])
            .await?
            .get(0);
        if !locked {
            return Ok(Attempt::NotYet("another decision is being taken".into()));
        }
        let Some(switch) = find(transaction, projection, candidate).await? else {
            return Ok(Attempt::NotYet(format!(
                "generation {candidate} is not a candidate any more"
            )));
        };
        let position = match meet(transaction, &switch).await? {
            Ok(position) => position,
            Err(why) => return Ok(Attempt::Behind(why)),
        };
        let old_models = schema::read_tables(transaction, switch.live).await?;
        let gone: Vec<String> = (old_models.iter().map(|model| &model.name))
            .filter(|name| !models.iter().any(|model| model.name == **name))
            .cloned()
            .collect();
        let settings = &self.config.generations;
        let keep = i64::try_from(settings.keep).unwrap_or(i64::MAX);
        transaction
            .execute(
                include_str!("promote_revision.sql"),
                &[&projection, &candidate, &switch.live],
            )
            .await?;
        transaction
            .execute(
                include_str!("promote_state.sql"),
                &[
                    &projection,
                    &candidate,
                    &switch.live,
                    &!settings.follow_kept,
                ],
            )
            .await?;
        transaction
            .execute(include_str!("retire.sql"), &[&projection, &keep])
            .await?;
        let (action, detail) = match switch.was_live {
            false => (
                "promoted",
                format!(
                    "generation {candidate} is live now, at position {position}; generation {} can be gone back to with `gobo rollback {projection}`",
                    switch.live
                ),
            ),
            true => (
                "rolled_back",
                format!(
                    "generation {candidate} is live again, at position {position}, instead of generation {}",
                    switch.live
                ),
            ),
        };
        record(
            transaction,
            projection,
            candidate,
            action,
            &switch.hash,
            None,
            &detail,
        )
        .await?;
        tell(transaction).await?;
        // Last, because whoever reads the views waits from here to the commit.
        transaction
            .batch_execute(&format!("set local lock_timeout = '{VIEWS}'"))
            .await?;
        schema::switch_views(
            transaction,
            &self.config.database.read_schema,
            candidate,
            models,
            &gone,
        )
        .await?;
        Ok(Attempt::Done(Promoted {
            projection: switch.projection,
            generation: candidate,
            previous: switch.live,
            position,
            detail,
        }))
    }
}

async fn find(
    transaction: &Transaction<'_>,
    projection: &str,
    candidate: i64,
) -> Result<Option<Switch>, tokio_postgres::Error> {
    let row = transaction
        .query_opt(include_str!("candidate.sql"), &[&projection, &candidate])
        .await?;
    Ok(row.map(|row| Switch {
        projection: projection.to_owned(),
        candidate,
        hash: hash_of(row.get("plugin_hash")),
        live: row.get("live"),
        was_live: row.get("was_live"),
    }))
}

/// Stops the live generation where it is, and waits a moment for the candidate to get there. Gives the candidate's
/// position, locked, or why it is not there.
async fn meet(
    transaction: &Transaction<'_>,
    switch: &Switch,
) -> Result<Result<Position, String>, tokio_postgres::Error> {
    let lock = "select position from gobo.checkpoints where generation = $1 for update";
    let look = "select c.position, c.error is not null, g.bulk \
                  from gobo.checkpoints c join gobo.generations g on g.id = c.generation where c.generation = $1";
    let live: Position = transaction.query_one(lock, &[&switch.live]).await?.get(0);
    let started = Instant::now();
    loop {
        let row = transaction.query_one(look, &[&switch.candidate]).await?;
        let (position, failed, bulk): (Position, bool, bool) = (row.get(0), row.get(1), row.get(2));
        let candidate = switch.candidate;
        if failed {
            return Ok(Err(format!(
                "generation {candidate} has stopped at an event that it cannot process, at position {position}"
            )));
        }
        if position >= live && !bulk {
            break;
        }
        if bulk || started.elapsed() > CATCHING_UP {
            return Ok(Err(format!(
                "generation {candidate} is at position {position}, the live one at {live}"
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
    let position = transaction.query_one(lock, &[&switch.candidate]).await?;
    Ok(Ok(position.get(0)))
}
