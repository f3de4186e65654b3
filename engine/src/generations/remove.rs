//! The end of a projection: what goes with it, and letting it go.
//!
//! One transaction takes the names and the views away and says that every generation is to be dropped; from then on there
//! is no such projection. The loops stop, and the collector drops the tables, on whichever node and however often it is
//! interrupted.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::{GenericClient, Transaction};

use super::{GenerationError, Generations, decide, tell};
use crate::read_model::schema::{self, SchemaError};

/// How long the removal waits for readers of the views.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits for a lock at a time, and so how long a reader can have to wait behind it.
const LOCK_WAIT: &str = "set local lock_timeout = '50ms'";
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// What goes with a projection.
#[derive(Debug, Clone, Serialize)]
pub struct Removal {
    /// The projection's name.
    pub projection: String,
    /// Its generations with their tables.
    pub generations: Vec<Doomed>,
    /// The views, with their schema.
    pub views: Vec<String>,
    /// The names that become free.
    pub read_models: Vec<String>,
    /// Events that wait for a decision.
    pub dead_letters: i64,
    /// Whether it has settings that were decided at run time.
    pub has_settings: bool,
    /// What was built on it by others, and keeps it from being removed.
    pub built_on_it: Vec<String>,
}

/// A generation that goes.
#[derive(Debug, Clone, Serialize)]
pub struct Doomed {
    /// Its number.
    pub generation: i64,
    /// `building`, `live`, `kept` or `done`.
    pub stage: String,
    /// `projection`, `replay`, `snapshot` or `verify`.
    pub purpose: String,
    /// Its tables.
    pub tables: Vec<Table>,
}

/// A table that goes.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// Its name with its schema.
    pub name: String,
    /// About how many rows it has; null when nobody has counted yet.
    pub rows: Option<i64>,
    /// What it takes on the disk, indexes included.
    pub bytes: i64,
}

/// What was removed.
#[derive(Debug, Clone, Serialize)]
pub struct Removed {
    /// The projection's name.
    pub projection: String,
    /// Always `removed`.
    pub outcome: &'static str,
    /// The generations whose tables are dropped now.
    pub generations: Vec<i64>,
    /// The same in a sentence.
    pub detail: String,
}

impl Generations {
    /// Says what would go.
    pub async fn removal(&self, projection: &str) -> Result<Removal, GenerationError> {
        let client = self.pool.get().await?;
        let row = client
            .query_opt(include_str!("removal.sql"), &[&projection])
            .await?
            .ok_or_else(|| GenerationError::NoProjection(projection.to_owned()))?;
        let mut generations: Vec<Doomed> = Vec::new();
        for row in client
            .query(include_str!("removal_tables.sql"), &[&projection])
            .await?
        {
            let generation: i64 = row.get(0);
            if generations.last().map(|last| last.generation) != Some(generation) {
                generations.push(Doomed {
                    generation,
                    stage: row.get(1),
                    purpose: row.get(2),
                    tables: Vec::new(),
                });
            }
            if let (Some(last), Some(name)) = (generations.last_mut(), row.get(3)) {
                last.tables.push(Table {
                    name,
                    rows: row.get(4),
                    bytes: row.get(5),
                });
            }
        }
        let names: Vec<String> = row.get(0);
        let schema = &self.config.database.read_schema;
        let mut views = Vec::new();
        for name in &names {
            if schema::is_our_view(&**client, schema, name).await? {
                views.push(format!("{schema}.{name}"));
            }
        }
        Ok(Removal {
            projection: projection.to_owned(),
            built_on_it: built_on(&**client, projection, schema, &names).await?,
            generations,
            views,
            read_models: names,
            dead_letters: row.get(1),
            has_settings: row.get(2),
        })
    }

    /// Removes it with all that it has.
    pub async fn remove(&self, projection: &str) -> Result<Removed, GenerationError> {
        let started = Instant::now();
        let removed = loop {
            match self.try_remove(projection).await {
                Err(GenerationError::Schema(SchemaError::Database(error)))
                    if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) =>
                {
                    if started.elapsed() > PATIENCE {
                        return Err(self.reader_in_the_way(projection).await?);
                    }
                }
                done => break done?,
            }
            tokio::time::sleep(PAUSE).await;
        };
        tracing::info!(projection, generations = ?removed.generations, "{}", removed.detail);
        self.registry.look_again().await;
        Ok(removed)
    }

    async fn try_remove(&self, projection: &str) -> Result<Removed, GenerationError> {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        decide(&transaction).await?;
        let row = transaction
            .query_opt(include_str!("removal.sql"), &[&projection])
            .await?
            .ok_or_else(|| GenerationError::NoProjection(projection.to_owned()))?;
        let names: Vec<String> = row.get(0);
        let schema = &self.config.database.read_schema;
        let built = built_on(&*transaction, projection, schema, &names).await?;
        if !built.is_empty() {
            return Err(GenerationError::Schema(SchemaError::Dependents {
                view: format!("projection \"{projection}\""),
                what: built.join("; "),
            }));
        }
        let generations = give_up(&transaction, projection).await?;
        transaction.batch_execute(LOCK_WAIT).await?;
        for name in &names {
            if schema::is_our_view(&*transaction, schema, name).await? {
                schema::drop_view(&transaction, schema, name).await?;
            }
        }
        tell(&*transaction).await?;
        transaction.commit().await?;
        Ok(Removed {
            detail: format!(
                "projection \"{projection}\" is removed; the tables of its {} are dropped in the background",
                match generations.len() {
                    1 => "generation".to_owned(),
                    count => format!("{count} generations"),
                }
            ),
            projection: projection.to_owned(),
            outcome: "removed",
            generations,
        })
    }

    async fn reader_in_the_way(
        &self,
        projection: &str,
    ) -> Result<GenerationError, GenerationError> {
        let client = self.pool.get().await?;
        let row = client
            .query_opt(include_str!("removal.sql"), &[&projection])
            .await?;
        let names: Vec<String> = row.map(|row| row.get(0)).unwrap_or_default();
        let schema = &self.config.database.read_schema;
        let blocker = client
            .query_opt(include_str!("blockers.sql"), &[schema, &names, &true])
            .await?;
        let who = blocker.map_or("somebody holds a lock on its views".to_owned(), |row| {
            row.get(0)
        });
        Ok(GenerationError::Conflict(format!(
            "projection \"{projection}\" was not removed: {who}"
        )))
    }

    /// Forgets projections that are removed and have no generation left.
    pub(super) async fn forget_removed(&self) -> Result<(), GenerationError> {
        let client = self.pool.get().await?;
        client
            .execute(include_str!("forget_removed.sql"), &[])
            .await?;
        Ok(())
    }
}

/// Takes the projection's names away and tells its loops to stop. Gives its generations.
async fn give_up(
    transaction: &Transaction<'_>,
    projection: &str,
) -> Result<Vec<i64>, tokio_postgres::Error> {
    transaction
        .execute(
            "update gobo.projections set live = null, settings = '{}' where name = $1",
            &[&projection],
        )
        .await?;
    let rows = transaction
        .query(
            "update gobo.generations set state = 'dropping', reason = 'the projection was removed', label = null \
              where projection = $1 returning id",
            &[&projection],
        )
        .await?;
    transaction
        .execute(
            "delete from gobo.feed f using gobo.read_models m where m.projection = $1 and f.read_model = m.name",
            &[&projection],
        )
        .await?;
    for table in ["read_models", "deploys", "plugin_logs"] {
        transaction
            .execute(
                &format!("delete from gobo.{table} where projection = $1"),
                &[&projection],
            )
            .await?;
    }
    let mut generations: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    generations.sort_unstable();
    Ok(generations)
}

/// What others have built on the views and tables of a projection: they would have to be dropped with it.
async fn built_on(
    client: &impl GenericClient,
    projection: &str,
    schema: &str,
    names: &[String],
) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = client
        .query(
            include_str!("built_on.sql"),
            &[&projection, &schema, &names],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
