//! Snapshots: the live rows of one moment, from which later replays start.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{fresh_rows, history, hold, listed, release, rows_of};
use crate::generations::{ask, bookings, generation, wait_for_stage};
use crate::scene::Scene;

/// Takes a snapshot of the ledger.
fn snapshot(scene: &Scene, label: &str) -> i64 {
    let body = json!({ "label": label });
    generation(
        &ask(&scene.gobo, "ledger", "snapshot", body)
            .expect(201)
            .json(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_of_one_moment_while_appends_go_on_and_does_not_hold_them_up() {
    let scene = Scene::new("", &["ledger"]).await;
    let last = *scene.append(&bookings(20, 20)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let stop = AtomicBool::new(false);
    let load = async {
        let client = scene.database.connect().await;
        let append =
            "select gobo.append($1, '[{\"type\": \"Booked\", \"data\": {\"amount\": 2}}]')";
        let mut n = 0;
        while !stop.load(Ordering::Relaxed) {
            n += 1;
            client
                .query(append, &[&format!("account-{}", n % 20)])
                .await
                .unwrap();
        }
    };
    let taking = async {
        for n in 0..5 {
            let made = tokio::task::block_in_place(|| snapshot(&scene, &format!("s{n}")));
            let until = listed(&scene.gobo, made)["until"].as_i64().unwrap();
            // Every event up to there is in the rows, and none after it.
            let sums = format!(
                "select sum(balance) = (select sum((data->>'amount')::int8) from gobo.events where position <= {until})
                    and max(_position) <= {until} from gobo_g{made}.accounts"
            );
            assert_eq!(
                scene
                    .database
                    .query_i64(&format!("select ({sums})::int"))
                    .await,
                1
            );
            let checkpoint =
                format!("select position from gobo.checkpoints where generation = {made}");
            assert_eq!(scene.database.query_i64(&checkpoint).await, until);
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, taking);
    let answer = scene
        .gobo
        .get("/read/accounts?as_of=s3&limit=100")
        .expect(200);
    assert_eq!(answer.json().as_array().unwrap().len(), 20);
    // The live generation does not wait for a snapshot whose rows take long.
    let client = scene.database.connect().await;
    client
        .batch_execute("begin; lock table gobo.generations in share mode")
        .await
        .unwrap();
    std::thread::scope(|threads| {
        // After a while it is answered that it will be made.
        let slow = threads.spawn(|| {
            let made = ask(
                &scene.gobo,
                "ledger",
                "snapshot",
                json!({ "label": "slow" }),
            );
            assert!([201, 202].contains(&made.status), "{}", made.text());
        });
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let last = *scene.append(&bookings(20, 1)).await.last().unwrap();
                scene.wait_for("ledger", last);
                client.batch_execute("rollback").await.unwrap();
            });
        });
        slow.join().unwrap();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_starts_from_the_nearest_snapshot_and_equals_one_from_scratch() {
    let scene = Scene::new("", &["ledger"]).await;
    let first = scene.append(&history(50)).await;
    scene.wait_for("ledger", first[49]);
    let early = snapshot(&scene, "early");
    let second = scene.append(&history(50)).await;
    scene.wait_for("ledger", second[49]);
    let kept = snapshot(&scene, "kept");
    assert_eq!(listed(&scene.gobo, kept)["expires_at"], Value::Null);
    let third = scene.append(&history(50)).await;
    scene.wait_for("ledger", third[49]);
    let begin = |until: i64, label: &str, from_scratch: bool| {
        let body = json!({ "until": until, "label": label, "from_scratch": from_scratch });
        let begun = ask(&scene.gobo, "ledger", "replay", body)
            .expect(202)
            .json();
        (
            generation(&begun),
            begun["detail"].as_str().unwrap().to_owned(),
        )
    };
    let (until, columns) = (
        third[20],
        "position, applied_position, applied_event_id, diverged",
    );
    let state = async |of: i64| {
        let sql = format!("select {columns} from gobo.checkpoints where generation = {of}");
        scene.database.query_json(&sql).await
    };
    hold(&scene.database).await;
    let (short, said) = begin(until, "short", false);
    assert!(
        said.contains(&format!(
            "from snapshot \"kept\", generation {kept}, at position {}",
            second[49]
        )),
        "{said}"
    );
    // Before anybody has run it, it is where the snapshot is.
    assert_eq!(state(short).await, state(kept).await);
    assert_eq!(state(short).await[0]["position"], second[49]);
    assert_eq!(
        rows_of(&scene.database, short).await,
        rows_of(&scene.database, kept).await
    );
    release(&scene.database).await;
    let (long, said) = begin(until, "long", true);
    assert!(said.contains("from the first event"), "{said}");
    for made in [short, long] {
        wait_for_stage(&scene.gobo, "ledger", made, "done");
    }
    let expected = fresh_rows(&scene, until).await;
    assert_eq!(rows_of(&scene.database, long).await, expected);
    assert_eq!(rows_of(&scene.database, short).await, expected);
    assert_eq!(state(short).await, state(long).await);
    // Keys and indexes are those of any other generation.
    let shape = async |of: i64| {
        let sql = format!(
            "select tablename, replace(indexdef, 'gobo_g{of}.', '') as def from pg_indexes where schemaname = 'gobo_g{of}' order by 2"
        );
        scene.database.query_json(&sql).await
    };
    assert_eq!(shape(short).await, shape(long).await);
    // What ends before a snapshot does not start from it; what is at one is a copy.
    let (_, said) = begin(second[10], "between", false);
    assert!(said.contains("snapshot \"early\""), "{said}");
    let (copy, said) = begin(first[49], "same", false);
    assert!(
        said.contains(&format!(
            "as a copy of snapshot \"early\", generation {early}"
        )),
        "{said}"
    );
    wait_for_stage(&scene.gobo, "ledger", copy, "done");
    assert_eq!(
        rows_of(&scene.database, copy).await,
        rows_of(&scene.database, early).await
    );
    // A complete replay serves as well.
    let (_, said) = begin(third[30], "on", false);
    assert!(
        said.contains("from replay") && said.contains(&format!("at position {until}")),
        "{said}"
    );
    let (_, said) = begin(first[10], "first", false);
    assert!(said.contains("from the first event"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_replay_might_not_give_are_no_start_for_one() {
    let scene = Scene::new("[projections.ledger]\npolicy = \"park\"\n", &["ledger"]).await;
    let fee = (
        "account-1".to_owned(),
        "Booked",
        json!({ "amount": 1, "fee": 1 }),
    );
    let mut events = bookings(5, 2);
    events.push(fee);
    events.push(("account-1".to_owned(), "Booked", json!({ "amount": 5 })));
    let positions = scene.append(&events).await;
    scene.wait_for("ledger", *positions.last().unwrap());
    let parked = snapshot(&scene, "parked");
    let said = |label: &str| {
        let last = scene.status("ledger")["position"].clone();
        let body = json!({ "until": last, "label": label });
        let begun = ask(&scene.gobo, "ledger", "replay", body)
            .expect(202)
            .json();
        wait_for_stage(&scene.gobo, "ledger", generation(&begun), "done");
        (
            generation(&begun),
            begun["detail"].as_str().unwrap().to_owned(),
        )
    };
    // What waits in the one waits in the other.
    let (copy, detail) = said("copied");
    assert!(
        detail.contains("as a copy of snapshot \"parked\""),
        "{detail}"
    );
    let letters = async |of: i64| {
        let sql = format!(
            "select position, stream_id, state, message, event_id from gobo.dead_letters where generation = {of} order by 1"
        );
        scene.database.query_json(&sql).await
    };
    assert_eq!(letters(copy).await, letters(parked).await);
    assert_eq!(letters(copy).await.as_array().unwrap().len(), 2);
    for made in [copy, parked] {
        ask(
            &scene.gobo,
            "ledger",
            &format!("generations/{made}/cancel"),
            json!({}),
        )
        .expect(200);
    }
    // An operator's decision is no replay's.
    let body = json!({ "stream_id": "account-1", "reason": "a test" });
    scene
        .gobo
        .post("/admin/projections/ledger/dead-letters/discard", &body)
        .expect(200);
    scene.wait_for_letters("ledger", &[(positions[10], "account-1", "discarded")]);
    snapshot(&scene, "discarded");
    let (_, detail) = said("after-discard");
    assert!(detail.contains("from the first event"), "{detail}");
    // Neither are the rows of code that was replaced in place: of the same hash only since then.
    let scene = Scene::new("", &["ledger"]).await;
    let positions = scene.append(&bookings(5, 2)).await;
    scene.wait_for("ledger", positions[9]);
    scene.gobo.swap("ledger-mended").expect(200);
    let more = scene.append(&bookings(5, 1)).await;
    scene.wait_for("ledger", more[4]);
    let swapped = snapshot(&scene, "swapped");
    assert_eq!(listed(&scene.gobo, swapped)["diverged"], true);
    let body = json!({ "until": more[4], "label": "anew" });
    let begun = ask(&scene.gobo, "ledger", "replay", body)
        .expect(202)
        .json();
    assert!(
        begun["detail"]
            .as_str()
            .unwrap()
            .contains("from the first event"),
        "{begun}"
    );
}
