//! The task that keeps the connection.

use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use super::{Link, Redis};
use crate::shutdown::Shutdown;

/// How long connecting may take.
const CONNECTING: Duration = Duration::from_secs(1);
/// How often an unused connection is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The pauses between attempts.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Redis {
    /// Keeps the connection until shutdown: makes it, looks at it, and makes a new one when it is of no use any more.
    pub async fn run(self, mut shutdown: Shutdown) {
        tokio::select! {
            () = shutdown.requested() => {}
            () = self.keep() => {}
        }
        let ended = Link::Down("the engine ends".to_owned());
        self.shared.link.send_replace(ended);
    }

    async fn keep(&self) {
        let name = self.shared.name.as_str();
        let (mut pause, mut told) = (SHORTEST_PAUSE, false);
        loop {
            match self.connect().await {
                Ok(link) => {
                    if told {
                        tracing::info!(redis = name, "Redis answers again");
                    }
                    self.use_until_broken(link).await;
                    let observed = self.observed().trouble.unwrap_or_default();
                    tracing::warn!(redis = name, why = observed, "Redis is not used for now");
                    (pause, told) = (SHORTEST_PAUSE, true);
                }
                Err(why) => {
                    if !told {
                        tracing::warn!(redis = name, why, "Redis is not used for now");
                    }
                    self.shared.link.send_replace(Link::Down(why));
                    (pause, told) = ((pause * 2).min(LONGEST_PAUSE), true);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// A connection that has answered a probe in time.
    async fn connect(&self) -> Result<MultiplexedConnection, String> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECTING))
            // Every command is bounded where it is sent.
            .set_response_timeout(None);
        let connecting = self
            .shared
            .client
            .get_multiplexed_async_connection_with_config(&config);
        // Signing in is bounded here: a server that is frozen accepts connections and says nothing.
        let mut link = match tokio::time::timeout(CONNECTING, connecting).await {
            Ok(made) => made.map_err(|error| format!("it cannot be reached: {error}"))?,
            Err(_) => return Err(format!("no answer within {} ms", CONNECTING.as_millis())),
        };
        let probe = redis::cmd("PING");
        let limit = self.shared.limit;
        match tokio::time::timeout(limit, probe.query_async::<()>(&mut link)).await {
            Ok(Ok(())) => Ok(link),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
        }
    }

    /// Lets everybody use the connection until somebody finds it broken.
    async fn use_until_broken(&self, link: MultiplexedConnection) {
        let shared = &self.shared;
        shared
            .failures
            .store(0, std::sync::atomic::Ordering::Relaxed);
        shared.link.send_replace(Link::Up(link));
        while matches!(*shared.link.borrow(), Link::Up(_)) {
            tokio::select! {
                () = shared.broken.notified() => {}
                // A failure is noted like that of any command.
                () = tokio::time::sleep(LOOK_EVERY) => drop(self.ask::<()>(&redis::cmd("PING")).await),
            }
        }
    }
}
