//! One stream alone: its rows computed anew in place, all of them or none.

use gobo_tests::{Answer, wait_for, wait_until};
use serde_json::{Value, json};

use crate::generations::bookings;
use crate::scene::{Event, Scene, raw};

fn rebuild(scene: &Scene, stream: &str) -> Answer {
    let body = json!({ "stream_id": stream });
    scene
        .gobo
        .post("/admin/projections/ledger/rebuild-stream", &body)
}

fn booked(stream: &str, data: Value) -> Event {
    (stream.to_owned(), "Booked", data)
}

async fn live(scene: &Scene, table: &str) -> String {
    let live = scene
        .database
        .query_i64("select live from gobo.projections limit 1")
        .await;
    format!("gobo_g{live}.{table}")
}

/// A scene with `accounts` accounts of ten bookings each, and all rows of it.
async fn ledger(tables: &str, accounts: usize) -> (Scene, Value) {
    let scene = Scene::new(tables, &["ledger"]).await;
    let last = *scene.append(&bookings(accounts, 10)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let rows = scene.rows("accounts").await;
    (scene, rows)
}

fn error(answer: &Answer) -> String {
    answer.json()["detail"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_tampered_with_are_mended_and_strays_go_while_others_stay() {
    let (scene, rows) = ledger("", 5).await;
    let table = live(&scene, "accounts").await;
    let before = scene.status("ledger");
    let of_others = format!(
        "select * from {table} where account not in ('account-1', 'stray') order by account"
    );
    let tamper = format!(
        "update {table} set balance = 1000000, _position = 1 where account = 'account-1';
         insert into {table} (account, balance, history, _stream_id, _position, _revision, _updated_at)
              values ('stray', 1, '', 'account-1', 1, 1, now());
         update {table} set balance = balance + 7 where account = 'account-2'"
    );
    scene.database.execute(&tamper).await;
    let others = scene.database.query_json(&of_others).await;
    let tag = |path: &str| {
        scene
            .gobo
            .get(path)
            .expect(200)
            .header("etag")
            .unwrap()
            .to_owned()
    };
    let old_tag = tag("/read/accounts");
    let done = rebuild(&scene, "account-1").expect(200).json();
    assert_eq!(
        (&done["outcome"], &done["rows"]),
        (&json!("rebuilt"), &json!(1))
    );
    assert!(!done["finished_at"].is_null());
    // Other streams' rows are untouched, even where they are wrong, and keep their revision.
    assert_eq!(scene.database.query_json(&of_others).await, others);
    scene
        .database
        .execute(&format!(
            "update {table} set balance = balance - 7 where account = 'account-2'"
        ))
        .await;
    assert_eq!(scene.rows("accounts").await, rows);
    // Readers see that something changed, at the position that they knew.
    assert_ne!(tag("/read/accounts"), old_tag);
    let after = scene.status("ledger");
    assert_eq!(after["position"], before["position"]);
    let revision = |status: &Value| status["read_models"][0]["revision"].as_i64().unwrap();
    assert_eq!(revision(&after), revision(&before) + 1);
    let listed = scene
        .gobo
        .get("/admin/projections/ledger/rebuild-stream")
        .expect(200)
        .json();
    assert_eq!(listed["streams"][0]["stream_id"], "account-1");
    assert_eq!(listed["streams"][0]["rows"], 1);
    // The projection goes on from what is there now.
    let last = *scene
        .append(&[booked("account-1", json!({ "amount": 1 }))])
        .await
        .last()
        .unwrap();
    scene.wait_for("ledger", last);
    let clean = Scene::over(
        crate::orders::copy_of_events(&scene.database).await,
        "",
        &["ledger"],
    );
    clean.wait_for("ledger", last);
    assert_eq!(scene.rows("accounts").await, clean.rows("accounts").await);
    let nothing = rebuild(&scene, "nobody").expect(200).json();
    assert_eq!(nothing["rows"], 0);
    assert_eq!(revision(&scene.status("ledger")), revision(&after) + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_cache_keeps_nothing_of_what_was_replaced() {
    let (scene, _) = ledger("", 3).await;
    let table = live(&scene, "accounts").await;
    scene.database.execute(&format!(
        "insert into {table} (account, balance, history, _stream_id, _position, _revision, _updated_at)
              values ('stray', 1000, '', 'account-1', 1, 1, now())"
    )).await;
    // The loop looks the stray up, and so has it in its cache.
    let look = booked(
        "account-1",
        json!({ "amount": 0, "account": "stray", "look": true }),
    );
    let last = *scene.append(&[look]).await.last().unwrap();
    scene.wait_for("ledger", last);
    rebuild(&scene, "account-1").expect(200);
    let book = booked("account-1", json!({ "amount": 5, "account": "stray" }));
    let last = *scene.append(&[book]).await.last().unwrap();
    scene.wait_for("ledger", last);
    let balance = "select balance from read.accounts where account = 'stray'";
    assert_eq!(scene.database.query_i64(balance).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_sizes_of_batches_it_is_the_same() {
    for tables in [
        "[engine]\nbatch_events = 1\n",
        "[engine]\nbatch_events = 3\n",
    ] {
        let scene = Scene::new(tables, &["raw-guest"]).await;
        let event = |stream: &str, what: &str, id: &str, n: i64| {
            raw(stream, json!({ "do": what, "id": id, "n": n }))
        };
        let mut events = Vec::new();
        for n in 0..30 {
            events.push(event("a", "gain", &format!("a{}", n % 4), n));
            events.push(event("b", "gain", &format!("b{}", n % 3), n));
            if n % 7 == 6 {
                events.push(event("a", "disown", &format!("a{}", n % 4), n));
            }
        }
        let last = *scene.append(&events).await.last().unwrap();
        scene.wait_for("raw", last);
        // The guest has read models that are not declared so.
        let body = json!({ "stream_id": "a" });
        let refused = scene
            .gobo
            .post("/admin/projections/raw/rebuild-stream", &body)
            .expect(409);
        assert!(
            error(&refused).contains("is not declared per_stream"),
            "{}",
            refused.text()
        );
        assert!(
            error(&refused).contains("gobo rebuild raw"),
            "{}",
            refused.text()
        );
        let none = scene
            .database
            .query_i64("select count(*) from gobo.stream_rebuilds")
            .await;
        assert_eq!(none, 0);
        let (scene, rows) = ledger(tables, 3).await;
        let table = live(&scene, "accounts").await;
        scene
            .database
            .execute(&format!("delete from {table} where account = 'account-2'"))
            .await;
        rebuild(&scene, "account-2").expect(200);
        assert_eq!(scene.rows("accounts").await, rows);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_fails_leaves_everything_as_it_is_and_is_named() {
    let (scene, rows) = ledger("[projections.ledger]\npolicy = \"park\"\n", 3).await;
    let fee = booked("account-1", json!({ "amount": 1, "fee": 2 }));
    let positions = scene
        .append(&[booked("account-1", json!({ "amount": 0 })), fee])
        .await;
    scene.wait_for("ledger", positions[1]);
    let letters = [(positions[1], "account-1", "failed")];
    scene.wait_for_letters("ledger", &letters);
    let table = live(&scene, "accounts").await;
    scene
        .database
        .execute(&format!(
            "update {table} set balance = 42 where account = 'account-1'"
        ))
        .await;
    let all = format!("select * from {table} order by account");
    let before = (
        scene.database.query_json(&all).await,
        scene.status("ledger")["read_models"].clone(),
    );
    let refused = rebuild(&scene, "account-1").expect(409);
    let why = error(&refused);
    assert!(
        why.contains(&format!("event {} (Booked)", positions[1])) && why.contains("a fee of 2"),
        "{why}"
    );
    let after = (
        scene.database.query_json(&all).await,
        scene.status("ledger")["read_models"].clone(),
    );
    assert_eq!(after, before);
    scene.wait_for_letters("ledger", &letters);
    // Nothing that was computed on the way is taken for a row: the next event goes on from the rows that are there.
    let other = booked("account-1", json!({ "amount": 1 }));
    let behind = *scene.append(&[other]).await.last().unwrap();
    scene.wait_for_letters("ledger", &[letters[0], (behind, "account-1", "behind")]);
    // Given up, it does not stand in the way any more; what waited behind it is settled.
    let body = json!({ "position": positions[1], "reason": "a test" });
    scene
        .gobo
        .post("/admin/projections/ledger/dead-letters/discard", &body)
        .expect(200);
    rebuild(&scene, "account-1").expect(200);
    scene.wait_for_letters("ledger", &[(positions[1], "account-1", "discarded")]);
    let balance = "select balance from read.accounts where account = 'account-1'";
    let sum = rows
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["row"]["account"] == "account-1")
        .unwrap()["row"]["balance"]
        .as_i64();
    assert_eq!(scene.database.query_i64(balance).await, sum.unwrap() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_the_stream_are_settled_and_others_stay() {
    let (scene, _) = ledger("[projections.ledger]\npolicy = \"park\"\n", 3).await;
    let events = [
        booked("account-1", json!({ "amount": 1, "fee": 2 })),
        booked("account-1", json!({ "amount": 3 })),
        booked("account-2", json!({ "amount": 1, "fee": 3 })),
    ];
    let positions = scene.append(&events).await;
    scene.wait_for("ledger", positions[2]);
    scene.gobo.swap("ledger-mended").expect(200);
    rebuild(&scene, "account-1").expect(200);
    scene.wait_for_letters("ledger", &[(positions[2], "account-2", "failed")]);
    // Its next event does not wait any more.
    let next = *scene
        .append(&[booked("account-1", json!({ "amount": 10 }))])
        .await
        .last()
        .unwrap();
    scene.wait_for("ledger", next);
    rebuild(&scene, "account-2").expect(200);
    scene.wait_for_letters("ledger", &[]);
    assert_eq!(scene.status("ledger")["diverged"], false);
    let clean = Scene::over(
        crate::orders::copy_of_events(&scene.database).await,
        "",
        &["ledger-mended"],
    );
    clean.wait_for("ledger", next);
    assert_eq!(scene.rows("accounts").await, clean.rows("accounts").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_others_did_not_find_and_that_is_processed_late_is_noticed() {
    let scene = Scene::new("[projections.ledger]\npolicy = \"park\"\n", &["ledger"]).await;
    let look = json!({ "amount": 0, "account": "a", "look": true });
    let events = [
        booked("a", json!({ "amount": 1, "fee": 2 })),
        booked("b", look),
    ];
    let positions = scene.append(&events).await;
    scene.wait_for("ledger", positions[1]);
    scene.gobo.swap("ledger-mended").expect(200);
    rebuild(&scene, "a").expect(200);
    assert_eq!(scene.status("ledger")["diverged"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_another_stream_that_is_asked_for_is_a_reason_to_refuse() {
    let (scene, _) = ledger("", 3).await;
    let others = booked(
        "account-1",
        json!({ "amount": 1, "match_account": "account-2" }),
    );
    let last = *scene.append(&[others]).await.last().unwrap();
    scene.wait_for("ledger", last);
    let table = live(&scene, "accounts").await;
    let all = format!("select * from {table} order by account");
    let before = scene.database.query_json(&all).await;
    let why = error(&rebuild(&scene, "account-1").expect(409));
    assert!(
        why.contains("row \"account-2\"") && why.contains("stream \"account-2\""),
        "{why}"
    );
    assert_eq!(scene.database.query_json(&all).await, before);
    // Those of the stream itself were never gone for the loop.
    let next = *scene
        .append(&[booked("account-1", json!({ "amount": 1 }))])
        .await
        .last()
        .unwrap();
    scene.wait_for("ledger", next);
    let grown = "select balance from read.accounts where account = 'account-1'";
    let old = before
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["account"] == "account-1")
        .unwrap()["balance"]
        .as_i64()
        .unwrap();
    assert_eq!(scene.database.query_i64(grown).await, old + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_with_more_rows_than_memory_is_refused() {
    let (scene, _) = ledger("[generations]\nrebuild_bytes = 65536\n", 2).await;
    let events: Vec<Event> = (0..2_000)
        .map(|n| {
            booked(
                "account-1",
                json!({ "amount": n, "account": format!("sub-{n}") }),
            )
        })
        .collect();
    let last = *scene.append(&events).await.last().unwrap();
    scene.wait_for("ledger", last);
    let rows = scene.rows("accounts").await;
    let why = error(&rebuild(&scene, "account-1").expect(409));
    assert!(why.contains("generations.rebuild_bytes"), "{why}");
    assert_eq!(scene.rows("accounts").await, rows);
    rebuild(&scene, "account-0").expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_between_changes_nothing_and_it_is_done_after_the_start() {
    let (mut scene, rows) = ledger("", 3).await;
    let table = live(&scene, "accounts").await;
    scene
        .database
        .execute(&format!(
            "update {table} set balance = 42 where account = 'account-1'"
        ))
        .await;
    // The transaction gets as far as the rows, and waits there.
    let client = scene.database.connect().await;
    client
        .batch_execute(&format!("begin; lock table {table} in share mode"))
        .await
        .unwrap();
    let agent = scene.gobo.url().to_owned();
    let asking = std::thread::spawn(move || {
        let body = json!({ "stream_id": "account-1" });
        let path = format!("{agent}/admin/projections/ledger/rebuild-stream");
        // The engine is killed before it answers.
        let _ = ureq::post(path).send_json(body);
    });
    let waits = "select count(*) from pg_locks l join pg_class c on c.oid = l.relation \
                  where c.relname = 'accounts' and c.relkind = 'r' and not l.granted";
    wait_for("the loop to wait for the table", async || {
        match scene.database.query_i64(waits).await {
            0 => Err("nobody waits"),
            _ => Ok(()),
        }
    })
    .await;
    scene.gobo.kill();
    asking.join().unwrap();
    client.batch_execute("rollback").await.unwrap();
    let unfinished = "select count(*) from gobo.stream_rebuilds where finished_at is null";
    let wrong = "select balance from read.accounts where account = 'account-1'";
    assert_eq!(scene.database.query_i64(unfinished).await, 1);
    assert_eq!(scene.database.query_i64(wrong).await, 42);
    scene.gobo.start_again();
    wait_for("the stream to be rebuilt", async || {
        match scene.database.query_i64(unfinished).await {
            0 => Ok(()),
            left => Err(left),
        }
    })
    .await;
    assert_eq!(scene.rows("accounts").await, rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_is_kept_while_the_projection_does_not_run() {
    let (scene, rows) = ledger("", 3).await;
    let table = live(&scene, "accounts").await;
    scene
        .gobo
        .post("/admin/projections/ledger/pause", &json!({}))
        .expect(200);
    wait_until("the projection to be paused and released", || {
        let status = scene.status("ledger");
        match status["state"] == "paused" && status["owner"].is_null() {
            true => Ok(()),
            false => Err(status),
        }
    });
    let output = scene
        .gobo
        .command(&["rebuild", "ledger", "--stream", "account-1"]);
    assert!(
        String::from_utf8_lossy(&output.stdout).starts_with("waiting: "),
        "{output:?}"
    );
    scene
        .database
        .execute(&format!("delete from {table} where account = 'account-1'"))
        .await;
    scene
        .gobo
        .post("/admin/projections/ledger/resume", &json!({}))
        .expect(200);
    wait_for("the row to be back", async || {
        match scene.rows("accounts").await == rows {
            true => Ok(()),
            false => Err("it is not"),
        }
    })
    .await;
    let done = scene
        .gobo
        .command(&["rebuild", "ledger", "--stream", "account-1"]);
    assert!(
        String::from_utf8_lossy(&done.stdout).contains("rebuilt: stream \"account-1\" has 1 rows"),
        "{done:?}"
    );
}
