//! Values that parse and still make no sense.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::read::ConfigError;
use super::{
    Api, Cache, Config, Database, EngineSettings, Generations, OWN_SOURCE, PluginLimits,
    ProjectionSettings,
};

const KIB: usize = 1 << 10;
const GIB: usize = 1 << 30;

// What a projection may decide for itself has the bounds of what holds for all.
const BATCH_EVENTS: RangeInclusive<usize> = 1..=1_000_000;
const BATCH_BYTES: RangeInclusive<usize> = KIB..=GIB / 4;
const ROW_CACHE_BYTES: RangeInclusive<usize> = 0..=64 * GIB;
const REBUILD_BYTES: RangeInclusive<usize> = 64 * KIB..=64 * GIB;

impl Config {
    /// Checks every value. [`Config::read`] has done so already.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.database.url.is_empty() {
            return refuse(
                "database.url",
                "there is no default: set it in the configuration file, or as GOBO_DATABASE_URL or DATABASE_URL, \
                 for example postgresql://user@localhost/database",
            );
        }
        self.log
            .parse::<tracing_subscriber::EnvFilter>()
            .map_err(|error| ConfigError::Value {
                key: "log".into(),
                message: format!("\"{}\" is no filter: {error}", self.log),
            })?;
        self.database.check()?;
        self.limits.check()?;
        self.engine.check()?;
        self.generations.check()?;
        for (name, settings) in &self.projections {
            settings.check(&format!("projections.{name}."))?;
        }
        self.api.check()?;
        self.cache.check()?;
        self.live.check()?;
        self.redis.check()?;
        self.check_feeds()?;
        self.check_names()?;
        self.check_access()
    }

    fn check_names(&self) -> Result<(), ConfigError> {
        if self.sources.contains_key(OWN_SOURCE) {
            return refuse(
                &format!("sources.{OWN_SOURCE}"),
                "this is the name of Gobo's own event store, which needs no configuration: choose another name"
                    .to_owned(),
            );
        }
        for (name, settings) in &self.projections {
            let Some(source) = &settings.source else {
                continue;
            };
            if source != OWN_SOURCE && !self.sources.contains_key(source) {
                return refuse(
                    &format!("projections.{name}.source"),
                    format!(
                        "there is no source \"{source}\": add a section [sources.{source}], or leave the key out to read \
                         Gobo's own event store"
                    ),
                );
            }
        }
        Ok(())
    }
}

impl Database {
    fn check(&self) -> Result<(), ConfigError> {
        let schema = &self.read_schema;
        let simple = schema.starts_with(|c: char| c.is_ascii_lowercase())
            && schema.len() <= 63
            && schema
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !simple {
            return refuse(
                "database.read_schema",
                format!(
                    "\"{schema}\" must be lower-case letters, digits and underscores, at most 63"
                ),
            );
        }
        if schema.starts_with("pg_")
            || schema.starts_with("gobo_")
            || ["gobo", "information_schema"].contains(&schema.as_str())
        {
            return refuse(
                "database.read_schema",
                format!("\"{schema}\" is PostgreSQL's or the engine's own: choose another one"),
            );
        }
        within("database.api_connections", self.api_connections, 1..=1_000)?;
        within(
            "database.control_connections",
            self.control_connections,
            3..=100,
        )
    }
}

impl PluginLimits {
    fn check(&self) -> Result<(), ConfigError> {
        within(
            "limits.memory_bytes",
            self.memory_bytes,
            1_024 * KIB..=4 * GIB,
        )?;
        within("limits.batch_time_ms", self.batch_time_ms, 10..=600_000)?;
        within("limits.output_bytes", self.output_bytes, 64 * KIB..=GIB / 4)?;
        within("limits.log_lines", self.log_lines, 0..=100_000)?;
        within("limits.message_bytes", self.message_bytes, 64..=1_024 * KIB)?;
        within("limits.keys_per_batch", self.keys_per_batch, 1..=10_000_000)?;
        within("limits.rounds", self.rounds, 1..=10_000)?;
        within("limits.module_bytes", self.module_bytes, KIB..=GIB)?;
        within(
            "limits.concurrent_instances",
            self.concurrent_instances,
            4..=10_000,
        )
    }
}

impl EngineSettings {
    fn check(&self) -> Result<(), ConfigError> {
        within("engine.batch_events", self.batch_events, BATCH_EVENTS)?;
        within("engine.batch_bytes", self.batch_bytes, BATCH_BYTES)?;
        within(
            "engine.row_cache_bytes",
            self.row_cache_bytes,
            ROW_CACHE_BYTES,
        )?;
        within("engine.commit_rows", self.commit_rows, 1..=10_000_000)?;
        within("engine.batches_ahead", self.batches_ahead, 1..=1_000)?;
        within("engine.commit_bytes", self.commit_bytes, KIB..=GIB / 4)?;
        within("engine.lease_seconds", self.lease_seconds, 2..=60)
    }
}

impl Generations {
    fn check(&self) -> Result<(), ConfigError> {
        within("generations.keep", self.keep, 0..=100)?;
        within("generations.replay_hours", self.replay_hours, 1..=100_000)?;
        within(
            "generations.rebuild_bytes",
            self.rebuild_bytes,
            REBUILD_BYTES,
        )
    }
}

impl Api {
    fn check(&self) -> Result<(), ConfigError> {
        within("api.max_body_bytes", self.max_body_bytes, KIB..=GIB)?;
        within("api.max_connections", self.max_connections, 1..=100_000)?;
        within("api.max_requests", self.max_requests, 1..=100_000)?;
        within("api.max_rows", self.max_rows, 1..=1_000_000)?;
        within(
            "api.statement_timeout_ms",
            self.statement_timeout_ms,
            1..=3_600_000,
        )?;
        within("api.max_wait_ms", self.max_wait_ms, 0..=3_600_000)?;
        within(
            "api.request_timeout_ms",
            self.request_timeout_ms,
            100..=3_600_000,
        )?;
        if self.max_wait_ms >= self.request_timeout_ms {
            return refuse(
                "api.max_wait_ms",
                "must be less than api.request_timeout_ms, or requests that wait are cut off",
            );
        }
        Ok(())
    }
}

impl Cache {
    fn check(&self) -> Result<(), ConfigError> {
        within("cache.bytes", self.bytes, 0..=1 << 40)?;
        within("cache.keep_seconds", self.keep_seconds, 1..=86_400)?;
        within("cache.max_age_ms", self.max_age_ms, 0..=10_000)
    }
}

pub(super) fn within<N: PartialOrd + Display>(
    key: &str,
    value: N,
    range: RangeInclusive<N>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    refuse(
        key,
        format!(
            "{value} is not between {} and {}",
            range.start(),
            range.end()
        ),
    )
}

pub(super) fn refuse<T>(key: &str, message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Value {
        key: key.to_owned(),
        message: message.into(),
    })
}

impl ProjectionSettings {
    /// Checks every value; `prefix` stands before the keys in errors.
    pub fn check(&self, prefix: &str) -> Result<(), ConfigError> {
        let sizes = [
            ("batch_events", self.batch_events, BATCH_EVENTS),
            ("batch_bytes", self.batch_bytes, BATCH_BYTES),
            ("row_cache_bytes", self.row_cache_bytes, ROW_CACHE_BYTES),
            ("rebuild_bytes", self.rebuild_bytes, REBUILD_BYTES),
        ];
        for (key, value, range) in sizes {
            if let Some(value) = value {
                within(&format!("{prefix}{key}"), value, range)?;
            }
        }
        match self.linger_ms {
            Some(linger) => within(&format!("{prefix}linger_ms"), linger, 0..=3_600_000),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_refused_by_key() {
        let check = |text: &str, key: &str| {
            let mut config: Config = toml::from_str(text).unwrap();
            config.database.url = "postgresql:///db".into();
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(key), "{error}");
        };
        check(
            "listen = '0.0.0.0:7171'",
            "listen: 0.0.0.0:7171 can be reached",
        );
        check("log = '=='", "log");
        check(
            "[database]\nread_schema = 'pg_read'",
            "database.read_schema",
        );
        check("[database]\nread_schema = 'a\"b'", "database.read_schema");
        check(
            "[engine]\nbatch_events = 0",
            "engine.batch_events: 0 is not between 1 and",
        );
        check("[api]\nmax_wait_ms = 60000", "api.max_wait_ms");
        check("[redis]\ntimeout_ms = 0", "redis.timeout_ms");
        check("[redis]\nurl = 'http://host'", "redis.url: http://host");
        check("[redis]\nprefix = 'a b'", "redis.prefix");
        check(
            "[read_models.orders]\nfeed = 'redis'",
            "read_models.orders.feed: there is no Redis",
        );
        check(
            "[projections.orders]\nsource = 'shop'",
            "projections.orders.source",
        );
    }

    #[test]
    fn a_database_is_required() {
        let error = Config::default().check().unwrap_err().to_string();
        assert!(error.contains("DATABASE_URL"), "{error}");
    }
}
