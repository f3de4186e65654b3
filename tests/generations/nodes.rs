//! Generations over several nodes, and what is told while they are filled.

use std::io::{BufRead, BufReader};

use gobo_tests::{Gobo, wait_until};
use serde_json::{Value, json};

use super::{ask, bookings, generation, generations, wait_for_stage};
use crate::scene::Scene;

#[tokio::test]
async fn a_reader_that_goes_from_node_to_node_never_goes_back() {
    let scene = Scene::new("", &["ledger"]).await;
    let other = Gobo::start(scene.database.url(), "");
    let last = *scene.append(&bookings(5, 20)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let begun = generation(
        &ask(&scene.gobo, "ledger", "rebuild", json!({}))
            .expect(202)
            .json(),
    );
    let (mut revision, mut live) = (0, 0);
    // It sends the position back that it saw, so that no node answers from what it saw a moment before.
    let position = last.to_string();
    let seen_last = [("gobo-min-position", position.as_str())];
    wait_until("both nodes to serve the new generation", || {
        let mut seen = Vec::new();
        for node in [&scene.gobo, &other] {
            let answer = node.request("GET", "/read/accounts", &seen_last, &[]);
            let answer = answer.expect(200);
            let number = |name: &str| answer.header(name).unwrap().parse::<i64>().unwrap();
            assert!(number("gobo-revision") >= revision && number("gobo-generation") >= live);
            (revision, live) = (number("gobo-revision"), number("gobo-generation"));
            seen.push(live);
        }
        match seen == [begun, begun] {
            true => Ok(()),
            false => Err(seen),
        }
    });
    // Rolled back on the other node.
    ask(&other, "ledger", "rollback", json!({})).expect(200);
    let answer = scene.gobo.request("GET", "/read/accounts", &seen_last, &[]);
    let answer = answer.expect(200);
    assert_ne!(answer.header("gobo-generation").unwrap(), begun.to_string());
    let number: i64 = answer.header("gobo-revision").unwrap().parse().unwrap();
    assert!(number > revision);
}

#[tokio::test]
async fn another_node_finishes_what_a_killed_one_was_filling() {
    let mut scene = Scene::new("", &["ledger"]).await;
    let last = *scene.append(&bookings(50, 400)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let small = "[projections.ledger]\nbatch_events = 500\nrebuild_bytes = 65536";
    let other = Gobo::start(scene.database.url(), small);
    let begun = generation(
        &ask(&scene.gobo, "ledger", "rebuild", json!({}))
            .expect(202)
            .json(),
    );
    scene.gobo.kill();
    wait_for_stage(&other, "ledger", begun, "live");
    let sum = "select sum(balance)::int8 from read.accounts";
    let all: i64 = (0..50 * 400).map(|n| 1 + n % 7).sum();
    assert_eq!(scene.database.query_i64(sum).await, all);
}

#[tokio::test]
async fn progress_is_told_as_it_is_made_and_ends_when_the_generation_is_live() {
    let scene = Scene::new("", &["ledger"]).await;
    let last = *scene.append(&bookings(5, 20)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let held = ask(&scene.gobo, "ledger", "rebuild", json!({ "hold": true }))
        .expect(202)
        .json();
    let begun = generation(&held);
    let path = format!("/admin/projections/ledger/generations/{begun}/progress");
    let url = format!("{}{path}", scene.gobo.url());
    let body = ureq::get(&url).call().unwrap().into_body().into_reader();
    let mut lines = BufReader::new(body).lines().map(|line| line.unwrap());
    let mut next = || -> (String, Value) {
        let kind = lines.find(|line| line.starts_with("event:")).unwrap();
        let data = lines.find(|line| line.starts_with("data:")).unwrap();
        let report = serde_json::from_str(data.trim_start_matches("data:")).unwrap();
        (kind.trim_start_matches("event:").trim().to_owned(), report)
    };
    let (kind, report) = next();
    assert_eq!(
        (kind.as_str(), &report["generation"]),
        ("progress", &json!(begun))
    );
    for member in [
        "position",
        "head_position",
        "positions_per_second",
        "eta_seconds",
        "stage",
        "hold",
    ] {
        assert!(report.get(member).is_some(), "{report}");
    }
    let (_, second) = next();
    assert!(second["positions_per_second"].is_number(), "{second}");
    ask(&scene.gobo, "ledger", "promote", json!({})).expect(200);
    let end = loop {
        let (kind, report) = next();
        if kind == "end" {
            break report;
        }
    };
    assert_eq!(end["stage"], "live");
    let unknown = "/admin/projections/ledger/generations/999999/progress";
    assert_eq!(
        scene.gobo.get(unknown).expect(404).json()["code"],
        "no_such_generation"
    );
    assert_eq!(generations(&scene.gobo, "ledger").len(), 2);
}
