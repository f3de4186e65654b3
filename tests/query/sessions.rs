//! Statements that sessions keep prepared, and those that nobody waits for any more.

use std::time::Duration;

use gobo::db::{Database, Keep, Sessions};
use gobo_tests::{connect, wait_for};
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};

async fn session() -> (gobo_tests::Database, Sessions) {
    let database = gobo_tests::Database::create().await;
    let sessions = Database::new(database.url())
        .unwrap()
        .sessions("test", 1, &[]);
    (database, sessions)
}

/// Asks what may be kept.
async fn ask(sessions: &Sessions, text: &str) -> Result<Vec<Row>, Error> {
    let rows = sessions.rows(text, &[], &[], Keep::Repeated).await;
    rows.unwrap()
}

/// How many statements the only session keeps that have this in their text.
async fn kept(sessions: &Sessions, part: &str) -> i64 {
    let count = "select count(*) from pg_prepared_statements where statement like $1";
    let part = format!("%{part}%");
    let rows = sessions
        .rows(count, &[Type::TEXT], &[&part], Keep::Nothing)
        .await;
    rows.unwrap().unwrap()[0].get(0)
}

/// Which process serves the only session.
async fn process(sessions: &Sessions) -> i32 {
    let rows = sessions.rows("select pg_backend_pid()", &[], &[], Keep::Nothing);
    rows.await.unwrap().unwrap()[0].get(0)
}

#[tokio::test]
async fn what_is_asked_again_is_kept_prepared_and_no_more_than_a_bounded_number() {
    let (_database, sessions) = session().await;
    let ask = async |n: i32| {
        let text = format!("select $1::int4 + {n} as kept");
        let rows = sessions
            .rows(&text, &[Type::INT4], &[&1], Keep::Repeated)
            .await;
        let sum: i32 = rows.unwrap().unwrap()[0].get(0);
        assert_eq!(sum, n + 1);
    };
    ask(1).await;
    assert_eq!(kept(&sessions, "as kept").await, 0, "asked once");
    ask(1).await;
    ask(1).await;
    assert_eq!(kept(&sessions, "as kept").await, 1);
    for n in 2..100 {
        ask(n).await;
        ask(n).await;
        ask(1).await;
        let all = kept(&sessions, "as kept").await;
        assert_eq!(all, i64::from(n).min(32), "one at a time makes room");
        assert_eq!(kept(&sessions, " + 1 as kept").await, 1, "asked often");
    }
}

#[tokio::test]
async fn a_text_that_is_very_long_is_not_kept() {
    let (_database, sessions) = session().await;
    let text = format!("select 1 as long, {}", "1,".repeat(800) + "1");
    let longer = format!("select 1 as longer -- {}", "x".repeat(16 * 1024));
    for _ in 0..3 {
        ask(&sessions, &text).await.unwrap();
        ask(&sessions, &longer).await.unwrap();
    }
    assert_eq!(kept(&sessions, "as long,").await, 1);
    assert_eq!(kept(&sessions, "as longer").await, 0);
}

#[tokio::test]
async fn a_statement_that_its_reader_leaves_while_it_is_prepared_is_not_kept() {
    let (database, sessions) = session().await;
    database.execute("create table public.held (n int4)").await;
    let holder = connect(database.url()).await;
    let text = "select n from public.held";
    ask(&sessions, text).await.unwrap();
    holder
        .batch_execute("begin; lock table public.held in access exclusive mode")
        .await
        .unwrap();
    let looker = connect(database.url()).await;
    let waiting = "select from pg_stat_activity where wait_event_type = 'Lock' and query = $1";
    tokio::select! {
        // The second time it is prepared, for which the server needs the table.
        _ = ask(&sessions, text) => panic!("the table is held"),
        () = wait_for("a statement that waits", async || {
            match looker.query(waiting, &[&text]).await.unwrap().len() {
                1 => Ok(()),
                count => Err(count),
            }
        }) => {}
    }
    // Now it is prepared, and nobody there would ever close it.
    holder.batch_execute("commit").await.unwrap();
    assert_eq!(kept(&sessions, "from public.held").await, 0);
}

#[tokio::test]
async fn a_statement_whose_table_is_gone_is_not_kept() {
    let (database, sessions) = session().await;
    database.execute("create table public.gone (n int4)").await;
    let ask = async || ask(&sessions, "select n from public.gone").await;
    for _ in 0..3 {
        assert!(ask().await.unwrap().is_empty());
    }
    assert_eq!(kept(&sessions, "from public.gone").await, 1);
    database.execute("drop table public.gone").await;
    assert!(ask().await.is_err());
    assert_eq!(kept(&sessions, "from public.gone").await, 0);
    // Another one of that name is found.
    database
        .execute(
            "create table public.gone (m text, n int4); insert into public.gone values ('x', 7)",
        )
        .await;
    for _ in 0..3 {
        let n: i32 = ask().await.unwrap()[0].get(0);
        assert_eq!(n, 7);
    }
}

#[tokio::test]
async fn a_statement_that_refuses_a_value_is_kept_for_others() {
    let (_database, sessions) = session().await;
    let ask = async |divisor: i32| {
        let text = "select 12 / $1 as quotient";
        let rows = sessions
            .rows(text, &[Type::INT4], &[&divisor], Keep::Repeated)
            .await;
        rows.unwrap()
    };
    for _ in 0..2 {
        ask(3).await.unwrap();
    }
    assert!(ask(0).await.is_err());
    assert_eq!(kept(&sessions, "as quotient").await, 1);
}

#[tokio::test]
async fn a_session_that_is_soon_idle_serves_the_next_reader_when_its_own_goes_away() {
    let (_database, sessions) = session().await;
    for keep in [Keep::Repeated, Keep::Nothing, Keep::Repeated] {
        // On a machine that is very busy no statement ends soon.
        wait_for("a session that goes on", async || {
            let first = process(&sessions).await;
            let asked = sessions.rows("select pg_sleep(0.004)", &[], &[], keep);
            let left = tokio::time::timeout(Duration::from_millis(1), asked).await;
            let is_same = process(&sessions).await == first;
            match left.is_err() && is_same {
                true => Ok(()),
                false => Err((left.is_err(), is_same)),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_long_statement_ends_when_its_reader_goes_away_and_hits_nobody_else() {
    let (database, sessions) = session().await;
    let sql = connect(database.url()).await;
    let sleeping = "select count(*) from pg_stat_activity where query like '%pg_sleep(1000)%' \
        and application_name = 'gobo test' and state = 'active'";
    let sleepers = async |expected: i64| {
        wait_for(&format!("{expected} sleepers"), async || {
            match sql.query_one(sleeping, &[]).await.unwrap().get::<_, i64>(0) {
                count if count == expected => Ok(()),
                count => Err(count),
            }
        })
        .await;
    };
    for keep in [Keep::Repeated, Keep::Nothing, Keep::Repeated] {
        let asked = sessions.rows("select pg_sleep(1000)", &[], &[], keep);
        tokio::select! {
            _ = asked => panic!("nobody is that quick"),
            () = sleepers(1) => {}
        }
        sleepers(0).await;
        // There is a session again.
        process(&sessions).await;
    }
}
