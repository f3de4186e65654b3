//! Bytes -> checked, compiled, described -> hot swap, or a new projection.
//!
//! Everything that can be refused is refused off to the side or rolled back: a failed deploy changes nothing.

mod tables;
pub mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use deadpool_postgres::{Pool, PoolError};
use serde::Serialize;
use tokio_postgres::Transaction;

use crate::config::Config;
use crate::descriptor::Descriptor;
use crate::host::{Plugin, PluginHash};
use crate::read_model::schema::{self, SchemaError};
use crate::registry::{LoadingError, Registry};

/// Deploys of one database wait for each other.
const LOCK: i64 = 0x676f_626f_0002;

/// Deploys plugins into one database.
pub struct Deployer {
    pool: Pool,
    registry: Arc<Registry>,
    config: Arc<Config>,
}

/// Where the bytes came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An operator's request.
    Request,
    /// A file of the watched folder, under the name by which it is remembered.
    File {
        /// Where it is.
        path: PathBuf,
        /// The key in `gobo.watched_files`.
        remembered_as: String,
    },
}

/// What a deploy led to.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The projection's name.
    pub projection: String,
    /// What was done.
    pub outcome: Action,
    /// The generation that runs the plugin.
    pub generation: i64,
    /// The plugin's hash, in hexadecimal.
    pub hash: String,
    /// The same in a sentence.
    pub detail: String,
}

/// What a deploy did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A new projection begins at the first event.
    Created,
    /// The new code goes on from the old one's checkpoint.
    Swapped,
    /// These very bytes are live already.
    Unchanged,
}

/// Why nothing was deployed. The text names the cause and the fix.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The bytes are no usable plugin.
    #[error(transparent)]
    Plugin(#[from] LoadingError),
    /// The plugin is another projection's than the request says.
    #[error(
        "the plugin calls itself \"{described}\", but it was to be deployed as \"{expected}\": deploy it under its own name, or rename it in its source"
    )]
    Name {
        /// The name in the request.
        expected: String,
        /// The name in the descriptor.
        described: String,
    },
    /// A read model of this name belongs to another projection.
    #[error(
        "read model \"{read_model}\" belongs to projection \"{owner}\": names of read models are unique in a database, give this one another name"
    )]
    ReadModelTaken {
        /// The read model.
        read_model: String,
        /// The projection that has it.
        owner: String,
    },
    /// The tables are not those of the plugin that runs.
    #[error(
        "the tables of projection \"{projection}\" would change, and rebuilding them into a new generation is not possible yet: {}. \
         The running plugin stays. Keep the tables as they are, or deploy under a new projection name with new read-model names",
        differences.join("; ")
    )]
    TablesChanged {
        /// The projection.
        projection: String,
        /// What differs, one sentence each.
        differences: Vec<String>,
    },
    /// This engine's configuration gives the projection another source than the one it has read.
    #[error(
        "projection \"{projection}\" has read source \"{from}\" up to position {position}, which means nothing in source \"{to}\": \
         set [projections.{projection}] source back to \"{from}\", or deploy under a new projection name"
    )]
    SourceChanged {
        /// The projection.
        projection: String,
        /// The source that it has read.
        from: String,
        /// The source that is configured.
        to: String,
        /// Its checkpoint.
        position: i64,
    },
    /// Tables or views cannot be made.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The database is not there.
    #[error("{}", crate::db::describe_pool(.0))]
    Pool(#[from] PoolError),
    /// The database did not do it.
    #[error("{}", crate::db::describe(.0))]
    Database(#[from] tokio_postgres::Error),
}

/// The live generation of the projection that is being deployed.
struct Live {
    generation: i64,
    source: String,
    hash: PluginHash,
}

impl Deployer {
    /// A deployer for the database behind `pool`.
    pub fn new(pool: Pool, registry: Arc<Registry>, config: Arc<Config>) -> Self {
        Self {
            pool,
            registry,
            config,
        }
    }

    /// Deploys `wasm`; `expected` is the name that the caller believes the projection has.
    pub async fn deploy(
        &self,
        wasm: Vec<u8>,
        expected: Option<&str>,
        origin: &Origin,
    ) -> Result<Outcome, DeployError> {
        let plugin = self.registry.load(wasm.clone()).await?;
        let descriptor = &plugin.descriptor;
        if let Some(expected) = expected.filter(|name| *name != descriptor.name) {
            return Err(DeployError::Name {
                expected: expected.to_owned(),
                described: descriptor.name.clone(),
            });
        }
        let outcome = self.record(&wasm, &plugin, origin).await?;
        tracing::info!(
            projection = outcome.projection,
            generation = outcome.generation,
            hash = outcome.hash,
            ?origin,
            "{}",
            outcome.detail
        );
        // This node need not wait for its own notification.
        if let Err(error) = self.registry.refresh().await {
            let error = crate::db::describe_pool(&error);
            tracing::warn!(error, "deployed; the registry will look again soon");
        }
        Ok(outcome)
    }

    /// One transaction: all of it, or nothing.
    async fn record(
        &self,
        wasm: &[u8],
        plugin: &Plugin,
        origin: &Origin,
    ) -> Result<Outcome, DeployError> {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        // Whoever is told that it is deployed finds it deployed, also after a crash.
        transaction
            .batch_execute("set local synchronous_commit = on; set local lock_timeout = '10s'")
            .await?;
        transaction
            .execute("select pg_advisory_xact_lock($1)", &[&LOCK])
            .await?;
        let descriptor = &plugin.descriptor;
        let live = find_live(&transaction, &descriptor.name).await?;
        let (action, generation, detail) = match &live {
            Some(live) if live.hash == plugin.hash => (
                Action::Unchanged,
                live.generation,
                format!(
                    "projection \"{}\" runs these very bytes already; nothing was changed",
                    descriptor.name
                ),
            ),
            Some(live) => {
                self.check_tables(&transaction, descriptor, live).await?;
                store_plugin(&transaction, wasm, plugin).await?;
                let detail = self.swap(&transaction, plugin, live).await?;
                (Action::Swapped, live.generation, detail)
            }
            None => {
                store_plugin(&transaction, wasm, plugin).await?;
                let generation = self.create(&transaction, plugin).await?;
                let detail = format!(
                    "projection \"{}\" is new; generation {generation} begins at the first event of source \"{}\"",
                    descriptor.name,
                    self.config.source_of(&descriptor.name)
                );
                (Action::Created, generation, detail)
            }
        };
        if let Origin::File { remembered_as, .. } = origin {
            remember(&*transaction, remembered_as, &plugin.hash).await?;
        }
        if action != Action::Unchanged {
            transaction
                .batch_execute("select pg_notify('gobo_control', '')")
                .await?;
        }
        transaction.commit().await?;
        Ok(Outcome {
            projection: descriptor.name.clone(),
            outcome: action,
            generation,
            hash: plugin.hash.to_string(),
            detail,
        })
    }

    async fn create(
        &self,
        transaction: &Transaction<'_>,
        plugin: &Plugin,
    ) -> Result<i64, DeployError> {
        let descriptor = &plugin.descriptor;
        let models = &descriptor.read_models;
        for model in models {
            let owner = transaction
                .query_opt(
                    "select projection from gobo.read_models where name = $1",
                    &[&model.name],
                )
                .await?;
            if let Some(owner) = owner {
                return Err(DeployError::ReadModelTaken {
                    read_model: model.name.clone(),
                    owner: owner.get(0),
                });
            }
        }
        let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
        let row = transaction
            .query_one(
                include_str!("deploy/create.sql"),
                &[
                    &descriptor.name,
                    &self.config.source_of(&descriptor.name),
                    &plugin.hash.0.as_slice(),
                    &names,
                ],
            )
            .await?;
        let generation: i64 = row.get(0);
        // A statement of its own: one statement cannot update a row that it inserts.
        transaction
            .execute(
                "update gobo.projections set live = $2 where name = $1",
                &[&descriptor.name, &generation],
            )
            .await?;
        let views = &self.config.database.read_schema;
        schema::create_tables(transaction, generation, models).await?;
        schema::create_indexes(transaction, generation, models).await?;
        schema::create_views(transaction, views, generation, models).await?;
        schema::write_comments(transaction, views, generation, models).await?;
        Ok(generation)
    }

    async fn check_tables(
        &self,
        transaction: &Transaction<'_>,
        descriptor: &Descriptor,
        live: &Live,
    ) -> Result<(), DeployError> {
        let existing = schema::read_tables(transaction, live.generation).await?;
        let differences = tables::differences(&existing, &descriptor.read_models);
        if differences.is_empty() {
            return Ok(());
        }
        Err(DeployError::TablesChanged {
            projection: descriptor.name.clone(),
            differences,
        })
    }

    /// The checkpoint's row lock makes this a batch boundary: a commit that is under way ends first, and the next one of
    /// the old code fails, because the fence compares the plugin's hash.
    async fn swap(
        &self,
        transaction: &Transaction<'_>,
        plugin: &Plugin,
        live: &Live,
    ) -> Result<String, DeployError> {
        let descriptor = &plugin.descriptor;
        let source = self.config.source_of(&descriptor.name);
        let row = transaction
            .query_one(
                include_str!("deploy/swap.sql"),
                &[&live.generation, &plugin.hash.0.as_slice()],
            )
            .await?;
        let position: i64 = row.get(0);
        if source != live.source && position > 0 {
            return Err(DeployError::SourceChanged {
                projection: descriptor.name.clone(),
                from: live.source.clone(),
                to: source.to_owned(),
                position,
            });
        }
        transaction
            .execute(
                "update gobo.generations set plugin_hash = $2, deployed_at = now() where id = $1",
                &[&live.generation, &plugin.hash.0.as_slice()],
            )
            .await?;
        transaction
            .execute(
                "update gobo.projections set source = $2 where name = $1 and source <> $2",
                &[&descriptor.name, &source],
            )
            .await?;
        schema::write_comments(
            transaction,
            &self.config.database.read_schema,
            live.generation,
            &descriptor.read_models,
        )
        .await?;
        let mut detail = format!(
            "projection \"{}\" goes on from position {position} with the new code; rows of earlier events stay as the old code wrote them",
            descriptor.name
        );
        if source != live.source {
            detail.push_str(&format!(
                "; its source is now \"{source}\" instead of \"{}\"",
                live.source
            ));
        }
        Ok(detail)
    }
}

/// Remembers which bytes a file of the watched folder last brought.
async fn remember(
    client: &impl tokio_postgres::GenericClient,
    name: &str,
    hash: &PluginHash,
) -> Result<(), tokio_postgres::Error> {
    client
        .execute(
            "insert into gobo.watched_files (path, hash) values ($1, $2) \
             on conflict (path) do update set hash = excluded.hash, seen_at = now()",
            &[&name, &hash.0.as_slice()],
        )
        .await
        .map(drop)
}

async fn find_live(
    transaction: &Transaction<'_>,
    name: &str,
) -> Result<Option<Live>, tokio_postgres::Error> {
    let row = transaction
        .query_opt(
            "select g.id, p.source, g.plugin_hash from gobo.projections p join gobo.generations g on g.id = p.live \
              where p.name = $1",
            &[&name],
        )
        .await?;
    Ok(row.and_then(|row| {
        let hash: &[u8] = row.get(2);
        Some(Live {
            generation: row.get(0),
            source: row.get(1),
            hash: PluginHash(hash.try_into().ok()?),
        })
    }))
}

async fn store_plugin(
    transaction: &Transaction<'_>,
    wasm: &[u8],
    plugin: &Plugin,
) -> Result<(), tokio_postgres::Error> {
    transaction
        .execute(
            "insert into gobo.plugins (hash, bytes, name, version) values ($1, $2, $3, $4) on conflict (hash) do nothing",
            &[
                &plugin.hash.0.as_slice(),
                &wasm,
                &plugin.descriptor.name,
                &plugin.descriptor.version,
            ],
        )
        .await
        .map(drop)
}
