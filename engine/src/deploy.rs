//! Bytes -> checked, compiled, described -> hot swap, or a new generation.
//!
//! Everything that can be refused is refused off to the side or rolled back: a failed deploy changes nothing.

mod references;
mod steps;
mod tables;
pub mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{Pool, PoolError};
use serde::{Deserialize, Serialize};
use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;

use crate::config::Config;
use crate::descriptor::OnChange;
use crate::generations::{GenerationError, decide, find};
use crate::host::{Plugin, PluginHash};
use crate::read_model::schema::{self, SchemaError};
use crate::registry::{LoadingError, Registry, tell};
use tables::Differences;

/// How long a change of tables in place is tried, when somebody holds locks on them.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it waits for a lock at a time, and so how long a reader can have to wait behind it.
const LOCK_WAIT: &str = "50ms";
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// Deploys plugins into one database.
pub struct Deployer {
    pool: Pool,
    registry: Registry,
    config: Arc<Config>,
}

/// What is asked of a deploy.
#[derive(Debug, Clone)]
pub struct Request {
    /// The name that the caller believes the projection has.
    pub expected: Option<String>,
    /// Whether rows are kept or computed anew.
    pub mode: Mode,
    /// Whether a new generation waits for an operator to promote it.
    pub hold: bool,
    /// Where the bytes came from.
    pub origin: Origin,
}

/// Whether a changed plugin goes on from the checkpoint or begins at the first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The author's wish decides (`on_change` in the descriptor), if the tables stay the same; else it begins anew.
    #[default]
    Auto,
    /// Go on, adding to the tables what can be added, or refuse.
    Continue,
    /// Begin anew.
    Rebuild,
    /// Begin anew beside the live generation, for a comparison with it: an operator promotes it, or not. What has no live
    /// generation is refused, since it would be live at once.
    Preview,
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
    /// A new generation is filled beside the live one.
    Rebuilding,
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
    /// It was to go on, but the tables would change.
    #[error(
        "projection \"{projection}\" cannot go on with other tables: {}. The running plugin stays. Deploy with --rebuild, which \
         fills new tables beside the live ones",
        differences.join("; ")
    )]
    TablesChanged {
        /// The projection.
        projection: String,
        /// What differs, one sentence each.
        differences: Vec<String>,
    },
    /// A reference to a read model that has another key.
    #[error("read model \"{read_model}\": its reference \"{reference}\" does not fit: {why}")]
    Reference {
        /// The read model that refers.
        read_model: String,
        /// The reference's name.
        reference: String,
        /// What is wrong with it.
        why: String,
    },
    /// A preview of what is not there yet.
    #[error(
        "projection \"{0}\" is new: there are no rows to compare its rows with. Deploy it without --preview"
    )]
    NothingToCompare(String),
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
    /// The generation cannot be begun.
    #[error(transparent)]
    Generation(GenerationError),
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

impl From<GenerationError> for DeployError {
    fn from(error: GenerationError) -> Self {
        match error {
            GenerationError::Schema(error) => Self::Schema(error),
            GenerationError::Pool(error) => Self::Pool(error),
            GenerationError::Database(error) => Self::Database(error),
            other => Self::Generation(other),
        }
    }
}

impl DeployError {
    /// Whether somebody holds a lock that is not worth waiting for any longer.
    fn is_locked(&self) -> bool {
        let (Self::Database(error) | Self::Schema(SchemaError::Database(error))) = self else {
            return false;
        };
        error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
    }
}

/// What is to be done, and why.
enum Way<'m> {
    Swap(Differences<'m>),
    Rebuild(String),
}

impl Deployer {
    /// A deployer for the database behind `pool`.
    pub fn new(pool: Pool, registry: Registry, config: Arc<Config>) -> Self {
        Self {
            pool,
            registry,
            config,
        }
    }

    /// Deploys `wasm`.
    pub async fn deploy(&self, wasm: Vec<u8>, request: &Request) -> Result<Outcome, DeployError> {
        let plugin = self.registry.load(wasm.clone()).await?;
        let descriptor = &plugin.descriptor;
        if let Some(expected) = (request.expected.as_ref()).filter(|name| **name != descriptor.name)
        {
            return Err(DeployError::Name {
                expected: expected.clone(),
                described: descriptor.name.clone(),
            });
        }
        let started = Instant::now();
        let outcome = loop {
            match self.record(&wasm, &plugin, request).await {
                Err(error) if error.is_locked() && started.elapsed() < PATIENCE => {
                    tokio::time::sleep(PAUSE).await;
                }
                done => break done?,
            }
        };
        tracing::info!(
            projection = outcome.projection,
            generation = outcome.generation,
            hash = outcome.hash,
            origin = ?request.origin,
            "{}",
            outcome.detail
        );
        self.registry.look_again().await;
        Ok(outcome)
    }

    /// One transaction: all of it, or nothing.
    async fn record(
        &self,
        wasm: &[u8],
        plugin: &Plugin,
        request: &Request,
    ) -> Result<Outcome, DeployError> {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        decide(&transaction).await?;
        references::check(&transaction, &plugin.descriptor).await?;
        let name = &plugin.descriptor.name;
        let hold = request.hold || request.mode == Mode::Preview;
        let (action, generation, detail) = match find(&transaction, name).await? {
            None if request.mode == Mode::Preview => {
                return Err(DeployError::NothingToCompare(name.clone()));
            }
            None => {
                store_plugin(&transaction, wasm, plugin).await?;
                self.create(&transaction, plugin).await?
            }
            Some(present) if present.hash == plugin.hash => {
                self.unchanged(&transaction, plugin, &present, request.mode)
                    .await?
            }
            Some(present)
                if request.mode != Mode::Continue
                    && (present.candidate)
                        .is_some_and(|(_, candidate)| candidate == plugin.hash) =>
            {
                self.under_way(&transaction, &present, hold).await?
            }
            Some(present) => {
                store_plugin(&transaction, wasm, plugin).await?;
                let tables = schema::read_tables(&*transaction, present.live).await?;
                match way(&tables, plugin, request.mode)? {
                    Way::Swap(differences) => {
                        self.swap(&transaction, plugin, &present, &differences)
                            .await?
                    }
                    Way::Rebuild(reason) => {
                        self.rebuild(&transaction, plugin, &present, hold, &reason)
                            .await?
                    }
                }
            }
        };
        if let Origin::File { remembered_as, .. } = &request.origin {
            remember(&*transaction, remembered_as, &plugin.hash).await?;
        }
        tell(&*transaction).await?;
        transaction.commit().await?;
        Ok(Outcome {
            projection: name.clone(),
            outcome: action,
            generation,
            hash: plugin.hash.to_string(),
            detail,
        })
    }
}

/// Decides between going on and beginning anew, and says why.
fn way<'m>(
    tables: &[crate::read_model::ReadModel],
    plugin: &'m Plugin,
    mode: Mode,
) -> Result<Way<'m>, DeployError> {
    let descriptor = &plugin.descriptor;
    let differences = tables::differences(tables, &descriptor.read_models);
    Ok(match (mode, descriptor.on_change) {
        (Mode::Continue, _) if !differences.breaking.is_empty() => {
            return Err(DeployError::TablesChanged {
                projection: descriptor.name.clone(),
                differences: differences.breaking,
            });
        }
        (Mode::Continue, _) => Way::Swap(differences),
        (Mode::Auto, OnChange::Continue) if differences.is_empty() => Way::Swap(differences),
        (Mode::Rebuild, _) => Way::Rebuild("it was asked for".into()),
        (Mode::Preview, _) => Way::Rebuild("it is to be compared".into()),
        (Mode::Auto, _) if !differences.is_empty() => Way::Rebuild(format!(
            "its tables change ({})",
            differences.sentences().join("; ")
        )),
        (Mode::Auto, _) => Way::Rebuild(
            "its code changes (to keep the rows instead: --continue, or on_change = \"continue\" in the plugin)".into(),
        ),
    })
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

async fn store_plugin(
    transaction: &Transaction<'_>,
    wasm: &[u8],
    plugin: &Plugin,
) -> Result<(), tokio_postgres::Error> {
    transaction
        .execute(
            "insert into gobo.plugins (hash, bytes, name, version, descriptor) values ($1, $2, $3, $4, $5::text::json) \
             on conflict (hash) do update set bytes = excluded.bytes where plugins.bytes is null",
            &[
                &plugin.hash.0.as_slice(),
                &wasm,
                &plugin.descriptor.name,
                &plugin.descriptor.version,
                &&*plugin.described,
            ],
        )
        .await
        .map(drop)
}
