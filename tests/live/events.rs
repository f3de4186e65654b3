//! What a subscriber is told, and what it may not ask.

use std::collections::BTreeMap;

use gobo_tests::{Random, wait_until};
use serde_json::{Value, json};

use super::feed::some_changes;
use super::follow::{Replica, Stream};
use crate::scene::{Scene, raw};

fn pair(a: &str, b: i64, n: i64) -> crate::scene::Event {
    raw("s", json!({"do": "pair", "a": a, "b": b, "n": n}))
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_first_then_what_enters_changes_or_leaves_the_filter() {
    let scene = Scene::new("", &["raw-guest"]).await;
    let url = scene.gobo.url();
    let first = scene.append(&[pair("x", 1, 5), pair("y", 1, 1)]).await;
    scene.wait_for("raw", first[1]);
    let path = "/read/raw_pairs?n=gte.5&select=a,n&order=a";
    let mut stream = Stream::open(url, path, "");
    assert_eq!(stream.status, 200, "{}", stream.head);
    let mut silent = Stream::open(url, "/read/raw_pairs?live=changes&a=eq.x&n=lt.0", "");
    let rows = stream.next().unwrap();
    assert_eq!(rows.kind, "rows");
    assert_eq!(rows.data["rows"], json!([{"a": "x", "n": 5}]));
    assert_eq!(rows.data["position"], first[1]);
    let revision = rows.data["revision"].as_i64().unwrap();
    for (event, changes) in [
        // Enters.
        (
            pair("y", 1, 7),
            json!([{"op": "upsert", "key": ["y", 1], "row": {"a": "y", "n": 8}}]),
        ),
        // Changes.
        (
            pair("x", 1, 1),
            json!([{"op": "upsert", "key": ["x", 1], "row": {"a": "x", "n": 6}}]),
        ),
        // Is never in, then leaves.
        (pair("z", 1, 1), Value::Null),
        (pair("y", 1, -5), json!([{"op": "delete", "key": ["y", 1]}])),
        (
            raw("s", json!({"do": "unpair", "a": "x", "b": 1})),
            json!([{"op": "delete", "key": ["x", 1]}]),
        ),
    ] {
        let position = scene.append(&[event]).await[0];
        scene.wait_for("raw", position);
        if changes.is_null() {
            continue;
        }
        let told = stream.next().unwrap();
        assert_eq!(
            (told.kind.as_str(), &told.data["changes"]),
            ("changes", &changes)
        );
        assert_eq!(told.data["position"], position);
        let id = stream.id.rsplit('-').next().unwrap();
        assert_eq!(told.data["revision"].as_i64(), id.parse().ok());
        assert!(told.data["revision"].as_i64() > Some(revision));
    }
    // One row alone.
    let mut one = Stream::open(url, "/read/raw_pairs/z,1?select=n", "");
    assert_eq!(one.next().unwrap().data["rows"], json!([{"n": 1}]));
    let position = scene.append(&[pair("z", 1, 1), pair("w", 1, -1)]).await[0];
    assert_eq!(
        one.next().unwrap().data["changes"],
        json!([{"op": "upsert", "key": ["z", 1], "row": {"n": 2}}])
    );
    assert!(position > 0);
    let position = scene.append(&[pair("x", 1, -3)]).await[0];
    let told = silent.next().unwrap();
    assert_eq!(told.data["position"], position, "only what concerns it");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_and_selection_is_followed_as_it_is_answered() {
    let tables = "[projections.raw]\npolicy = \"skip\"\n[engine]\nbatch_events = 5\n";
    let scene = Scene::new(tables, &["raw-guest"]).await;
    let filters = [
        "",
        "c_int8=eq.3",
        "c_int8=neq.3",
        "c_int8=gt.40",
        "c_int8=gte.40",
        "c_int8=lt.40",
        "c_int8=lte.40",
        "c_int8=in.(1,2,3,50)",
        "c_int8=not.in.(1,2,3)",
        "c_int8=is.null",
        "c_int8=is.not_null",
        "c_int8=in.()",
        "c_text=eq.a%5Cb%0A%F0%9F%98%80",
        "c_text=neq.a",
        "c_text=is.null",
        "not.and=(c_int8.gt.5,c_text.is.null)",
        "or=(c_int8.eq.1,c_text.is.null)",
        "id=eq.r%222",
        "id=in.(%22r%5C%221%22,%22r%5C%223%22)",
        "id=gt.r%221",
        "c_bool=is.true",
        "c_bool=not.is.true",
        "c_bool=eq.true",
        "c_bool=is.unknown",
        "c_numeric=gt.0",
        "c_numeric=lt.0",
        "c_float8=gte.1",
        "c_timestamptz=lt.2030-01-01T00:00:00Z",
        "c_timestamptz=neq.2030-01-01T01:00:00%2B01:00",
        "c_date=eq.2024-02-29",
        "c_uuid=is.not_null",
        "c_jsonb=is.not_null",
        "_position=gt.30",
        "_revision=gt.4",
        "select=id,c_int8,_revision",
        "select=id,c_json,c_jsonb,c_bytea",
        "select=id,c_text&c_int8=not.eq.7",
    ];
    let paths: Vec<String> = filters
        .iter()
        .map(|filter| format!("/read/raw?{filter}"))
        .collect();
    let mut random = Random::new(5);
    let mut streams: Vec<(Stream, Replica)> = paths
        .iter()
        .map(|path| {
            (
                Stream::open(scene.gobo.url(), path, ""),
                Replica::new(&["id"]),
            )
        })
        .collect();
    for ((stream, replica), path) in streams.iter_mut().zip(&paths) {
        assert_eq!(stream.status, 200, "{path}");
        assert!(replica.apply(&stream.next().unwrap()));
    }
    for _ in 0..12 {
        scene.append(&some_changes(&mut random, 17)).await;
    }
    let last = scene
        .append(&[raw("s", json!({"do": "delete", "id": "r\"0"}))])
        .await[0];
    scene.wait_for("raw", last);
    for ((stream, replica), path) in streams.iter_mut().zip(&paths) {
        let expected = scene.gobo.get(path).expect(200).json();
        let expected: BTreeMap<String, Value> = expected
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (json!([row["id"]]).to_string(), row.clone()))
            .collect();
        // Whatever it does not know yet is on its way; if the rows are right, more of it would be wrong.
        while replica.rows != expected {
            assert!(replica.apply(&stream.next().unwrap()), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_followed_is_refused_with_the_reason() {
    let tables = "[api]\nmax_rows = 2\n[live]\nmax_subscribers = 3\n";
    let scene = Scene::new(tables, &["raw-guest"]).await;
    let last = scene
        .append(&[pair("x", 1, 5), pair("y", 1, 1), pair("z", 1, 1)])
        .await[2];
    scene.wait_for("raw", last);
    let url = scene.gobo.url();
    for (query, word) in [
        ("limit=1", "unsupported_parameter"),
        ("offset=1", "unsupported_parameter"),
        ("cursor=x", "invalid_cursor"),
        ("as_of=1", "unsupported_parameter"),
        ("live=sideways", "unsupported_parameter"),
        ("select=count()", "unsupported_parameter"),
        ("n=eq.x", "invalid_value"),
        ("m=eq.1", "unknown_column"),
        ("", "answer_too_large"),
        ("select=v:n&order=v", "answer_too_large"),
    ] {
        let stream = Stream::open(url, &format!("/read/raw_pairs?{query}"), "");
        assert_eq!(stream.status, 400, "{query}");
        let body = stream.rest();
        assert!(
            body.contains(word) && body.contains("detail"),
            "{query}: {body}"
        );
    }
    let open = |query: &str| Stream::open(url, &format!("/read/raw_pairs?{query}"), "");
    let mut streams: Vec<Stream> = (0..3).map(|_| open("live=changes")).collect();
    assert_eq!(open("live=changes").status, 503);
    assert_eq!(scene.gobo.get("/read/raw_pairs?limit=1").status, 200);
    streams.pop();
    wait_until("a place", || match open("live=changes").status {
        200 => Ok(()),
        other => Err(other),
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_answers_as_soon_as_something_matches_and_goes_on_where_it_was() {
    let scene = Scene::new("", &["raw-guest"]).await;
    let last = scene.append(&[pair("x", 1, 5)]).await[0];
    scene.wait_for("raw", last);
    let poll = |id: &str, wait: &str| {
        let path = format!("/read/raw_pairs?live=poll&n=gt.2&select=a,n&wait={wait}");
        scene
            .gobo
            .request("GET", &path, &[("last-event-id", id)], b"")
            .expect(200)
            .json()
    };
    let first = poll("", "0s");
    assert_eq!(first["events"][0]["event"], "rows");
    assert_eq!(
        first["events"][0]["data"]["rows"],
        json!([{"a": "x", "n": 5}])
    );
    let id = first["id"].as_str().unwrap().to_owned();
    assert_eq!(poll(&id, "10ms"), json!({"events": [], "id": id}));
    // What does not match moves the id on.
    let last = scene.append(&[pair("y", 1, 1)]).await[0];
    scene.wait_for("raw", last);
    let moved = poll(&id, "10ms");
    assert_eq!(moved["events"], json!([]));
    assert_ne!(moved["id"], json!(id));
    let id = moved["id"].as_str().unwrap();
    let (answer, _) = std::thread::scope(|scope| {
        let answer = scope.spawn(|| poll(id, "30s"));
        let appended = scope.spawn(|| {
            let event = json!({"events": [{"type": "Raw", "data": {"do": "pair", "a": "y", "b": 1, "n": 4}}]});
            scene.gobo.post("/streams/s2/events", &event).expect(200)
        });
        (answer.join().unwrap(), appended.join().unwrap())
    });
    assert_eq!(
        answer["events"][0]["data"]["changes"],
        json!([{"op": "upsert", "key": ["y", 1], "row": {"a": "y", "n": 5}}])
    );
    let gone = poll("0-1-99999999", "1s");
    assert_eq!(
        (&gone["events"][0]["event"], &gone["id"]),
        (&json!("refetch"), &Value::Null)
    );
}
