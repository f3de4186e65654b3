//! The barrier: both generations at one position, and then everybody goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gobo_tests::{Gobo, connect};
use serde_json::json;

use super::{Load, Scene, alone, compared, diff, live, matched, with_candidate};
use crate::generations::bookings;

/// Two operators compare again and again. Gives the positions.
fn compare(scene: &Scene, candidate: i64) -> Vec<i64> {
    let live = live(scene);
    let compare = |_| {
        let found = compared(diff(&scene.gobo, "all=true"));
        assert_eq!((found.a, found.b), (live, candidate));
        assert!(found.is_empty(), "{found:#?}");
        assert!(matched(&found).a >= 20);
        found.position
    };
    (0..12).map(compare).collect()
}

/// Whoever appends and waits to read it finds it, while others compare. Gives how often.
async fn read(scene: &Scene, stop: &AtomicBool) -> usize {
    let probe = connect(scene.database.url()).await;
    let append = "select position from gobo.append('probe', '[{\"type\": \"Booked\", \"data\": {\"amount\": 1}}]')";
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        let position: i64 = probe.query_one(append, &[]).await.unwrap().get(0);
        let path = format!("/read/accounts/probe?min_position={position}&wait=30s");
        scene.gobo.get(&path).expect(200);
        reads += 1;
    }
    reads
}

#[tokio::test]
async fn both_sides_are_exactly_at_one_position_while_events_come_in() {
    let (scene, candidate) = with_candidate().await;
    let url = scene.database.url();
    let load = Load::start(
        url,
        20,
        Duration::from_millis(20),
        |n| json!({ "amount": 1 + n % 7 }),
    );
    let stop = AtomicBool::new(false);
    let (all, reads) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| alone(read(&scene, &stop)));
        let operators = [0, 1].map(|_| scope.spawn(|| compare(&scene, candidate)));
        let all = operators.map(|operator| operator.join());
        stop.store(true, Ordering::Relaxed);
        (all.map(Result::unwrap), reader.join().unwrap())
    });
    let appended = load.end();
    for positions in all {
        assert!(positions.is_sorted(), "{positions:?}");
        assert!(
            positions.first() < positions.last(),
            "events came in between: {positions:?}"
        );
    }
    assert!(appended > 100 && reads > 0, "{appended}, {reads}");
}

#[tokio::test]
async fn a_barrier_whose_engine_died_expires_and_everything_goes_on() {
    let (scene, _) = with_candidate().await;
    let live = live(&scene);
    let set = format!(
        "update gobo.generations set barrier = 0, barrier_expires = now() + interval '20 seconds' where id = {live}; \
         select pg_notify('gobo_control', '')"
    );
    scene.database.execute(&set).await;
    // The engine may not have heard yet: it has when something does not come through.
    let mut held = 0;
    let is_set = "select count(*) from gobo.generations where barrier_expires > now()";
    while held == 0 && scene.database.query_i64(is_set).await == 1 {
        held = *scene.append(&bookings(1, 1)).await.last().unwrap();
        let path = format!("/read/accounts?min_position={held}&wait=300ms");
        if scene.gobo.get(&path).status == 200 {
            held = 0;
        }
    }
    assert_ne!(held, 0, "nothing is held up");
    scene.wait_for("ledger", held);
    assert!(compared(diff(&scene.gobo, "all=true")).is_empty());
}

#[tokio::test]
async fn nothing_stays_held_after_a_comparison() {
    let (scene, candidate) = with_candidate().await;
    assert!(compared(diff(&scene.gobo, "")).is_empty());
    let left = "select count(*) from gobo.generations where barrier is not null or barrier_expires is not null";
    assert_eq!(scene.database.query_i64(left).await, 0);
    let last = *scene.append(&bookings(3, 3)).await.last().unwrap();
    scene.wait_for("ledger", last);
    super::wait_for_position(&scene.gobo, candidate, last);
}

#[tokio::test]
async fn generations_that_different_nodes_run_are_compared_too() {
    let (mut scene, candidate) = with_candidate().await;
    let other = Gobo::start(scene.database.url(), "");
    // Whoever asks need not run either of them.
    assert!(compared(diff(&other, "all=true")).is_empty());
    scene.gobo.kill();
    let last = *scene.append(&bookings(2, 2)).await.last().unwrap();
    super::wait_for_position(&other, candidate, last);
    let found = compared(diff(&other, "all=true"));
    assert!(found.is_empty() && found.position >= last, "{found:?}");
}

#[tokio::test]
async fn events_that_a_projection_does_not_want_hold_nobody_up() {
    let (scene, _) = with_candidate().await;
    let other = |n: usize| (format!("other-{n}"), "Unwanted", json!({}));
    let events: Vec<_> = (0..50).map(other).collect();
    let last = *scene.append(&events).await.last().unwrap();
    let found = compared(diff(&scene.gobo, "all=true"));
    assert!(found.is_empty());
    assert!(found.position <= last);
}
