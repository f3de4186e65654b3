//! What an event says is taken back: from the store, from what is computed anew, and from memory.

use gobo_tests::{Gobo, wait_for, wait_until};
use serde_json::{Value, json};

use crate::generations::{ask, generation, wait_for_drop, wait_for_stage};
use crate::scene::{Event, Scene};

const SECRET: i64 = 987_654_321;

fn booked(stream: &str, amount: i64) -> Event {
    (stream.to_owned(), "Booked", json!({ "amount": amount }))
}

fn redact(gobo: &Gobo, body: Value) -> gobo_tests::Answer {
    gobo.post("/admin/events/redact", &body)
}

/// The event at a position.
fn event(gobo: &Gobo, position: i64) -> Value {
    let path = format!("/events?after={}&limit=1", position - 1);
    gobo.get(&path).expect(200).json()["events"][0].clone()
}

fn readers(answer: &Value) -> Vec<(String, i64)> {
    let readers = answer["read_by"].as_array().unwrap().iter();
    readers
        .map(|one| {
            (
                one["projection"].as_str().unwrap().to_owned(),
                one["generation"].as_i64().unwrap(),
            )
        })
        .collect()
}

fn live(scene: &Scene, projection: &str) -> i64 {
    scene.status(projection)["generation"].as_i64().unwrap()
}

/// Whether a table of the database, whichever, says the secret.
async fn is_anywhere(scene: &Scene) -> Vec<String> {
    let tables = scene
        .database
        .query_json("select table_schema || '.' || quote_ident(table_name) as name from information_schema.tables \
                      where table_type = 'BASE TABLE' and table_schema ~ '^gobo'")
        .await;
    let mut found = Vec::new();
    for table in tables.as_array().unwrap() {
        let name = table["name"].as_str().unwrap();
        let sql =
            format!("select count(*) from {name} t where to_jsonb(t)::text like '%{SECRET}%'");
        if scene.database.query_i64(&sql).await > 0 {
            found.push(name.to_owned());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redacted_event_keeps_its_place_and_a_rebuild_goes_past_it_without_its_data() {
    let scene = Scene::new("", &["ledger", "page-views"]).await;
    let body = json!({ "events": [
        { "type": "Booked", "data": { "amount": SECRET }, "metadata": { "note": SECRET } },
    ] });
    scene.append(&[booked("a", 1)]).await;
    let appended = scene
        .gobo
        .post("/streams/a/events", &body)
        .expect(200)
        .json();
    let position = appended["position"].as_i64().unwrap();
    let last = scene.append(&[booked("a", 2)]).await[0];
    scene.wait_for("ledger", last);
    scene.wait_for("page-views", last);
    let before = event(&scene.gobo, position);
    let asked = json!({ "position": position, "reason": "it says too much" });
    let mut dry = asked.clone();
    dry["dry_run"] = json!(true);
    let plan = redact(&scene.gobo, dry).expect(200).json();
    assert_eq!(plan["outcome"], "dry_run");
    assert_eq!(event(&scene.gobo, position), before);
    let old = live(&scene, "ledger");
    let answer = redact(&scene.gobo, asked.clone()).expect(200).json();
    assert_eq!(
        (&answer["outcome"], &answer["redacted"]),
        (&json!("redacted"), &json!(1))
    );
    // Only who asks for the event's type has read it.
    assert_eq!(readers(&answer), [("ledger".to_owned(), old)]);
    assert_eq!(readers(&plan), readers(&answer));
    let after = event(&scene.gobo, position);
    for kept in [
        "position",
        "stream_id",
        "version",
        "event_id",
        "occurred_at",
        "recorded_at",
    ] {
        assert_eq!(after[kept], before[kept], "{kept}");
    }
    assert_eq!(after["type"], "$redacted");
    assert_eq!(after["metadata"], Value::Null);
    assert_eq!(after["data"]["redacted"], true);
    assert_eq!(after["data"]["reason"], "it says too much");
    assert_eq!(after["data"]["type"], "Booked");
    assert!(after["data"]["at"].is_string());
    // Again: nothing changes, and the same are named.
    let again = redact(&scene.gobo, asked.clone()).expect(200).json();
    assert_eq!(
        (&again["outcome"], &again["redacted_before"]),
        (&json!("unchanged"), &json!(1))
    );
    assert_eq!(readers(&again), readers(&answer));
    assert_eq!(event(&scene.gobo, position), after);
    // A restart holds the checkpoint against the event's identity, which is still there; and the rebuild goes past it.
    let begun = ask(&scene.gobo, "ledger", "rebuild", json!({}));
    let new = generation(&begun.expect(202).json());
    wait_for_stage(&scene.gobo, "ledger", new, "live");
    let rows = scene.rows("accounts").await;
    assert_eq!(rows[0]["row"]["history"], " 1-0 2-0");
    ask(
        &scene.gobo,
        "ledger",
        &format!("generations/{old}/cancel"),
        json!({}),
    )
    .expect(200);
    wait_for_drop(&scene, old).await;
    assert_eq!(is_anywhere(&scene).await, Vec::<String>::new());
    let done = redact(&scene.gobo, asked).expect(200).json();
    assert_eq!(readers(&done), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_event_applied_may_be_redacted_and_the_projection_goes_on_after_a_restart() {
    let mut scene = Scene::new("", &["ledger"]).await;
    let last = *scene
        .append(&[booked("a", 1), booked("a", SECRET)])
        .await
        .last()
        .unwrap();
    scene.wait_for("ledger", last);
    redact(&scene.gobo, json!({ "position": last, "reason": "x" })).expect(200);
    scene.gobo.kill();
    scene.gobo.start_again();
    let more = scene.append(&[booked("a", 3)]).await[0];
    scene.wait_for("ledger", more);
    // Direct changes are refused as before.
    let changed = scene.database.connect().await;
    let refused = changed
        .batch_execute("update gobo.events set data = '{}'")
        .await
        .unwrap_err();
    assert!(
        format!("{refused:?}").contains("never changed"),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_redacted_as_a_whole_and_with_other_data_the_type_stays() {
    let scene = Scene::new("", &["ledger"]).await;
    let events = [booked("a", SECRET), booked("b", 5), booked("a", SECRET)];
    let positions = scene.append(&events).await;
    scene.wait_for("ledger", positions[2]);
    let body = json!({ "stream_id": "a", "reason": "erasure", "data": { "amount": 0 } });
    let answer = redact(&scene.gobo, body.clone()).expect(200).json();
    assert_eq!(
        (&answer["events"], &answer["redacted"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(answer["first_position"], positions[0]);
    assert_eq!(answer["last_position"], positions[2]);
    let changed = event(&scene.gobo, positions[0]);
    assert_eq!(
        (&changed["type"], &changed["data"]),
        (&json!("Booked"), &json!({ "amount": 0 }))
    );
    assert_eq!(event(&scene.gobo, positions[1])["data"]["amount"], 5);
    assert_eq!(
        redact(&scene.gobo, body).expect(200).json()["outcome"],
        "unchanged"
    );
    let begun = ask(&scene.gobo, "ledger", "rebuild", json!({}));
    wait_for_stage(
        &scene.gobo,
        "ledger",
        generation(&begun.expect(202).json()),
        "live",
    );
    let rows = scene.rows("accounts").await;
    assert_eq!(rows[0]["row"]["history"], " 0-0 0-0");
    let id = event(&scene.gobo, positions[1])["event_id"].clone();
    let by_id = json!({ "event_id": id, "reason": "x" });
    assert_eq!(
        redact(&scene.gobo, by_id).expect(200).json()["first_position"],
        positions[1]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redaction_that_cannot_be_is_refused_with_the_reason_and_changes_nothing() {
    let scene = Scene::new("", &["ledger"]).await;
    let position = scene.append(&[booked("a", 1)]).await[0];
    scene.wait_for("ledger", position);
    let before = event(&scene.gobo, position);
    for (body, status, part) in [
        (
            json!({ "position": position, "reason": " " }),
            400,
            "reason",
        ),
        (json!({ "reason": "x" }), 400, "say which events"),
        (
            json!({ "position": position, "stream_id": "a", "reason": "x" }),
            400,
            "say which events",
        ),
        (
            json!({ "position": position + 1, "reason": "x" }),
            404,
            "no such event",
        ),
        (
            json!({ "position": position, "reason": "x", "source": "shop" }),
            409,
            "belong to the system that writes them",
        ),
        (
            json!({ "position": position, "reason": "x", "data": { "a": "\u{0}" } }),
            422,
            "u0000",
        ),
        (
            json!({ "position": position, "reason": "x", "datum": 1 }),
            400,
            "datum",
        ),
    ] {
        let problem = redact(&scene.gobo, body).expect(status).json();
        assert!(
            problem["detail"].as_str().unwrap().contains(part),
            "{problem}"
        );
    }
    assert_eq!(event(&scene.gobo, position), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_quote_a_redacted_event_is_named() {
    let scene = Scene::new("[projections.ledger]\npolicy = \"park\"", &["ledger"]).await;
    let poison = (
        "a".to_owned(),
        "Booked",
        json!({ "amount": 1, "fee": SECRET }),
    );
    let position = scene.append(&[poison]).await[0];
    scene.wait_for_letters("ledger", &[(position, "a", "failed")]);
    let answer = scene.gobo.command(&[
        "redact",
        "--position",
        &position.to_string(),
        "--reason",
        "x",
    ]);
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert!(!answer.status.success(), "asked nobody: {text}");
    assert!(text.contains("1 dead letters may quote them"), "{text}");
    assert!(text.contains("gobo rebuild ledger"), "{text}");
    assert!(text.contains("dumps"), "{text}");
    assert_eq!(event(&scene.gobo, position)["type"], "Booked");
    let done = scene.gobo.command(&[
        "redact",
        "--position",
        &position.to_string(),
        "--reason",
        "x",
        "--yes",
    ]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(event(&scene.gobo, position)["type"], "$redacted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_has_not_come_so_far_never_shows_the_redacted_data() {
    let scene = Scene::new("", &["ledger"]).await;
    let first = scene.append(&[booked("a", 1)]).await[0];
    scene.wait_for("ledger", first);
    let generation = live(&scene, "ledger");
    // A commit is held up, and the next batch, which has the secret, is read and begun behind it, from memory.
    let mut holder = scene.database.connect().await;
    let transaction = holder.transaction().await.unwrap();
    let lock = format!("select from gobo.checkpoints where generation = {generation} for update");
    transaction.query(&lock, &[]).await.unwrap();
    let sessions = async |count: i64| {
        let waiting = "select count(*) from pg_stat_activity where datname = current_database() \
                        and application_name in ('gobo control', 'gobo writer of generation 1') and wait_event_type = 'Lock'";
        wait_for(&format!("{count} sessions to wait"), async || {
            match scene.database.query_i64(waiting).await {
                found if found == count => Ok(()),
                found => Err(found),
            }
        })
        .await;
    };
    let second = scene.append(&[booked("a", 2)]).await[0];
    sessions(1).await;
    let position = scene.append(&[booked("a", SECRET)]).await[0];
    wait_until("the secret to be safe to read", || {
        match event(&scene.gobo, position) {
            Value::Null => Err("not yet"),
            _ => Ok(()),
        }
    });
    // The redaction waits its turn: behind the commit that is under way, before the one with the secret.
    let answer = std::thread::scope(|scope| {
        let body = json!({ "position": position, "reason": "x" });
        let redacting = scope.spawn(|| redact(&scene.gobo, body));
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                sessions(2).await;
                transaction.commit().await.unwrap();
            });
        });
        redacting.join().unwrap()
    });
    let answer = answer.expect(200).json();
    assert!(first < second && second < position);
    if !readers(&answer).is_empty() {
        // The server let the commit with the secret go first, which it may: then the answer names who has it.
        assert_eq!(readers(&answer), [("ledger".to_owned(), 1)], "{answer}");
        return;
    }
    let last = scene.append(&[booked("a", 3)]).await[0];
    scene.wait_for("ledger", last);
    let rows = scene.rows("accounts").await;
    assert_eq!(rows[0]["row"]["history"], " 1-0 2-0 3-0", "{rows}");
    assert_eq!(is_anywhere(&scene).await, Vec::<String>::new());
}
