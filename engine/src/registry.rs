//! Which generations there are, and which of them readers see.
//!
//! The database decides; this is a picture of it that every node keeps current, with the plugins loaded. A notification on
//! `gobo_control` is a hint to look at once; looking every few seconds is what makes it certain.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use deadpool_postgres::{Pool, PoolError};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_postgres::GenericClient;

use crate::config::ProjectionSettings;
use crate::db::{Database, describe, describe_pool};
use crate::event::Position;
use crate::host::{Host, LoadError, Plugin, PluginHash};
use crate::read_model::ReadModel;
use crate::shutdown::Shutdown;

/// The channel on which nodes tell each other that something was deployed, stopped, or is to be tried again.
pub const CONTROL_CHANNEL: &str = "gobo_control";

/// Tells every node to look: at once, or when the transaction commits.
pub async fn tell(client: &impl GenericClient) -> Result<(), tokio_postgres::Error> {
    client
        .batch_execute(&format!("select pg_notify('{CONTROL_CHANNEL}', '')"))
        .await
}

/// How often the database is looked at when nobody gives a hint.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How often a plugin that could not be loaded is tried again: the machine may have been short of something.
const RETRY_LOADING: Duration = Duration::from_secs(60);
/// How long a plugin may take to compile and describe itself.
const LOADING: Duration = Duration::from_secs(120);
/// How long a plugin that no generation uses stays in memory: it may be just about to be deployed.
const UNUSED: Duration = Duration::from_secs(30);

/// What is deployed, at one moment.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Every generation that runs or can be read, by its number.
    pub generations: HashMap<i64, Arc<Deployed>>,
    /// Generations whose plugin this engine cannot load, by number. They do not run here; the others do.
    pub broken: HashMap<i64, Arc<Broken>>,
    /// The read models that can be read, by name.
    pub models: HashMap<String, Arc<Served>>,
}

/// What the database says of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The projection's name.
    pub projection: String,
    /// The generation's number.
    pub generation: i64,
    /// The source whose events it reads.
    pub source: String,
    /// The plugin's hash.
    pub hash: PluginHash,
    /// Where it is in its life.
    pub state: State,
    /// What it is for.
    pub purpose: Purpose,
    /// Whether it is still in the fast fill.
    pub bulk: bool,
    /// Whether an operator keeps it from running.
    pub paused: bool,
    /// Where it has to stop, for good or for a moment.
    pub until: Option<Position>,
    /// What was decided for the projection at run time.
    pub settings: ProjectionSettings,
}

/// Where a generation is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// On its way to where it has to be.
    Building,
    /// What readers see.
    Live,
    /// It was live and can be again.
    Kept,
    /// Complete at its position.
    Done,
}

/// What a generation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Is, was or is to be live.
    Projection,
    /// The rows at a position, computed for somebody who wants to look at them.
    Replay,
    /// The rows at a position, copied from the live generation.
    Snapshot,
    /// To be compared with the live one, and dropped.
    Verify,
}

/// A generation with its plugin.
pub struct Deployed {
    /// What the database says of it.
    pub facts: Facts,
    /// The plugin, compiled.
    pub plugin: Plugin,
}

/// A generation whose plugin this engine cannot load.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// What the database says of it.
    pub facts: Facts,
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

impl Facts {
    /// Whether a loop has to run for it.
    pub fn runs(&self) -> bool {
        !self.paused && self.state != State::Done
    }
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
            .field("facts", &self.facts)
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

/// Keeps the [`Catalog`] current. Clones are the same.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Pool,
    host: Host,
    catalog: watch::Sender<Arc<Catalog>>,
    publisher: OnceLock<Publisher>,
    hints: watch::Sender<u64>,
    plugins: Mutex<HashMap<PluginHash, Loaded>>,
    failures: Mutex<HashMap<PluginHash, (Instant, String)>>,
    /// Plugins that are being loaded for the catalogue.
    loading: Mutex<HashSet<PluginHash>>,
    /// One of them has been loaded, or not.
    loaded: Notify,
    /// Compiling takes all cores that it can get; one at a time leaves some for the events.
    compiling: Arc<Semaphore>,
    /// One refresh at a time, so that an older picture never replaces a newer one.
    refreshing: tokio::sync::Mutex<()>,
}

/// What has to know of a new catalogue before whoever refreshed it goes on.
type Publisher = Box<dyn Fn(&Catalog) + Send + Sync>;

struct Loaded {
    plugin: Plugin,
    used: Instant,
}

impl Registry {
    /// A registry that knows of nothing until the first [`Registry::refresh`].
    pub fn new(pool: Pool, host: Host) -> Self {
        Self {
            shared: Arc::new(Shared {
                pool,
                host,
                catalog: watch::channel(Arc::default()).0,
                publisher: OnceLock::new(),
                hints: watch::Sender::default(),
                plugins: Mutex::default(),
                failures: Mutex::default(),
                loading: Mutex::default(),
                loaded: Notify::new(),
                compiling: Arc::new(Semaphore::new(1)),
                refreshing: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// The catalogue, now and whenever it changes.
    pub fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.shared.catalog.subscribe()
    }

    /// Calls the publisher with the present catalogue, and with each new one: whoever has deployed something can read it as
    /// soon as it is told so. The first publisher counts.
    pub async fn publish(&self, publisher: impl Fn(&Catalog) + Send + Sync + 'static) {
        let _none_in_between = self.shared.refreshing.lock().await;
        let present = self.shared.catalog.borrow().clone();
        publisher(&present);
        let _ = self.shared.publisher.set(Box::new(publisher));
    }

    /// Changes whenever some node may have changed something in the database that others have to look at.
    pub fn hints(&self) -> watch::Receiver<u64> {
        self.shared.hints.subscribe()
    }

    fn hint(&self) {
        self.shared.hints.send_modify(|hints| *hints += 1);
    }

    /// Checks, compiles and describes a plugin on a thread of its own, or finds it in memory.
    pub async fn load(&self, wasm: Vec<u8>) -> Result<Plugin, LoadingError> {
        let hash = PluginHash::of(&wasm);
        if let Some(plugin) = self.shared.find(&hash) {
            return Ok(plugin);
        }
        let host = self.shared.host.clone();
        let compiling = self.shared.compiling.clone();
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
        let loaded = Loaded {
            plugin: plugin.clone(),
            used: Instant::now(),
        };
        lock(&self.shared.plugins).insert(hash, loaded);
        Ok(plugin)
    }

    /// The plugin of these bytes in the database, loaded.
    pub async fn load_stored(&self, hash: PluginHash) -> Result<Plugin, LoadStoredError> {
        if let Some(plugin) = self.shared.find(&hash) {
            return Ok(plugin);
        }
        let client = self.shared.pool.get().await?;
        let row = client
            .query_opt(
                "select bytes from gobo.plugins where hash = $1",
                &[&hash.0.as_slice()],
            )
            .await
            .map_err(PoolError::Backend)?;
        drop(client);
        let bytes: Option<Vec<u8>> = row.and_then(|row| row.get(0));
        let bytes = bytes.ok_or(LoadStoredError::Forgotten(hash))?;
        if PluginHash::of(&bytes) != hash {
            return Err(LoadStoredError::Damaged(hash));
        }
        Ok(self.load(bytes).await?)
    }

    /// Looks at the database and publishes what is there. A plugin that is not in memory is loaded meanwhile, and published
    /// when it is: it holds nothing else up.
    pub async fn refresh(&self) -> Result<(), PoolError> {
        let shared = &self.shared;
        let _one_at_a_time = shared.refreshing.lock().await;
        let client = shared.pool.get().await?;
        let rows = client
            .query(include_str!("registry/generations.sql"), &[])
            .await?
            .iter()
            .filter_map(Facts::read)
            .collect::<Vec<_>>();
        drop(client);
        let old = shared.catalog.borrow().clone();
        let mut catalog = Catalog::default();
        for facts in &rows {
            match shared.find(&facts.hash) {
                Some(plugin) => catalog.add(&old, facts, plugin),
                None => match shared.failure(&facts.hash) {
                    Some(reason) => catalog.add_broken(&old, facts, reason),
                    None => {
                        catalog.keep(&old, facts);
                        self.load_meanwhile(facts);
                    }
                },
            }
        }
        let used: HashSet<PluginHash> = rows.iter().map(|row| row.hash).collect();
        lock(&shared.plugins)
            .retain(|hash, loaded| used.contains(hash) || loaded.used.elapsed() < UNUSED);
        lock(&shared.failures).retain(|hash, _| used.contains(hash));
        if !catalog.same(&old) {
            let catalog = Arc::new(catalog);
            if let Some(publish) = shared.publisher.get() {
                publish(&catalog);
            }
            shared.catalog.send_replace(catalog);
        }
        Ok(())
    }

    /// Refreshes after this node has decided something: it need not wait for its own notification.
    pub async fn look_again(&self) {
        if let Err(error) = self.refresh().await {
            let error = describe_pool(&error);
            tracing::warn!(error, "done; the registry will look again soon");
        }
    }

    /// The same as [`Registry::refresh`], but every plugin is loaded when it returns: for the start.
    pub async fn refresh_all(&self) -> Result<(), PoolError> {
        loop {
            self.refresh().await?;
            let loaded = self.shared.loaded.notified();
            if lock(&self.shared.loading).is_empty() {
                return self.refresh().await;
            }
            loaded.await;
        }
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
        self.hint();
        loop {
            // First, because whatever happened before the session listened gave no hint.
            if let Err(error) = self.refresh().await {
                let error = describe_pool(&error);
                tracing::warn!(error, "what is deployed cannot be read now");
                return;
            }
            tokio::select! {
                hint = hints.recv() => match hint {
                    None => return,
                    Some(_) => {
                        while hints.try_recv().is_ok() {}
                        self.hint();
                    }
                },
                () = self.shared.loaded.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Loads a plugin of the database's, or remembers why this engine cannot.
    fn load_meanwhile(&self, facts: &Facts) {
        let (hash, projection) = (facts.hash, facts.projection.clone());
        if !lock(&self.shared.loading).insert(hash) {
            return;
        }
        let registry = self.clone();
        tokio::spawn(async move {
            match registry.load_stored(hash).await {
                Ok(_) => {}
                // The next refresh tries again.
                Err(LoadStoredError::Pool(error)) => {
                    let error = describe_pool(&error);
                    tracing::warn!(projection, error, "the plugin cannot be read now");
                }
                Err(error) => {
                    let reason =
                        format!("this engine cannot load the deployed plugin {hash}: {error}");
                    tracing::error!(projection, reason);
                    lock(&registry.shared.failures).insert(hash, (Instant::now(), reason));
                }
            }
            lock(&registry.shared.loading).remove(&hash);
            registry.shared.loaded.notify_waiters();
            registry.shared.loaded.notify_one();
        });
    }
}

/// Why a plugin of the database's is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadStoredError {
    /// Its bytes were given up long after it was replaced.
    #[error("the bytes of plugin {0} are not kept any more; deploy its file again")]
    Forgotten(PluginHash),
    /// Somebody changed its bytes.
    #[error(
        "the bytes stored as plugin {0} are not those that were deployed; deploy the plugin again"
    )]
    Damaged(PluginHash),
    /// It is no usable plugin.
    #[error(transparent)]
    Loading(#[from] LoadingError),
    /// The database is not there.
    #[error("{}", describe_pool(.0))]
    Pool(#[from] PoolError),
}

impl Shared {
    fn find(&self, hash: &PluginHash) -> Option<Plugin> {
        let mut plugins = lock(&self.plugins);
        let loaded = plugins.get_mut(hash)?;
        loaded.used = Instant::now();
        Some(loaded.plugin.clone())
    }

    /// Why it could not be loaded lately.
    fn failure(&self, hash: &PluginHash) -> Option<String> {
        lock(&self.failures)
            .get(hash)
            .filter(|(at, _)| at.elapsed() < RETRY_LOADING)
            .map(|(_, reason)| reason.clone())
    }
}

impl Catalog {
    fn add(&mut self, old: &Catalog, facts: &Facts, plugin: Plugin) {
        let kept = (old.generations.get(&facts.generation)).filter(|old| old.facts == *facts);
        let deployed = kept.cloned().unwrap_or_else(|| {
            let facts = facts.clone();
            Arc::new(Deployed { facts, plugin })
        });
        if facts.state == State::Live {
            let models = deployed.plugin.descriptor.read_models.iter().enumerate();
            for (index, model) in models {
                let served = Served {
                    deployed: deployed.clone(),
                    index,
                };
                self.models.insert(model.name.clone(), Arc::new(served));
            }
        }
        self.generations.insert(facts.generation, deployed);
    }

    /// Leaves what is known of a generation as it was, while its plugin is being loaded: readers go on meanwhile. What is not
    /// live any more they find out from the database.
    fn keep(&mut self, old: &Catalog, facts: &Facts) {
        if let Some(deployed) = old.generations.get(&facts.generation) {
            self.generations.insert(facts.generation, deployed.clone());
        }
        if facts.state == State::Live {
            let served = old.models.iter();
            let own = served.filter(|(_, one)| one.deployed.facts.projection == facts.projection);
            self.models
                .extend(own.map(|(name, one)| (name.clone(), one.clone())));
        }
    }

    fn add_broken(&mut self, old: &Catalog, facts: &Facts, reason: String) {
        let facts = facts.clone();
        let generation = facts.generation;
        let broken = Broken { facts, reason };
        let kept = (old.broken.get(&generation)).filter(|old| ***old == broken);
        let broken = kept.cloned().unwrap_or_else(|| Arc::new(broken));
        self.broken.insert(generation, broken);
    }

    /// What did not change is shared between pictures, so that comparing pointers is enough.
    fn same(&self, other: &Catalog) -> bool {
        fn same<T>(one: &HashMap<i64, Arc<T>>, other: &HashMap<i64, Arc<T>>) -> bool {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(id, a)| other.get(id).is_some_and(|b| Arc::ptr_eq(a, b)))
        }
        same(&self.generations, &other.generations) && same(&self.broken, &other.broken)
    }
}

impl Facts {
    fn read(row: &tokio_postgres::Row) -> Option<Self> {
        let hash: &[u8] = row.get("plugin_hash");
        let settings: &str = row.get("settings");
        Some(Self {
            projection: row.get("projection"),
            generation: row.get("generation"),
            source: row.get("source"),
            hash: PluginHash(hash.try_into().ok()?),
            state: word(row.get("state"))?,
            purpose: word(row.get("purpose"))?,
            bulk: row.get("bulk"),
            paused: row.get("paused"),
            until: row.get("until"),
            // What a newer engine wrote there is not this one's to judge.
            settings: serde_json::from_str(settings).unwrap_or_default(),
        })
    }
}

/// A word of the database as the value that it stands for. Unknown ones are a newer engine's.
fn word<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    let text: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
        serde::de::IntoDeserializer::into_deserializer(text);
    T::deserialize(text).ok()
}

/// A poisoned lock guards a map that is whole all the same: each of its changes is one call.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
