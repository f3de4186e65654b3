//! A changed projection is filled beside the live one, promoted, gone back from, given up, dropped.

mod commands;
mod deploys;
mod nodes;
mod readers;
mod switch;

use gobo_tests::{Answer, Gobo, wait_until};
use serde_json::{Value, json};

use crate::scene::{Event, Scene};

/// Bookings of one unit each: `count` per account.
pub(crate) fn bookings(accounts: usize, count: usize) -> Vec<Event> {
    (0..accounts * count)
        .map(|n| {
            let account = format!("account-{}", n % accounts);
            (account, "Booked", json!({ "amount": 1 + n % 7 }))
        })
        .collect()
}

/// The generations of a projection.
pub(crate) fn generations(gobo: &Gobo, projection: &str) -> Vec<Value> {
    let path = format!("/admin/projections/{projection}/generations");
    let answer = gobo.get(&path).expect(200).json();
    answer["generations"].as_array().unwrap().clone()
}

/// Waits until generation `generation` is where `stage` says.
pub(crate) fn wait_for_stage(gobo: &Gobo, projection: &str, generation: i64, stage: &str) {
    wait_until(&format!("generation {generation} to be {stage}"), || {
        let all = generations(gobo, projection);
        let found = all.iter().find(|one| one["generation"] == generation);
        match found.is_some_and(|one| one["stage"] == stage) {
            true => Ok(()),
            false => Err(all),
        }
    });
}

/// Waits until generation `generation` and its tables are gone.
pub(crate) async fn wait_for_drop(scene: &Scene, generation: i64) {
    let sql = format!(
        "select (select count(*) from gobo.generations where id = {generation}) \
              + (select count(*) from pg_namespace where nspname = 'gobo_g{generation}')"
    );
    gobo_tests::wait_for(
        &format!("generation {generation} to be dropped"),
        async || match scene.database.query_i64(&sql).await {
            0 => Ok(()),
            left => Err(left),
        },
    )
    .await;
}

/// `POST /admin/projections/{projection}/{verb}`
pub(crate) fn ask(gobo: &Gobo, projection: &str, verb: &str, body: Value) -> Answer {
    gobo.post(&format!("/admin/projections/{projection}/{verb}"), &body)
}

/// The number of the generation that a request was about.
pub(crate) fn generation(answer: &Value) -> i64 {
    answer["generation"].as_i64().unwrap()
}

#[tokio::test]
async fn a_changed_plugin_is_filled_beside_the_live_one_and_promoted_when_it_has_caught_up() {
    let scene = Scene::new("", &["ledger"]).await;
    let events = bookings(10, 20);
    let last = *scene.append(&events).await.last().unwrap();
    scene.wait_for("ledger", last);
    let rows = scene
        .database
        .query_json("select * from read.accounts order by account")
        .await;
    let outcome = scene.gobo.deploy("ledger-mended").expect(202).json();
    assert_eq!(outcome["outcome"], "rebuilding");
    let detail = outcome["detail"].as_str().unwrap();
    assert!(detail.contains("because its code changes"), "{detail}");
    wait_for_stage(&scene.gobo, "ledger", generation(&outcome), "live");
    let status = scene.status("ledger");
    assert_eq!(status["generation"], outcome["generation"]);
    assert_eq!(status["hash"], outcome["hash"]);
    let columns = "select account, balance, history, _position, _updated_at from read.accounts order by account";
    let anew = scene.database.query_json(columns).await;
    let stripped: Vec<Value> = (rows.as_array().unwrap().iter())
        .map(|row| {
            let mut row = row.clone();
            row.as_object_mut().unwrap().remove("_revision");
            row
        })
        .collect();
    assert_eq!(anew, json!(stripped));
    // The old one is kept and follows.
    let more = *scene.append(&bookings(10, 1)).await.last().unwrap();
    scene.wait_for("ledger", more);
    let all = generations(&scene.gobo, "ledger");
    let stages: Vec<&str> = all
        .iter()
        .map(|one| one["stage"].as_str().unwrap())
        .collect();
    assert_eq!(stages, ["kept", "live"]);
    wait_until("the kept generation to follow", || {
        let all = generations(&scene.gobo, "ledger");
        match all[0]["position"].as_i64() >= Some(more) {
            true => Ok(()),
            false => Err(all),
        }
    });
}

#[tokio::test]
async fn a_held_generation_waits_and_a_rollback_fills_nothing_anew() {
    let scene = Scene::new("", &["ledger"]).await;
    let last = *scene.append(&bookings(5, 5)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let first = scene.status("ledger")["generation"].as_i64().unwrap();
    let begun = ask(&scene.gobo, "ledger", "rebuild", json!({ "hold": true }));
    let second = generation(&begun.expect(202).json());
    wait_until("the candidate to catch up", || {
        let all = generations(&scene.gobo, "ledger");
        match all[1]["position"].as_i64() >= Some(last) && all[1]["bulk"] == false {
            true => Ok(()),
            false => Err(all),
        }
    });
    assert_eq!(scene.status("ledger")["generation"], first);
    let promoted = ask(&scene.gobo, "ledger", "promote", json!({}))
        .expect(200)
        .json();
    assert_eq!(
        (&promoted["outcome"], generation(&promoted)),
        (&json!("promoted"), second)
    );
    assert_eq!(scene.status("ledger")["generation"], second);
    // Done when it is answered, not begun.
    let back = ask(&scene.gobo, "ledger", "rollback", json!({}))
        .expect(200)
        .json();
    assert_eq!(
        (&back["outcome"], generation(&back)),
        (&json!("promoted"), first)
    );
    assert_eq!(scene.status("ledger")["generation"], first);
    // And forward again.
    let again = ask(&scene.gobo, "ledger", "rollback", json!({}))
        .expect(200)
        .json();
    assert_eq!(
        (&again["outcome"], generation(&again)),
        (&json!("promoted"), second)
    );
    let all = generations(&scene.gobo, "ledger");
    let all: Vec<i64> = all.iter().map(generation).collect();
    assert_eq!(all, [first, second]);
    let more = *scene.append(&bookings(5, 1)).await.last().unwrap();
    scene.wait_for("ledger", more);
}

#[tokio::test]
async fn what_is_superseded_or_cancelled_leaves_no_tables_behind() {
    let scene = Scene::new("", &["ledger"]).await;
    let last = *scene.append(&bookings(5, 5)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let begun = ask(&scene.gobo, "ledger", "rebuild", json!({ "hold": true }));
    let cancelled = generation(&begun.expect(202).json());
    ask(&scene.gobo, "ledger", "cancel", json!({})).expect(200);
    wait_for_drop(&scene, cancelled).await;
    let begun = ask(&scene.gobo, "ledger", "rebuild", json!({ "hold": true }));
    let superseded = generation(&begun.expect(202).json());
    let deployed = scene.gobo.deploy("ledger-mended").expect(202).json();
    wait_for_drop(&scene, superseded).await;
    wait_for_stage(&scene.gobo, "ledger", generation(&deployed), "live");
    // One is kept; a third rebuild drops the oldest.
    let oldest = generations(&scene.gobo, "ledger")[0]["generation"]
        .as_i64()
        .unwrap();
    let third = ask(&scene.gobo, "ledger", "rebuild", json!({}))
        .expect(202)
        .json();
    wait_for_stage(&scene.gobo, "ledger", generation(&third), "live");
    wait_for_drop(&scene, oldest).await;
    assert_eq!(generations(&scene.gobo, "ledger").len(), 2);
}

#[tokio::test]
async fn a_rollback_after_going_on_in_place_restores_the_bytes_and_says_what_it_does_not() {
    let scene = Scene::new("", &["ledger"]).await;
    let first = scene.status("ledger");
    let swapped = scene.gobo.swap("ledger-mended").expect(200).json();
    assert_eq!(swapped["outcome"], "swapped");
    let back = ask(&scene.gobo, "ledger", "rollback", json!({}))
        .expect(200)
        .json();
    assert_eq!(back["outcome"], "restored");
    let detail = back["detail"].as_str().unwrap();
    assert!(
        detail.contains("not undone") && detail.contains("gobo rebuild ledger"),
        "{detail}"
    );
    let status = scene.status("ledger");
    assert_eq!(status["hash"], first["hash"]);
    let last = *scene.append(&bookings(3, 3)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let nothing = Scene::new("", &["ledger"]).await;
    let refused = ask(&nothing.gobo, "ledger", "rollback", json!({}))
        .expect(409)
        .json();
    assert!(
        refused["detail"]
            .as_str()
            .unwrap()
            .contains("nothing to go back to"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_kept_generation_that_was_told_to_stop_catches_up_before_it_is_live_again() {
    let scene = Scene::new("[generations]\nfollow_kept = false", &["ledger"]).await;
    let last = *scene.append(&bookings(5, 5)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let first = scene.status("ledger")["generation"].as_i64().unwrap();
    let begun = ask(&scene.gobo, "ledger", "rebuild", json!({}))
        .expect(202)
        .json();
    wait_for_stage(&scene.gobo, "ledger", generation(&begun), "live");
    wait_until("the kept generation to be paused and released", || {
        let all = generations(&scene.gobo, "ledger");
        match all[0]["state"] == "paused" && all[0]["owner"].is_null() {
            true => Ok(()),
            false => Err(all),
        }
    });
    let more = *scene.append(&bookings(5, 40)).await.last().unwrap();
    scene.wait_for("ledger", more);
    let kept = &generations(&scene.gobo, "ledger")[0];
    assert_eq!(
        (&kept["stage"], &kept["state"]),
        (&json!("kept"), &json!("paused"))
    );
    assert!(kept["position"].as_i64() < Some(more), "{kept}");
    ask(&scene.gobo, "ledger", "rollback", json!({}));
    wait_for_stage(&scene.gobo, "ledger", first, "live");
    assert!(scene.status("ledger")["position"].as_i64() >= Some(more));
    let sum: i64 = (0..25).chain(0..200).map(|n| 1 + n % 7).sum();
    let found = "select sum(balance)::int8 from read.accounts";
    assert_eq!(scene.database.query_i64(found).await, sum);
}

#[tokio::test]
async fn what_is_on_its_way_survives_what_was_refused_or_changes_nothing() {
    let scene = Scene::new("", &["ledger"]).await;
    let last = *scene.append(&bookings(5, 5)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let live = scene.status("ledger")["generation"].as_i64().unwrap();
    let begun = ask(&scene.gobo, "ledger", "rebuild", json!({ "hold": true }));
    let held = generation(&begun.expect(202).json());
    let is_held = |what: &str| {
        let all = generations(&scene.gobo, "ledger");
        let found = all.iter().find(|one| one["generation"] == held);
        let found = found.unwrap_or_else(|| panic!("{what}: {all:?}"));
        assert_eq!(
            (&found["stage"], &found["hold"]),
            (&json!("building"), &json!(true)),
            "{what}"
        );
    };
    let verb = format!("generations/{live}/promote");
    ask(&scene.gobo, "ledger", &verb, json!({})).expect(409);
    is_held("promoting the live one");
    scene.gobo.deploy("ledger").expect(200);
    is_held("deploying the live bytes again");
    ask(&scene.gobo, "ledger", "rebuild", json!({})).expect(200);
    is_held("asking for it again");
    ask(&scene.gobo, "ledger", "promote", json!({})).expect(200);
    assert_eq!(scene.status("ledger")["generation"], held);
}

#[tokio::test]
async fn a_paused_projection_stops_where_it_is_and_goes_on() {
    let scene = Scene::new("", &["ledger"]).await;
    let last = *scene.append(&bookings(3, 3)).await.last().unwrap();
    scene.wait_for("ledger", last);
    ask(&scene.gobo, "ledger", "pause", json!({})).expect(200);
    wait_until("the projection to be paused and released", || {
        let status = scene.status("ledger");
        match status["state"] == "paused" && status["owner"].is_null() {
            true => Ok(()),
            false => Err(status),
        }
    });
    let more = *scene.append(&bookings(3, 1)).await.last().unwrap();
    scene.gobo.get("/read/accounts").expect(200);
    let late = format!("/read/accounts?min_position={more}&wait=300ms");
    scene.gobo.get(&late).expect(503);
    ask(&scene.gobo, "ledger", "resume", json!({})).expect(200);
    scene.wait_for("ledger", more);
}
