//! The schema: made once, whoever starts first, and never by the wrong engine.

use gobo::migrate::{MIGRATIONS, MigrateError, Migration, migrate, migrate_to};
use gobo_tests::{Cluster, Database, Gobo, Options};

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

#[tokio::test]
async fn a_server_that_is_too_old_is_refused() {
    let database = Database::create().await;
    let mut client = database.connect().await;
    // What the server says of itself cannot be set, but asked of somebody else.
    client
        .batch_execute(
            "create schema older; \
             create function older.current_setting(name text) returns text language sql as $$ \
                 select case name when 'server_version_num' then '130022' when 'server_version' then '13.22' \
                        else pg_catalog.current_setting(name) end $$; \
             set search_path = older, pg_catalog",
        )
        .await
        .unwrap();
    let error = migrate(&mut client).await.unwrap_err();
    assert!(matches!(error, MigrateError::OldServer(_)));
    assert_eq!(
        error.to_string(),
        "PostgreSQL 13.22 is too old: gobo needs version 14 or newer"
    );
    let made = "select count(*) from pg_namespace where nspname = 'gobo'";
    assert_eq!(database.query_i64(made).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_refused_until_it_is_promoted() {
    let mut cluster = Cluster::start(Options::ephemeral()).unwrap();
    let database = Database::create_in(&cluster).await;
    std::fs::write(cluster.data().join("standby.signal"), "").unwrap();
    cluster.restart().unwrap();
    let mut client = database.connect().await;
    let error = migrate(&mut client).await.unwrap_err();
    assert!(matches!(error, MigrateError::Standby), "{error}");
    let refusal = Gobo::try_start(database.url(), "").unwrap_err();
    assert!(
        refusal.log.contains("is a standby: connect to the primary"),
        "{}",
        refusal.log
    );
    database.execute("select pg_promote()").await;
    migrate(&mut client).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_cannot_use_the_schema_ends_with_the_reason() {
    let database = Database::create().await;
    let mut client = database.connect().await;
    migrate_to(&mut client, &with_extra(EXTRA)).await.unwrap();
    let refusal = Gobo::try_start(database.url(), "").unwrap_err();
    assert_eq!(refusal.code, 1, "{}", refusal.log);
    assert!(refusal.log.contains("use a newer gobo"), "{}", refusal.log);
}
