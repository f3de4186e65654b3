//! What commits tell: every row as it was and as it is, in a chain of revisions.

use std::collections::BTreeMap;

use gobo::feed;
use gobo_tests::{Database, Random};
use serde_json::json;
use serde_json::value::RawValue;

use crate::scene::{Event, Scene, raw};

/// What is told of one row.
#[derive(serde::Deserialize)]
struct Change {
    k: Box<RawValue>,
    b: Option<Box<RawValue>>,
    a: Option<Box<RawValue>>,
}

/// Everything that is told of a read model after a revision.
async fn told(database: &Database, model: &str, after: i64) -> feed::Page {
    let client = database.connect().await;
    let page = feed::read(&client, model, after, 100_000).await.unwrap();
    page.expect("a read model")
}

/// The rows, as text, as PostgreSQL has them.
async fn rows(database: &Database, model: &str) -> Vec<String> {
    let sql = format!("select row_to_json(r)::text from read.{model} r");
    let found = database.connect().await.query(&sql, &[]).await.unwrap();
    let mut rows: Vec<String> = found.iter().map(|row| row.get(0)).collect();
    rows.sort();
    rows
}

/// Applies what is told to nothing, checking that each row was what it is said to have been.
fn replayed(page: &feed::Page) -> Vec<String> {
    let mut rows: BTreeMap<String, String> = BTreeMap::new();
    let mut revision = page.commits.first().map_or(0, |commit| commit.previous);
    for commit in &page.commits {
        assert_eq!(commit.previous, revision);
        revision = commit.revision;
        let changes: Vec<Change> = serde_json::from_str(commit.changes.as_ref().unwrap()).unwrap();
        for change in changes {
            let key = change.k.get().to_owned();
            let before = change.b.map(|row| row.get().to_owned());
            assert_eq!(rows.get(&key), before.as_ref(), "{key} before {revision}");
            match change.a {
                Some(row) => rows.insert(key, row.get().to_owned()),
                None => rows.remove(&key),
            };
        }
    }
    assert_eq!(revision, page.revision);
    let mut rows: Vec<String> = rows.into_values().collect();
    rows.sort();
    rows
}

pub(super) fn some_changes(random: &mut Random, count: usize) -> Vec<Event> {
    (0..count)
        .map(|number| {
            let id = format!("r\"{}", random.below(5));
            let stream = format!("s{}", random.below(2));
            let data = match random.below(7) {
                0 => json!({"do": "put", "id": id}),
                1 => json!({"do": "put", "id": id, "n": number, "text": "a\\b\n\u{1F600}", "nulls": number % 2 == 0}),
                2 => json!({"do": "delete", "id": id}),
                3 => json!({"do": "pair", "a": id, "b": number % 3, "n": number}),
                4 => json!({"do": "unpair", "a": id, "b": number % 3}),
                5 => json!({"do": "own", "id": id, "n": number}),
                _ => json!({"do": "disown", "id": id}),
            };
            raw(stream, data)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_gives_the_rows_of_the_read_model_byte_for_byte() {
    let tables = "[engine]\nbatch_events = 7\n[projections.raw]\npolicy = \"skip\"\n";
    let scene = Scene::new(tables, &["raw-guest"]).await;
    let first = scene.append(&[raw("s", json!({"do": "nothing"}))]).await;
    scene.wait_for("raw", first[0]);
    let mut random = Random::new(11);
    for count in [1, 40, 3, 120] {
        let positions = scene.append(&some_changes(&mut random, count)).await;
        scene.wait_for("raw", *positions.last().unwrap());
        for model in ["raw", "raw_pairs", "raw_owned"] {
            let page = told(&scene.database, model, 0).await;
            assert_eq!(
                replayed(&page),
                rows(&scene.database, model).await,
                "{model}"
            );
        }
    }
    let page = told(&scene.database, "raw", 0).await;
    assert!(page.commits.len() > 10);
}
