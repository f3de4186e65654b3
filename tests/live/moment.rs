//! From which moment on: who has seen a position, or asks for one, is told nothing older.

use std::thread::{self, ScopedJoinHandle};

use gobo_tests::{Gobo, wait_until};
use serde_json::{Value, json};

use super::follow::Stream;
use crate::fresh::count;
use crate::generations::ask;
use crate::scene::{Event, Scene, raw};

const PATH: &str = "/read/raw?select=id,c_int8";

fn put(id: &str, n: i64) -> Event {
    raw("s", json!({"do": "put", "id": id, "n": n}))
}

/// Two nodes over one database.
struct Nodes {
    scene: Scene,
    other: Gobo,
}

impl Nodes {
    /// With one event that everybody has.
    async fn new() -> Self {
        let scene = Scene::new("", &["raw-guest"]).await;
        let patient = "[api]\nmax_wait_ms = 200_000\nrequest_timeout_ms = 250_000\n";
        let other = Gobo::start(scene.database.url(), patient);
        let first = scene.append(&[put("a", 1)]).await[0];
        scene.wait_for("raw", first);
        let nodes = Self { scene, other };
        wait_until("the other node to know the read model", || {
            match nodes.other.get("/read/raw?limit=0") {
                answer if answer.status == 200 => Ok(()),
                answer => Err(answer),
            }
        });
        nodes
    }

    /// Stops the projection, and appends an event that its rows do not have. Gives its position.
    async fn fall_behind(&self, event: Event) -> i64 {
        ask(&self.scene.gobo, "raw", "pause", json!({})).expect(200);
        wait_until("the projection to be paused and released", || {
            let status = self.scene.status("raw");
            match status["state"] == "paused" && status["owner"].is_null() {
                true => Ok(()),
                false => Err(status),
            }
        });
        self.scene.append(&[event]).await[0]
    }

    fn go_on(&self) {
        ask(&self.scene.gobo, "raw", "resume", json!({})).expect(200);
    }

    /// How often the other node has been asked how fresh rows are.
    fn looks(&self) -> i64 {
        let metrics = self.other.get("/metrics").expect(200).text();
        count(&metrics, "gobo_freshness_looks_total{outcome=\"asked\"}")
    }

    /// Waits until whoever asks the other node is known to wait there.
    fn wait_until_it_waits<T>(&self, asked: &ScopedJoinHandle<'_, T>) {
        let before = self.looks();
        wait_until("a reader who waits", || {
            assert!(!asked.is_finished(), "it was answered at once");
            match self.looks() {
                // Only who waits looks again and again.
                looks if looks > before + 4 => Ok(()),
                looks => Err((before, looks)),
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_seen_a_position_is_told_nothing_older_by_a_node_that_is_behind() {
    let nodes = Nodes::new().await;
    let url = nodes.other.url();
    for (n, manner, by_header) in [
        (2, "rows", true),
        (3, "rows", false),
        (4, "poll", true),
        (5, "changes", true),
    ] {
        let position = nodes.fall_behind(put("a", n)).await;
        let (seen, parameter) = match by_header {
            true => (position.to_string(), String::new()),
            false => ("0".to_owned(), format!("&min_position={position}")),
        };
        let path = format!("{PATH}{parameter}&wait=200s&live={manner}");
        let open = || Stream::open_with(url, &path, &[("gobo-min-position", &seen)]);
        let mut stream = thread::scope(|scope| {
            let opened = scope.spawn(open);
            nodes.wait_until_it_waits(&opened);
            nodes.go_on();
            opened.join().unwrap()
        });
        assert_eq!(stream.status, 200, "{}", stream.head);
        let told = match manner {
            "rows" => stream.next().unwrap().data,
            "poll" => {
                let answer: Value = serde_json::from_str(&stream.rest()).unwrap();
                answer["events"][0]["data"].clone()
            }
            _ => {
                nodes.scene.wait_for("raw", position);
                let next = nodes.scene.append(&[put("b", n)]).await[0];
                let told = stream.next().unwrap().data;
                // What it has seen is not told again.
                assert_eq!(told["position"], next);
                assert_eq!(told["changes"][0]["key"], json!(["b"]));
                continue;
            }
        };
        assert_eq!(told["rows"], json!([{"id": "a", "c_int8": n}]));
        assert!(told["position"].as_i64() >= Some(position), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_that_does_not_come_in_time_is_said_and_old_rows_are_marked() {
    let nodes = Nodes::new().await;
    let url = nodes.other.url();
    let mut before = Stream::open(url, PATH, "");
    before.next().unwrap();
    let position = nodes.fall_behind(put("a", 2)).await;
    let text = position.to_string();
    let (seen, stale) = (("gobo-min-position", text.as_str()), ("prefer", "stale=ok"));
    let lag = format!("{PATH}&max_lag=0s&wait=10ms");
    for manner in ["rows", "changes", "poll"] {
        let live = format!("&live={manner}");
        let seen_by = format!("{PATH}&wait=10ms{live}");
        for (path, headers) in [(&seen_by, &[seen][..]), (&format!("{lag}{live}"), &[])] {
            let late = Stream::open_with(url, path, headers);
            assert_eq!(late.status, 503, "{path}: {}", late.head);
            assert!(late.head.contains("retry-after: 1"), "{}", late.head);
            let problem: Value = serde_json::from_str(&late.rest()).unwrap();
            assert_eq!(problem["code"], "not_yet", "{path}");
            let headers = [headers, &[stale]].concat();
            let mut old = Stream::open_with(url, path, &headers);
            assert_eq!(old.status, 200, "{path}: {}", old.head);
            assert!(old.head.contains("gobo-stale: true"), "{}", old.head);
            if manner == "rows" {
                let rows = old.next().unwrap().data;
                assert_eq!(rows["rows"], json!([{"id": "a", "c_int8": 1}]));
                assert!(rows["position"].as_i64() < Some(position));
            }
        }
        // What is not late is not marked, and whoever goes on after an id misses nothing.
        let near = format!("{PATH}&max_lag=3600s&wait=10ms{live}");
        for headers in [&[stale][..], &[stale, seen, ("last-event-id", &before.id)]] {
            let stream = Stream::open_with(url, &near, headers);
            assert_eq!(stream.status, 200, "{near}: {}", stream.head);
            assert!(!stream.head.contains("gobo-stale"), "{}", stream.head);
        }
    }
    for nonsense in ["", "-1", "ten"] {
        let refused = Stream::open_with(url, PATH, &[("gobo-min-position", nonsense)]);
        assert_eq!(refused.status, 400, "{nonsense}");
        assert!(refused.rest().contains("invalid_min_position"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_says_its_position_whatever_is_preferred() {
    let nodes = Nodes::new().await;
    let preferred = [("prefer", "metadata, count=exact, handling=strict")];
    let mut stream = Stream::open_with(nodes.other.url(), PATH, &preferred);
    assert_eq!(stream.status, 200, "{}", stream.head);
    // Neither counted nor wrapped, and not said to be.
    let applied = stream
        .head
        .lines()
        .filter(|line| line.starts_with("preference-applied"));
    assert_eq!(
        applied.collect::<Vec<_>>(),
        ["preference-applied: handling=strict"]
    );
    let rows = stream.next().unwrap().data;
    let members: Vec<&String> = rows.as_object().unwrap().keys().collect();
    assert_eq!(members, ["position", "revision", "rows"]);
    assert_eq!(rows["rows"], json!([{"id": "a", "c_int8": 1}]));
}
