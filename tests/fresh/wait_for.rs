//! `POST /streams/{id}/events?wait_for=...`: the answer comes when projections have passed the events.

use gobo_tests::{Answer, wait_until};
use serde_json::{Value, json};

use crate::generations::ask;
use crate::scene::Scene;

fn append(scene: &Scene, query: &str, data: Value) -> Answer {
    let body = json!({ "events": [{ "type": "Booked", "data": data }] });
    let path = format!("/streams/a/events{query}");
    scene.gobo.post(&path, &body)
}

fn balance(scene: &Scene) -> Value {
    scene.gobo.get("/read/accounts/a").expect(200).json()["balance"].clone()
}

#[tokio::test]
async fn whoever_waited_reads_the_effect_without_asking_for_a_position() {
    let scene = Scene::new("", &["ledger", "page-views"]).await;
    for n in 1..=20 {
        let answer = append(
            &scene,
            "?wait_for=ledger,page-views&wait=30s",
            json!({ "amount": 1 }),
        );
        let answer = answer.expect(200);
        assert_eq!(balance(&scene), n);
        let body = answer.json();
        assert_eq!(
            answer.header("gobo-position").unwrap(),
            body["position"].to_string()
        );
        let waited_for = body["waited_for"].as_array().unwrap();
        let names: Vec<&Value> = waited_for.iter().map(|one| &one["projection"]).collect();
        assert_eq!(names, ["ledger", "page-views"]);
        for one in waited_for {
            assert_eq!(one["reached"], true);
            assert!(one["position"].as_i64() >= body["position"].as_i64());
        }
    }
    // A read model stands for its projection.
    let query = "?wait_for=accounts,ledger&wait=30s";
    let answer = append(&scene, query, json!({ "amount": 1 }));
    let waited_for = answer.expect(200).json()["waited_for"].clone();
    assert_eq!(waited_for.as_array().unwrap().len(), 1);
    assert_eq!(waited_for[0]["projection"], "ledger");
}

#[tokio::test]
async fn what_can_be_refused_is_refused_before_anything_is_appended() {
    let scene = Scene::new("", &["ledger"]).await;
    for (query, code, hint) in [
        (
            "?wait_for=leger",
            "unknown_projection",
            "did you mean \"ledger\"?",
        ),
        (
            "?wait_for=ledger,acounts",
            "unknown_projection",
            "did you mean \"accounts\"?",
        ),
        ("?wait_for=", "unknown_projection", "/admin/projections"),
        ("?wait_for=ledger&wait=2", "invalid_wait", "500ms or 2s"),
        ("?wait_for=ledger&wait=2h", "invalid_wait", "500ms or 2s"),
        ("?wait_for=ledger&wait=3000s", "invalid_wait", ""),
        ("?waitfor=ledger", "bad_query", ""),
    ] {
        let answer = append(&scene, query, json!({ "amount": 1 })).expect(400);
        assert_eq!(answer.json()["code"], code, "{query}");
        let found = answer.json()["hint"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(found.contains(hint), "{query}: {found}");
    }
    assert_eq!(
        scene
            .database
            .query_i64("select count(*) from gobo.events")
            .await,
        0
    );
}

#[tokio::test]
async fn an_append_that_is_not_passed_in_time_has_happened_and_says_so() {
    let scene = Scene::new("", &["ledger", "page-views"]).await;
    ask(&scene.gobo, "ledger", "pause", json!({})).expect(200);
    wait_until("the loop to end", || {
        match scene.gobo.log().contains("the loop has ended") {
            true => Ok(()),
            false => Err(scene.gobo.log()),
        }
    });
    let query = "?wait_for=page-views,ledger&wait=10s";
    let answer = append(&scene, query, json!({ "amount": 5 })).expect(202);
    let body = answer.json();
    assert_eq!(body["events"].as_array().unwrap().len(), 1);
    assert_eq!(body["waited_for"][0]["reached"], true);
    assert_eq!(body["waited_for"][1]["reached"], false);
    assert!(body["waited_for"][1]["position"].as_i64() < body["position"].as_i64());
    // What the client does then: it waits with the position, and appends nothing again.
    ask(&scene.gobo, "ledger", "resume", json!({})).expect(200);
    let position = answer.header("gobo-position").unwrap();
    let path = format!("/read/accounts/a?min_position={position}&wait=30s");
    assert_eq!(scene.gobo.get(&path).expect(200).json()["balance"], 5);
}

#[tokio::test]
async fn a_request_that_waits_for_several_is_one_who_waits() {
    // So one request may wait.
    let scene = Scene::new("[api]\nmax_requests = 2\n", &["ledger", "page-views"]).await;
    for projection in ["ledger", "page-views"] {
        ask(&scene.gobo, projection, "pause", json!({})).expect(200);
    }
    wait_until("both loops to end", || {
        match scene.gobo.log().matches("the loop has ended").count() {
            2 => Ok(()),
            _ => Err(scene.gobo.log()),
        }
    });
    let query = "?wait_for=page-views,ledger&wait=300ms";
    let answer = append(&scene, query, json!({ "amount": 5 })).expect(202);
    for one in answer.json()["waited_for"].as_array().unwrap() {
        assert_eq!(one["reached"], false, "{one}");
        assert_eq!(one.get("detail"), None, "{one}");
    }
}

#[tokio::test]
async fn an_event_that_could_not_be_processed_is_named() {
    let scene = Scene::new("[projections.ledger]\npolicy = \"park\"\n", &["ledger"]).await;
    let query = "?wait_for=ledger&wait=30s";
    let answer = append(&scene, query, json!({ "amount": 5, "fee": 1 }));
    let body = answer.expect(200).json();
    assert_eq!(body["waited_for"][0]["reached"], true);
    assert_eq!(
        body["waited_for"][0]["dead_letters"],
        json!([body["position"]])
    );
}

#[tokio::test]
async fn the_command_that_appends_waits_as_well() {
    let scene = Scene::new("", &["ledger", "page-views"]).await;
    let append = |more: &[&str]| {
        let command = ["append", "a", "Booked", r#"{"amount": 5}"#];
        let output = scene.gobo.command(&[&command, more].concat());
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        (output.status.code(), printed)
    };
    for n in 1..=5 {
        let (code, printed) = append(&["--wait-for", "accounts,page-views", "--wait", "30s"]);
        assert_eq!(code, Some(0), "{printed}");
        assert!(printed.contains("ledger has passed "), "{printed}");
        assert!(printed.contains("page-views has passed "), "{printed}");
        assert_eq!(balance(&scene), 5 * n);
    }
    // Nothing is appended where nothing can be waited for.
    let (code, printed) = append(&["--wait-for", "leger"]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("did you mean \"ledger\"?"), "{printed}");
    let (code, printed) = append(&["--wait", "2s"]);
    assert_eq!(code, Some(2), "{printed}");
    let events = "select count(*) from gobo.events";
    assert_eq!(scene.database.query_i64(events).await, 5);
    // Late is not lost, and has a code of its own.
    ask(&scene.gobo, "ledger", "pause", json!({})).expect(200);
    wait_until("the loop to end", || {
        match scene.gobo.log().contains("the loop has ended") {
            true => Ok(()),
            false => Err(scene.gobo.log()),
        }
    });
    let (code, printed) = append(&["--wait-for", "page-views,ledger", "--wait", "10s"]);
    assert_eq!(code, Some(3), "{printed}");
    assert!(
        printed.contains("not passed in time: ledger is at "),
        "{printed}"
    );
    assert!(printed.contains("page-views has passed "), "{printed}");
    assert_eq!(scene.database.query_i64(events).await, 6);
}
