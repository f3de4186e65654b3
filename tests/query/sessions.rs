//! Statements that sessions keep prepared.

use gobo::db::{Database, Sessions};
use tokio_postgres::types::Type;

async fn session() -> (gobo_tests::Database, Sessions) {
    let database = gobo_tests::Database::create().await;
    let sessions = Database::new(database.url())
        .unwrap()
        .sessions("test", 1, &[]);
    (database, sessions)
}

/// How many statements the only session keeps that have this in their text.
async fn kept(sessions: &Sessions, part: &str) -> i64 {
    let session = sessions.get().await.unwrap();
    let count = "select count(*) from pg_prepared_statements where statement like $1";
    let part = format!("%{part}%");
    let row = session
        .query_typed_one(count, &[(&part, Type::TEXT)])
        .await
        .unwrap();
    row.get(0)
}

#[tokio::test]
async fn what_is_asked_again_is_kept_prepared_and_no_more_than_a_bounded_number() {
    let (_database, sessions) = session().await;
    let ask = async |n: i32| {
        let text = format!("select $1::int4 + {n} as kept");
        let row = sessions.one(&text, &[Type::INT4], &[&1]).await;
        let sum: i32 = row.unwrap().unwrap().unwrap().get(0);
        assert_eq!(sum, n + 1);
    };
    ask(1).await;
    assert_eq!(kept(&sessions, "as kept").await, 0, "asked once");
    ask(1).await;
    ask(1).await;
    assert_eq!(kept(&sessions, "as kept").await, 1);
    for n in 0..300 {
        ask(n).await;
        ask(n).await;
        let kept = kept(&sessions, "as kept").await;
        assert!(kept <= 65, "{kept}");
    }
}

#[tokio::test]
async fn a_statement_whose_table_is_gone_is_not_kept() {
    let (database, sessions) = session().await;
    database.execute("create table public.gone (n int4)").await;
    let ask = async || {
        sessions
            .one("select n from public.gone", &[], &[])
            .await
            .unwrap()
    };
    for _ in 0..3 {
        assert!(ask().await.unwrap().is_none());
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
        let n: i32 = ask().await.unwrap().unwrap().get(0);
        assert_eq!(n, 7);
    }
}
