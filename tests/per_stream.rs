//! Read models that are declared per stream: whose a row is, and what a late retry promises there.

use std::collections::BTreeMap;

use gobo_tests::{Database, Random};
use serde_json::{Value, json};

use crate::orders::copy_of_events;
use crate::scene::{Event, Scene, append, raw};

const PARK: &str = "[projections.ledger]\npolicy = \"park\"\n";

/// Rows of `raw_owned`: what they hold, whose they are, and which event changed them last.
type Owned = BTreeMap<String, (i64, String, i64)>;

/// Events that make, change and delete rows, mostly those of their own stream.
fn claims(count: u64) -> Vec<Event> {
    let mut random = Random::new(0x0bad_cafe_f00d);
    let mut next = move |bound| random.below(bound);
    let mut likely = BTreeMap::new();
    (0..count)
        .map(|number| {
            let id = format!("r{}", next(5));
            let anybody = format!("stream {}", next(3));
            let what = ["own", "gain", "gain", "disown"][next(4) as usize];
            let stream = match likely.get(&id) {
                Some(owner) if next(10) > 0 => String::clone(owner),
                _ => anybody,
            };
            match what {
                "disown" => likely.remove(&id),
                _ => likely.insert(id.clone(), stream.clone()),
            };
            raw(stream, json!({"do": what, "id": id, "n": number}))
        })
        .collect()
}

/// What the rule makes of these events: a row belongs to the stream that made it for as long as it exists, and nobody else
/// changes or deletes it. Gives the rows, and the events that are refused.
fn by_the_rule(events: &[Event], positions: &[i64]) -> (Owned, Vec<(i64, String)>) {
    let (mut rows, mut refused) = (Owned::new(), Vec::new());
    for ((stream, _, data), &position) in events.iter().zip(positions) {
        let (id, n) = (data["id"].as_str().unwrap(), data["n"].as_i64().unwrap());
        let old = rows.get(id);
        if old.is_some_and(|(_, owner, _)| owner != stream) {
            refused.push((position, stream.clone()));
            continue;
        }
        let sum = match data["do"].as_str() {
            Some("disown") => {
                rows.remove(id);
                continue;
            }
            Some("gain") => old.map_or(0, |(sum, ..)| *sum) + n,
            _ => n,
        };
        rows.insert(id.to_owned(), (sum, stream.clone(), position));
    }
    (rows, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_belongs_to_the_stream_that_made_it_until_it_is_deleted_whatever_the_batches() {
    let database = Database::create().await;
    let mut client = database.connect().await;
    gobo::migrate::migrate(&mut client).await.unwrap();
    let events = claims(240);
    let positions = append(&database, &events).await;
    let (rows, refused) = by_the_rule(&events, &positions);
    assert!(rows.len() > 2 && refused.len() > 8, "{rows:?} {refused:?}");
    let expected: Vec<_> = (rows.iter())
        .map(|(id, (n, _, position))| json!({"id": id, "n": n, "_position": position}))
        .collect();
    let letters: Vec<_> = (refused.iter())
        .map(|(position, stream)| (*position, stream.as_str(), "skipped"))
        .collect();
    for sizes in [
        "batch_events = 1",
        "batch_events = 3",
        "batch_events = 17\ncommit_rows = 2",
        "batch_events = 2000",
    ] {
        let tables = format!("[engine]\n{sizes}\n[projections.raw]\npolicy = \"skip\"\n");
        let scene = Scene::over(copy_of_events(&database).await, &tables, &["raw-guest"]);
        scene.wait_for("raw", positions[239]);
        scene.wait_for_letters("raw", &letters);
        let found = "select id, n, _position from read.raw_owned order by id";
        let found = scene.database.query_json(found).await;
        assert_eq!(found, json!(expected), "{sizes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_changes_hands_in_one_transaction() {
    let scene = Scene::new("", &["raw-guest"]).await;
    let own = |stream: &str, id: &str, n: i64| raw(stream, json!({"do": "own", "id": id, "n": n}));
    let disown = |stream: &str, id: &str| raw(stream, json!({"do": "disown", "id": id}));
    let first = scene.append(&[own("a", "x", 1), own("a", "y", 1)]).await;
    scene.wait_for("raw", first[1]);
    let second = [
        disown("a", "x"),
        own("b", "x", 2),
        disown("b", "x"),
        own("c", "x", 3),
        // Here and gone within the batch, twice.
        own("a", "z", 4),
        disown("a", "z"),
        own("b", "z", 5),
        disown("b", "z"),
        disown("c", "z"),
        own("a", "y", 6),
    ];
    let second = scene.append(&second).await;
    scene.wait_for("raw", second[9]);
    let rows = "select id, n, dense_rank() over (order by _revision) as revision from read.raw_owned order by id";
    assert_eq!(
        scene.database.query_json(rows).await,
        json!([{"id": "x", "n": 3, "revision": 1}, {"id": "y", "n": 6, "revision": 1}])
    );
    // It is the last one's now, also when all are in other transactions.
    let third = scene.append(&[own("a", "x", 7)]).await;
    let error = scene.wait_for_stop("raw");
    assert_eq!(error["position"], third[0]);
}

fn booked(stream: &str, data: Value) -> Event {
    (stream.to_owned(), "Booked", data)
}

/// Looks account `account` up, and does nothing else.
fn look(stream: &str, account: &str) -> Event {
    booked(
        stream,
        json!({"amount": 0, "account": account, "look": true}),
    )
}

/// What one event more leads to: whether the generation has diverged after these.
async fn diverged_after(scene: &Scene, events: &[Event]) -> bool {
    let positions = scene.append(events).await;
    scene.wait_for("ledger", *positions.last().unwrap());
    scene.status("ledger")["diverged"].as_bool().unwrap()
}

/// Retries all dead letters with mended code, and gives whether the generation has diverged. If it has not, its rows are
/// those of a run in which nothing ever went wrong.
async fn diverged_after_retry(scene: &Scene) -> bool {
    scene.gobo.swap("ledger-mended").expect(200);
    scene.retry("ledger");
    scene.wait_for_letters("ledger", &[]);
    let diverged = scene.status("ledger")["diverged"].as_bool().unwrap();
    let copy = copy_of_events(&scene.database).await;
    let clean = Scene::over(copy, "", &["ledger-mended"]);
    let head = "select max(position) from gobo.events";
    clean.wait_for("ledger", clean.database.query_i64(head).await);
    let same = scene.rows("accounts").await == clean.rows("accounts").await;
    // Never the other way round: what differs has been noticed.
    assert!(same || diverged, "{}", scene.rows("accounts").await);
    diverged
}

/// What the engine says of it in the projection's log.
fn why(scene: &Scene) -> String {
    let lines = scene.gobo.get("/admin/projections/ledger/logs").expect(200);
    let lines = lines.json()["lines"].clone();
    let mut found = (lines.as_array().unwrap().iter())
        .filter_map(|line| line["message"].as_str())
        .filter(|message| message.contains("diverged"));
    let why = found.next().unwrap().to_owned();
    assert_eq!(found.next(), None, "it is said once");
    why
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_a_row_of_a_stream_that_waits_marks_the_generation_as_diverged() {
    for batch_events in [1, 2_000] {
        let tables = format!("[engine]\nbatch_events = {batch_events}\n{PARK}");
        let scene = Scene::new(&tables, &["ledger"]).await;
        let before = [
            booked("a", json!({"amount": 10})),
            booked("c", json!({"amount": 5})),
            booked("d", json!({"amount": 1, "match_account": "a"})),
            booked("a", json!({"amount": 1, "fee": 2})),
        ];
        assert!(!diverged_after(&scene, &before).await);
        let others = [booked("d", json!({"amount": 1, "match_account": "c"}))];
        assert!(!diverged_after(&scene, &others).await);
        let waiting = [booked("d", json!({"amount": 1, "match_account": "a"}))];
        assert!(diverged_after(&scene, &waiting).await);
        let again = [booked("d", json!({"amount": 1, "match_account": "a"}))];
        assert!(diverged_after(&scene, &again).await);
        let why = why(&scene);
        for words in ["\"accounts\"", "row \"a\"", "stream \"a\""] {
            assert!(why.contains(words), "{words:?} is missing in {why}");
        }
        // Nothing else changes by it.
        let row = "select balance from read.accounts where account = 'd'";
        assert_eq!(scene.database.query_i64(row).await, 11 + 6 + 11 + 11);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_retry_that_reads_what_another_stream_has_changed_since_is_marked() {
    let scene = Scene::new(PARK, &["ledger"]).await;
    let events = [
        booked("b", json!({"amount": 5})),
        booked("a", json!({"amount": 1, "fee": 2, "match_account": "b"})),
        booked("c", json!({"amount": 3})),
    ];
    assert!(!diverged_after(&scene, &events).await);
    // Nobody has changed it since: a replay reads the same.
    assert!(!diverged_after_retry(&scene).await);
    let scene = Scene::new(PARK, &["ledger"]).await;
    assert!(!diverged_after(&scene, &events).await);
    let since = [booked("b", json!({"amount": 7}))];
    assert!(!diverged_after(&scene, &since).await);
    assert!(diverged_after_retry(&scene).await);
    let why = why(&scene);
    for words in ["\"accounts\"", "row \"b\"", "stream \"b\"", "late retry"] {
        assert!(why.contains(words), "{words:?} is missing in {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_retry_that_reads_a_row_of_a_stream_that_still_waits_is_marked() {
    let scene = Scene::new(PARK, &["ledger"]).await;
    let events = [
        booked("b", json!({"amount": 5})),
        booked("b", json!({"amount": 1, "fee": 1})),
        booked("a", json!({"amount": 1, "fee": 2, "match_account": "b"})),
    ];
    assert!(!diverged_after(&scene, &events).await);
    scene.gobo.swap("ledger-mended").expect(200);
    let path = "/admin/projections/ledger/dead-letters/retry";
    scene
        .gobo
        .post(path, &json!({"stream_id": "a"}))
        .expect(202);
    let letters = scene.letters("ledger");
    scene.wait_for_letters("ledger", &[(letters[0].position, "b", "failed")]);
    assert_eq!(scene.status("ledger")["diverged"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_retry_that_makes_a_row_which_others_had_looked_for_is_marked() {
    let parked = [
        look("c", "a"),
        booked("a", json!({"amount": 1, "fee": 2})),
        booked("a", json!({"amount": 1})),
    ];
    // Looked for before, and what nobody makes late: a replay finds no more.
    let harmless = [
        look("b", "nobody"),
        booked("b", json!({"amount": 1})),
        look("b", "b"),
        look("c", "b"),
    ];
    let scene = Scene::new(PARK, &["ledger"]).await;
    assert!(!diverged_after(&scene, &parked).await);
    assert!(!diverged_after(&scene, &harmless).await);
    let kept = "select count(*) from gobo.absent_keys";
    assert_eq!(scene.database.query_i64(kept).await, 1);
    assert!(!diverged_after_retry(&scene).await);
    // Nothing is kept once nothing waits.
    let next = [booked("b", json!({"amount": 2}))];
    assert!(!diverged_after(&scene, &next).await);
    assert_eq!(scene.database.query_i64(kept).await, 0);

    let mut scene = Scene::new(PARK, &["ledger"]).await;
    assert!(!diverged_after(&scene, &parked).await);
    let found_none = [look("b", "a"), booked("b", json!({"amount": 1}))];
    assert!(!diverged_after(&scene, &found_none).await);
    // It is remembered by the database, not by the process.
    scene.restart_with(PARK);
    assert!(diverged_after_retry(&scene).await);
    let why = why(&scene);
    for words in ["\"accounts\"", "row \"a\"", "late retry"] {
        assert!(why.contains(words), "{words:?} is missing in {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_retry_that_takes_a_key_which_another_stream_had_and_freed_is_marked() {
    for (freed, expected) in [("j", false), ("k", true)] {
        let scene = Scene::new(PARK, &["ledger"]).await;
        let events = [
            booked("p", json!({"amount": 1, "fee": 2})),
            booked("p", json!({"amount": 3, "account": "k"})),
            booked("q", json!({"amount": 4, "account": freed})),
        ];
        assert!(!diverged_after(&scene, &events).await);
        let close = json!({"amount": 0, "account": freed, "close": true});
        assert!(!diverged_after(&scene, &[booked("q", close)]).await);
        // In a replay, `p` has the key, and `q` is refused.
        scene.gobo.swap("ledger-mended").expect(200);
        scene.retry("ledger");
        scene.wait_for_letters("ledger", &[]);
        assert_eq!(scene.status("ledger")["diverged"], expected, "{freed}");
    }
}
