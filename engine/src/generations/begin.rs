//! A new generation: its row, its tables, its checkpoint. And the end of a candidate that another one replaces.

use tokio_postgres::Transaction;

use super::GenerationError;
use crate::event::{Micros, Position};
use crate::host::{Plugin, PluginHash};
use crate::read_model::ReadModel;
use crate::read_model::schema::{self, SchemaError};
use crate::registry::Purpose;

/// A generation that is to be begun.
pub(crate) struct Plan<'a> {
    pub(crate) projection: &'a str,
    pub(crate) source: &'a str,
    pub(crate) plugin: &'a Plugin,
    pub(crate) purpose: Purpose,
    /// Whether an operator promotes it.
    pub(crate) hold: bool,
    /// Whether its tables are filled the fast way, without indexes at first.
    pub(crate) bulk: bool,
    /// Why it is begun, in a sentence.
    pub(crate) reason: &'a str,
    /// Where it ends.
    pub(crate) until: Option<Position>,
    pub(crate) until_time: Option<Micros>,
    pub(crate) label: Option<&'a str>,
    /// After how many hours it is dropped.
    pub(crate) hours: Option<i32>,
}

impl<'a> Plan<'a> {
    /// A candidate that is filled the fast way and promoted when it has caught up.
    pub(crate) fn new(
        projection: &'a str,
        source: &'a str,
        plugin: &'a Plugin,
        reason: &'a str,
    ) -> Self {
        Self {
            projection,
            source,
            plugin,
            purpose: Purpose::Projection,
            hold: false,
            bulk: true,
            reason,
            until: None,
            until_time: None,
            label: None,
            hours: None,
        }
    }
}

/// Begins it within the caller's transaction, and gives its number.
pub(crate) async fn begin(
    transaction: &Transaction<'_>,
    plan: &Plan<'_>,
) -> Result<i64, GenerationError> {
    let models = &plan.plugin.descriptor.read_models;
    if plan.purpose == Purpose::Projection {
        reserve_names(transaction, plan.projection, models).await?;
    }
    let generation = enter(transaction, plan).await?;
    make_tables(transaction, generation, plan).await?;
    Ok(generation)
}

/// Its row and its checkpoint.
pub(super) async fn enter(
    transaction: &Transaction<'_>,
    plan: &Plan<'_>,
) -> Result<i64, tokio_postgres::Error> {
    let purpose = match plan.purpose {
        Purpose::Projection => "projection",
        Purpose::Replay => "replay",
        Purpose::Snapshot => "snapshot",
        Purpose::Verify => "verify",
    };
    let row = transaction
        .query_one(
            include_str!("begin.sql"),
            &[
                &plan.projection,
                &plan.source,
                &plan.plugin.hash.0.as_slice(),
                &purpose,
                &plan.hold,
                &plan.bulk,
                &plan.reason,
                &plan.until,
                &plan.until_time,
                &plan.label,
                &plan.hours,
            ],
        )
        .await?;
    Ok(row.get(0))
}

/// Its tables, empty.
pub(super) async fn make_tables(
    transaction: &Transaction<'_>,
    generation: i64,
    plan: &Plan<'_>,
) -> Result<(), SchemaError> {
    let models = &plan.plugin.descriptor.read_models;
    schema::create_tables(transaction, generation, models, plan.bulk).await?;
    if !plan.bulk {
        schema::create_indexes(transaction, generation, models).await?;
    }
    schema::comment_tables(transaction, generation, models).await
}

/// The names of read models are the projection's from the moment that one of its generations has them.
pub(crate) async fn reserve_names(
    transaction: &Transaction<'_>,
    projection: &str,
    models: &[ReadModel],
) -> Result<(), GenerationError> {
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    transaction
        .execute(
            "insert into gobo.read_models (name, projection) select name, $2 from unnest($1::text[]) name \
             on conflict (name) do nothing",
            &[&names, &projection],
        )
        .await?;
    let taken = transaction
        .query_opt(
            "select name, projection from gobo.read_models where name = any ($1) and projection <> $2 limit 1",
            &[&names, &projection],
        )
        .await?;
    match taken {
        None => Ok(()),
        Some(row) => Err(GenerationError::ReadModelTaken {
            read_model: row.get(0),
            owner: row.get(1),
        }),
    }
}

/// Ends the candidate of a projection, if there is one; gives its number. One that was live before goes back to the kept
/// ones, any other is dropped.
pub(crate) async fn cancel_candidate(
    transaction: &Transaction<'_>,
    projection: &str,
    why: &str,
) -> Result<Option<i64>, tokio_postgres::Error> {
    let row = transaction
        .query_opt(
            "update gobo.generations \
                set state = case when promoted_at is null then 'dropping' else 'kept' end, reason = $2, label = null \
              where projection = $1 and purpose = 'projection' and state = 'building' \
              returning id, plugin_hash",
            &[&projection, &why],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let generation: i64 = row.get(0);
    let hash = super::hash_of(row.get(1));
    record(
        transaction,
        projection,
        generation,
        "cancelled",
        &hash,
        None,
        why,
    )
    .await?;
    Ok(Some(generation))
}

/// Begins a candidate beside generation `live`, in the place of any other, which ends for this reason. Gives its number, and
/// what was done in a sentence.
pub(crate) async fn begin_beside(
    transaction: &Transaction<'_>,
    plan: &Plan<'_>,
    live: i64,
    why: &str,
) -> Result<(i64, String), GenerationError> {
    let projection = plan.projection;
    let cancelled = cancel_candidate(transaction, projection, why).await?;
    let generation = begin(transaction, plan).await?;
    let mut detail = format!(
        "generation {generation} is being filled from the first event beside generation {live}, because {}; it {}",
        plan.reason,
        match plan.hold {
            true => format!("waits for `gobo promote {projection}` then"),
            false => "becomes the live one when it has caught up".to_owned(),
        }
    );
    if let Some(cancelled) = cancelled {
        detail.push_str(&format!("; generation {cancelled} is cancelled"));
    }
    let hash = &plan.plugin.hash;
    record(
        transaction,
        projection,
        generation,
        "rebuilding",
        hash,
        None,
        &detail,
    )
    .await?;
    Ok((generation, detail))
}

/// Writes down what happened to a projection.
pub(crate) async fn record(
    transaction: &Transaction<'_>,
    projection: &str,
    generation: i64,
    action: &str,
    hash: &PluginHash,
    previous: Option<&PluginHash>,
    detail: &str,
) -> Result<(), tokio_postgres::Error> {
    transaction
        .execute(
            "insert into gobo.deploys (projection, generation, action, plugin_hash, previous_hash, detail) \
             values ($1, $2, $3, $4, $5, $6)",
            &[
                &projection,
                &generation,
                &action,
                &hash.0.as_slice(),
                &previous.map(|hash| hash.0.as_slice()),
                &detail,
            ],
        )
        .await
        .map(drop)
}
