//! What publishes read models to Redis Streams, if any are to be.

use tokio::task::JoinSet;

use super::{Parts, named};
use crate::feed::publish::{Published, Publisher};
use crate::redis::Redis;
use crate::shutdown::Shutdown;

/// Sessions with the database: one reads, one is spare for the moment in which it is renewed.
const CONNECTIONS: usize = 2;

impl Parts {
    /// Starts the publisher and its own connection: entries are large, and must not hold up what is to be fast.
    pub(super) fn start_publishing(
        &self,
        services: &mut JoinSet<&'static str>,
        shutdown: &Shutdown,
    ) -> Published {
        let read_models = self.config.published_read_models();
        let (Some(front), Some(settings)) = (&self.redis, self.config.redis.feed_settings()) else {
            return Published::default();
        };
        if read_models.is_empty() {
            return Published::default();
        }
        let redis = match Redis::new(&settings) {
            Ok(redis) => redis,
            // The same address was accepted for the first connection.
            Err(error) => {
                tracing::error!(%error, "nothing is published");
                return Published::default();
            }
        };
        services.spawn(named(
            "redis for feeds",
            redis.clone().run(shutdown.clone()),
        ));
        let pool = self.database.pool("feed", CONNECTIONS, &[]);
        let streams = self.config.redis.streams();
        let publisher = Publisher::new(redis, front.clone(), pool, read_models, streams);
        let published = publisher.published();
        let commits = self.progress.commits();
        services.spawn(named("feeds", publisher.run(commits, shutdown.clone())));
        published
    }
}
