//! `[redis]`, and what of a read model goes there.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Config;
use super::read::ConfigError;
use super::validate::{refuse, within};
use crate::redis::{Redis, Settings};

/// `[redis]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSettings {
    /// `redis://host`, `rediss://host`, `redis+unix:///path`. Without it there is no Redis.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// How long one command may take.
    pub timeout_ms: u64,
    /// What every key begins with.
    pub prefix: String,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            timeout_ms: 50,
            prefix: "gobo:".into(),
        }
    }
}

impl RedisSettings {
    /// Where Redis is, if it is configured.
    pub fn settings(&self) -> Option<Settings> {
        (!self.url.is_empty()).then(|| Settings {
            url: self.url.clone(),
            timeout: Duration::from_millis(self.timeout_ms),
            prefix: self.prefix.clone(),
        })
    }
}

impl Config {
    pub(super) fn check_redis(&self) -> Result<(), ConfigError> {
        let redis = &self.redis;
        within("redis.timeout_ms", redis.timeout_ms, 1..=10_000)?;
        let simple = |c: char| c.is_ascii_graphic() && !"{}*?[]\\".contains(c);
        if redis.prefix.len() > 100 || !redis.prefix.chars().all(simple) {
            return refuse(
                "redis.prefix",
                "at most 100 letters, digits and signs, without spaces and none of {}*?[]\\",
            );
        }
        if let Some(settings) = redis.settings()
            && let Err(error) = Redis::new(&settings)
        {
            return refuse("redis.url", error.to_string());
        }
        Ok(())
    }
}
