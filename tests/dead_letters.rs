//! Events that cannot be processed: what each policy does with them, and how operators settle them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::orders::copy_of_events;
use crate::scene::{Event, Scene, raw};

/// The ledger's tables: `ledger` does not understand fees, `ledger-mended` does.
fn booked(stream: &str, amount: i64, fee: i64) -> Event {
    (
        stream.to_owned(),
        "Booked",
        json!({ "amount": amount, "fee": fee }),
    )
}

fn policy(policy: &str) -> String {
    format!(
        "[projections.ledger]\npolicy = \"{policy}\"\n[projections.raw]\npolicy = \"{policy}\"\n"
    )
}

/// The rows that the same events give when nothing has ever gone wrong.
async fn clean_run(scene: &Scene, last: i64) -> Value {
    let copy = copy_of_events(&scene.database).await;
    let clean = Scene::over(copy, "", &["ledger-mended"]);
    clean.wait_for("ledger", last);
    clean.rows("accounts").await
}

fn stdout(scene: &Scene, arguments: &[&str]) -> String {
    let output = scene.gobo.command(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What is in the account's history.
async fn history(scene: &Scene, account: &str) -> Value {
    let sql = format!("select history from read.accounts where account = '{account}'");
    scene.database.query_json(&sql).await[0]["history"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_stops_in_front_of_the_event_and_goes_on_with_mended_code() {
    let scene = Scene::new("", &["ledger"]).await;
    let events = [
        booked("a", 10, 0),
        booked("b", 5, 0),
        booked("a", 3, 2),
        booked("b", 1, 0),
    ];
    let positions = scene.append(&events).await;
    let error = scene.wait_for_stop("ledger");
    assert_eq!(
        (&error["position"], &error["stream_id"]),
        (&json!(positions[2]), &json!("a"))
    );
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("a fee of 2 is not understood"),
        "{message}"
    );
    assert!(
        error["hint"]
            .as_str()
            .unwrap()
            .contains("deploy a mended plugin")
    );
    assert_eq!(scene.status("ledger")["position"], positions[1]);
    let shown = stdout(&scene, &["status"]);
    let place = format!("at event {}: ", positions[2]);
    for words in ["stopped", &place, "a fee of 2 is not understood"] {
        assert!(shown.contains(words), "{words:?} is missing in {shown}");
    }
    assert_eq!(history(&scene, "b").await, " 5-0");
    assert_eq!(scene.letters("ledger"), []);
    scene.gobo.swap("ledger-mended").expect(200);
    scene.wait_for("ledger", positions[3]);
    assert_eq!(
        scene.rows("accounts").await,
        clean_run(&scene, positions[3]).await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_stopped_goes_on_after_another_policy_was_chosen() {
    let mut scene = Scene::new("", &["ledger"]).await;
    let events = [booked("a", 10, 0), booked("a", 3, 2), booked("a", 1, 0)];
    let positions = scene.append(&events).await;
    scene.wait_for_stop("ledger");
    scene.restart_with(&policy("skip"));
    // Only an operator's word lets it go on.
    assert_eq!(scene.status("ledger")["state"], "stopped");
    let said = stdout(&scene, &["restart", "ledger"]);
    assert!(said.contains("tries again"), "{said}");
    scene.wait_for("ledger", positions[2]);
    scene.wait_for_letters("ledger", &[(positions[1], "a", "skipped")]);
    assert_eq!(history(&scene, "a").await, " 10-0 1-0");
}

/// Many streams, of which some meet a fee, interleaved; and the dead letters that they lead to.
fn interleaved(events: usize) -> (Vec<Event>, Vec<Option<&'static str>>) {
    let mut random = 0x0dd_ba11_u64;
    let mut parked = BTreeMap::new();
    let mut states = Vec::new();
    let mut appended = Vec::new();
    for number in 0..events {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let stream = format!("s{}", random >> 33 & 15);
        let fee = i64::from((random >> 40).is_multiple_of(12));
        appended.push(booked(&stream, i64::try_from(number).unwrap(), fee));
        states.push(match (parked.contains_key(&stream), fee) {
            (true, _) => Some("behind"),
            (false, 0) => None,
            (false, _) => {
                parked.insert(stream, number);
                Some("failed")
            }
        });
    }
    (appended, states)
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_streams_wait_in_order_while_others_go_on_and_end_up_as_in_a_clean_run() {
    let scene = Scene::new(&policy("park"), &["ledger"]).await;
    let (events, states) = interleaved(300);
    let (first, second) = events.split_at(200);
    let mut positions = scene.append(first).await;
    scene.wait_for("ledger", positions[199]);
    positions.extend(scene.append(second).await);
    scene.wait_for("ledger", positions[299]);
    let waiting = |states: &[Option<&'static str>]| -> Vec<_> {
        (positions.iter().zip(&events).zip(states))
            .filter_map(|((position, event), state)| Some((*position, event.0.as_str(), (*state)?)))
            .collect()
    };
    let expected = waiting(&states);
    assert!(
        expected.len() > 50 && expected.len() < 290,
        "{}",
        expected.len()
    );
    // Not one is missing, and what was not parked is in the rows.
    scene.wait_for_letters("ledger", &expected);
    let booked = "select sum(cardinality(string_to_array(history, ' ')) - 1) from read.accounts";
    let done = i64::try_from(events.len() - expected.len()).unwrap();
    assert_eq!(scene.database.query_i64(booked).await, done);
    // Mended code alone changes nothing for those that wait, nor for those that come.
    scene.gobo.swap("ledger-mended").expect(200);
    let stream = expected[0].1;
    let late = scene
        .append(&[(stream.to_owned(), "Booked", json!({"amount": 7}))])
        .await[0];
    scene.wait_for("ledger", late);
    assert_eq!(
        scene
            .letters("ledger")
            .last()
            .map(|l| (l.position, l.state.clone())),
        Some((late, "behind".to_owned()))
    );
    assert_eq!(
        scene.retry("ledger"),
        i64::try_from(expected.len()).unwrap() + 1
    );
    scene.wait_for_letters("ledger", &[]);
    let last = scene
        .append(&[(stream.to_owned(), "Booked", json!({"amount": 8}))])
        .await[0];
    scene.wait_for("ledger", last);
    assert_eq!(scene.letters("ledger"), []);
    assert_eq!(scene.status("ledger")["diverged"], false);
    assert_eq!(scene.rows("accounts").await, clean_run(&scene, last).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_fails_again_keeps_the_order() {
    let scene = Scene::new(&policy("park"), &["ledger"]).await;
    let events = [booked("a", 1, 9), booked("a", 2, 0), booked("b", 3, 0)];
    let positions = scene.append(&events).await;
    scene.wait_for("ledger", positions[2]);
    let letters = [(positions[0], "a", "failed"), (positions[1], "a", "behind")];
    scene.wait_for_letters("ledger", &letters);
    assert_eq!(scene.retry("ledger"), 2);
    gobo_tests::wait_until("the second attempt", || {
        let path = "/admin/projections/ledger/dead-letters";
        let answer = scene.gobo.get(path).expect(200).json();
        let (first, second) = (&answer["dead_letters"][0], &answer["dead_letters"][1]);
        match first["attempts"] == 2 && second["retry"] == false {
            true => Ok(()),
            false => Err(answer),
        }
    });
    scene.wait_for_letters("ledger", &letters);
    let accounts = scene
        .database
        .query_json("select account from read.accounts")
        .await;
    assert_eq!(accounts, json!([{"account": "b"}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_when_its_dead_letter_is_discarded_with_a_reason() {
    let scene = Scene::new(&policy("park"), &["ledger"]).await;
    let events = [
        booked("alone", 1, 9),
        booked("a", 1, 9),
        booked("a", 2, 0),
        booked("a", 3, 0),
    ];
    let positions = scene.append(&events).await;
    scene.wait_for("ledger", positions[3]);
    let expected = [
        (positions[0], "alone", "failed"),
        (positions[1], "a", "failed"),
        (positions[2], "a", "behind"),
        (positions[3], "a", "behind"),
    ];
    scene.wait_for_letters("ledger", &expected);
    let listed = stdout(&scene, &["dead-letters", "list", "ledger"]);
    assert!(listed.contains("a fee of 9 is not understood"), "{listed}");
    for stream in ["alone", "a"] {
        let discard = [
            "dead-letters",
            "discard",
            "ledger",
            "--stream",
            stream,
            "--reason",
            "booked by hand",
        ];
        let said = stdout(&scene, &discard);
        assert!(said.contains("discarded event"), "{said}");
    }
    let discarded = [
        (positions[0], "alone", "discarded"),
        (positions[1], "a", "discarded"),
    ];
    scene.wait_for_letters("ledger", &discarded);
    assert_eq!(scene.letters("ledger")[0].message, "booked by hand");
    assert_eq!(history(&scene, "a").await, " 2-0 3-0");
    // Nothing waited behind the one that was alone in its stream; what comes now must not wait for it either.
    let later = scene
        .append(&[booked("alone", 5, 0), booked("a", 5, 0)])
        .await;
    scene.wait_for("ledger", later[1]);
    scene.wait_for_letters("ledger", &discarded);
    assert_eq!(history(&scene, "alone").await, " 5-0");
    assert_eq!(scene.status("ledger")["dead_letters"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_event_is_named_and_its_late_retry_marks_the_generation_as_diverged() {
    let scene = Scene::new(&policy("skip"), &["ledger"]).await;
    let events = [booked("a", 1, 0), booked("a", 2, 1), booked("a", 3, 0)];
    let positions = scene.append(&events).await;
    scene.wait_for("ledger", positions[2]);
    let skipped = [(positions[1], "a", "skipped")];
    scene.wait_for_letters("ledger", &skipped);
    assert_eq!(history(&scene, "a").await, " 1-0 3-0");
    let asked = format!("/read/accounts?min_position={}&wait=30s", positions[2]);
    let named = format!("1; positions=\"{}\"", positions[1]);
    let answer = scene.gobo.get(&asked).expect(200);
    assert_eq!(answer.header("gobo-dead-letters"), Some(named.as_str()));
    // A retry in vain does not hold up the stream.
    assert_eq!(scene.retry("ledger"), 1);
    gobo_tests::wait_until("the second attempt", || {
        let answer = scene
            .gobo
            .get("/admin/projections/ledger/dead-letters")
            .expect(200)
            .json();
        match answer["dead_letters"][0]["attempts"] == 2 {
            true => Ok(()),
            false => Err(answer),
        }
    });
    scene.wait_for_letters("ledger", &skipped);
    assert_eq!(scene.status("ledger")["diverged"], false);
    scene.gobo.swap("ledger-mended").expect(200);
    let said = stdout(
        &scene,
        &["dead-letters", "retry", "ledger", "--stream", "a"],
    );
    assert!(said.contains("1 dead letters"), "{said}");
    scene.wait_for_letters("ledger", &[]);
    // Later events of its stream came first: a replay would give another history, and the status says so.
    assert_eq!(history(&scene, "a").await, " 1-0 3-0 2-1");
    assert_eq!(scene.status("ledger")["diverged"], true);
    let answer = scene.gobo.get(&asked).expect(200);
    assert_eq!(answer.header("gobo-dead-letters"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_retry_of_rows_that_streams_share_marks_the_generation_as_diverged() {
    let small = format!("{}[limits]\noutput_bytes = 65536\n", policy("park"));
    let mut scene = Scene::new(&small, &["raw-guest"]).await;
    let huge = json!({"do": "huge_output", "id": "huge", "bytes": 100_000});
    let positions = scene
        .append(&[raw("a", huge), raw("b", json!({"do": "put", "id": "b"}))])
        .await;
    scene.wait_for("raw", positions[1]);
    scene.wait_for_letters("raw", &[(positions[0], "a", "failed")]);
    assert_eq!(scene.status("raw")["diverged"], false);
    scene.restart_with(&policy("park"));
    assert_eq!(scene.retry("raw"), 1);
    scene.wait_for_letters("raw", &[]);
    assert_eq!(scene.status("raw")["diverged"], true);
    assert_eq!(
        scene
            .database
            .query_i64("select count(*) from read.raw")
            .await,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_two_streams_change_is_refused_where_rows_are_declared_per_stream() {
    // All in one batch, where the plugin itself would hide the change that was overwritten; and each in a batch of its
    // own, where only the database knows whose row it is.
    for batch_events in [2_000, 1] {
        two_streams(batch_events).await;
    }
}

async fn two_streams(batch_events: usize) {
    let tables = format!(
        "{}[engine]\nbatch_events = {batch_events}\n",
        policy("skip")
    );
    let scene = Scene::new(&tables, &["ledger"]).await;
    let theirs = |stream: &str| -> Event {
        (
            stream.to_owned(),
            "Booked",
            json!({ "amount": 1, "account": "a" }),
        )
    };
    let first = scene.append(&[booked("a", 1, 0), booked("c", 1, 0)]).await;
    scene.wait_for("ledger", first[1]);
    let second = scene.append(&[theirs("c"), booked("a", 2, 0)]).await;
    scene.wait_for("ledger", second[1]);
    let close = (
        "c".to_owned(),
        "Booked",
        json!({ "amount": 0, "account": "a", "close": true }),
    );
    let third = scene.append(&[close, booked("a", 3, 0)]).await;
    scene.wait_for("ledger", third[1]);
    let expected = [(second[0], "c", "skipped"), (third[0], "c", "skipped")];
    scene.wait_for_letters("ledger", &expected);
    for letter in scene.letters("ledger") {
        for words in ["\"accounts\"", "per_stream", "two streams"] {
            assert!(
                letter.message.contains(words),
                "{words:?} is missing in {}",
                letter.message
            );
        }
    }
    assert_eq!(history(&scene, "a").await, " 1-0 2-0 3-0");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dead_letter_is_listed_page_by_page() {
    let scene = Scene::new("", &["ledger"]).await;
    let many = "insert into gobo.dead_letters (generation, position, stream_id, event_type, event_id, state, message) \
                select live, n * 2, 's', 'Booked', gen_random_uuid(), 'skipped', 'no fees' \
                  from gobo.projections, generate_series(1, 2300) as n where name = 'ledger'";
    scene.database.execute(many).await;
    let path = "/admin/projections/ledger/dead-letters";
    let page = |query: &str| {
        let answer = scene
            .gobo
            .get(&format!("{path}?{query}"))
            .expect(200)
            .json();
        let letters = answer["dead_letters"].as_array().unwrap().iter();
        let positions: Vec<_> = letters.map(|l| l["position"].as_i64().unwrap()).collect();
        (positions, answer["next"].as_i64())
    };
    let mut found = Vec::new();
    let mut next = Some(0);
    while let Some(after) = next {
        let (positions, more) = page(&format!("after={after}"));
        assert!(positions.len() <= 1000);
        found.extend(positions);
        next = more;
    }
    assert_eq!(found, (1..=2300).map(|n| n * 2).collect::<Vec<i64>>());
    // A page that ends with the last one is the last.
    assert_eq!(page("after=4595&limit=3"), (vec![4596, 4598, 4600], None));
    assert_eq!(page("after=4593&limit=3").1, Some(4598));
    assert_eq!(page("after=4600"), (vec![], None));
    for query in ["limit=0", "limit=1001", "after=x", "before=3"] {
        let problem = scene
            .gobo
            .get(&format!("{path}?{query}"))
            .expect(400)
            .json();
        assert_eq!(problem["code"], "bad_parameter", "{query}");
    }

    let wrong = json!({"position": "4", "reason": "twice"});
    let refused = scene
        .gobo
        .post(&format!("{path}/discard"), &wrong)
        .expect(400)
        .json();
    assert_eq!(refused["details"]["path"], "position", "{refused}");

    let list = |more: &[&str]| {
        stdout(
            &scene,
            &[&["dead-letters", "list", "ledger"], more].concat(),
        )
    };
    assert_eq!(list(&[]).matches("no fees").count(), 2300);
    let some = list(&["--after", "20", "--limit", "2"]);
    assert!(some.contains(" 22  ") && some.contains(" 24  "), "{some}");
    assert_eq!(some.matches("no fees").count(), 2);
    assert!(some.ends_with("There are more: --after 24\n"), "{some}");
    // Whoever reads along may have seen enough, as `head` has.
    let mut unread = std::process::Command::new(gobo_tests::gobo_binary())
        .args(["dead-letters", "list", "ledger", "--url", scene.gobo.url()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(unread.stdout.take());
    let ended = unread.wait_with_output().unwrap();
    assert!(
        ended.status.success() && ended.stderr.is_empty(),
        "{ended:?}"
    );
    let all: Value = serde_json::from_str(&list(&["--json"])).unwrap();
    assert_eq!(all["dead_letters"].as_array().unwrap().len(), 2300);
    assert_eq!(all["next"], Value::Null);
}
