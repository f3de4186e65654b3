//! A stream keeps so many entries and no more, and whoever is further behind notices.

use gobo_tests::Redis;
use serde_json::json;

use super::consumer::{Consumer, rows_of};
use super::{current_stream, entries, tables, told, wait_for_all};
use crate::scene::{Event, Scene, raw};

/// The fewest that can be asked for.
const KEPT: usize = 1_000;

/// Redis forgets entries by nodes of at most a hundred.
const NODE: usize = 100;

/// A change of each of fifty rows. It has been made when this ends: changes of one row that are made at once are one.
async fn round(scene: &Scene, n: usize) {
    let put = |id| json!({ "do": "put", "id": format!("r{id}"), "n": n });
    let changes: Vec<Event> = (0..50).map(|id| raw("s", put(id))).collect();
    let last = *scene.append(&changes).await.last().unwrap();
    scene.wait_for("raw", last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_trimmed_and_a_consumer_that_was_left_behind_notices_it_and_reads_the_rows() {
    let redis = Redis::create();
    let asked = format!("[redis]\nfeed_entries = {KEPT}\n");
    let tables = tables(&redis).replace("[redis]\n", &asked);
    let tables = tables.replace("batch_events = 4", "batch_events = 50");
    let scene = Scene::new(&tables, &["raw-guest"]).await;
    let stream = current_stream(&redis);
    let begun = entries(&redis, &stream)[0].revision();
    for n in 0..10 {
        round(&scene, n).await;
    }
    wait_for_all(&scene, &redis).await;
    let mut behind = Consumer::new(&redis, &stream);
    behind.follow(&scene);
    assert_eq!((behind.refetched, behind.missed), (1, 0));
    for n in 10..40 {
        round(&scene, n).await;
        // Whoever keeps up misses nothing.
        if n < 15 {
            wait_for_all(&scene, &redis).await;
            behind.follow(&scene);
        }
    }
    assert_eq!(behind.missed, 0);
    let found = wait_for_all(&scene, &redis).await;
    let all = told(&scene.database, begun).await;
    assert_eq!(all.len(), 40 * 50);
    assert!(
        (KEPT..KEPT + NODE).contains(&found.len()),
        "{}",
        found.len()
    );
    // The latest ones.
    assert_eq!(found, all[all.len() - found.len()..]);
    let last = behind.told.last().unwrap().revision();
    assert!(found[0].previous > Some(last), "{last} {:?}", found[0]);
    behind.follow(&scene);
    assert_eq!((behind.refetched, behind.missed), (1, 1));
    assert_eq!(behind.rows, rows_of(&scene));
}
