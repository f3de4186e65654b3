//! A bad plugin, or a bad event, harms only its own projection, and says what is wrong.

use std::collections::BTreeSet;

use gobo_tests::{Random, wait_until};
use serde_json::{Value, json};

use crate::scene::{Event, Scene, matched, order, raw};

/// Small, so that whatever exceeds them does so quickly; but the time is the machine's as well.
const LIMITS: &str = "
[limits]
batch_time_ms = 2000
memory_bytes = 8388608
output_bytes = 262144
keys_per_batch = 1000
rounds = 8
log_lines = 5
message_bytes = 200
";

fn limits_and_policy(policy: &str) -> String {
    format!(
        "{LIMITS}\n[projections.raw]\npolicy = \"{policy}\"\n[projections.orders]\npolicy = \"{policy}\"\n"
    )
}

/// What the guest is asked to do, and the words that its dead letter has to say.
type Case = (Value, &'static [&'static str]);

/// Everything that a guest can do wrong while it runs.
fn crashes() -> Vec<Case> {
    vec![
        (
            json!({"do": "error", "message": "no such price"}),
            &["no such price"],
        ),
        (
            json!({"do": "bad_failure"}),
            &["by an event that is not there"],
        ),
        (json!({"do": "unheard-of"}), &["unknown: \"unheard-of\""]),
        (
            json!({"do": "trap"}),
            &["the plugin trapped", "unreachable"],
        ),
        (
            json!({"do": "loop"}),
            &["longer than the limit of 2000 ms", "limits.batch_time_ms"],
        ),
        (
            json!({"do": "allocate"}),
            &[
                "more memory than the limit of 8388608 bytes",
                "limits.memory_bytes",
            ],
        ),
        (
            json!({"do": "huge_output", "bytes": 300_000}),
            &["more than the limit of 262144 bytes", "limits.output_bytes"],
        ),
        (
            json!({"do": "need_forever"}),
            &["more than 8 times in one batch", "limits.rounds"],
        ),
        (
            json!({"do": "need_many", "count": 2_000}),
            &["more than 1000 rows in one batch", "limits.keys_per_batch"],
        ),
        (
            json!({"do": "bad_need"}),
            &["key 0: its read model is not one of the 3"],
        ),
        (
            json!({"do": "need_wrong_key"}),
            &["key 0: a key of read model \"raw\" has 2 fields, the descriptor declares 1"],
        ),
    ]
}

/// Frames that break a rule of FRAMES.md.
fn frames() -> Vec<Case> {
    vec![
        (
            json!({"do": "null_key"}),
            &[
                "change 0",
                "\"raw\", column \"id\": NULL in a column that is not nullable",
            ],
        ),
        (
            json!({"do": "null_column"}),
            &[
                "change 0",
                "\"raw_pairs\", column \"n\": NULL in a column that is not nullable",
            ],
        ),
        (
            json!({"do": "too_many_fields"}),
            &["change 0", "28 fields, the descriptor declares 27 columns"],
        ),
        (
            json!({"do": "too_few_fields"}),
            &["change 0", "26 fields, the descriptor declares 27 columns"],
        ),
        (
            json!({"do": "bad_utf8"}),
            &["change 0", "column \"c_text\": not UTF-8"],
        ),
        (
            json!({"do": "nul_byte"}),
            &["change 0", "column \"c_text\": the text contains U+0000"],
        ),
        (
            json!({"do": "bad_json"}),
            &["change 0", "column \"c_json\": not JSON"],
        ),
        (
            json!({"do": "bad_jsonb"}),
            &["change 0", "column \"c_jsonb\": not JSON"],
        ),
        (
            json!({"do": "jsonb_version"}),
            &[
                "change 0",
                "column \"c_jsonb\": jsonb does not begin with version byte 1",
            ],
        ),
        (
            json!({"do": "put", "fields": {"c_jsonb": "01225c753030303022"}}),
            &["column \"c_jsonb\"", "\\u0000"],
        ),
        (
            json!({"do": "wrong_width"}),
            &["change 0", "column \"c_int4\": 3 bytes where int4 has 4"],
        ),
        (
            json!({"do": "bad_bool"}),
            &["change 0", "column \"c_bool\": a bool is neither 0 nor 1"],
        ),
        (
            json!({"do": "bad_numeric"}),
            &[
                "change 0",
                "column \"c_numeric\": a numeric has a digit outside 0 to 9999",
            ],
        ),
        (
            json!({"do": "nan_numeric"}),
            &["change 0", "column \"c_numeric\": a numeric is NaN"],
        ),
        (
            json!({"do": "bad_array"}),
            &["change 0", "column \"c_int4s\": an array"],
        ),
        (
            json!({"do": "infinite_time"}),
            &[
                "change 0",
                "column \"c_timestamptz\": an infinite date or time",
            ],
        ),
        (
            json!({"do": "truncated"}),
            &["the frame ends inside", "byte"],
        ),
        (
            json!({"do": "trailing"}),
            &["the frame ends inside", "byte"],
        ),
        (
            json!({"do": "negative_length"}),
            &["negative field length", "byte"],
        ),
        (
            json!({"do": "index_out_of_range"}),
            &["change 0: its event index is not one of the 1 events"],
        ),
        (
            json!({"do": "model_out_of_range"}),
            &["change 0: its read model is not one of the 3"],
        ),
        (
            json!({"do": "bad_operation"}),
            &["change 0: its operation is neither 0 (upsert) nor 1 (delete)"],
        ),
    ]
}

/// Rows that are well-formed and that PostgreSQL refuses all the same.
fn refusals() -> Vec<Case> {
    vec![
        (
            json!({"do": "put", "id": incompressible(9_000)}),
            &["SQLSTATE 54000"],
        ),
        (
            json!({"do": "put", "fields": {"c_date": "7ffffffe"}}),
            &["date out of range", "SQLSTATE 22008"],
        ),
        (
            json!({"do": "put", "fields": {"c_timestamptz": "7ffffffffffffffe"}}),
            &["timestamp out of range", "SQLSTATE 22008"],
        ),
    ]
}

/// Text that PostgreSQL cannot compress below its limit for keys.
fn incompressible(length: usize) -> String {
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    let mut next = || char::from(b'!' + u8::try_from(random.below(64)).unwrap());
    // Quotes and backslashes would only make the JSON longer.
    std::iter::repeat_with(&mut next)
        .filter(|c| !['"', '\\'].contains(c))
        .take(length)
        .collect()
}

/// Appends every case in a stream of its own, with sound events before, between, behind and in the same stream, and
/// orders for the other projection. Then all that is sound has to be in the rows, and all that is not in the letters.
async fn all_of(cases: Vec<Case>, policy: &str) {
    let scene = Scene::new(&limits_and_policy(policy), &["raw-guest", "orders"]).await;
    let mut events: Vec<Event> = Vec::new();
    for (number, (data, _)) in cases.iter().enumerate() {
        let put = |id: String| json!({"do": "put", "id": id, "n": number});
        events.push(raw("sound", put(format!("before {number}"))));
        events.push(raw(format!("bad {number}"), data.clone()));
        events.push(order(&number.to_string()));
        events.push(raw(
            format!("bad {number}"),
            put(format!("behind {number}")),
        ));
        events.push(raw("adds", json!({"do": "add", "id": "sum", "n": 1})));
    }
    let positions = scene.append(&events).await;
    let last = *positions.last().unwrap();
    scene.wait_for("orders", last);
    scene.wait_for("raw", last);

    let letters = scene.letters("raw");
    for (number, (data, words)) in cases.iter().enumerate() {
        let stream = format!("bad {number}");
        let of_stream: Vec<_> = letters.iter().filter(|l| l.stream == stream).collect();
        let states: Vec<_> = of_stream
            .iter()
            .map(|l| (l.position, l.state.as_str()))
            .collect();
        let (at, behind) = (positions[5 * number + 1], positions[5 * number + 3]);
        match policy {
            "park" => assert_eq!(states, [(at, "failed"), (behind, "behind")], "{data}"),
            _ => assert_eq!(states, [(at, "skipped")], "{data}"),
        }
        for word in *words {
            let message = &of_stream[0].message;
            assert!(
                message.contains(word),
                "{data}: {word:?} is missing in {message}"
            );
        }
    }
    let found: BTreeSet<String> = scene
        .database
        .query_json("select id from read.raw")
        .await
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect();
    let mut expected = BTreeSet::from(["sum".to_owned()]);
    for number in 0..cases.len() {
        expected.insert(format!("before {number}"));
        if policy == "skip" {
            expected.insert(format!("behind {number}"));
        }
    }
    assert_eq!(found, expected);
    let count = i64::try_from(cases.len()).unwrap();
    let sum = "select c_int8 from read.raw where id = 'sum'";
    assert_eq!(
        scene.database.query_i64(sum).await,
        count,
        "each event once"
    );
    // The other projection, and the process.
    assert_eq!(scene.letters("orders"), []);
    let orders = "select count(*) from read.orders";
    assert_eq!(scene.database.query_i64(orders).await, count);
    scene.gobo.wait_until_ready();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_fails_crashes_or_exceeds_a_limit_loses_only_the_event_at_fault() {
    all_of(crashes(), "skip").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_fails_crashes_or_exceeds_a_limit_parks_only_the_stream_at_fault() {
    all_of(crashes(), "park").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_frame_is_refused_naming_rule_change_and_column() {
    all_of(frames(), "skip").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_frame_parks_only_the_stream_at_fault() {
    all_of(frames(), "park").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_postgresql_refuses_is_found_among_many() {
    all_of(refusals(), "skip").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_postgresql_refuses_parks_only_its_stream() {
    all_of(refusals(), "park").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_a_projection_stops_in_front_of_the_event_at_fault_alone() {
    let mut cases = crashes();
    cases.truncate(5);
    cases.extend(frames().into_iter().take(5).chain(refusals()));
    // One engine for all: each case has its own database for the rows, but they share nothing else.
    let checks = cases.into_iter().map(|case| tokio::spawn(stops_at(case)));
    for check in checks.collect::<Vec<_>>() {
        check.await.unwrap();
    }
}

async fn stops_at((data, words): Case) {
    let scene = Scene::new(LIMITS, &["raw-guest", "orders"]).await;
    let put = |id: &str| json!({"do": "put", "id": id});
    let events = [
        raw("a", put("before")),
        raw("b", data.clone()),
        raw("a", put("after")),
        order("1"),
    ];
    let positions = scene.append(&events).await;
    scene.wait_for("orders", positions[3]);
    let error = scene.wait_for_stop("raw");
    assert_eq!(error["position"], positions[1], "{data}: {error}");
    assert_eq!(error["stream_id"], "b");
    assert_eq!(error["event_type"], "Raw");
    for word in words {
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains(word),
            "{data}: {word:?} is missing in {message}"
        );
    }
    assert_eq!(scene.status("raw")["position"], positions[0]);
    let ids = scene.database.query_json("select id from read.raw").await;
    assert_eq!(ids, json!([{"id": "before"}]));
    assert_eq!(scene.letters("raw"), []);
    scene.gobo.wait_until_ready();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_falls_is_refused_and_the_events_are_processed_one_by_one() {
    let scene = Scene::new(&limits_and_policy("skip"), &["raw-guest"]).await;
    let put = |id: &str| json!({"do": "put", "id": id});
    let events = [
        raw("a", put("before")),
        raw("b", json!({"do": "descending", "id": "descending"})),
        raw("a", put("after")),
    ];
    let positions = scene.append(&events).await;
    scene.wait_for("raw", positions[2]);
    // Alone in its batch, such an event breaks no rule.
    assert_eq!(scene.letters("raw"), []);
    assert_eq!(
        scene
            .database
            .query_i64("select count(*) from read.raw")
            .await,
        3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_does_not_fit_the_handler_is_named_with_stream_and_position() {
    let scene = Scene::new(&limits_and_policy("skip"), &["orders"]).await;
    let mut wrong = order("wrong");
    wrong.2["price"] = json!("a lot");
    let mut missing = order("missing");
    missing.2.as_object_mut().unwrap().remove("symbol");
    let absent = matched("absent", "1");
    let positions = scene
        .append(&[order("1"), wrong, missing, absent, order("2")])
        .await;
    scene.wait_for("orders", positions[4]);
    let letters = scene.letters("orders");
    let cases: [(&str, &[&str]); 3] = [
        (
            "order-wrong",
            &[
                "OrderCreated",
                "does not fit",
                "\"a lot\" is not a decimal number",
            ],
        ),
        ("order-missing", &["OrderCreated", "symbol"]),
        ("order-absent", &["OrderMatched", "absent"]),
    ];
    assert_eq!(letters.len(), cases.len());
    for ((letter, (stream, words)), position) in letters.iter().zip(cases).zip(&positions[1..]) {
        assert_eq!(
            (letter.stream.as_str(), letter.position),
            (stream, *position)
        );
        let place = [stream.to_owned(), position.to_string()];
        for word in words
            .iter()
            .copied()
            .chain(place.iter().map(String::as_str))
        {
            assert!(
                letter.message.contains(word),
                "{word:?} is missing in {}",
                letter.message
            );
        }
    }
    assert_eq!(
        scene
            .database
            .query_i64("select count(*) from read.orders")
            .await,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_an_sdk_guest_shows_its_message_and_its_event() {
    let scene = Scene::new("[projections.orders]\npolicy = \"park\"", &["orders"]).await;
    let mut huge = matched("1", "99999999999999999999");
    huge.2["price"] = json!("99999999999999999999");
    let positions = scene
        .append(&[order("1"), huge, matched("1", "1"), order("2")])
        .await;
    scene.wait_for("orders", positions[3]);
    let expected = [
        (positions[1], "order-1", "failed"),
        (positions[2], "order-1", "behind"),
    ];
    scene.wait_for_letters("orders", &expected);
    let message = &scene.letters("orders")[0].message;
    let at = format!("while handling the event at position {}", positions[1]);
    for words in ["the plugin trapped", "does not fit a Decimal", &at] {
        assert!(message.contains(words), "{words:?} is missing in {message}");
    }
    // The author finds it in the log as well.
    let log = scene.gobo.get("/admin/projections/orders/logs").expect(200);
    assert!(
        log.text().contains("does not fit a Decimal"),
        "{}",
        log.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_are_kept_cut_and_counted_within_bounds() {
    let scene = Scene::new(LIMITS, &["raw-guest"]).await;
    let long = "ü".repeat(500);
    let lines = |times: u32, level: &str, message: &str| {
        raw(
            "a",
            json!({"do": "log", "level": level, "message": message, "times": times}),
        )
    };
    scene
        .append(&[lines(2, "warn", &long), lines(40, "info", "short")])
        .await;
    let kept = wait_until("the log", || {
        let log = scene
            .gobo
            .get("/admin/projections/raw/logs")
            .expect(200)
            .json();
        let lines = log["lines"].as_array().unwrap().clone();
        match lines.is_empty() {
            false => Ok(lines),
            true => Err(log),
        }
    });
    let texts: Vec<_> = kept
        .iter()
        .map(|line| line["message"].as_str().unwrap())
        .collect();
    let cut = format!("{} ... (cut)", "ü".repeat(100));
    assert_eq!(texts[..5], [&cut, &cut, "short", "short", "short"]);
    assert_eq!(texts.len(), 6, "{texts:?}");
    assert!(texts[5].contains("37 more lines") && texts[5].contains("limits.log_lines"));
    assert_eq!(kept[0]["level"], "warn");
    assert_eq!(kept[2]["level"], "info");
}
