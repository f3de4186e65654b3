//! `[redis]`, and what of a read model goes there.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::read::ConfigError;
use super::validate::{refuse, within};
use crate::feed::publish::Streams;
use crate::redis::{Redis, Settings};

/// How long publishing a commit may take.
const FEED_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// Entries that the stream of a feed keeps, about.
    pub feed_entries: usize,
    /// For how many hours the stream of a generation is kept that is live no longer.
    pub feed_retired_hours: u32,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            timeout_ms: 50,
            prefix: "gobo:".into(),
            feed_entries: 100_000,
            feed_retired_hours: 24,
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

    /// The same for feeds, whose commands are large and in nobody's way.
    pub fn feed_settings(&self) -> Option<Settings> {
        let settings = self.settings()?;
        Some(Settings {
            timeout: settings.timeout.max(FEED_TIMEOUT),
            ..settings
        })
    }

    /// How streams are kept.
    pub fn streams(&self) -> Streams {
        Streams {
            entries: self.feed_entries,
            retired: Duration::from_secs(u64::from(self.feed_retired_hours) * 3_600),
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("redis.timeout_ms", self.timeout_ms, 1..=10_000)?;
        within(
            "redis.feed_entries",
            self.feed_entries,
            1_000..=1_000_000_000,
        )?;
        within(
            "redis.feed_retired_hours",
            self.feed_retired_hours,
            1..=100_000,
        )?;
        let simple = |c: char| c.is_ascii_graphic() && !"{}*?[]\\".contains(c);
        if self.prefix.len() > 100 || !self.prefix.chars().all(simple) {
            return refuse(
                "redis.prefix",
                "at most 100 letters, digits and signs, without spaces and none of {}*?[]\\",
            );
        }
        if let Some(settings) = self.settings()
            && let Err(error) = Redis::new(&settings)
        {
            return refuse("redis.url", error.to_string());
        }
        Ok(())
    }
}
