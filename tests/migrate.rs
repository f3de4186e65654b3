//! The schema: made once, whoever starts first, and never by the wrong engine.

use gobo::migrate::{MIGRATIONS, MigrateError, Migration, migrate, migrate_to};
use gobo_tests::Database;

const EXTRA: Migration = Migration {
    version: MIGRATIONS[MIGRATIONS.len() - 1].version + 1,
    name: "9999_extra.sql",
    sql: "create table gobo.extra (n int4)",
};

fn with_extra(extra: Migration) -> Vec<Migration> {
    MIGRATIONS.iter().copied().chain([extra]).collect()
}

#[tokio::test]
async fn engines_that_start_at_once_migrate_once() {
    let database = Database::create().await;
    let mut engines = Vec::new();
    for _ in 0..8 {
        let mut client = database.connect().await;
        engines.push(tokio::spawn(async move { migrate(&mut client).await }));
    }
    for engine in engines {
        engine.await.unwrap().unwrap();
    }
    let taken = "select count(*) from gobo.migrations";
    assert_eq!(database.query_i64(taken).await, MIGRATIONS.len() as i64);
}

#[tokio::test]
async fn an_engine_older_than_the_schema_refuses() {
    let database = Database::create().await;
    let mut client = database.connect().await;
    migrate_to(&mut client, &with_extra(EXTRA)).await.unwrap();
    let error = migrate(&mut client).await.unwrap_err();
    assert!(matches!(error, MigrateError::Newer { .. }));
    let known = EXTRA.version - 1;
    assert_eq!(
        error.to_string(),
        format!(
            "the database's schema is version {}, this engine knows {known}: use a newer gobo",
            EXTRA.version
        )
    );
}

#[tokio::test]
async fn an_edited_migration_is_refused() {
    let database = Database::create().await;
    let mut client = database.connect().await;
    migrate_to(&mut client, &with_extra(EXTRA)).await.unwrap();
    let edited = Migration {
        sql: "create table gobo.extra (n int8)",
        ..EXTRA
    };
    let error = migrate_to(&mut client, &with_extra(edited)).await;
    let version = EXTRA.version;
    assert!(matches!(error, Err(MigrateError::Edited { version: v, .. }) if v == version));
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing_behind() {
    let database = Database::create().await;
    let mut client = database.connect().await;
    let broken = Migration {
        sql: "create table gobo.extra (n int4); select 1/0",
        ..EXTRA
    };
    let error = migrate_to(&mut client, &with_extra(broken))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("division by zero"), "{error}");
    let left = "select count(*) from pg_class where relname = 'extra'";
    assert_eq!(database.query_i64(left).await, 0);
    migrate_to(&mut client, &with_extra(EXTRA)).await.unwrap();
}

#[tokio::test]
async fn a_missing_privilege_is_named_with_its_remedy() {
    let database = Database::create().await;
    let mut client = database.connect().await;
    let name: String = client
        .query_one("select current_database()::text", &[])
        .await
        .unwrap()
        .get(0);
    let role = format!("visitor_{name}");
    client
        .batch_execute(&format!("create role {role}; set role {role}"))
        .await
        .unwrap();
    let error = migrate(&mut client).await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("grant create on database {name} to {role}")),
        "{error}"
    );
}

#[tokio::test]
async fn a_database_that_is_not_utf8_is_refused() {
    let database = Database::create().await;
    database
        .execute("create database latin encoding 'LATIN1' locale 'C' template template0")
        .await;
    let url = gobo_tests::shared_cluster().url("latin");
    let sessions = gobo::db::Database::new(&url).unwrap();
    let mut client = sessions.connect("test", &[]).await.unwrap();
    let error = migrate(&mut client).await.unwrap_err().to_string();
    assert!(error.contains("encoding is LATIN1"), "{error}");
}
