//! The same events give the same rows, however they are cut into batches and transactions, and wherever a run is
//! interrupted.

use gobo_tests::{Database, Random};
use serde_json::{Value, json};

use crate::orders::{copy_of_events, feed};
use crate::scene::{Event, Scene, append, raw, rows};

const GUESTS: [(&str, &str); 3] = [
    ("orders", "orders"),
    ("trading-stats", "trading-stats"),
    ("raw-guest", "raw"),
];

const READ_MODELS: [&str; 5] = [
    "orders",
    "user_symbol_stats",
    "symbol_bars",
    "raw",
    "raw_pairs",
];

/// Rows that many streams share, written, added to and deleted in turn.
fn shared_rows(count: u64) -> Vec<Event> {
    let mut random = Random::new(0x1234_5678_9abc_def1);
    let mut next = move |bound| random.below(bound);
    (0..count)
        .map(|number| {
            let id = format!("r{}", next(12));
            let data = match next(8) {
                0 => json!({"do": "put", "id": id, "n": number}),
                1 => json!({"do": "put", "id": id, "nulls": true}),
                2 => json!({"do": "delete", "id": id}),
                3 | 4 => json!({"do": "add", "id": id, "n": number}),
                5 => json!({"do": "unpair", "a": id, "b": next(3)}),
                _ => json!({"do": "pair", "a": id, "b": next(3), "n": number}),
            };
            raw(format!("stream {}", next(20)), data)
        })
        .collect()
}

/// A database with a market and shared rows, and no projection.
async fn events() -> Database {
    let database = Database::create().await;
    let mut client = database.connect().await;
    gobo::migrate::migrate(&mut client).await.unwrap();
    feed(&database, 0, 500).await;
    append(&database, &shared_rows(300)).await;
    feed(&database, 500, 100).await;
    database
}

async fn all_rows(database: &Database) -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    for read_model in READ_MODELS {
        let rows = rows(database, read_model).await;
        assert!(
            rows.as_array().is_some_and(|rows| rows.len() > 3),
            "{read_model}: {rows}"
        );
        all.push((read_model, rows));
    }
    all
}

/// The rows of a run from the first event to the last with this configuration.
async fn run(events: &Database, tables: &str) -> Vec<(&'static str, Value)> {
    let scene = Scene::over(
        copy_of_events(events).await,
        tables,
        &GUESTS.map(|(guest, _)| guest),
    );
    let head = scene
        .database
        .query_i64("select max(position) from gobo.events")
        .await;
    for (_, projection) in GUESTS {
        scene.wait_for(projection, head);
    }
    all_rows(&scene.database).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_events_give_the_same_rows_whatever_the_sizes_of_batches_cache_and_transactions() {
    let events = events().await;
    let expected = run(&events, "").await;
    for tables in [
        "[engine]\nbatch_events = 1",
        "[engine]\nbatch_events = 7\nbatches_ahead = 1",
        "[engine]\nbatch_events = 2000",
        "[engine]\nbatch_events = 50\nrow_cache_bytes = 4096",
        "[engine]\nbatch_events = 3\ncommit_rows = 1",
        "[engine]\nbatch_bytes = 1024\nsynchronous_commit = true",
    ] {
        let found = run(&events, tables).await;
        for ((read_model, found), (_, expected)) in found.iter().zip(&expected) {
            assert_eq!(found, expected, "{read_model} with {tables}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_events_give_the_same_rows_wherever_the_engine_is_restarted() {
    let events = events().await;
    let expected = run(&events, "").await;
    let copy = copy_of_events(&events).await;
    let tables = "[engine]\nbatch_events = 10\ncommit_rows = 1\nlease_seconds = 2";
    let mut scene = Scene::over(copy, tables, &GUESTS.map(|(guest, _)| guest));
    let head = scene
        .database
        .query_i64("select max(position) from gobo.events")
        .await;
    for part in 1..=4 {
        for (_, projection) in GUESTS {
            scene.wait_for(projection, head * part / 5);
        }
        // In good order and not.
        if part % 2 == 0 {
            scene.gobo.kill();
        }
        scene.gobo.start_again();
    }
    for (_, projection) in GUESTS {
        scene.wait_for(projection, head);
    }
    let found = all_rows(&scene.database).await;
    for ((read_model, found), (_, expected)) in found.iter().zip(&expected) {
        assert_eq!(found, expected, "{read_model}");
    }
}
