//! Rows at a point in the past: replayed, kept as snapshots, read with `as_of`, dropped.

mod snapshot;

use gobo_tests::{Answer, Database, Gobo};
use serde_json::{Value, json};

use crate::generations::{ask, bookings, generation, generations, wait_for_drop, wait_for_stage};
use crate::scene::{Event, Scene, append};

/// All columns of `accounts` but the revision, from the tables of a generation.
pub(crate) async fn rows_of(database: &Database, generation: i64) -> Value {
    let sql = format!(
        "select to_jsonb(r) - '_revision' as row from gobo_g{generation}.accounts r order by 1"
    );
    database.query_json(&sql).await
}

/// The rows that a projection of its own has over the events up to `position` alone.
pub(crate) async fn fresh_rows(scene: &Scene, position: i64) -> Value {
    let copy = crate::orders::copy_of_events(&scene.database).await;
    let later = format!(
        "alter table gobo.events disable trigger user; delete from gobo.events where position > {position}"
    );
    copy.execute(&later).await;
    let fresh = Scene::over(copy, "", &["ledger"]);
    let last = fresh
        .database
        .query_i64("select max(position) from gobo.events")
        .await;
    fresh.wait_for("ledger", last);
    rows_of(
        &fresh.database,
        fresh.status("ledger")["generation"].as_i64().unwrap(),
    )
    .await
}

/// Replays up to `until`, and gives the generation once it is complete.
pub(crate) fn replay(scene: &Scene, until: impl Into<Value>, label: &str) -> i64 {
    let body = json!({ "until": until.into(), "label": label });
    let begun = ask(&scene.gobo, "ledger", "replay", body)
        .expect(202)
        .json();
    wait_for_stage(&scene.gobo, "ledger", generation(&begun), "done");
    generation(&begun)
}

/// Accounts that are opened, booked on and closed, in an order that shows.
pub(crate) fn history(count: usize) -> Vec<Event> {
    (0..count)
        .map(|n| {
            let data = match n % 11 {
                10 => json!({ "amount": 0, "close": true }),
                _ => json!({ "amount": 1 + n % 5 }),
            };
            (format!("account-{}", n * 7 % 13), "Booked", data)
        })
        .collect()
}

/// From now on nobody runs a generation that is begun, until [`release`].
pub(crate) async fn hold(database: &Database) {
    let newest = database
        .query_i64("select max(id) from gobo.generations")
        .await;
    let trigger = format!(
        "create function public.hold() returns trigger language plpgsql as $$ begin return null; end $$;
         create trigger hold before update on gobo.leases for each row when (new.generation > {newest}) execute function public.hold()"
    );
    database.execute(&trigger).await;
}

pub(crate) async fn release(database: &Database) {
    database.execute("drop function public.hold cascade").await;
}

/// The row of the list of generations.
fn listed(gobo: &Gobo, number: i64) -> Value {
    let all = generations(gobo, "ledger");
    let found = all.iter().find(|one| one["generation"] == number);
    found
        .cloned()
        .unwrap_or_else(|| panic!("no generation {number} in {all:?}"))
}

fn detail(answer: &Answer) -> String {
    let problem = answer.json();
    let text = |member: &str| problem[member].as_str().unwrap_or_default().to_owned();
    format!("{}; {}", text("detail"), text("hint"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_has_the_rows_of_a_projection_over_the_events_up_to_there() {
    let scene = Scene::new("", &["ledger"]).await;
    let positions = scene.append(&history(120)).await;
    scene.wait_for("ledger", positions[119]);
    let live = scene.status("ledger");
    let rows = scene
        .database
        .query_json("select * from read.accounts order by account")
        .await;
    for (at, label) in [(70, "early"), (30, "earlier")] {
        let until = positions[at];
        let made = replay(&scene, until, label);
        let expected = fresh_rows(&scene, until).await;
        assert!(expected.as_array().unwrap().len() > 5);
        assert_eq!(rows_of(&scene.database, made).await, expected);
        let checkpoint = format!("select position from gobo.checkpoints where generation = {made}");
        assert_eq!(scene.database.query_i64(&checkpoint).await, until);
    }
    let nothing = replay(&scene, 0, "before-everything");
    assert_eq!(rows_of(&scene.database, nothing).await, json!([]));
    // What is live knows nothing of it: neither its names, nor its views, nor its revisions.
    let after = scene.status("ledger");
    assert_eq!(
        (&after["generation"], &after["read_models"]),
        (&live["generation"], &live["read_models"])
    );
    let view = scene
        .database
        .query_json("select * from read.accounts order by account")
        .await;
    assert_eq!(view, rows);
    let views = "select count(*) from pg_views where schemaname = 'read'";
    assert_eq!(scene.database.query_i64(views).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_until_a_time_ends_before_the_first_event_that_was_recorded_later() {
    let scene = Scene::new("", &["ledger"]).await;
    let first = scene.append(&history(40)).await;
    let second = scene.append(&history(40)).await;
    scene.wait_for("ledger", second[39]);
    // The moment of the first append is all that was recorded by then; `+00:00` comes as it is in a body.
    let of_first = format!(
        "select to_json(recorded_at) as at from gobo.events where position = {}",
        first[39]
    );
    let at = scene.database.query_json(&of_first).await[0]["at"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(at.ends_with("+00:00"), "{at}");
    let body = json!({ "until": at, "label": "by-time" });
    let begun = ask(&scene.gobo, "ledger", "replay", body)
        .expect(202)
        .json();
    let made = generation(&begun);
    assert!(
        begun["detail"]
            .as_str()
            .unwrap()
            .contains(&format!("up to position {}", first[39])),
        "{begun}"
    );
    wait_for_stage(&scene.gobo, "ledger", made, "done");
    assert_eq!(listed(&scene.gobo, made)["until"], first[39]);
    assert_eq!(
        rows_of(&scene.database, made).await,
        fresh_rows(&scene, first[39]).await
    );
    // The same moment, written otherwise; another one that is the same position; the position; the label.
    let micro = scene.database.query_json(&format!(
        "select to_json(recorded_at + interval '1 microsecond') as at from gobo.events where position = {}", first[39]
    )).await[0]["at"].as_str().unwrap().replace("+00:00", "Z");
    for as_of in [
        at.replace("+00:00", "Z"),
        at.replace('+', "%2B"),
        micro,
        first[39].to_string(),
        "by-time".into(),
    ] {
        let answer = scene
            .gobo
            .get(&format!("/read/accounts?as_of={as_of}"))
            .expect(200);
        assert_eq!(
            answer.header("gobo-generation"),
            Some(made.to_string().as_str()),
            "{as_of}"
        );
    }
    // A second earlier there was nothing.
    let earlier = scene.database.query_json(&format!(
        "select to_json(recorded_at - interval '1 second') as at from gobo.events where position = {}", first[39]
    )).await[0]["at"].as_str().unwrap().replace("+00:00", "Z");
    let answer = scene
        .gobo
        .get(&format!("/read/accounts?as_of={earlier}"))
        .expect(404);
    assert!(
        detail(&answer).contains(&format!("`gobo replay ledger --until {earlier} --as NAME`")),
        "{}",
        answer.text()
    );
    let future = json!({ "until": "2999-01-01T00:00:00Z", "label": "future" });
    let refused = ask(&scene.gobo, "ledger", "replay", future).expect(409);
    assert!(
        detail(&refused).contains("lies in the future"),
        "{}",
        refused.text()
    );
    scene
        .gobo
        .get("/read/accounts?as_of=2999-01-01T00:00:00Z")
        .expect(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_of_answers_lists_and_rows_with_the_grammar_of_every_read() {
    let scene = Scene::new("", &["ledger"]).await;
    let positions = scene.append(&bookings(5, 10)).await;
    scene.wait_for("ledger", positions[49]);
    let until = positions[24];
    let made = replay(&scene, until, "half");
    let answer = scene
        .gobo
        .get("/read/accounts?as_of=half&order=account&limit=2&select=account,balance")
        .expect(200);
    let expected = scene
        .database
        .query_json(&format!(
            "select account, balance from gobo_g{made}.accounts order by account limit 2"
        ))
        .await;
    assert_eq!(answer.json(), expected);
    assert_eq!(
        answer.header("gobo-position"),
        Some(until.to_string().as_str())
    );
    assert_eq!(
        answer.header("gobo-generation"),
        Some(made.to_string().as_str())
    );
    assert_eq!(answer.header("gobo-lag-seconds"), None);
    // The next page is of the same point in the past.
    let cursor = answer.header("gobo-next-cursor").unwrap().to_owned();
    assert!(answer.header("link").unwrap().contains("as_of=half"));
    let next =
        format!("/read/accounts?as_of=half&order=account&limit=2&select=account&cursor={cursor}");
    assert_eq!(
        scene.gobo.get(&next).expect(200).json(),
        json!([{ "account": "account-2" }, { "account": "account-3" }])
    );
    // One row, by position; the live one has gone on.
    let row = scene
        .gobo
        .get(&format!("/read/accounts/account-1?as_of={until}"))
        .expect(200)
        .json();
    let live = scene
        .gobo
        .get("/read/accounts/account-1")
        .expect(200)
        .json();
    assert_eq!(
        row["history"].as_str().unwrap().split_whitespace().count(),
        5
    );
    assert_eq!(
        live["history"].as_str().unwrap().split_whitespace().count(),
        10
    );
    scene
        .gobo
        .get("/read/accounts/nobody?as_of=half")
        .expect(404);
    let filtered = "/read/accounts?as_of=half&account=in.(account-1,account-4)&select=account&order=account.desc";
    assert_eq!(
        scene.gobo.get(filtered).expect(200).json(),
        json!([{ "account": "account-4" }, { "account": "account-1" }])
    );
    // Its tag stays when the live rows move on, and is not that of the live rows.
    let path = "/read/accounts?as_of=half";
    let tag = scene
        .gobo
        .get(path)
        .expect(200)
        .header("etag")
        .unwrap()
        .to_owned();
    assert_ne!(
        scene.gobo.get("/read/accounts").expect(200).header("etag"),
        Some(tag.as_str())
    );
    let more = *scene.append(&bookings(5, 1)).await.last().unwrap();
    scene.wait_for("ledger", more);
    scene
        .gobo
        .request("GET", path, &[("if-none-match", &tag)], b"")
        .expect(304);
    // A new live generation does not disturb it either.
    let rebuilt = ask(&scene.gobo, "ledger", "rebuild", json!({}))
        .expect(202)
        .json();
    wait_for_stage(&scene.gobo, "ledger", generation(&rebuilt), "live");
    scene
        .gobo
        .request("GET", path, &[("if-none-match", &tag)], b"")
        .expect(304);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_of_says_what_is_missing_and_how_to_make_it() {
    let scene = Scene::new("", &["ledger", "page-views"]).await;
    let positions = scene.append(&bookings(5, 10)).await;
    scene.wait_for("ledger", positions[49]);
    let until = positions[9];
    for (as_of, command) in [
        (
            until.to_string(),
            format!("`gobo replay ledger --until {until} --as NAME`"),
        ),
        (
            "noon".into(),
            "`gobo replay ledger --until POSITION --as noon`".into(),
        ),
    ] {
        for path in ["accounts", "accounts/account-1"] {
            let answer = scene
                .gobo
                .get(&format!("/read/{path}?as_of={as_of}"))
                .expect(404);
            assert_eq!(answer.json()["reason"], "no_such_past");
            assert!(detail(&answer).contains(&command), "{}", answer.text());
        }
    }
    replay(&scene, until, "noon");
    scene.gobo.get("/read/accounts?as_of=noon").expect(200);
    // A read model that another projection has, or nobody.
    let other = scene.gobo.get("/read/page_views?as_of=noon");
    assert_eq!(other.status, 404, "{}", other.text());
    let nobody = scene.gobo.get("/read/nobody?as_of=noon").expect(404);
    assert_eq!(nobody.json()["reason"], "unknown_read_model");
    for (query, code) in [
        ("as_of=noon&min_position=1", "unsupported_parameter"),
        ("as_of=tomorrow!", "invalid_as_of"),
        ("as_of=", "invalid_as_of"),
        ("as_of=2026-01-31T12:30:00", "invalid_as_of"),
        ("as_of=noon&as_of=noon", "duplicate_parameter"),
    ] {
        let refused = scene
            .gobo
            .get(&format!("/read/accounts?{query}"))
            .expect(400);
        assert_eq!(refused.json()["reason"], code, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_that_came_later_did_not_exist_there() {
    let scene = Scene::new("", &["ledger"]).await;
    let positions = scene.append(&bookings(5, 2)).await;
    scene.wait_for("ledger", positions[9]);
    let made = replay(&scene, positions[5], "early");
    // As if a later deploy had added one.
    let later = "insert into gobo.read_models (name, projection) values ('newer', 'ledger')";
    scene.database.execute(later).await;
    let answer = scene.gobo.get("/read/newer?as_of=early").expect(404);
    assert_eq!(answer.json()["reason"], "unknown_read_model");
    let detail = detail(&answer);
    assert!(
        detail.contains(&format!("generation {made} ")) && detail.contains("it has: accounts"),
        "{detail}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_still_being_filled_says_how_far_it_is() {
    let scene = Scene::new("", &["ledger"]).await;
    let positions = scene.append(&bookings(5, 10)).await;
    scene.wait_for("ledger", positions[49]);
    hold(&scene.database).await;
    let body = json!({ "until": positions[20], "label": "slow" });
    let begun = ask(&scene.gobo, "ledger", "replay", body).expect(202);
    let made = generation(&begun.json());
    for path in ["accounts", "accounts/account-1"] {
        let answer = scene
            .gobo
            .get(&format!("/read/{path}?as_of=slow"))
            .expect(503);
        assert_eq!(answer.header("retry-after"), Some("1"));
        let problem = answer.json();
        assert_eq!(problem["code"], "not_yet");
        let progress = json!({ "generation": made, "position": 0, "until": positions[20] });
        assert_eq!(problem["context"], progress);
    }
    release(&scene.database).await;
    wait_for_stage(&scene.gobo, "ledger", made, "done");
    scene.gobo.get("/read/accounts?as_of=slow").expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_replayed_is_refused_with_the_reason() {
    let scene = Scene::new("", &["ledger"]).await;
    let positions = scene.append(&bookings(5, 2)).await;
    scene.wait_for("ledger", positions[9]);
    let beyond = positions[9] + 1;
    let check = |body: Value, status: u16, words: &str| {
        let refused = ask(&scene.gobo, "ledger", "replay", body).expect(status);
        assert!(detail(&refused).contains(words), "{}", refused.text());
    };
    check(
        json!({ "until": beyond, "label": "x" }),
        409,
        "no event has that position yet",
    );
    for label in ["", "X", "1st", "a b", "ä", &"a".repeat(64)] {
        check(json!({ "until": 1, "label": label }), 400, "is no label");
    }
    check(json!({ "until": -1, "label": "x" }), 400, "\"until\" is");
    check(
        json!({ "until": "soon!", "label": "x" }),
        400,
        "\"until\" is",
    );
    check(
        json!({ "until": "soon", "label": "x" }),
        400,
        "is no position and no time",
    );
    check(
        json!({ "until": 1, "label": "x", "expires_hours": 0 }),
        400,
        "or never",
    );
    replay(&scene, positions[3], "x");
    check(
        json!({ "until": positions[4], "label": "x" }),
        409,
        "the label \"x\" is taken",
    );
    let body = json!({ "until": 1, "label": "x" });
    ask(&scene.gobo, "nobody", "replay", body).expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_expires_and_leaves_no_tables_behind() {
    let scene = Scene::new("[generations]\nreplay_hours = 5\n", &["ledger"]).await;
    let positions = scene.append(&bookings(5, 2)).await;
    scene.wait_for("ledger", positions[9]);
    let hours = async |made: i64| {
        let sql = format!(
            "select round(extract(epoch from expires_at - created_at) / 3600) from gobo.generations where id = {made}"
        );
        scene
            .database
            .query_json(&format!("select ({sql})::int8 as hours"))
            .await[0]["hours"]
            .clone()
    };
    let usual = replay(&scene, positions[3], "usual");
    assert_eq!(hours(usual).await, 5);
    let begin = |label: &str, expires: Value| {
        let body = json!({ "until": positions[3], "label": label, "expires_hours": expires });
        let made = generation(
            &ask(&scene.gobo, "ledger", "replay", body)
                .expect(202)
                .json(),
        );
        wait_for_stage(&scene.gobo, "ledger", made, "done");
        made
    };
    assert_eq!(hours(begin("two", json!(2))).await, 2);
    let never = begin("never", Value::Null);
    assert_eq!(hours(never).await, Value::Null);
    scene.gobo.get("/read/accounts?as_of=usual").expect(200);
    // The clock is the database's: as if the hours were over.
    scene.database.execute("update gobo.generations set expires_at = now() - interval '1 second' where expires_at is not null").await;
    wait_for_drop(&scene, usual).await;
    let gone = scene.gobo.get("/read/accounts?as_of=usual").expect(404);
    assert_eq!(gone.json()["reason"], "no_such_past");
    scene
        .gobo
        .get(&format!("/read/accounts?as_of={}", positions[3]))
        .expect(200);
    ask(
        &scene.gobo,
        "ledger",
        &format!("generations/{never}/cancel"),
        json!({}),
    )
    .expect(200);
    wait_for_drop(&scene, never).await;
    scene.gobo.get("/read/accounts").expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_a_replay_that_expires_meanwhile_end_with_404_and_nothing_else() {
    let scene = Scene::new("", &["ledger"]).await;
    let positions = scene.append(&bookings(5, 2)).await;
    scene.wait_for("ledger", positions[9]);
    let made = replay(&scene, positions[3], "short");
    // Its tables go while the engine still believes that they are there.
    scene
        .database
        .execute(&format!("drop schema gobo_g{made} cascade"))
        .await;
    let gone = scene.gobo.get("/read/accounts?as_of=short").expect(404);
    assert_eq!(gone.json()["reason"], "no_such_past");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_goes_on_after_a_kill() {
    let mut scene = Scene::new("[engine]\nbatch_events = 3\ncommit_rows = 3\n", &["ledger"]).await;
    let positions = append(&scene.database, &bookings(7, 200)).await;
    scene.wait_for("ledger", *positions.last().unwrap());
    let until = positions[1200];
    let body = json!({ "until": until, "label": "killed" });
    let made = generation(
        &ask(&scene.gobo, "ledger", "replay", body)
            .expect(202)
            .json(),
    );
    scene.gobo.kill();
    scene.gobo.start_again();
    wait_for_stage(&scene.gobo, "ledger", made, "done");
    assert_eq!(
        rows_of(&scene.database, made).await,
        fresh_rows(&scene, until).await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_replay_and_snapshot_say_what_they_did() {
    let scene = Scene::new("", &["ledger"]).await;
    let positions = scene.append(&bookings(5, 2)).await;
    scene.wait_for("ledger", positions[9]);
    let run = |arguments: &[&str]| {
        let output = scene.gobo.command(arguments);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let until = positions[5].to_string();
    let printed = run(&[
        "replay",
        "ledger",
        "--until",
        &until,
        "--as",
        "five",
        "--expires",
        "never",
    ]);
    assert!(
        printed.contains("from the first event") && printed.contains("?as_of=five"),
        "{printed}"
    );
    assert!(
        printed.contains(&format!("is complete at position {until}")),
        "{printed}"
    );
    let printed = run(&["snapshot", "ledger", "--as", "now"]);
    assert!(printed.contains("holds the rows at position"), "{printed}");
    let until = positions[9].to_string();
    let printed = run(&[
        "replay", "ledger", "--until", &until, "--as", "ten", "--detach",
    ]);
    assert!(printed.contains("snapshot \"now\""), "{printed}");
    let list = run(&["generations", "ledger"]);
    assert!(
        list.contains("replay") && list.contains("snapshot") && list.contains("five"),
        "{list}"
    );
    let refused = scene
        .gobo
        .command(&["replay", "ledger", "--until", &until, "--as", "ten"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is taken"));
}
