//! Coming back, on this node or another one, after kills, promotions, and much else.

use std::collections::BTreeMap;

use gobo_tests::{Database, Gobo, Random, wait_until};
use serde_json::{Value, json};

use super::feed::some_changes;
use super::follow::{Replica, Stream};
use crate::scene::{Event, Scene, append, raw};

fn put(id: &str, n: i64) -> Event {
    raw("s", json!({"do": "put", "id": id, "n": n}))
}

const PATH: &str = "/read/raw?c_int8=gte.0&select=id,c_int8";

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_a_trimmed_feed_a_large_commit_and_a_foreign_id_ask_to_read_anew() {
    let tables = "[live]\nmax_changes = 3\n";
    let scene = Scene::new(tables, &["raw-guest"]).await;
    let last = scene.append(&[put("a", 1)]).await[0];
    scene.wait_for("raw", last);
    let url = scene.gobo.url();
    let open = || {
        let mut stream = Stream::open(url, PATH, "");
        assert_eq!(stream.next().unwrap().kind, "rows");
        stream
    };
    let ended = |stream: &mut Stream, reason: &str| {
        let event = stream.next().unwrap();
        assert_eq!(event.reason(), ("refetch", reason));
        assert_eq!(stream.id, "", "whoever comes back begins with the rows");
        assert!(stream.next().is_none());
    };
    let mut stream = open();
    let before = stream.id.clone();
    let many: Vec<_> = (0..4).map(|n| put(&format!("m{n}"), n)).collect();
    let last = scene.append(&many).await[3];
    ended(&mut stream, "too_many_changes");
    scene.wait_for("raw", last);
    ended(&mut Stream::open(url, PATH, &before), "too_many_changes");
    // Trimmed.
    let mut stream = open();
    let before = stream.id.clone();
    scene.append(&[put("a", 2)]).await;
    assert_eq!(stream.next().unwrap().kind, "changes");
    scene.append(&[put("a", 3)]).await;
    assert_eq!(stream.next().unwrap().kind, "changes");
    scene.database.execute("delete from gobo.feed where read_model = 'raw' and revision in (select min(revision) from gobo.feed where changes is not null)").await;
    scene.database.execute("delete from gobo.feed where read_model = 'raw' and revision < (select max(revision) from gobo.feed)").await;
    ended(&mut Stream::open(url, PATH, &before), "gone");
    // All of it, as after a while without commits.
    let mut stream = open();
    scene
        .database
        .execute("delete from gobo.feed where read_model = 'raw'")
        .await;
    ended(&mut Stream::open(url, PATH, &before), "gone");
    let mut current = Stream::open(url, PATH, &stream.id);
    scene.append(&[put("a", 4)]).await;
    for stream in [&mut stream, &mut current] {
        assert_eq!(stream.next().unwrap().kind, "changes");
    }
    // Of another history.
    ended(&mut Stream::open(url, PATH, "nonsense"), "unknown_id");
    let (realm, revision) = current.id.rsplit_once('-').unwrap();
    let ahead = format!("{realm}-{}", revision.parse::<i64>().unwrap() + 1_000);
    ended(&mut Stream::open(url, PATH, &ahead), "unknown_id");
    let (_, rest) = before.split_once('-').unwrap();
    ended(
        &mut Stream::open(url, PATH, &format!("x-{rest}")),
        "incarnation",
    );
    // Promoted, and rolled back.
    let mut stream = open();
    let before = stream.id.clone();
    let answer = scene
        .gobo
        .post("/admin/projections/raw/rebuild", &json!({}));
    assert!(answer.status < 300, "{}", answer.text());
    ended(&mut stream, "generation");
    ended(&mut Stream::open(url, PATH, &before), "generation");
    let mut stream = open();
    let before = stream.id.clone();
    let answer = scene
        .gobo
        .post("/admin/projections/raw/rollback", &json!({}));
    assert!(answer.status < 300, "{}", answer.text());
    ended(&mut stream, "generation");
    // What is live now has the lower number.
    ended(&mut Stream::open(url, PATH, &before), "generation");
}

/// Another filter, which some of the changes fulfil.
const LARGE: &str = "/read/raw?c_int8=gte.10&select=id,c_int8";

/// What [`LARGE`] shows after any event, from the events alone.
#[derive(Default)]
struct Oracle {
    events: Vec<(i64, Value)>,
}

impl Oracle {
    fn add(&mut self, positions: &[i64], events: &[Event]) {
        let data = events.iter().map(|(_, _, data)| data.clone());
        self.events.extend(positions.iter().copied().zip(data));
    }

    fn at(&self, position: i64) -> BTreeMap<String, Value> {
        let mut rows = BTreeMap::new();
        for (_, event) in self.events.iter().filter(|(at, _)| *at <= position) {
            let key = json!([event["id"]]).to_string();
            let number = event["n"].as_i64().unwrap_or(0);
            match event["do"].as_str() {
                Some("put") if number >= 10 => {
                    drop(rows.insert(key, json!({"id": event["id"], "c_int8": number})));
                }
                Some("put" | "delete") => drop(rows.remove(&key)),
                _ => {}
            }
        }
        rows
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_cannot_catch_up_yet_shows_that_it_stands_and_a_poll_ends_in_time() {
    let scene = Scene::new("[live]\nheartbeat_ms = 500\n", &["raw-guest"]).await;
    let last = scene.append(&[put("a", 1)]).await[0];
    scene.wait_for("raw", last);
    let url = scene.gobo.url();
    let mut stream = Stream::open(url, PATH, "");
    assert_eq!(stream.next().unwrap().kind, "rows");
    let id = stream.id.clone();
    scene.append(&[put("a", 2)]).await;
    assert_eq!(stream.next().unwrap().kind, "changes");
    let session = scene.database.connect().await;
    let lock = "begin; lock table gobo.feed in access exclusive mode";
    session.batch_execute(lock).await.unwrap();
    let poll = format!("{PATH}&live=poll&wait=0s&last_event_id={id}");
    let answer = scene.gobo.get(&poll).expect(200).json();
    assert_eq!(answer, json!({"events": [], "id": id}));
    // After the poll, which takes a while: nobody waits for the lock for more than ten seconds.
    let mut back = Stream::open(url, PATH, &id);
    back.wait_for_sign_of_life();
    session.batch_execute("rollback").await.unwrap();
    let changes = back.next().unwrap();
    assert_eq!(changes.data["changes"][0]["row"]["c_int8"], 2);
    let answer = scene.gobo.get(&poll).expect(200).json();
    assert_eq!(answer["events"][0]["data"], changes.data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_kept_through_kills_other_nodes_and_promotions_is_the_read_model_at_every_id() {
    let tables = "[projections.raw]\npolicy = \"skip\"\n[engine]\nbatch_events = 4\nlease_seconds = 2\n[live]\nheartbeat_ms = 100\n";
    let database = Database::create().await;
    let mut nodes = vec![Scene::over(database, tables, &["raw-guest"])];
    let second = Gobo::start(nodes[0].database.url(), tables);
    nodes.push(Scene {
        database: Database::at(nodes[0].database.url()),
        gobo: second,
    });
    let database = Database::at(nodes[0].database.url());
    let mut random = Random::new(77);
    let mut oracle = Oracle::default();
    let mut checked = 0;
    let mut replica = Replica::new(&["id"]);
    let (mut id, mut resumed, mut refetched) = (String::new(), 0, 0);
    for round in 0..14 {
        let node = random.below(2) as usize;
        let came_back = !id.is_empty();
        let mut stream = Stream::open(nodes[node].gobo.url(), LARGE, &id);
        assert_eq!(stream.status, 200, "{}", stream.head);
        let changes = some_changes(&mut random, 30);
        let positions = append(&database, &changes).await;
        oracle.add(&positions, &changes);
        let last = *positions.last().unwrap();
        if round == 6 {
            let live = || {
                let answer = nodes[1 - node].gobo.get("/read/raw?limit=0").expect(200);
                answer.header("gobo-generation").unwrap().to_owned()
            };
            let before = live();
            let answer = nodes[1 - node]
                .gobo
                .post("/admin/projections/raw/rebuild", &json!({}));
            assert!(answer.status < 300, "{}", answer.text());
            wait_until("the promotion", || match live() {
                same if same == before => Err(same),
                _ => Ok(()),
            });
        }
        if round % 4 == 3 {
            nodes[1 - node].gobo.kill();
            nodes[1 - node].gobo.start_again();
        }
        let goal = |replica: &Replica| {
            let found = nodes[node]
                .gobo
                .get(&format!("{LARGE}&min_position={last}&wait=30s"))
                .expect(200);
            let expected: Vec<Value> = serde_json::from_str(&found.text()).unwrap();
            let mut expected: Vec<String> = expected.iter().map(Value::to_string).collect();
            let mut held: Vec<String> =
                replica.values().iter().map(|row| row.to_string()).collect();
            expected.sort();
            held.sort();
            expected == held
        };
        let mut told = 0;
        // It leaves at a moment of its own, mostly before everything has been told.
        let patience = random.below(8) as usize;
        loop {
            if goal(&replica) || round < 13 && told >= patience {
                break;
            }
            let Some(event) = stream.next() else { break };
            told += 1;
            if !replica.apply(&event) {
                refetched += 1;
                stream = Stream::open(nodes[node].gobo.url(), LARGE, "");
                continue;
            }
            let position = event.data["position"].as_i64().unwrap();
            assert_eq!(replica.rows, oracle.at(position), "at {}", stream.id);
            checked += 1;
            if came_back && event.kind == "changes" {
                resumed += 1;
            }
        }
        id = stream.id.clone();
        if round % 4 == 1 {
            nodes[node].gobo.kill();
            nodes[node].gobo.start_again();
        }
    }
    assert!(
        resumed > 5 && refetched > 0 && checked > 20,
        "{resumed} {refetched} {checked}"
    );
}
