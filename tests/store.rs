//! Appending: idempotent, in order, gapless per stream, and nothing that could not be read back.

use gobo::db::Database as Sessions;
use gobo::migrate::migrate;
use gobo::store::{AppendError, Appended, ExpectedVersion, Store};
use gobo_tests::Database;
use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

const ANY: ExpectedVersion = ExpectedVersion::Any;

async fn migrated() -> Database {
    let database = Database::create().await;
    migrate(&mut database.connect().await).await.unwrap();
    database
}

fn store(database: &Database) -> Store {
    let sessions = Sessions::new(database.url()).unwrap();
    Store::new(sessions.pool("test", 8, &[]))
}

fn event(kind: &str) -> Value {
    json!({"type": kind, "data": {"n": 1}})
}

fn identified(id: u128) -> Value {
    json!({"type": "T", "data": {"n": id as u64}, "event_id": Uuid::from_u128(id)})
}

async fn append(
    store: &Store,
    expected: ExpectedVersion,
    events: &[Value],
) -> Result<Appended, AppendError> {
    store
        .append("s", expected, &json!(events).to_string())
        .await
}

/// The SQLSTATE that a statement fails with, and its message.
async fn failure(client: &Client, sql: &str) -> (String, String) {
    let error = client.batch_execute(sql).await.unwrap_err();
    let raised = error.as_db_error().unwrap();
    (raised.code().code().to_owned(), raised.message().to_owned())
}

#[tokio::test]
async fn append_numbers_the_events_of_a_stream_from_zero() {
    let database = migrated().await;
    let store = store(&database);
    let first = append(&store, ANY, &[event("A"), event("B")])
        .await
        .unwrap();
    let second = append(&store, ExpectedVersion::Exact(1), &[event("C")])
        .await
        .unwrap();
    let versions: Vec<i64> = first.events.iter().map(|e| e.version).collect();
    assert_eq!(
        (versions, first.version, second.version),
        (vec![0, 1], 1, 2)
    );
    assert!(first.position < second.position);
}

#[tokio::test]
async fn append_answers_the_same_when_repeated() {
    let database = migrated().await;
    let store = store(&database);
    let events = [identified(1), identified(2)];
    let first = append(&store, ExpectedVersion::None, &events)
        .await
        .unwrap();
    // The version is judged after that: the stream exists by now.
    let again = append(&store, ExpectedVersion::None, &events)
        .await
        .unwrap();
    assert_eq!(first, again);
    append(&store, ANY, &[event("later")]).await.unwrap();
    let much_later = append(&store, ExpectedVersion::None, &events)
        .await
        .unwrap();
    assert_eq!(first, much_later);
    assert_eq!(
        database.query_i64("select count(*) from gobo.events").await,
        3
    );
}

#[tokio::test]
async fn the_same_content_may_be_written_differently() {
    let database = migrated().await;
    let store = store(&database);
    let id = Uuid::from_u128(1);
    let one = format!(
        r#"[{{"type":"T","data":{{"a":1.0,"b":"\u00e9"}},"event_id":"{id}","occurred_at":"2020-01-01T00:00:00Z"}}]"#
    );
    let other = format!(
        r#"[{{"event_id":"{id}","occurred_at":"2020-01-01T01:00:00+01:00","data":{{"b":"é","a":1}},"type":"T","metadata":null}}]"#
    );
    let first = store.append("s", ANY, &one).await.unwrap();
    assert_eq!(first, store.append("s", ANY, &other).await.unwrap());
}

#[tokio::test]
async fn an_event_id_is_never_taken_twice() {
    let database = migrated().await;
    let store = store(&database);
    append(&store, ANY, &[identified(1), identified(2)])
        .await
        .unwrap();
    let other_content = json!({"type": "T", "data": {"n": 9}, "event_id": Uuid::from_u128(1)});
    let other_moment = json!({"type": "T", "data": {"n": 1}, "event_id": Uuid::from_u128(1),
                              "occurred_at": "2020-01-01T00:00:00Z"});
    for events in [
        vec![identified(1), identified(3)],
        vec![identified(2), identified(1)],
        vec![identified(1), event("T")],
        vec![identified(7), identified(7)],
        vec![other_content],
        vec![other_moment],
    ] {
        let error = append(&store, ANY, &events).await.unwrap_err();
        let AppendError::EventIdConflict { message, event_ids } = error else {
            panic!("{events:?}: {error}");
        };
        assert!(message.contains(&event_ids[0].to_string()), "{message}");
    }
    let elsewhere = json!([identified(1)]).to_string();
    let error = store.append("other", ANY, &elsewhere).await.unwrap_err();
    assert!(matches!(error, AppendError::EventIdConflict { .. }));
    assert_eq!(
        database.query_i64("select count(*) from gobo.events").await,
        2
    );
}

#[tokio::test]
async fn a_version_conflict_names_the_stream_and_its_version() {
    let database = migrated().await;
    let store = store(&database);
    let check = async |expected, actual, wording: &str| {
        let error = append(&store, expected, &[event("T")]).await.unwrap_err();
        let AppendError::VersionConflict {
            message,
            actual_version,
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((message.as_str(), actual_version), (wording, actual));
    };
    check(
        ExpectedVersion::Exact(0),
        None,
        "stream \"s\" does not exist, not at 0",
    )
    .await;
    append(&store, ExpectedVersion::None, &[event("T"), event("T")])
        .await
        .unwrap();
    check(
        ExpectedVersion::None,
        Some(1),
        "stream \"s\" is at version 1, not new",
    )
    .await;
    check(
        ExpectedVersion::Exact(0),
        Some(1),
        "stream \"s\" is at version 1, not at 0",
    )
    .await;
    check(
        ExpectedVersion::Exact(7),
        Some(1),
        "stream \"s\" is at version 1, not at 7",
    )
    .await;
}

#[tokio::test]
async fn positions_ascend_in_the_order_of_the_array() {
    let database = migrated().await;
    let store = store(&database);
    let events: Vec<Value> = (0..10_000)
        .map(|n| json!({"type": "T", "data": n}))
        .collect();
    let appended = append(&store, ANY, &events).await.unwrap();
    assert!(
        appended
            .events
            .is_sorted_by(|a, b| a.position < b.position && a.version < b.version)
    );
    let disordered = "select count(*) from gobo.events where data::text <> version::text";
    assert_eq!(database.query_i64(disordered).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_appends_leave_a_stream_without_gaps() {
    let database = migrated().await;
    let store = store(&database);
    let mut appenders = Vec::new();
    for _ in 0..20 {
        let store = store.clone();
        appenders.push(tokio::spawn(async move {
            for _ in 0..25 {
                append(&store, ANY, &[event("A"), event("B")])
                    .await
                    .unwrap();
            }
        }));
    }
    for appender in appenders {
        appender.await.unwrap();
    }
    let gaps = "select count(*) - 1000 + max(version) - 999 from gobo.events";
    assert_eq!(database.query_i64(gaps).await, 0);
    let disordered = "select count(*) from (select position, lag(position) over (order by version) before \
                      from gobo.events) p where position < before";
    assert_eq!(database.query_i64(disordered).await, 0);
}

#[tokio::test]
async fn one_of_two_appends_with_the_same_expectation_wins() {
    let database = migrated().await;
    let store = store(&database);
    let events = [event("T")];
    let (a, b) = tokio::join!(
        append(&store, ExpectedVersion::None, &events),
        append(&store, ExpectedVersion::None, &events)
    );
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1);
    let lost = a.err().or(b.err()).unwrap();
    assert!(matches!(
        lost,
        AppendError::VersionConflict {
            actual_version: Some(0),
            ..
        }
    ));
}

#[tokio::test]
async fn an_append_belongs_to_its_clients_transaction() {
    let database = migrated().await;
    let client = database.connect().await;
    let append = r#"select * from gobo.append('s', '[{"type":"T","data":{}}]', 'any')"#;
    client
        .batch_execute(&format!("begin; {append}; {append}; rollback"))
        .await
        .unwrap();
    assert_eq!(
        database.query_i64("select count(*) from gobo.events").await,
        0
    );
    client
        .batch_execute(&format!("begin; {append}; {append}; commit"))
        .await
        .unwrap();
    assert_eq!(
        database
            .query_i64("select max(version) from gobo.events")
            .await,
        1
    );
}

#[tokio::test]
async fn a_repeatable_read_client_that_was_overtaken_is_told_to_run_again() {
    let database = migrated().await;
    let client = database.connect().await;
    client
        .batch_execute("begin isolation level repeatable read; select 1 from gobo.events")
        .await
        .unwrap();
    append(&store(&database), ANY, &[event("T")]).await.unwrap();
    let append = r#"select * from gobo.append('s', '[{"type":"T","data":{}}]', 'none')"#;
    let (state, _) = failure(&client, append).await;
    assert_eq!(state, "40001");
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(failure(&client, append).await.0, "GB001");
}

#[tokio::test]
async fn what_could_not_be_read_back_is_refused_with_index_and_reason() {
    let database = migrated().await;
    let store = store(&database);
    let check = async |event: &str, reason: &str| {
        let events = format!(r#"[{{"type":"fine","data":0}},{event}]"#);
        let error = store.append("s", ANY, &events).await.unwrap_err();
        let AppendError::Refused { message, index } = error else {
            panic!("{event}: {error}");
        };
        assert_eq!(index, Some(1), "{event:.80}: {message}");
        assert!(message.contains(reason), "{event:.80}: {message}");
    };
    let deep = "[".repeat(101) + &"]".repeat(101);
    let deeper = "[".repeat(2000) + &"]".repeat(2000);
    check("5", "not number").await;
    check(r#"{"data":1}"#, "type is missing").await;
    check(r#"{"type":"","data":1}"#, "type is missing").await;
    check(r#"{"type":5,"data":1}"#, "type is missing").await;
    check(
        &format!(r#"{{"type":"{}","data":1}}"#, "é".repeat(129)),
        "256 bytes",
    )
    .await;
    check(r#"{"type":"T"}"#, "data is missing").await;
    check(r#"{"type":"T","data":null}"#, "data is missing").await;
    check(r#"{"type":"T","data":"\u0000"}"#, "\\u0000").await;
    check(r#"{"type":"T","data":{"\u0000":1}}"#, "\\u0000").await;
    check(r#"{"type":"T\u0000","data":1}"#, "\\u0000").await;
    check(
        r#"{"type":"T","data":1,"metadata":{"a":["\ud800"]}}"#,
        "surrogate",
    )
    .await;
    check(r#"{"type":"T","data":"\ude00"}"#, "surrogate").await;
    check(
        &format!(r#"{{"type":"T","data":{deep}}}"#),
        "deeper than 100",
    )
    .await;
    check(
        &format!(r#"{{"type":"T","data":1,"metadata":{{"a":{deep}}}}}"#),
        "deeper than 100",
    )
    .await;
    check(
        &format!(r#"{{"type":"T","data":{deeper}}}"#),
        "deeper than 100",
    )
    .await;
    check(r#"{"type":"T","data":1e999999}"#, "overflows").await;
    check(
        r#"{"type":"T","data":1,"metadata":[]}"#,
        "not an object but array",
    )
    .await;
    check(r#"{"type":"T","data":1,"event_id":"x"}"#, "uuid").await;
    check(r#"{"type":"T","data":1,"event_id":7}"#, "not a string").await;
    check(
        r#"{"type":"T","data":1,"occurred_at":"infinity"}"#,
        "not a moment",
    )
    .await;
    check(
        r#"{"type":"T","data":1,"occurred_at":"2020-01-01T00:00:00"}"#,
        "not a moment",
    )
    .await;
    check(
        r#"{"type":"T","data":1,"occurred_at":"2020-02-31T00:00:00Z"}"#,
        "out of range",
    )
    .await;
    check(
        r#"{"type":"T","data":1,"version":0}"#,
        "unknown member \"version\"",
    )
    .await;
    assert_eq!(
        database.query_i64("select count(*) from gobo.events").await,
        0
    );
}

#[tokio::test]
async fn an_append_as_a_whole_has_limits() {
    let database = migrated().await;
    let store = store(&database);
    let fine = r#"[{"type":"T","data":1}]"#;
    let many = json!(vec![event("T"); 10_001]).to_string();
    let abyss = format!(
        r#"[{{"type":"T","data":{}1{}}}]"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    for (stream, events) in [
        ("s", "[]"),
        ("s", "{}"),
        ("s", &many),
        ("s", &abyss),
        ("", fine),
        ("a\0b", fine),
    ] {
        let error = store.append(stream, ANY, events).await.unwrap_err();
        assert!(matches!(error, AppendError::Refused { .. }), "{error}");
    }
    let long = "x".repeat(513);
    assert!(matches!(
        store.append(&long, ANY, fine).await,
        Err(AppendError::Refused { .. })
    ));
    store.append(&long[1..], ANY, fine).await.unwrap();
    let hundred = format!(
        r#"[{{"type":"T","data":{}{}}}]"#,
        "[".repeat(100),
        "]".repeat(100)
    );
    store.append("s", ANY, &hundred).await.unwrap();
}

#[tokio::test]
async fn a_stored_event_is_not_changed_by_accident() {
    let database = migrated().await;
    append(&store(&database), ANY, &[event("T")]).await.unwrap();
    let client = database.connect().await;
    for statement in [
        "update gobo.events set type = 'x'",
        "delete from gobo.events",
        "truncate gobo.events",
    ] {
        let (state, message) = failure(&client, statement).await;
        assert_eq!(state, "55000", "{message}");
    }
    client
        .batch_execute("begin; set local gobo.change_events = 'on'; update gobo.events set data = '{}'; commit")
        .await
        .unwrap();
}

#[tokio::test]
async fn reading_never_passes_the_safe_position_and_pages_without_a_gap() {
    let database = migrated().await;
    let store = store(&database);
    let events: Vec<Value> = (0..25)
        .map(|n| json!({"type": if n % 5 == 0 { "X" } else { "Y" }, "data": n}))
        .collect();
    let appended = append(&store, ANY, &events).await.unwrap();
    let safe = appended.events[20].position;
    let mut read = Vec::new();
    let mut after = Some(0);
    while let Some(cursor) = after {
        let page = store.read_all(cursor, safe, &[], 6).await.unwrap();
        read.extend(page.events.iter().map(|e| e.position));
        after = page.next;
    }
    let expected: Vec<i64> = appended.events[..=20].iter().map(|e| e.position).collect();
    assert_eq!(read, expected);
    let only_x = store
        .read_all(0, safe, &["X".to_owned()], 100)
        .await
        .unwrap();
    let data: Vec<&str> = only_x.events.iter().map(|e| e.data.get()).collect();
    assert_eq!(data, ["0", "5", "10", "15", "20"]);
    assert_eq!(only_x.next, None);
}

#[tokio::test]
async fn a_search_for_rare_types_goes_on_where_it_stopped() {
    let database = migrated().await;
    let store = store(&database);
    append(&store, ANY, &[event("T")]).await.unwrap();
    database
        .execute("alter table gobo.events alter position restart with 700000")
        .await;
    let late = append(&store, ANY, &[event("RARE")]).await.unwrap();
    let (mut after, mut found, mut pages) = (Some(0), Vec::new(), 0);
    while let Some(cursor) = after {
        let page = store
            .read_all(cursor, late.position, &["RARE".to_owned()], 10)
            .await
            .unwrap();
        found.extend(page.events.iter().map(|e| e.position));
        after = page.next;
        pages += 1;
    }
    assert_eq!((found, pages > 1), (vec![late.position], true));
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes() {
    let database = migrated().await;
    let store = store(&database);
    let big = json!({"type": "T", "data": "x".repeat(7 << 20)});
    for _ in 0..4 {
        append(&store, ANY, std::slice::from_ref(&big))
            .await
            .unwrap();
    }
    let page = store.read_stream("s", -1, 100).await.unwrap();
    assert_eq!((page.events.len(), page.next), (3, Some(2)));
    let rest = store.read_stream("s", 2, 100).await.unwrap();
    assert_eq!((rest.events.len(), rest.next), (1, None));
}

#[tokio::test]
async fn an_append_never_scans_the_table() {
    let database = migrated().await;
    let client = database.connect().await;
    // The plans are made while the table is empty, and kept for the session.
    for n in 0..12 {
        let events = json!((0..50).map(|i| identified(n * 50 + i)).collect::<Vec<_>>()).to_string();
        let sql = "select count(*) from gobo.append('s', $1::text::json)";
        client.query_one(sql, &[&events]).await.unwrap();
    }
    let sql = "begin; select * from gobo.append('s', '[{\"type\":\"T\",\"data\":{\"n\":1},\
               \"event_id\":\"00000000-0000-0000-0000-000000000001\"}]'); \
               select * from gobo.append('s', '[{\"type\":\"T\",\"data\":{}}]', '599')";
    client.batch_execute(sql).await.unwrap();
    let sql = "select seq_scan, idx_scan from pg_stat_xact_user_tables where relid = 'gobo.events'::regclass";
    let row = client.query_one(sql, &[]).await.unwrap();
    let (scans, lookups): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!((scans, lookups > 0), (0, true));
}
