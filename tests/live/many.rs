//! Many subscribers, slow ones, and a server that dies.

use std::collections::BTreeMap;

use gobo_tests::{Cluster, Database, Options, wait_until};
use serde_json::{Value, json};

use super::follow::{Replica, Stream};
use crate::scene::{Event, Scene, append, raw};

fn put(id: &str, n: i64, text: &str) -> Event {
    raw("s", json!({"do": "put", "id": id, "n": n, "text": text}))
}

fn metric(scene: &Scene, name: &str) -> u64 {
    let page = scene.gobo.get("/metrics").expect(200).text();
    let line = page
        .lines()
        .find(|line| line.starts_with(&format!("{name} ")));
    let value = line.unwrap_or_else(|| panic!("{name} is not in {page}"));
    value.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_subscribers_share_one_feed_and_each_is_told_what_is_its_own() {
    let tables = "[live]\nheartbeat_ms = 500\n[api]\nmax_connections = 700\nmax_requests = 4\n";
    let scene = Scene::new(tables, &["raw-guest"]).await;
    let last = scene.append(&[put("first", 0, "x")]).await[0];
    scene.wait_for("raw", last);
    let url = scene.gobo.url();
    let mut streams: Vec<Stream> = (0..500)
        .map(|n| {
            Stream::open(
                url,
                &format!("/read/raw?select=id,c_int8&c_int8=eq.{}", n % 250),
                "",
            )
        })
        .collect();
    for stream in &mut streams {
        assert_eq!(stream.next().unwrap().kind, "rows");
    }
    assert_eq!(metric(&scene, "gobo_live_subscribers"), 500);
    let events: Vec<Event> = (0..250).map(|n| put(&format!("r{n}"), n, "x")).collect();
    for events in events.chunks(10) {
        scene.append(events).await;
    }
    for (n, stream) in streams.iter_mut().enumerate() {
        let n = n as i64 % 250;
        let told = stream.next().unwrap();
        let expected = json!([{"op": "upsert", "key": [format!("r{n}")], "row": {"id": format!("r{n}"), "c_int8": n}}]);
        assert_eq!(told.data["changes"], expected);
    }
    // What has moved on without concerning it moves its id on.
    let before = streams[0].id.clone();
    streams[0].wait_for_sign_of_life();
    let revision = |id: &str| id.rsplit('-').next().unwrap().parse::<i64>().unwrap();
    assert!(revision(&streams[0].id) >= revision(&before));
    assert!(metric(&scene, "gobo_live_events_total") >= 1_000);
    drop(streams);
    wait_until("everybody to be gone", || {
        match metric(&scene, "gobo_live_subscribers") {
            0 => Ok(()),
            left => Err(left),
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_between_commits_is_told_each_of_them_once() {
    let scene = Scene::new(
        "[engine]\nbatch_events = 1\ncommit_rows = 1\n",
        &["raw-guest"],
    )
    .await;
    let last = scene.append(&[put("a", 0, "x")]).await[0];
    scene.wait_for("raw", last);
    let path = "/read/raw?select=id";
    let mut stream = Stream::open(scene.gobo.url(), path, "");
    let from = stream.next().unwrap().data["revision"].as_i64().unwrap();
    let url = scene.database.url().to_owned();
    let writing = tokio::spawn(async move {
        let database = Database::at(&url);
        for n in 0..400 {
            append(&database, &[put("a", n, "x")]).await;
        }
        append(&database, &[put("last", 0, "x")]).await;
    });
    // They catch up, and take their seats, while commits come.
    let id = stream.id.clone();
    let open = || Stream::open(scene.gobo.url(), path, &id);
    let mut streams = vec![stream];
    while !writing.is_finished() && streams.len() < 300 {
        streams.push(open());
    }
    writing.await.unwrap();
    let told = |stream: &mut Stream| {
        let mut revisions = Vec::new();
        loop {
            let event = stream.next().unwrap();
            assert_eq!(event.kind, "changes", "{}", event.data);
            revisions.push(event.data["revision"].as_i64().unwrap());
            if event.data["changes"].to_string().contains("last") {
                return revisions;
            }
        }
    };
    let all: Vec<Vec<i64>> = streams.iter_mut().map(told).collect();
    let sql =
        "select revision from gobo.feed where read_model = 'raw' and revision > $1 order by 1";
    let client = scene.database.connect().await;
    let commits = client.query(sql, &[&from]).await.unwrap();
    let commits: Vec<i64> = commits.iter().map(|row| row.get(0)).collect();
    assert!(
        commits.len() > 100 && all.len() > 50,
        "{} {}",
        commits.len(),
        all.len()
    );
    for (number, revisions) in all.iter().enumerate() {
        assert_eq!(revisions, &commits, "stream {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_dropped_with_the_reason_and_comes_back_without_a_hole() {
    // A commit for each event, however late the engine is: otherwise the last one is all that is told.
    let tables = "[live]\nqueue_bytes = 20000\n[engine]\nbatch_events = 1\ncommit_rows = 1\n";
    let scene = Scene::new(tables, &["raw-guest"]).await;
    let last = scene.append(&[put("a", 0, "x")]).await[0];
    scene.wait_for("raw", last);
    let path = "/read/raw?select=id,c_int8,c_text";
    let mut slow = Stream::open(scene.gobo.url(), path, "");
    let mut replica = Replica::new(&["id"]);
    assert!(replica.apply(&slow.next().unwrap()));
    // More than the sockets of both sides hold.
    let text = "t".repeat(100_000);
    let mut last = 0;
    for n in 1..=200 {
        last = scene.append(&[put("a", n, &text)]).await[0];
    }
    scene.wait_for("raw", last);
    let end = loop {
        let event = slow.next().unwrap();
        if event.kind == "dropped" {
            break event;
        }
        assert!(replica.apply(&event));
    };
    assert_eq!(end.reason(), ("dropped", "too_slow"));
    assert!(slow.next().is_none());
    assert_eq!(metric(&scene, "gobo_live_dropped_total"), 1);
    let mut back = Stream::open(scene.gobo.url(), path, &slow.id);
    while replica.values()[0]["c_int8"] != 200 {
        assert!(replica.apply(&back.next().unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_is_still_there_when_the_server_was_killed() {
    let mut cluster = Cluster::start(Options::ephemeral()).unwrap();
    let database = Database::create_in(&cluster).await;
    let mut scene = Scene::over(database, "", &["raw-guest"]);
    let path = "/read/raw?select=id,c_int8&order=id";
    for round in 0..4i64 {
        // Right after the crash nobody can tell what a revision means.
        let mut stream = wait_until("the server to be back", || {
            let stream = Stream::open(scene.gobo.url(), path, "");
            match stream.status {
                200 => Ok(stream),
                _ => Err(stream.head),
            }
        });
        let mut replica = Replica::new(&["id"]);
        assert!(replica.apply(&stream.next().unwrap()));
        let url = scene.database.url().to_owned();
        let writing = tokio::spawn(async move {
            let database = Database::at(&url);
            // Until the server is killed.
            for n in 0.. {
                append(&database, &[put(&format!("r{round}-{n}"), n, "x")]).await;
            }
        });
        for _ in 0..5 + 10 * round {
            assert!(replica.apply(&stream.next().unwrap()));
        }
        // The engine does not see the server come back, and so projects nothing again that was lost.
        scene.gobo.stop();
        cluster.kill().unwrap();
        assert!(writing.await.is_err());
        cluster.restart().unwrap();
        let found = scene
            .database
            .query_json("select id, c_int8 from read.raw")
            .await;
        let found: BTreeMap<String, Value> = (found.as_array().unwrap().iter())
            .map(|row| (json!([row["id"]]).to_string(), row.clone()))
            .collect();
        for (key, row) in &replica.rows {
            assert_eq!(found.get(key), Some(row), "{key} was told and is not there");
        }
        scene.gobo.cont();
        let end = std::iter::from_fn(|| stream.next()).find(|event| event.kind != "changes");
        assert_eq!(end.unwrap().reason(), ("refetch", "incarnation"));
        wait_until("the engine to be ready", || {
            match scene.gobo.get("/health/ready").status {
                200 => Ok(()),
                other => Err(other),
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_that_were_told_first_are_still_there_when_the_server_was_killed() {
    // Batches commit without waiting for the disk, and nobody else writes the log out.
    let options = Options::ephemeral().with("wal_writer_delay", "10s");
    let mut cluster = Cluster::start(options).unwrap();
    let database = Database::create_in(&cluster).await;
    let mut scene = Scene::over(database, "", &["raw-guest"]);
    // A poll does not go on to follow, which would wait for the disk by itself.
    let poll = |scene: &Scene| scene.gobo.get("/read/raw?live=poll&select=c_int8");
    for n in 0..4 {
        // Right after a crash nobody can tell what a revision means.
        wait_until("the server to be back", || match poll(&scene) {
            answer if answer.status == 200 => Ok(()),
            other => Err(other.text()),
        });
        let position = scene.append(&[put("a", n, "x")]).await[0];
        let path = format!("/read/raw/a?min_position={position}&wait=30s");
        scene.gobo.get(&path).expect(200);
        let told = poll(&scene).expect(200).json();
        assert_eq!(told["events"][0]["data"]["rows"], json!([{"c_int8": n}]));
        // The engine does not see the server come back, and so projects nothing again that was lost.
        scene.gobo.stop();
        cluster.kill().unwrap();
        cluster.restart().unwrap();
        let found = scene
            .database
            .query_json("select c_int8 from read.raw")
            .await;
        assert_eq!(found, json!([{"c_int8": n}]));
        scene.gobo.cont();
    }
}
