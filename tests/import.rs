//! Importing lines of JSON: whole chunks, resumable, the same rules as an append.

use std::io::{Cursor, Write};

use gobo::import::{ImportError, Input, Options, Summary, import};
use gobo::migrate::migrate;
use gobo_tests::Database;
use serde_json::{Value, json};
use tokio::sync::watch;

async fn migrated() -> Database {
    let database = Database::create().await;
    migrate(&mut database.connect().await).await.unwrap();
    database
}

fn options(chunk: usize) -> Options {
    Options {
        name: "test".to_owned(),
        chunk,
    }
}

fn input(bytes: impl Into<Vec<u8>>) -> Input {
    Input::new(Box::new(Cursor::new(bytes.into())), None)
}

fn going_on() -> watch::Receiver<bool> {
    watch::channel(false).1
}

async fn run(
    database: &Database,
    text: impl Into<Vec<u8>>,
    chunk: usize,
) -> Result<Summary, ImportError> {
    let mut client = database.connect().await;
    import(
        &mut client,
        input(text),
        &options(chunk),
        going_on(),
        |_| {},
    )
    .await
}

/// Lines of several streams, a few members each.
fn lines(count: usize) -> String {
    let line = |n: usize| {
        let line = match n % 3 {
            0 => json!({"stream_id": format!("s{}", n % 7), "type": "T", "data": {"n": n}}),
            1 => json!({"stream_id": "one", "type": "T", "data": {"n": n}, "version": n / 3}),
            _ => json!({"stream_id": "été/2", "type": "U", "data": n, "metadata": {"n": n},
                        "occurred_at": "2020-01-01T00:00:00.123456+01:00"}),
        };
        format!("{line}\n")
    };
    (0..count).map(line).collect()
}

/// What is stored, without what differs from run to run.
async fn stored(database: &Database) -> Value {
    let sql = "select row_number() over (order by position) n, stream_id, version, type, data, metadata, event_id, \
               case when occurred_at < '2021-01-01' then occurred_at end occurred_at from gobo.events order by position";
    database.query_json(sql).await
}

async fn count(database: &Database) -> i64 {
    database.query_i64("select count(*) from gobo.events").await
}

#[tokio::test]
async fn an_import_stores_every_line_in_order() {
    let database = migrated().await;
    let summary = run(&database, lines(100), 7).await.unwrap();
    assert!(summary.complete);
    assert_eq!(
        (summary.stored, summary.lines, summary.resumed_at),
        (100, 100, 0)
    );
    let stored = stored(&database).await;
    assert_eq!(stored[4]["version"], 1);
    assert_eq!(stored[5]["metadata"], json!({"n": 5}));
    assert_eq!(stored[5]["occurred_at"], "2019-12-31T23:00:00.123456+00:00");
    let disordered = "select count(*) from (select row_number() over (order by position) - 1 n, data from gobo.events) e \
                      where n <> coalesce(case when json_typeof(data) = 'number' then data::text end, data ->> 'n')::int";
    assert_eq!(database.query_i64(disordered).await, 0);
    let gaps = "select count(*) from (select stream_id, count(*) - max(version) - 1 gap from gobo.events group by 1) s where gap <> 0";
    assert_eq!(database.query_i64(gaps).await, 0);
    let head = database
        .query_i64("select max(position) from gobo.events")
        .await;
    assert_eq!(summary.last_position, head);
}

#[tokio::test]
async fn compressed_input_is_recognised() {
    let database = migrated().await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(lines(20).as_bytes()).unwrap();
    let packed = zstd::encode_all(Cursor::new(lines(40)), 1).unwrap();
    let first = run(&database, gzip.finish().unwrap(), 7).await.unwrap();
    assert_eq!(first.stored, 20);
    // The place is one in the decompressed text, so the packing may change in between.
    let second = run(&database, packed, 7).await.unwrap();
    assert_eq!((second.resumed_at, second.stored), (20, 20));
}

#[tokio::test]
async fn an_interrupted_import_goes_on_and_ends_like_one_in_a_single_run() {
    let (interrupted, whole) = (migrated().await, migrated().await);
    let (stop, stopped) = watch::channel(false);
    let by_ten = options(10);
    let mut client = interrupted.connect().await;
    let first = import(
        &mut client,
        input(lines(100)),
        &by_ten,
        stopped,
        |progress| {
            if progress.lines == 30 {
                stop.send(true).unwrap();
            }
        },
    );
    let first = first.await.unwrap();
    assert_eq!(
        (first.complete, first.lines, count(&interrupted).await),
        (false, 30, 30)
    );
    drop(client);
    let second = run(&interrupted, lines(100), 16).await.unwrap();
    assert_eq!(
        (second.complete, second.resumed_at, second.stored),
        (true, 30, 70)
    );
    let third = run(&interrupted, lines(100), 16).await.unwrap();
    assert_eq!(
        (third.complete, third.resumed_at, third.stored),
        (true, 100, 0)
    );
    run(&whole, lines(100), 100).await.unwrap();
    assert_eq!(stored(&interrupted).await, stored(&whole).await);
}

#[tokio::test]
async fn an_import_whose_session_is_killed_goes_on_without_loss_or_double() {
    let (killed, whole) = (migrated().await, migrated().await);
    // The fourth chunk meets a trigger that ends its own session in the middle of the COPY.
    killed
        .execute(
            "create function die() returns trigger language plpgsql as \
             $$ begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$; \
             create trigger die before insert on gobo.events for each row \
             when (new.data::text = '35') execute function die()",
        )
        .await;
    let error = run(&killed, lines(100), 10).await.unwrap_err();
    assert!(matches!(error, ImportError::Database(_)), "{error}");
    assert_eq!(count(&killed).await, 30);
    killed.execute("drop trigger die on gobo.events").await;
    assert_eq!(run(&killed, lines(100), 10).await.unwrap().resumed_at, 30);
    run(&whole, lines(100), 10).await.unwrap();
    assert_eq!(stored(&killed).await, stored(&whole).await);
}

#[tokio::test]
async fn an_import_does_not_go_on_with_another_text() {
    let database = migrated().await;
    run(&database, lines(50), 10).await.unwrap();
    for (text, what) in [
        (
            lines(100).replacen("\"n\":0", "\"n\":1", 1),
            "begins with other text",
        ),
        (lines(40), "is shorter"),
    ] {
        let error = run(&database, text, 10).await.unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
    assert_eq!(count(&database).await, 50);
}

#[tokio::test]
async fn a_name_is_imported_once_at_a_time() {
    let database = migrated().await;
    let holder = database.connect().await;
    holder
        .batch_execute("select pg_advisory_lock(hashtextextended('gobo import test', 7265696))")
        .await
        .unwrap();
    let error = run(&database, lines(5), 10).await.unwrap_err();
    assert!(matches!(error, ImportError::Busy(name) if name == "test"));
}

#[tokio::test]
async fn a_bad_line_is_named_and_its_chunk_is_absent() {
    let deep = format!(
        r#"{{"stream_id":"s","type":"T","data":{}{}}}"#,
        "[".repeat(101),
        "]".repeat(101)
    );
    for (bad, reason) in [
        ("{", "EOF while parsing"),
        ("[]", "not a JSON object"),
        (r#"{"stream_id":"s","type":"T"}"#, "missing field `data`"),
        (
            r#"{"stream_id":"s","type":"T","data":null}"#,
            "data is missing",
        ),
        (
            r#"{"stream_id":"s","type":"T","data":1,"x":1}"#,
            "unknown field `x`",
        ),
        (
            r#"{"stream_id":"s","type":"T","data":1,"data":2}"#,
            "duplicate field `data`",
        ),
        (
            r#"{"stream_id":"","type":"T","data":1}"#,
            "stream_id has 0 bytes",
        ),
        (
            r#"{"stream_id":"s","type":"\u0000","data":1}"#,
            "type contains NUL",
        ),
        (r#"{"stream_id":"s","type":"T","data":"\u0000"}"#, "\\u0000"),
        (
            r#"{"stream_id":"s","type":"T","data":1,"metadata":{"a":"\ud800"}}"#,
            "lone surrogate",
        ),
        (
            r#"{"stream_id":"s","type":"T","data":1e999999}"#,
            "out of range",
        ),
        (
            r#"{"stream_id":"s","type":"T","data":1,"metadata":[]}"#,
            "metadata is not an object",
        ),
        (
            r#"{"stream_id":"s","type":"T","data":1,"event_id":"x"}"#,
            "UUID",
        ),
        (
            r#"{"stream_id":"s","type":"T","data":1,"occurred_at":"now"}"#,
            "not a moment",
        ),
        (
            r#"{"stream_id":"s","type":"T","data":1,"version":3}"#,
            "begins at 0",
        ),
        (
            r#"{"stream_id":"one","type":"T","data":1,"version":9}"#,
            "is at 4, so the next one is 5",
        ),
        (&deep, "deeper than 100"),
    ] {
        let database = migrated().await;
        let text = lines(15) + bad + "\n" + &lines(1);
        let error = run(&database, text, 10).await.unwrap_err();
        let ImportError::Line {
            line,
            reason: found,
        } = &error
        else {
            panic!("{bad}: {error}");
        };
        assert_eq!((*line, count(&database).await), (16, 10), "{error}");
        assert!(found.contains(reason), "{error}");
    }
}

#[tokio::test]
async fn invalid_utf8_is_named_by_its_line() {
    let database = migrated().await;
    let mut text = lines(3).into_bytes();
    text.extend_from_slice(b"{\"stream_id\":\"s\",\"type\":\"T\",\"data\":\"\xff\"}\n");
    let error = run(&database, text, 10).await.unwrap_err();
    assert!(
        matches!(error, ImportError::Line { line: 4, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn the_database_refusing_a_record_names_its_line() {
    let database = migrated().await;
    database
        .execute("alter table gobo.events add constraint no_u check (type <> 'U')")
        .await;
    let error = run(&database, lines(10), 10).await.unwrap_err();
    assert!(
        matches!(&error, ImportError::Line { line: 3, reason } if reason.contains("no_u")),
        "{error}"
    );
}

#[tokio::test]
async fn an_event_that_is_there_is_not_stored_again() {
    let database = migrated().await;
    let line = |id: u8, n: u8| {
        let id = uuid::Uuid::from_u128(u128::from(id));
        format!(
            "{}\n",
            json!({"stream_id": "s", "type": "T", "data": {"n": n}, "event_id": id})
        )
    };
    run(&database, line(1, 1) + &line(2, 2), 10).await.unwrap();
    let named = |name: &str| Options {
        name: name.to_owned(),
        chunk: 10,
    };
    let mut client = database.connect().await;
    // Once more what is stored, a new one, and that one again.
    let text = line(1, 1) + &line(2, 2) + &line(3, 3) + &line(3, 3);
    let again = import(
        &mut client,
        input(text),
        &named("again"),
        going_on(),
        |_| {},
    )
    .await
    .unwrap();
    assert_eq!(
        (again.stored, again.present, count(&database).await),
        (1, 3, 3)
    );
    for text in [line(4, 4) + &line(2, 9), line(4, 4) + &line(4, 5)] {
        let error = import(
            &mut client,
            input(text),
            &named("other"),
            going_on(),
            |_| {},
        )
        .await
        .unwrap_err();
        assert!(
            matches!(&error, ImportError::Line { line: 2, reason } if reason.contains("other content")),
            "{error}"
        );
    }
    assert_eq!(count(&database).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_to_the_same_streams_beside_an_import_leave_no_gap() {
    let database = migrated().await;
    let sessions = gobo::db::Database::new(database.url()).unwrap();
    let store = gobo::store::Store::new(sessions.pool("test", 4, &[]));
    let (done, mut finished) = watch::channel(false);
    let mut appenders = Vec::new();
    for _ in 0..3 {
        let (store, done) = (store.clone(), done.subscribe());
        appenders.push(tokio::spawn(async move {
            let mut appended = 0;
            while !*done.borrow() {
                let event = r#"[{"type":"appended","data":{}}]"#;
                match store.append("busy", Default::default(), event).await {
                    Ok(_) => appended += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            appended
        }));
    }
    let text: String = (0..3000)
        .map(|n| {
            format!(
                "{}\n",
                json!({"stream_id": "busy", "type": "imported", "data": n})
            )
        })
        .collect();
    let result = run(&database, text, 50).await;
    done.send(true).unwrap();
    finished.mark_unchanged();
    let mut appended = 0;
    for appender in appenders {
        appended += appender.await.unwrap();
    }
    assert_eq!(result.unwrap().stored, 3000);
    assert_eq!(count(&database).await, 3000 + appended);
    let gap = "select count(*) - max(version) - 1 from gobo.events";
    assert_eq!(database.query_i64(gap).await, 0);
}

#[tokio::test]
async fn blank_lines_and_a_missing_last_newline_are_fine() {
    let database = migrated().await;
    let text = format!("\n{}\r\n\n{}", lines(1).trim(), lines(1).trim());
    let summary = run(&database, text, 2).await.unwrap();
    assert_eq!((summary.stored, summary.lines), (2, 4));
}
