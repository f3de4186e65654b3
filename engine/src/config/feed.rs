//! `read_models.NAME.feed`

use serde::{Deserialize, Serialize};

use super::Config;
use super::read::ConfigError;
use super::validate::refuse;

/// Where changes are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FeedTo {
    /// A Redis Stream.
    Redis,
}

impl Config {
    /// The read models whose changes go to Redis Streams.
    pub fn published_read_models(&self) -> Vec<String> {
        let published = (self.read_models.iter())
            .filter(|(_, settings)| settings.feed == Some(FeedTo::Redis))
            .map(|(name, _)| name.clone());
        published.collect()
    }

    pub(super) fn check_feeds(&self) -> Result<(), ConfigError> {
        match self.published_read_models().first() {
            Some(name) if self.redis.url.is_empty() => refuse(
                &format!("read_models.{name}.feed"),
                "there is no Redis to publish to: set redis.url, or leave the key out",
            ),
            _ => Ok(()),
        }
    }
}
