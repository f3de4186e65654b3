//! What an operator sees and does: status, restart, dead letters, and the commands for them.

use gobo_tests::{Database, Gobo, wait_until};
use serde_json::{Value, json};

use super::module::Module;
use super::{deploy, go_on};

fn append(gobo: &Gobo, stream: &str) -> i64 {
    let event = json!({ "events": [{ "type": "Something", "data": {} }] });
    let answer = gobo
        .post(&format!("/streams/{stream}/events"), &event)
        .expect(200);
    answer.json()["position"].as_i64().unwrap()
}

fn status(gobo: &Gobo) -> Value {
    gobo.get("/admin/projections/things").expect(200).json()
}

fn wait_for_status(gobo: &Gobo, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    wait_until(what, || {
        let status = status(gobo);
        if is_so(&status) {
            Ok(status)
        } else {
            Err(status)
        }
    })
}

/// Position, stream and state of every dead letter.
fn letters(gobo: &Gobo) -> Vec<(i64, String, String)> {
    let answer = gobo
        .get("/admin/projections/things/dead-letters")
        .expect(200)
        .json();
    let text = |letter: &Value, member: &str| letter[member].as_str().unwrap().to_owned();
    let letters = answer["dead_letters"].as_array().unwrap().iter();
    letters
        .map(|letter| {
            (
                letter["position"].as_i64().unwrap(),
                text(letter, "stream_id"),
                text(letter, "state"),
            )
        })
        .collect()
}

fn wait_for_letters(gobo: &Gobo, expected: &[(i64, &str, &str)]) {
    wait_until("the dead letters", || {
        let found = letters(gobo);
        let is_so = found.len() == expected.len()
            && found
                .iter()
                .zip(expected)
                .all(|(a, b)| (a.0, a.1.as_str(), a.2.as_str()) == *b);
        if is_so { Ok(()) } else { Err(found) }
    });
}

#[tokio::test]
async fn a_projection_that_stopped_says_where_and_goes_on_with_better_code() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "");
    deploy(&gobo, &Module::new("things").failing()).expect(201);
    let position = append(&gobo, "a");
    let stopped = wait_for_status(&gobo, "the projection to stop", |s| s["state"] == "stopped");
    assert_eq!(stopped["error"]["position"], position);
    assert_eq!(stopped["error"]["stream_id"], "a");
    assert!(
        stopped["error"]["message"]
            .as_str()
            .unwrap()
            .contains("no such price")
    );
    assert!(stopped["position"].as_i64().unwrap() < position);
    let shown = gobo.command(&["status"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("stopped") && shown.contains("no such price"),
        "{shown}"
    );
    // Trying again with the same code ends the same way; with better code it goes on.
    let restarted = gobo
        .post("/admin/projections/things/restart", &json!({}))
        .expect(202)
        .json();
    assert_eq!(restarted["restarted"], true);
    wait_for_status(&gobo, "the projection to stop again", |s| {
        s["state"] == "stopped"
    });
    go_on(&gobo, &Module::new("things")).expect(200);
    let running = wait_for_status(&gobo, "the projection to go on", |s| {
        s["position"] == position
    });
    assert_eq!(
        (&running["state"], &running["error"]),
        (&json!("running"), &Value::Null)
    );
    assert_eq!(running["lag_seconds"], 0.0);
    assert_eq!(running["head_position"], position);
    assert!(running["owner"].is_string());
    assert_eq!(
        running["read_models"],
        json!([{ "name": "things", "revision": 0 }])
    );
}

#[tokio::test]
async fn dead_letters_are_listed_discarded_in_order_and_retried() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "[projections.things]\npolicy = \"park\"");
    deploy(&gobo, &Module::new("things").failing()).expect(201);
    let (a1, b1, a2) = (append(&gobo, "a"), append(&gobo, "b"), append(&gobo, "a"));
    wait_for_letters(
        &gobo,
        &[
            (a1, "a", "failed"),
            (b1, "b", "failed"),
            (a2, "a", "behind"),
        ],
    );
    assert_eq!(status(&gobo)["dead_letters"], 3);
    let path = "/admin/projections/things/dead-letters";
    // What waits may well succeed: only what it waits for can be given up.
    let behind = json!({ "position": a2, "reason": "impatience" });
    let problem = gobo
        .post(&format!("{path}/discard"), &behind)
        .expect(409)
        .json();
    assert_eq!(problem["code"], "waits_behind");
    for bad in [
        json!({ "position": a1 }),
        json!({ "position": a1, "reason": " " }),
        json!({ "reason": "none" }),
    ] {
        gobo.post(&format!("{path}/discard"), &bad).expect(400);
    }
    let absent = json!({ "position": 99, "reason": "none" });
    gobo.post(&format!("{path}/discard"), &absent).expect(404);
    let discarded = gobo.command(&[
        "dead-letters",
        "discard",
        "things",
        "--stream",
        "a",
        "--reason",
        "known duplicate",
    ]);
    assert!(discarded.status.success(), "{discarded:?}");
    wait_for_letters(
        &gobo,
        &[
            (a1, "a", "discarded"),
            (b1, "b", "failed"),
            (a2, "a", "failed"),
        ],
    );
    // With better code all of them succeed.
    go_on(&gobo, &Module::new("things")).expect(200);
    let retried = gobo
        .post(&format!("{path}/retry"), &json!({}))
        .expect(202)
        .json();
    assert_eq!(retried["count"], 2);
    wait_for_letters(&gobo, &[(a1, "a", "discarded")]);
    let listed = gobo.command(&["dead-letters", "list", "things"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("known duplicate"), "{listed}");
}

#[tokio::test]
async fn the_deploy_command_says_what_it_led_to_and_why_not() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "");
    let file = gobo.folder().join("things.wasm");
    std::fs::write(&file, Module::new("things").bytes()).unwrap();
    let file = file.to_str().unwrap();
    let deployed = gobo.command(&["deploy", file]);
    assert!(deployed.status.success(), "{deployed:?}");
    assert!(
        String::from_utf8(deployed.stdout)
            .unwrap()
            .starts_with("created: ")
    );
    let refused = gobo.command(&["deploy", file, "--name", "orders"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("calls itself \"things\""), "{said}");
    let logs = gobo.command(&["logs", "things"]);
    assert!(logs.status.success(), "{logs:?}");
}
