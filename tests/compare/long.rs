//! Comparisons that take long: their answer goes on, nothing waits for them, and they end when nobody wants them any more.

use std::io::{Read, Write};
use std::net::TcpStream;

use gobo::generations::diff::Diff;
use gobo_tests::{PATIENCE, connect, wait_for};
use tokio_postgres::Client;

use super::{diff, with_candidate_and};
use crate::generations::bookings;
use crate::scene::Scene;

const IMPATIENT: &str = "[api]\nrequest_timeout_ms = 10000\nmax_wait_ms = 9000";

/// Keeps the rows of a generation from being read until the session ends.
async fn lock(scene: &Scene, generation: i64) -> Client {
    let client = connect(scene.database.url()).await;
    let sql = format!("begin; lock gobo_g{generation}.accounts in access exclusive mode");
    client.batch_execute(&sql).await.unwrap();
    client
}

/// Asks for a comparison and does not wait for its answer.
fn begin(scene: &Scene) -> TcpStream {
    let address = scene.gobo.url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET /admin/projections/ledger/diff HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Waits until so many comparisons wait for a lock.
async fn wait_for_comparisons(scene: &Scene, count: i64) {
    let sql = "select count(*) from pg_stat_activity where datname = current_database() \
               and application_name = 'gobo comparison' and wait_event_type = 'Lock'";
    wait_for(&format!("{count} comparisons"), async || {
        match scene.database.query_i64(sql).await {
            found if found == count => Ok(()),
            found => Err(found),
        }
    })
    .await;
}

fn read_until(stream: &mut TcpStream, read: &mut String, end: &str) {
    let mut part = [0; 4096];
    while !read.contains(end) {
        let count = stream.read(&mut part).unwrap();
        assert_ne!(count, 0, "{read:?}");
        read.push_str(std::str::from_utf8(&part[..count]).unwrap());
    }
}

#[tokio::test]
async fn a_long_comparison_outlasts_the_request_timeout_and_holds_nothing_up() {
    let (scene, candidate) = with_candidate_and(IMPATIENT).await;
    let locked = lock(&scene, candidate).await;
    let (mut one, other) = (begin(&scene), begin(&scene));
    // Two on the same generations, one after the other past the barrier, then both at leisure.
    wait_for_comparisons(&scene, 2).await;
    let refused = diff(&scene.gobo, "").expect(409).json();
    let why = refused["detail"].as_str().unwrap();
    assert!(why.contains("2 comparisons are under way already"), "{why}");
    let last = *scene.append(&bookings(1, 1)).await.last().unwrap();
    let path = format!("/read/accounts?min_position={last}&wait=9s");
    scene.gobo.get(&path).expect(200);
    // White space six times: twelve seconds, beyond the time-out of ten.
    let mut read = String::new();
    read_until(&mut one, &mut read, &"1\r\n\n\r\n".repeat(6));
    let head = read.to_lowercase();
    assert!(
        head.starts_with("http/1.1 200 ") && head.contains("content-type: application/json"),
        "{head}"
    );
    locked.batch_execute("commit").await.unwrap();
    for mut stream in [one, other] {
        read_until(&mut stream, &mut read, "\r\n0\r\n\r\n");
        let document = &read[read.find('{').unwrap()..=read.rfind('}').unwrap()];
        let found: Diff = serde_json::from_str(document).unwrap();
        assert!(found.is_empty() && found.b == candidate);
        read.clear();
    }
}

#[tokio::test]
async fn a_comparison_is_cancelled_when_its_client_goes_away() {
    let (scene, candidate) = with_candidate_and("").await;
    let _locked = lock(&scene, candidate).await;
    let client = begin(&scene);
    wait_for_comparisons(&scene, 1).await;
    drop(client);
    wait_for_comparisons(&scene, 0).await;
    // Its place is free again.
    let _clients = (begin(&scene), begin(&scene));
    wait_for_comparisons(&scene, 2).await;
}

#[tokio::test]
async fn a_comparison_that_fails_on_its_way_says_so_in_its_document() {
    let (scene, candidate) = with_candidate_and("").await;
    let locked = lock(&scene, candidate).await;
    let mut client = begin(&scene);
    wait_for_comparisons(&scene, 1).await;
    let drop = format!("drop table gobo_g{candidate}.accounts; commit");
    locked.batch_execute(&drop).await.unwrap();
    let mut read = String::new();
    read_until(&mut client, &mut read, "\r\n0\r\n\r\n");
    assert!(read.starts_with("HTTP/1.1 200 "), "{read}");
    let document = &read[read.find('{').unwrap()..=read.rfind('}').unwrap()];
    let error: serde_json::Value = serde_json::from_str(document).unwrap();
    let detail = error["error"]["detail"].as_str().unwrap();
    assert!(detail.contains("was dropped while generations"), "{error}");
}
