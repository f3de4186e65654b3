//! The race suite: whatever writers do, every committed event is delivered once and in order.
//!
//! The writers pause inside transactions, insert several events, roll back, use savepoints, COPY, partitions and
//! prepared transactions, all by seeded chance. The same scenario makes a naive reader, and a fence that is too narrow for
//! its writers, lose events: so it is known to bite.

mod consumer;
mod writers;

use gobo::source::{Fence, Polling, Source};
use gobo_tests::{Cluster, Database, Options, wait_for};
use tokio_postgres::Client;

use consumer::{Consumer, Naive, config, missing};
use writers::{Style, Writers};

/// More than DESIGN.md asks for, so that every kind of writing is under way at any moment.
const WRITERS: usize = 14;

/// So often writers begin again until a reader that must lose events has lost one: the first time, nearly always.
const ROUNDS: u64 = 50;

const LEDGER: &str = "
    create schema sales;
    create sequence sales.ledger_seq;
    create table sales.ledger (
        seq bigint not null default nextval('sales.ledger_seq'), shard int not null, stream text not null,
        number bigint not null, kind text not null, body jsonb not null, id uuid not null default gen_random_uuid(),
        at timestamptz not null default clock_timestamp()
    ) partition by list (shard);
    create table sales.ledger_0 partition of sales.ledger for values in (0);
    create table sales.ledger_1 partition of sales.ledger for values in (1);
    create index on sales.ledger (seq);
    create table public.unrelated (x int);
";

fn source(url: &str, fence: Fence) -> Source {
    let database = gobo::db::Database::new(url).unwrap();
    Source::start(database, "race", config(fence), Polling::default())
}

/// An open transaction that has written elsewhere and holds a snapshot, as `pg_dump` or a report would.
async fn unrelated_transaction(database: &Database) -> Client {
    let session = database.connect().await;
    session
        .batch_execute(
            "begin isolation level repeatable read; insert into public.unrelated values (1); \
             select count(*) from sales.ledger",
        )
        .await
        .unwrap();
    session
}

async fn highest_drawn(database: &Database) -> i64 {
    database
        .query_i64("select last_value from sales.ledger_seq")
        .await
}

/// Lets writers that draw the position first write until `loser` has lost an event.
async fn write_until_it_loses(database: &Database, seed: u64, loser: &Consumer<'_>) {
    for round in 0..ROUNDS {
        let seed = seed + 10 * round;
        let writers = Writers::start(database.url(), WRITERS, Style::DrawFirst, seed);
        writers.run_until(400).await;
        writers.finish().await;
        loser.has_reached(highest_drawn(database).await).await;
        if loser.differences().await > 0 {
            return;
        }
    }
    panic!("its fence must lose events here");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_committed_event_is_delivered_once_and_in_order_while_writers_race() {
    let database = Database::create().await;
    database.execute(LEDGER).await;
    let unrelated = unrelated_transaction(&database).await;
    let narrow = source(database.url(), Fence::Table);
    let wide = source(database.url(), Fence::Transaction);
    let all = Consumer::start(&database, "all", narrow.clone(), None).await;
    let some = Consumer::start(&database, "some", narrow, Some(&["a", "c"])).await;
    let widely = Consumer::start(&database, "widely", wide, None).await;

    let mut lost = 0;
    for round in 0..ROUNDS {
        let naive = Naive::start(&database).await;
        let seed = 1 + 10 * round;
        let writers = Writers::start(database.url(), WRITERS, Style::Default, seed);
        writers.run_until(600).await;
        writers.finish().await;
        lost = missing(&database, naive.stop().await).await;
        if lost > 0 {
            break;
        }
    }
    assert!(
        lost > 0,
        "a reader that trusts its checkpoint must lose events here"
    );
    let head = highest_drawn(&database).await;
    for consumer in [&all, &some, &widely] {
        consumer.has_reached(head).await;
    }
    // All of it happened beside the unrelated transaction.
    unrelated.batch_execute("commit").await.unwrap();

    assert_eq!(all.differences().await, 0);
    assert_eq!(widely.differences().await, 0);
    assert_eq!(some.differences().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_draw_the_position_first_need_the_wider_fence() {
    let database = Database::create().await;
    database.execute(LEDGER).await;
    let unrelated = unrelated_transaction(&database).await;
    let wide = source(database.url(), Fence::Transaction);
    let narrow = source(database.url(), Fence::Table);
    let all = Consumer::start(&database, "all", wide, None).await;
    let loser = Consumer::start(&database, "loser", narrow, None).await;

    write_until_it_loses(&database, 2, &loser).await;
    all.has_reached(highest_drawn(&database).await).await;
    unrelated.batch_execute("commit").await.unwrap();

    assert_eq!(all.differences().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_by_time_says_that_it_is_not_exact() {
    let database = Database::create().await;
    database.execute(LEDGER).await;
    let source = source(database.url(), Fence::Timeout(50));
    assert!(!source.safe_head().borrow().exact);
    let all = Consumer::start(&database, "all", source, None).await;
    // Writers take longer than that at times: a fence that were exact would have waited for them.
    write_until_it_loses(&database, 3, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_server_in_the_middle_loses_and_doubles_nothing() {
    // Small and slow WAL writing, so that the crash finds transactions that were answered and not yet flushed.
    let options = Options::ephemeral().with("wal_writer_delay", "2s");
    let mut cluster = Cluster::start(options).unwrap();
    let database = Database::create_in(&cluster).await;
    database.execute(LEDGER).await;
    let wide = source(database.url(), Fence::Transaction);
    let narrow = source(database.url(), Fence::Table);
    let all = Consumer::start(&database, "all", wide, None).await;
    let some = Consumer::start(&database, "some", narrow, Some(&["b"])).await;
    let writers = Writers::start(database.url(), WRITERS, Style::Default, 4);

    for _ in 0..2 {
        writers.run_until(writers.committed() + 200).await;
        cluster.kill().unwrap();
        cluster.restart().unwrap();
    }
    writers.run_until(writers.committed() + 200).await;
    let written = writers.finish().await;
    assert!(written.lost_sessions > 0, "{written:?}");
    let head = highest_drawn(&database).await;
    all.has_reached(head).await;
    some.has_reached(head).await;
    assert_eq!(all.differences().await, 0);
    assert_eq!(some.differences().await, 0);
    wait_for("the consumer to have seen the crashes", async || {
        let lost = all.lost_sessions();
        if lost >= 2 { Ok(()) } else { Err(lost) }
    })
    .await;
}
