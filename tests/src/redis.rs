//! A private Redis: one for all tests that leave it running, and servers of their own for those that do not.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use gobo_cluster::RedisServer;
use gobo_cluster::redis::Persistence;
use redis::{Cmd, Connection, FromRedisValue};

/// A place in the shared server that belongs to one test: its keys begin with a prefix of their own.
#[derive(Debug)]
pub struct Redis {
    url: String,
    prefix: String,
}

/// The server that all tests of this process share. It ends with the process.
fn shared_server() -> &'static RedisServer {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    SERVER.get_or_init(|| own_redis(Persistence::Nothing))
}

/// A server of its own, for a test that kills, freezes or empties it.
pub fn own_redis(persistence: Persistence) -> RedisServer {
    gobo_cluster::install_redis().expect("Redis for the tests");
    RedisServer::start(persistence).expect("a Redis server for the tests")
}

impl Redis {
    /// A fresh prefix on the shared server.
    pub fn create() -> Redis {
        Redis::on(shared_server())
    }

    /// A fresh prefix on `server`.
    pub fn on(server: &RedisServer) -> Redis {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Redis {
            url: server.url(),
            prefix: format!("test{number}:"),
        }
    }

    /// Its address for the engine's configuration.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The section of the engine's configuration that uses it.
    pub fn section(&self) -> String {
        format!(
            "[redis]\nurl = {:?}\nprefix = {:?}\n",
            self.url, self.prefix
        )
    }

    /// A key of this test.
    pub fn key(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    /// A connection of its own.
    pub fn connect(&self) -> Connection {
        self.try_connect()
            .unwrap_or_else(|error| panic!("connect to {}: {error}", self.url))
    }

    /// A connection to a server that may be down.
    pub fn try_connect(&self) -> redis::RedisResult<Connection> {
        redis::Client::open(self.url.as_str())?.get_connection()
    }

    /// The answer to one command.
    #[track_caller]
    pub fn ask<T: FromRedisValue>(&self, command: &mut Cmd) -> T {
        command
            .query(&mut self.connect())
            .unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }
}
