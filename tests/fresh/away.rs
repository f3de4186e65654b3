//! Readers who go away in the middle of their query: it ends, and nobody else notices.

use std::io::Write as _;
use std::net::TcpStream;

use gobo_tests::{connect, wait_for};
use serde_json::json;
use tokio_postgres::Client;

use crate::scene::Scene;

/// More than a test waits: nothing here may end because time is up.
const SETTINGS: &str = "api_connections = 2\n\n[api]\nstatement_timeout_ms = 300_000\n";

/// Sessions of readers that wait for a lock.
async fn blocked(sql: &Client) -> i64 {
    let count = "select count(*) from pg_stat_activity where datname = current_database() \
        and application_name = 'gobo reader' and state = 'active' and wait_event_type = 'Lock'";
    sql.query_one(count, &[]).await.unwrap().get(0)
}

async fn wait_for_blocked(sql: &Client, expected: i64) {
    wait_for(
        &format!("{expected} blocked readers"),
        async || match blocked(sql).await {
            count if count == expected => Ok(()),
            count => Err(count),
        },
    )
    .await;
}

#[tokio::test]
async fn a_query_ends_when_its_reader_goes_away_and_the_next_readers_are_answered() {
    let scene = Scene::new(SETTINGS, &["ledger"]).await;
    let event = ("a".to_owned(), "Booked", json!({ "amount": 1 }));
    let last = *scene.append(&[event]).await.last().unwrap();
    scene.wait_for("ledger", last);
    let generation = scene.status("ledger")["generation"].clone();
    // Within a transaction, what sessions do is as it was at the first look.
    let (sql, eye) = (
        connect(scene.database.url()).await,
        connect(scene.database.url()).await,
    );
    // Neither memory nor a look at the checkpoint knows these rows.
    let paths: Vec<String> = (1..=6)
        .map(|n| format!("/read/accounts?balance=lt.{}", n % 2 + 1_000))
        .collect();
    let lock = format!("begin; lock table gobo_g{generation}.accounts in access exclusive mode");
    sql.batch_execute(&lock).await.unwrap();
    let address = scene.gobo.url().strip_prefix("http://").unwrap().to_owned();
    // One after the other: more than there are sessions, the same text often enough to be prepared.
    for path in &paths {
        let mut reader = TcpStream::connect(&address).unwrap();
        write!(reader, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
        wait_for_blocked(&eye, 1).await;
        drop(reader);
        wait_for_blocked(&eye, 0).await;
    }
    sql.batch_execute("rollback").await.unwrap();
    // The same for what is asked before the rows.
    let lock = "begin; lock table gobo.generations in access exclusive mode";
    sql.batch_execute(lock).await.unwrap();
    let mut reader = TcpStream::connect(&address).unwrap();
    let path = "/read/accounts?as_of=1";
    write!(reader, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    wait_for_blocked(&eye, 1).await;
    drop(reader);
    wait_for_blocked(&eye, 0).await;
    sql.batch_execute("rollback").await.unwrap();
    for path in paths.iter().cycle().take(30) {
        let rows = scene.gobo.get(path).expect(200).json();
        assert_eq!(rows.as_array().unwrap().len(), 1);
    }
}
