//! Which generation of which projection is live.
//!
//! The database decides; this is a picture of it that every node keeps current, with the plugins loaded. A notification on
//! `gobo_control` is a hint to look at once; looking every few seconds is what makes it certain.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use deadpool_postgres::{Pool, PoolError};
use tokio::sync::{Semaphore, watch};

use crate::db::{Database, describe, describe_pool};
use crate::host::{Host, LoadError, Plugin, PluginHash};
use crate::read_model::ReadModel;
use crate::shutdown::Shutdown;

/// The channel on which nodes tell each other that something was deployed, stopped, or is to be tried again.
pub const CONTROL_CHANNEL: &str = "gobo_control";

/// How often the database is looked at when nobody gives a hint.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How often a plugin that could not be loaded is tried again: the machine may have been short of something.
const RETRY_LOADING: Duration = Duration::from_secs(60);
/// How long a plugin may take to compile and describe itself.
const LOADING: Duration = Duration::from_secs(120);

/// What is deployed, at one moment.
#[derive(Debug, Default)]
pub struct Catalog {
    /// The live generations by their projection's name.
    pub deployed: HashMap<String, Arc<Deployed>>,
    /// Projections whose plugin this engine cannot load, by name. They do not run here; the others do.
    pub broken: HashMap<String, Arc<Broken>>,
    /// The read models that can be read, by name.
    pub models: HashMap<String, Arc<Served>>,
}

/// A live generation with its plugin.
pub struct Deployed {
    /// The projection's name.
    pub projection: String,
    /// The generation's number.
    pub generation: i64,
    /// The source whose events it reads.
    pub source: String,
    /// The plugin, compiled.
    pub plugin: Plugin,
}

/// A projection whose plugin this engine cannot load.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// The projection's name.
    pub projection: String,
    /// The generation's number.
    pub generation: i64,
    /// The source whose events it reads.
    pub source: String,
    /// The plugin's hash.
    pub hash: PluginHash,
    /// Why it cannot be loaded.
    pub reason: String,
}

/// A read model and the generation that fills it.
#[derive(Debug)]
pub struct Served {
    /// The generation.
    pub deployed: Arc<Deployed>,
    /// Its index in the descriptor.
    pub index: usize,
}

impl Served {
    /// Its columns and its key.
    pub fn model(&self) -> &ReadModel {
        &self.deployed.plugin.descriptor.read_models[self.index]
    }
}

impl std::fmt::Debug for Deployed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deployed")
            .field("projection", &self.projection)
            .field("generation", &self.generation)
            .field("source", &self.source)
            .field("hash", &self.plugin.hash)
            .finish_non_exhaustive()
    }
}

/// Why a plugin is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadingError {
    /// It is no usable plugin.
    #[error(transparent)]
    Refused(#[from] LoadError),
    /// It takes too long.
    #[error("the plugin is still being compiled after {} s; deploy a smaller one (release profile, lto)", LOADING.as_secs())]
    Slow,
    /// The host crashed over it.
    #[error("the engine failed while it loaded the plugin")]
    Crashed,
}

/// Keeps the [`Catalog`] current.
pub struct Registry {
    pool: Pool,
    host: Host,
    catalog: watch::Sender<Arc<Catalog>>,
    plugins: Mutex<HashMap<PluginHash, Plugin>>,
    failures: Mutex<HashMap<PluginHash, (Instant, String)>>,
    /// Compiling takes all cores that it can get; one at a time leaves some for the events.
    compiling: Arc<Semaphore>,
    /// One refresh at a time, so that an older picture never replaces a newer one.
    refreshing: tokio::sync::Mutex<()>,
}

/// A live generation as the database has it.
struct Row {
    projection: String,
    generation: i64,
    source: String,
    hash: PluginHash,
}

impl Registry {
    /// A registry that knows of nothing until the first [`Registry::refresh`].
    pub fn new(pool: Pool, host: Host) -> Self {
        Self {
            pool,
            host,
            catalog: watch::channel(Arc::default()).0,
            plugins: Mutex::default(),
            failures: Mutex::default(),
            compiling: Arc::new(Semaphore::new(1)),
            refreshing: tokio::sync::Mutex::default(),
        }
    }

    /// The catalogue, now and whenever it changes.
    pub fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.subscribe()
    }

    /// Checks, compiles and describes a plugin on a thread of its own, or finds it in memory.
    pub async fn load(&self, wasm: Vec<u8>) -> Result<Plugin, LoadingError> {
        let hash = PluginHash::of(&wasm);
        if let Some(plugin) = self.loaded(&hash) {
            return Ok(plugin);
        }
        let host = self.host.clone();
        let compiling = self.compiling.clone();
        let loading = async move {
            let Ok(permit) = compiling.acquire_owned().await else {
                return Err(LoadingError::Crashed);
            };
            tokio::task::spawn_blocking(move || {
                let loaded = host.load(&wasm);
                // Held by the thread, which goes on even if nobody waits any more.
                drop(permit);
                loaded
            })
            .await
            .map_err(|_| LoadingError::Crashed)?
            .map_err(LoadingError::Refused)
        };
        let plugin = tokio::time::timeout(LOADING, loading)
            .await
            .unwrap_or(Err(LoadingError::Slow))?;
        lock(&self.plugins).insert(hash, plugin.clone());
        Ok(plugin)
    }

    /// Looks at the database and publishes what is live.
    pub async fn refresh(&self) -> Result<(), PoolError> {
        let _one_at_a_time = self.refreshing.lock().await;
        let client = self.pool.get().await?;
        let rows = client
            .query(include_str!("registry/live.sql"), &[])
            .await?
            .iter()
            .filter_map(Row::read)
            .collect::<Vec<_>>();
        let old = self.catalog.borrow().clone();
        let mut catalog = Catalog::default();
        for row in &rows {
            match self.plugin(&client, row.hash).await? {
                Ok(plugin) => catalog.add(&old, row, plugin),
                Err(reason) => catalog.add_broken(&old, row, reason),
            }
        }
        let live: HashSet<PluginHash> = rows.iter().map(|row| row.hash).collect();
        lock(&self.plugins).retain(|hash, _| live.contains(hash));
        lock(&self.failures).retain(|hash, _| live.contains(hash));
        if !catalog.same(&old) {
            self.catalog.send_replace(Arc::new(catalog));
        }
        Ok(())
    }

    /// Refreshes on every hint and every few seconds, until shutdown.
    pub async fn run(&self, database: Database, mut shutdown: Shutdown) {
        while !shutdown.is_requested() {
            tokio::select! {
                () = shutdown.requested() => return,
                () = self.follow(&database) => {}
            }
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    /// Refreshes for as long as the session that listens is there.
    async fn follow(&self, database: &Database) {
        let (_session, mut hints) = match database.listen(&[CONTROL_CHANNEL]).await {
            Ok(listening) => listening,
            Err(error) => {
                let error = describe(&error);
                tracing::warn!(error, "the database cannot be reached for notifications");
                return;
            }
        };
        loop {
            // First, because whatever happened before the session listened gave no hint.
            if let Err(error) = self.refresh().await {
                let error = describe_pool(&error);
                tracing::warn!(error, "what is deployed cannot be read now");
                return;
            }
            match tokio::time::timeout(LOOK_EVERY, hints.recv()).await {
                Ok(None) => return,
                Ok(Some(_)) => while hints.try_recv().is_ok() {},
                Err(_) => {}
            }
        }
    }

    /// A plugin of the database's, or the reason why this engine cannot load it.
    async fn plugin(
        &self,
        client: &deadpool_postgres::Client,
        hash: PluginHash,
    ) -> Result<Result<Plugin, String>, tokio_postgres::Error> {
        if let Some(plugin) = self.loaded(&hash) {
            return Ok(Ok(plugin));
        }
        let recently = lock(&self.failures)
            .get(&hash)
            .filter(|(at, _)| at.elapsed() < RETRY_LOADING)
            .map(|(_, reason)| reason.clone());
        if let Some(reason) = recently {
            return Ok(Err(reason));
        }
        let row = client
            .query_one(
                "select bytes, name from gobo.plugins where hash = $1",
                &[&hash.0.as_slice()],
            )
            .await?;
        let (bytes, name): (Vec<u8>, String) = (row.get(0), row.get(1));
        if PluginHash::of(&bytes) != hash {
            return Ok(Err(format!(
                "the bytes stored as plugin {hash} are not those that were deployed; deploy the plugin again"
            )));
        }
        match self.load(bytes).await {
            Ok(plugin) => Ok(Ok(plugin)),
            Err(error) => {
                let reason = format!("this engine cannot load the deployed plugin {hash}: {error}");
                tracing::error!(projection = name, reason);
                lock(&self.failures).insert(hash, (Instant::now(), reason.clone()));
                Ok(Err(reason))
            }
        }
    }

    fn loaded(&self, hash: &PluginHash) -> Option<Plugin> {
        lock(&self.plugins).get(hash).cloned()
    }
}

impl Catalog {
    fn add(&mut self, old: &Catalog, row: &Row, plugin: Plugin) {
        let kept = old.deployed.get(&row.projection).filter(|old| {
            old.generation == row.generation
                && old.source == row.source
                && old.plugin.hash == row.hash
        });
        let deployed = kept.cloned().unwrap_or_else(|| {
            Arc::new(Deployed {
                projection: row.projection.clone(),
                generation: row.generation,
                source: row.source.clone(),
                plugin,
            })
        });
        let models = deployed.plugin.descriptor.read_models.iter().enumerate();
        for (index, model) in models {
            let served = Served {
                deployed: deployed.clone(),
                index,
            };
            self.models.insert(model.name.clone(), Arc::new(served));
        }
        self.deployed.insert(row.projection.clone(), deployed);
    }

    fn add_broken(&mut self, old: &Catalog, row: &Row, reason: String) {
        let broken = Broken {
            projection: row.projection.clone(),
            generation: row.generation,
            source: row.source.clone(),
            hash: row.hash,
            reason,
        };
        let kept = old
            .broken
            .get(&row.projection)
            .filter(|old| ***old == broken);
        let broken = kept.cloned().unwrap_or_else(|| Arc::new(broken));
        self.broken.insert(row.projection.clone(), broken);
    }

    /// What did not change is shared between pictures, so that comparing pointers is enough.
    fn same(&self, other: &Catalog) -> bool {
        fn same<T>(one: &HashMap<String, Arc<T>>, other: &HashMap<String, Arc<T>>) -> bool {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(name, a)| other.get(name).is_some_and(|b| Arc::ptr_eq(a, b)))
        }
        same(&self.deployed, &other.deployed) && same(&self.broken, &other.broken)
    }
}

impl Row {
    fn read(row: &tokio_postgres::Row) -> Option<Self> {
        let hash: &[u8] = row.get("plugin_hash");
        Some(Self {
            projection: row.get("name"),
            generation: row.get("generation"),
            source: row.get("source"),
            hash: PluginHash(hash.try_into().ok()?),
        })
    }
}

/// A poisoned lock guards a map that is whole all the same: each of its changes is one call.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
