//! One configuration: read, defaults, unknown keys refused, environment on top, checked once.
//!
//! `gobo.example.toml` documents every key.

mod access;
mod example;
mod feed;
mod live;
mod read;
mod redis;
mod validate;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cache;
use crate::host::Limits;
use crate::projection::{Policy, Settings};
use crate::source::SourceConfig;
pub use access::{Access, Anonymous, Cors, Jwt, ReadModelSettings, Secret, is_role, usable_secret};
pub use feed::FeedTo;
pub use live::Live;
pub use read::ConfigError;
pub use redis::RedisSettings;

/// The name of Gobo's own event store among the sources. It is there without being configured.
pub const OWN_SOURCE: &str = "gobo";

/// Everything that can be configured.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// What is logged, as a filter: `info`, `gobo=debug,warn`.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// The database.
    pub database: Database,
    /// Where plugins come from.
    pub plugins: Plugins,
    /// What one plugin may use.
    pub limits: PluginLimits,
    /// How events are processed.
    pub engine: EngineSettings,
    /// Rebuilds, and what is kept of the past.
    pub generations: Generations,
    /// What HTTP clients may use.
    pub api: Api,
    /// What is kept in memory of what was read.
    pub cache: Cache,
    /// Who may do what.
    pub access: Access,
    /// A second cache, and a place for change feeds.
    pub redis: RedisSettings,
    /// The change feed, and those who follow it.
    pub live: Live,
    /// Event tables by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, SourceConfig>,
    /// Settings of single projections by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub projections: BTreeMap<String, ProjectionSettings>,
    /// Settings of single read models by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub read_models: BTreeMap<String, ReadModelSettings>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `[database]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `postgresql://user@host/database`. There is no default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// The schema of the public views.
    pub read_schema: String,
    /// Sessions for HTTP requests.
    pub api_connections: usize,
    /// Sessions for deploys, the registry and leases.
    pub control_connections: usize,
}

/// `[plugins]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plugins {
    /// The folder whose `.wasm` files are deployed as they change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch: Option<PathBuf>,
    /// The folder for compiled plugins; by default one in the user's cache folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_dir: Option<PathBuf>,
}

/// `[limits]`: see [`Limits`].
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields of `Limits`, in plain numbers")]
pub struct PluginLimits {
    pub memory_bytes: usize,
    pub batch_time_ms: u64,
    pub output_bytes: usize,
    pub log_lines: usize,
    pub message_bytes: usize,
    pub keys_per_batch: usize,
    pub rounds: usize,
    pub module_bytes: usize,
    pub concurrent_instances: u32,
}

/// `[engine]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineSettings {
    /// Events in one batch, at most.
    pub batch_events: usize,
    /// Bytes of events in one batch, at most.
    pub batch_bytes: usize,
    /// Bytes of rows that are kept in memory, for each projection.
    pub row_cache_bytes: usize,
    /// Batches that are read and decoded ahead.
    pub batches_ahead: usize,
    /// Changed rows in one transaction from which on no further batch joins it.
    pub commit_rows: usize,
    /// The same in bytes.
    pub commit_bytes: usize,
    /// Whether batches wait for the disk. Without it a crash costs some work, never consistency.
    pub synchronous_commit: bool,
    /// After how long without a sign of life another engine takes over a projection.
    pub lease_seconds: u64,
    /// The folder for events that cannot be processed; by default one in that of compiled plugins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures_dir: Option<PathBuf>,
}

/// `[generations]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Generations {
    /// How many generations that were live are kept for a rollback.
    pub keep: usize,
    /// Whether they go on following the events, so that a rollback is instant.
    pub follow_kept: bool,
    /// Bytes of changed rows that a rebuild keeps in memory before it writes them.
    pub rebuild_bytes: usize,
    /// After how long the rows of a replay are dropped, unless it says otherwise.
    pub replay_hours: u32,
}

/// `[api]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Bytes of a request's body (a deployed module has its own limit).
    pub max_body_bytes: usize,
    /// Connections at the same time; more wait.
    pub max_connections: usize,
    /// Requests at the same time; more are answered with 503.
    pub max_requests: usize,
    /// Rows or events in one answer.
    pub max_rows: usize,
    /// What the planner may expect a reader's query to cost; 0: anything.
    pub max_cost: u64,
    /// How long a query of a reader may run.
    pub statement_timeout_ms: u64,
    /// How long a request may wait for a position.
    pub max_wait_ms: u64,
    /// How long a request may take at all.
    pub request_timeout_ms: u64,
}

/// `[cache]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// Bytes of answers that are kept in memory; 0 keeps none.
    pub bytes: u64,
    /// After how long a kept answer goes, in memory and in Redis.
    pub keep_seconds: u64,
    /// For how long a look at a read model's freshness is good enough for readers who ask for nothing more.
    pub max_age_ms: u64,
}

/// `[projections.NAME]`; everything but the source can also be changed while the engine runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProjectionSettings {
    /// The source it reads; by default Gobo's own event store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What an event does that cannot be processed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// For how long events are collected before they are processed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linger_ms: Option<u64>,
    /// Events in one batch, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_events: Option<usize>,
    /// Bytes of events in one batch, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_bytes: Option<usize>,
    /// Bytes of rows that are kept in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row_cache_bytes: Option<usize>,
    /// Bytes of changed rows that a rebuild keeps in memory before it writes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebuild_bytes: Option<usize>,
    /// Whether batches wait for the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synchronous_commit: Option<bool>,
}

impl ProjectionSettings {
    /// Puts what is set here on top of `settings`.
    pub fn apply(&self, settings: &mut Settings) {
        fn set<T: Copy>(to: &mut T, from: Option<T>) {
            if let Some(value) = from {
                *to = value;
            }
        }
        set(&mut settings.policy, self.policy);
        set(
            &mut settings.linger,
            self.linger_ms.map(Duration::from_millis),
        );
        set(&mut settings.batch_events, self.batch_events);
        set(&mut settings.batch_bytes, self.batch_bytes);
        set(&mut settings.row_cache_bytes, self.row_cache_bytes);
        set(&mut settings.rebuild_bytes, self.rebuild_bytes);
        set(&mut settings.synchronous_commit, self.synchronous_commit);
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7171)),
            log: "info".into(),
            log_format: LogFormat::Text,
            database: Database::default(),
            plugins: Plugins::default(),
            limits: PluginLimits::default(),
            engine: EngineSettings::default(),
            generations: Generations::default(),
            api: Api::default(),
            cache: Cache::default(),
            access: Access::default(),
            redis: RedisSettings::default(),
            live: Live::default(),
            sources: BTreeMap::new(),
            projections: BTreeMap::new(),
            read_models: BTreeMap::new(),
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: String::new(),
            read_schema: "read".into(),
            api_connections: 16,
            control_connections: 6,
        }
    }
}

impl Default for PluginLimits {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            memory_bytes: limits.memory_bytes,
            batch_time_ms: limits.batch_time.as_millis() as u64,
            output_bytes: limits.output_bytes,
            log_lines: limits.log_lines,
            message_bytes: limits.message_bytes,
            keys_per_batch: limits.keys_per_batch,
            rounds: limits.rounds,
            module_bytes: limits.module_bytes,
            concurrent_instances: limits.concurrent_instances,
        }
    }
}

impl Default for Generations {
    fn default() -> Self {
        Self {
            keep: 1,
            follow_kept: true,
            rebuild_bytes: Settings::default().rebuild_bytes,
            replay_hours: 24,
        }
    }
}

impl Default for EngineSettings {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            batch_events: settings.batch_events,
            batch_bytes: settings.batch_bytes,
            batches_ahead: settings.batches_ahead,
            row_cache_bytes: settings.row_cache_bytes,
            commit_rows: settings.commit_rows,
            commit_bytes: settings.commit_bytes,
            synchronous_commit: settings.synchronous_commit,
            lease_seconds: 3,
            failures_dir: None,
        }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self {
            max_body_bytes: 8 << 20,
            max_connections: 4_096,
            max_requests: 512,
            max_rows: 1_000,
            max_cost: 0,
            statement_timeout_ms: 10_000,
            max_wait_ms: 30_000,
            request_timeout_ms: 60_000,
        }
    }
}

impl Cache {
    /// What is kept of what was read.
    pub fn settings(&self) -> cache::Settings {
        cache::Settings {
            bytes: self.bytes,
            keep: Duration::from_secs(self.keep_seconds),
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            keep_seconds: 300,
            max_age_ms: 20,
        }
    }
}

impl Config {
    /// The source that a projection reads.
    pub fn source_of(&self, projection: &str) -> &str {
        self.projections
            .get(projection)
            .and_then(|settings| settings.source.as_deref())
            .unwrap_or(OWN_SOURCE)
    }

    /// How the loop of a projection works: the engine's settings, the projection's own, and `decided` at run time.
    pub fn loop_settings(&self, projection: &str, decided: &ProjectionSettings) -> Settings {
        let engine = &self.engine;
        let mut settings = Settings {
            batch_events: engine.batch_events,
            batch_bytes: engine.batch_bytes,
            batches_ahead: engine.batches_ahead,
            row_cache_bytes: engine.row_cache_bytes,
            rebuild_bytes: self.generations.rebuild_bytes,
            commit_rows: engine.commit_rows,
            commit_bytes: engine.commit_bytes,
            synchronous_commit: engine.synchronous_commit,
            policy: Policy::default(),
            linger: Duration::ZERO,
            most_told: self.live.max_changes,
        };
        if let Some(own) = self.projections.get(projection) {
            own.apply(&mut settings);
        }
        decided.apply(&mut settings);
        settings
    }

    /// The sources by name, Gobo's own store included.
    pub fn all_sources(&self) -> BTreeMap<String, SourceConfig> {
        let mut sources = self.sources.clone();
        sources.entry(OWN_SOURCE.to_owned()).or_default();
        sources
    }

    /// What one plugin may use.
    pub fn plugin_limits(&self) -> Limits {
        let limits = &self.limits;
        Limits {
            memory_bytes: limits.memory_bytes,
            batch_time: Duration::from_millis(limits.batch_time_ms),
            output_bytes: limits.output_bytes,
            log_lines: limits.log_lines,
            message_bytes: limits.message_bytes,
            keys_per_batch: limits.keys_per_batch,
            rounds: limits.rounds,
            module_bytes: limits.module_bytes,
            concurrent_instances: limits.concurrent_instances,
        }
    }

    /// The folder for compiled plugins, if there is a place for it.
    pub fn cache_dir(&self) -> Option<PathBuf> {
        let by_default = || {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
            Some(cache.or_else(home)?.join("gobo"))
        };
        self.plugins.cache_dir.clone().or_else(by_default)
    }

    /// The folder for events that cannot be processed, if they are to be kept and there is a place for them.
    pub fn failures_dir(&self) -> Option<PathBuf> {
        let folder = match &self.engine.failures_dir {
            Some(folder) if folder.as_os_str().is_empty() => return None,
            Some(folder) => folder.clone(),
            None => self.cache_dir()?.join("failures"),
        };
        // Where it is has to be understood by whoever reads of it.
        Some(std::path::absolute(&folder).unwrap_or(folder))
    }

    /// What is in force, as TOML, without secrets.
    pub fn shown(&self) -> String {
        let mut shown = self.clone();
        shown.database.url = mask_password(&shown.database.url);
        shown.redis.url = crate::redis::masked(&shown.redis.url);
        toml::to_string_pretty(&shown).unwrap_or_else(|error| format!("# {error}\n"))
    }
}

/// Replaces the password of a database URL (or of a keyword string).
pub fn mask_password(url: &str) -> String {
    let mut masked = url.to_owned();
    if let Some((scheme, rest)) = url.split_once("://") {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        // The last "@": passwords that are not escaped may hold another one.
        if let Some(at) = rest[..end].rfind('@')
            && let Some(colon) = rest[..at].find(':')
        {
            masked = format!("{scheme}://{}:***{}", &rest[..colon], &rest[at..]);
        }
    }
    match masked.find("password=") {
        None => masked,
        Some(start) => {
            let value = start + "password=".len();
            let length = masked[value..]
                .find(['&', ' '])
                .unwrap_or(masked.len() - value);
            format!("{}***{}", &masked[..value], &masked[value + length..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            (
                "postgresql://me:secret@host/db",
                "postgresql://me:***@host/db",
            ),
            (
                "postgresql://me:se@cret@host/db",
                "postgresql://me:***@host/db",
            ),
            ("postgresql://me@host/db", "postgresql://me@host/db"),
            (
                "postgresql:///db?host=/run&password=secret",
                "postgresql:///db?host=/run&password=***",
            ),
            (
                "host=/run password=secret user=me",
                "host=/run password=*** user=me",
            ),
            (
                "postgresql:///db?host=/run:1",
                "postgresql:///db?host=/run:1",
            ),
        ] {
            assert_eq!(mask_password(url), shown);
        }
    }
}
