//! A fresh database for each test, on one server for all of them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use gobo_cluster::{Cluster, Options};
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

/// The server that all tests of this process share. It ends with the process and takes its data along.
pub fn shared_cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        gobo_cluster::install_postgresql().expect("PostgreSQL for the tests");
        Cluster::start(Options::ephemeral()).expect("a PostgreSQL server for the tests")
    })
}

/// An empty database that belongs to one test. It stays until its server ends.
#[derive(Debug)]
pub struct Database {
    url: String,
}

impl Database {
    /// A fresh, empty database on the shared server.
    pub async fn create() -> Database {
        Database::create_in(shared_cluster()).await
    }

    /// A fresh, empty database on `cluster`, for a test that stops or kills its server.
    pub async fn create_in(cluster: &Cluster) -> Database {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let admin = connect(&cluster.url("postgres")).await;
        // template0 has no sessions, so that many tests may create databases at the same time.
        let create = format!("CREATE DATABASE {name} TEMPLATE template0");
        admin
            .batch_execute(&create)
            .await
            .expect("create a database");
        Database {
            url: cluster.url(&name),
        }
    }

    /// A database that exists already.
    pub fn at(url: &str) -> Database {
        Database {
            url: url.to_owned(),
        }
    }

    /// Its address for the engine's configuration.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A session of its own.
    pub async fn connect(&self) -> Client {
        connect(&self.url).await
    }

    /// Runs statements in a session of their own.
    pub async fn execute(&self, sql: &str) {
        self.connect()
            .await
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The rows of a query as a JSON array of objects. Cast a numeric to text to compare all its digits.
    pub async fn query_json(&self, sql: &str) -> Value {
        let wrapped = format!("SELECT coalesce(json_agg(found), '[]')::text FROM ({sql}) AS found");
        let row = self.connect().await.query_one(&wrapped, &[]).await;
        let text: String = row
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
            .get(0);
        serde_json::from_str(&text).expect("PostgreSQL writes valid JSON")
    }

    /// The first column of a query's only row, as a number.
    pub async fn query_i64(&self, sql: &str) -> i64 {
        let wrapped = format!("SELECT ({sql})::int8");
        let row = self.connect().await.query_one(&wrapped, &[]).await;
        row.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
            .get(0)
    }
}

/// A session at `url`, which ends when the client is dropped.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .unwrap_or_else(|error| panic!("connect to {url}: {error:?}"));
    // A lost connection shows in the client's own errors.
    tokio::spawn(async move { drop(connection.await) });
    client
}
