//! The source: what is refused, what holds the safe head back, and how events are read.

mod lookup;
mod refusals;
mod shared;

use std::time::Duration;

use gobo::db::Database as Engine;
use gobo::event::{Batch, Position};
use gobo::source::{
    Columns, Expression, Fence, Field, Limits, Polling, Reader, SafeHead, Source, SourceConfig,
    SourceError, State,
};
use gobo_tests::{Cluster, Database, Options, PATIENCE, wait_for};
use tokio_postgres::Client;
use uuid::Uuid;

const EVENTS: &str = "
    create table public.events (
        position bigint generated always as identity primary key, stream_id text not null default 's',
        version bigint default 0, type text not null default 'a', data json default '{}', metadata json,
        event_id uuid not null default gen_random_uuid(), occurred_at timestamptz not null default now(),
        recorded_at timestamptz not null default now()
    );
    create function public.wake() returns trigger language plpgsql as $$
        begin perform pg_notify('Events', ''); return null; end $$;
    create trigger wake after insert on public.events for each statement execute function public.wake();
";

fn config() -> SourceConfig {
    SourceConfig {
        table: "public.events".into(),
        notify: Some("Events".into()),
        ..SourceConfig::default()
    }
}

fn start(database: &Database, config: SourceConfig) -> Source {
    start_at(database.url(), config, Polling::default())
}

fn start_at(url: &str, config: SourceConfig, polling: Polling) -> Source {
    Source::start(Engine::new(url).unwrap(), "test", config, polling)
}

async fn events() -> (Database, Source) {
    let database = Database::create().await;
    database.execute(EVENTS).await;
    let source = start(&database, config());
    (database, source)
}

async fn head(source: &Source, what: &str, expected: impl Fn(&SafeHead) -> bool) -> SafeHead {
    let mut heads = source.safe_head();
    let found = tokio::time::timeout(PATIENCE, heads.wait_for(expected)).await;
    match found {
        Ok(head) => head.unwrap().clone(),
        Err(_) => panic!(
            "waited for {what}; last seen: {:?}",
            source.safe_head().borrow()
        ),
    }
}

async fn is_safe(source: &Source, position: Position) {
    head(source, &format!("safe head {position}"), |h| {
        h.state == State::Ok && h.position == position
    })
    .await;
}

/// Waits until the source has seen that `drawn` is allocated, and answers up to where it is safe.
async fn safe_once_drawn(source: &Source, drawn: Position) -> Position {
    let what = format!("head {drawn}");
    head(source, &what, |h| h.state == State::Ok && h.head >= drawn)
        .await
        .position
}

async fn refusal(source: &Source) -> String {
    let head = head(source, "a refusal", |h| {
        matches!(h.state, State::Refused(_))
    })
    .await;
    let State::Refused(reason) = head.state else {
        unreachable!("that was waited for")
    };
    reason
}

/// A transaction that has done `sql` and is still open.
async fn open(database: &Database, sql: &str) -> Client {
    let session = database.connect().await;
    session.batch_execute("begin").await.unwrap();
    session.batch_execute(sql).await.unwrap();
    session
}

const ALL: Limits = Limits {
    max_events: 10_000,
    max_bytes: 16 << 20,
    upto: None,
};

fn positions(batch: &Batch) -> Vec<Position> {
    batch.events().iter().map(|e| e.position).collect()
}

/// Everything after `after`, batch by batch.
async fn read_all(
    reader: &mut Reader,
    mut after: Position,
    types: Option<&[String]>,
    limits: Limits,
) -> (Vec<Position>, Position) {
    let mut found = Vec::new();
    loop {
        let batch = reader.next_batch(after, types, limits).await.unwrap();
        if batch.through == after {
            return (found, after);
        }
        found.extend(positions(&batch));
        after = batch.through;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_sequence_has_drawn_nothing() {
    let (database, source) = events().await;
    assert_eq!(safe_once_drawn(&source, 0).await, 0);
    let batch = source.reader().next_batch(0, None, ALL).await.unwrap();
    assert!(batch.is_empty() && batch.through == 0);
    database
        .execute("insert into public.events default values")
        .await;
    is_safe(&source, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_store_is_a_source_without_any_configuration() {
    let database = Database::create().await;
    let mut session = database.connect().await;
    gobo::migrate::migrate(&mut session).await.unwrap();
    let source = start(&database, SourceConfig::default());
    is_safe(&source, 0).await;
    let append =
        r#"select gobo.append('s', '[{"type": "T", "data": {}}, {"type": "U", "data": 1}]')"#;
    // An append that is under way holds back one that overtook it.
    let under_way = open(&database, &append.replace("'s'", "'t'")).await;
    database.execute(append).await;
    assert_eq!(safe_once_drawn(&source, 4).await, 0);
    under_way.batch_execute("commit").await.unwrap();
    is_safe(&source, 4).await;
    let mut reader = source.reader();
    let types = ["U".to_owned()];
    let batch = reader.next_batch(0, Some(&types), ALL).await.unwrap();
    assert_eq!((positions(&batch), batch.through), (vec![2, 4], 4));
    assert_eq!((batch.stream_id(0), batch.stream_id(1)), ("t", "s"));
    let narrow = SourceConfig {
        fence: Fence::Table,
        ..SourceConfig::default()
    };
    is_safe(&start(&database, narrow), 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_writer_holds_back_its_events_and_not_those_before_its_first() {
    let (database, source) = events().await;
    is_safe(&source, 0).await;
    let mut reader = source.reader();
    let insert = "insert into public.events default values";
    database.execute(insert).await;
    let writer = open(&database, insert).await;
    database.execute(insert).await;
    // 1 is committed, 2 is open, 3 is committed: 1 follows without a hole.
    let held = head(&source, "1 to be safe", |h| h.head == 3 && h.position > 0).await;
    assert_eq!(held.position, 1);
    assert_eq!(read_all(&mut reader, 0, None, ALL).await, (vec![1], 1));
    writer.batch_execute("commit").await.unwrap();
    source.wait_past(1).await.unwrap();
    is_safe(&source, 3).await;
    assert_eq!(read_all(&mut reader, 1, None, ALL).await, (vec![2, 3], 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_starts_beside_an_open_writer_goes_on_from_a_verified_checkpoint() {
    let database = Database::create().await;
    database.execute(EVENTS).await;
    let insert = "insert into public.events default values";
    // 1 is rolled back: without the checkpoint the hole cannot be told from an open writer's event.
    let rolled_back = open(&database, insert).await;
    rolled_back.batch_execute("rollback").await.unwrap();
    database.execute(insert).await;
    database.execute(insert).await;
    let writer = open(&database, insert).await;
    let source = start(&database, config());
    assert_eq!(safe_once_drawn(&source, 4).await, 0);
    let id = event_id(&database, 2).await;
    let mut reader = source.reader();
    reader.verify_resume(2, Some((2, id))).await.unwrap();
    let below = Limits {
        upto: Some(2),
        ..ALL
    };
    assert_eq!(read_all(&mut reader, 0, None, below).await, (vec![2], 2));
    source.wait_past(2).await.unwrap();
    is_safe(&source, 3).await;
    assert_eq!(read_all(&mut reader, 2, None, ALL).await, (vec![3], 3));
    writer.batch_execute("rollback").await.unwrap();
    is_safe(&source, 4).await;
}

async fn event_id(database: &Database, position: Position) -> Uuid {
    let sql = "select event_id from public.events where position = $1";
    let client = database.connect().await;
    client.query_one(sql, &[&position]).await.unwrap().get(0)
}

/// Prepares a transaction that was seen open, with an event committed after it.
async fn prepare(database: &Database, source: &Source) {
    let insert = "insert into public.events default values";
    // A transaction that has notified cannot be prepared.
    database
        .execute("alter table public.events disable trigger wake")
        .await;
    let writer = open(database, insert).await;
    assert_eq!(safe_once_drawn(source, 1).await, 0);
    writer
        .batch_execute("prepare transaction 'p'")
        .await
        .unwrap();
    writer.batch_execute(insert).await.unwrap();
    assert_eq!(safe_once_drawn(source, 2).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_holds_back_after_its_session_and_the_sources_have_ended() {
    let (database, source) = events().await;
    is_safe(&source, 0).await;
    prepare(&database, &source).await;
    let mut reader = source.reader();
    let ours = "select string_agg(pid::text, ',') as pids from pg_stat_activity
                 where datname = current_database() and application_name like 'gobo %'";
    let ours = database.query_json(ours).await[0]["pids"].clone();
    let ours = format!("pg_stat_activity where pid in ({})", ours.as_str().unwrap());
    database
        .execute(&format!("select pg_terminate_backend(pid) from {ours}"))
        .await;
    let left = format!("select count(*) from {ours}");
    wait_for("the sessions to end", async || {
        match database.query_i64(&left).await {
            0 => Ok(()),
            left => Err(left),
        }
    })
    .await;
    database
        .execute("insert into public.events default values")
        .await;
    assert_eq!(safe_once_drawn(&source, 3).await, 0);
    database.execute("commit prepared 'p'").await;
    is_safe(&source, 3).await;
    assert_eq!(
        read_all(&mut reader, 0, None, ALL).await,
        (vec![1, 2, 3], 3)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_holds_back_after_a_crash_of_the_server() {
    let mut cluster = Cluster::start(Options::ephemeral()).unwrap();
    let database = Database::create_in(&cluster).await;
    database.execute(EVENTS).await;
    let source = start(&database, config());
    is_safe(&source, 0).await;
    prepare(&database, &source).await;
    cluster.kill().unwrap();
    head(&source, "the lost server", |h| {
        matches!(h.state, State::Unreachable(_))
    })
    .await;
    let mut reader = source.reader();
    let lost = reader.next_batch(0, None, ALL).await.unwrap_err();
    assert!(matches!(lost, SourceError::Infrastructure(_)), "{lost}");
    cluster.restart().unwrap();
    database
        .execute("insert into public.events default values")
        .await;
    let drawn = database
        .query_i64("select last_value from public.events_position_seq")
        .await;
    assert_eq!(safe_once_drawn(&source, drawn).await, 0);
    database.execute("commit prepared 'p'").await;
    is_safe(&source, drawn).await;
    let all = read_all(&mut reader, 0, None, ALL).await;
    assert_eq!(all, (vec![1, 2, drawn], drawn));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_that_takes_drawn_values_back_takes_the_safe_head_back() {
    let options = Options::ephemeral().with("wal_writer_delay", "10s");
    let mut cluster = Cluster::start(options).unwrap();
    let database = Database::create_in(&cluster).await;
    database.execute(EVENTS).await;
    let insert = "insert into public.events default values";
    database.execute(insert).await;
    let source = start(&database, config());
    is_safe(&source, 1).await;
    // Values that were drawn in vain, and whose WAL nobody had a reason to flush, are given once more after a crash.
    let last = "select last_value from public.events_position_seq";
    let many = "insert into public.events select from generate_series(1, 100)";
    let mut safe = 0;
    for _ in 0..5 {
        let rolled_back = open(&database, many).await;
        rolled_back.batch_execute("rollback").await.unwrap();
        source.poke();
        let drawn = database.query_i64(last).await;
        is_safe(&source, drawn).await;
        cluster.kill().unwrap();
        cluster.restart().unwrap();
        if database.query_i64(last).await < drawn {
            safe = drawn;
            break;
        }
    }
    assert!(safe > 0, "the WAL was flushed five times by chance");
    let writer = open(&database, insert).await;
    database.execute(insert).await;
    let drawn = database.query_i64(last).await;
    assert!(drawn <= safe);
    let mut reader = source.reader();
    // The open writer's event lies below the old safe head: it must not be passed over.
    let seen = head(&source, "the new head", |h| {
        h.state == State::Ok && h.head == drawn
    })
    .await;
    let open = drawn - 1;
    assert!(
        seen.position < open,
        "{} is not below {open}",
        seen.position
    );
    let (positions, through) = read_all(&mut reader, 0, None, ALL).await;
    assert_eq!(positions, [1]);
    assert!(through < open, "{through} is not below {open}");
    writer.batch_execute("commit").await.unwrap();
    is_safe(&source, drawn).await;
    let all = read_all(&mut reader, 0, None, ALL).await;
    assert_eq!(all, (vec![1, open, drawn], drawn));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_inherits_in_the_same_transaction_holds_back_too() {
    let database = Database::create().await;
    database
        .execute(
            "create table public.events (position bigserial primary key, stream_id text default 's', version int8 \
             default 0, type text default 'a', data json default '{}', metadata json, event_id uuid default \
             gen_random_uuid(), occurred_at timestamptz default now(), recorded_at timestamptz default now())",
        )
        .await;
    let source = start(&database, config());
    is_safe(&source, 0).await;
    // Nobody else can see yet that the child belongs to the table; its lock on the sequence shows all the same.
    let writer = open(
        &database,
        "create table public.child (primary key (position)) inherits (public.events);
         insert into public.child default values",
    )
    .await;
    database
        .execute("insert into public.events default values")
        .await;
    assert_eq!(safe_once_drawn(&source, 2).await, 0);
    writer.batch_execute("commit").await.unwrap();
    is_safe(&source, 2).await;
    let mut reader = source.reader();
    assert_eq!(read_all(&mut reader, 0, None, ALL).await, (vec![1, 2], 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_every_notification_costs_latency_only() {
    let (database, source) = events().await;
    is_safe(&source, 0).await;
    database
        .execute(
            "alter table public.events disable trigger wake;
             insert into public.events select from generate_series(1, 10)",
        )
        .await;
    source.wait_past(0).await.unwrap();
    is_safe(&source, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_wakes_a_source_that_hardly_ever_polls() {
    let database = Database::create().await;
    database.execute(EVENTS).await;
    let hour = Duration::from_secs(3600);
    let polling = Polling {
        busy: hour,
        idle: hour,
        ..Polling::default()
    };
    let source = start_at(database.url(), config(), polling);
    is_safe(&source, 0).await;
    database
        .execute("insert into public.events default values")
        .await;
    is_safe(&source, 1).await;
    database
        .execute(
            "alter table public.events disable trigger wake; insert into public.events default values",
        )
        .await;
    source.poke();
    is_safe(&source, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_at_the_head_and_behind_it_are_given_the_same() {
    let database = Database::create().await;
    database.execute(EVENTS).await;
    let insert = "insert into public.events (type, data)
                  select case when n % 3 = 0 then 'rare''s' else 'a' end, json_build_object('n', n)
                    from generate_series(1, 3000) n";
    database.execute(insert).await;
    let source = start(&database, config());
    is_safe(&source, 3000).await;
    let mut behind = source.reader();
    for _ in 0..2 {
        database.execute(insert).await;
    }
    is_safe(&source, 9000).await;
    let rare = ["rare's".to_owned(), "none\0".to_owned()];
    let small = Limits {
        max_events: 70,
        ..ALL
    };
    let tiny = Limits {
        max_bytes: 1,
        upto: Some(5990),
        ..ALL
    };
    for after in [0, 2990, 3000, 3001, 6001, 8999] {
        let all: Vec<_> = (after + 1..=9000).collect();
        assert_eq!(read_all(&mut behind, after, None, ALL).await.0, all);
        assert_eq!(read_all(&mut behind, after, None, small).await.0, all);
        let thirds: Vec<_> = all.iter().copied().filter(|p| p % 3 == 0).collect();
        let found = read_all(&mut behind, after, Some(&rare), small).await;
        assert_eq!(found, (thirds, 9000));
        assert_eq!(
            read_all(&mut behind, after, Some(&[]), ALL).await,
            (vec![], 9000)
        );
    }
    let some: Vec<_> = (5901..=5990).collect();
    assert_eq!(
        read_all(&mut behind, 5900, None, tiny).await,
        (some, 5990),
        "one event at a time"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_ends_at_its_bytes_whatever_the_sizes() {
    let (database, source) = events().await;
    database
        .execute(
            "insert into public.events (data)
             select to_json(repeat('x', case when n % 10 = 0 then 300000 else 10 end)) from generate_series(1, 200) n",
        )
        .await;
    is_safe(&source, 200).await;
    let limits = Limits {
        max_bytes: 400_000,
        ..ALL
    };
    let mut reader = source.reader();
    let mut after = 0;
    let mut found = Vec::new();
    while after < 200 {
        let batch = reader.next_batch(after, None, limits).await.unwrap();
        assert!(batch.frame().len() < 400_000 + 301_000);
        found.extend(positions(&batch));
        after = batch.through;
    }
    assert_eq!(found, (1..=200).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_event_after_a_position_tells_the_lag() {
    let database = Database::create().await;
    database.execute(EVENTS).await;
    let insert = "insert into public.events (recorded_at) values ('2000-01-01 00:00:01+00'), ('2000-01-01 00:00:02+00')";
    database.execute(insert).await;
    let source = start(&database, config());
    is_safe(&source, 2).await;
    let mut reader = source.reader();
    assert_eq!(reader.oldest_after(0).await, Ok(Some(1_000_000)));
    assert_eq!(reader.oldest_after(1).await, Ok(Some(2_000_000)));
    assert_eq!(reader.oldest_after(2).await, Ok(None));
    database.execute(insert).await;
    // Also of one that nobody has looked at.
    assert_eq!(reader.oldest_after(2).await, Ok(Some(1_000_000)));
    is_safe(&source, 4).await;
    assert_eq!(reader.oldest_after(2).await, Ok(Some(1_000_000)));
    assert_eq!(reader.oldest_after(3).await, Ok(Some(2_000_000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_table_is_read_through_names_and_expressions() {
    let database = Database::create().await;
    database
        .execute(
            r#"create schema "My Schema"; create sequence "My Schema"."Seq";
               create table "My Schema"."Event ""Log""" ("No" int primary key, "Body" jsonb not null, at timestamp);
               insert into "My Schema"."Event ""Log"""
               values (nextval('"My Schema"."Seq"'), '{"b": 1, "kind": "K", "id": "00000000-0000-0000-0000-000000000007"}',
                       '2000-01-01 00:00:00.000003')"#,
        )
        .await;
    let sql = |text: &str| Field::Expression(Expression { sql: text.into() });
    let source = start(
        &database,
        SourceConfig {
            table: r#""My Schema"."Event ""Log""""#.into(),
            sequence: Some(r#""My Schema"."Seq""#.into()),
            fence: Fence::Transaction,
            notify: None,
            columns: Columns {
                position: "No".into(),
                stream_id: sql("'stream ' || \"No\""),
                version: sql("0"),
                kind: sql("\"Body\" ->> 'kind'"),
                data: Field::Column("Body".into()),
                metadata: sql("null"),
                event_id: sql("\"Body\" ->> 'id'"),
                occurred_at: sql("at at time zone 'utc'"),
                recorded_at: sql("at at time zone 'utc'"),
            },
        },
    );
    is_safe(&source, 1).await;
    let mut reader = source.reader();
    let types = ["K".to_owned()];
    let batch = reader.next_batch(0, Some(&types), ALL).await.unwrap();
    assert_eq!(positions(&batch), [1]);
    assert_eq!((batch.stream_id(0), batch.kind(0)), ("stream 1", "K"));
    let event = &batch.events()[0];
    assert_eq!(event.event_id, Uuid::from_u128(7));
    assert_eq!(event.recorded_at, 3);
    let id = Uuid::from_u128(7);
    reader.verify_resume(1, Some((1, id))).await.unwrap();
}
