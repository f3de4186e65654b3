//! What a source refuses, each with a reason that names the cause and the fix.

use super::*;

/// Runs `setup` in a fresh database and checks what the source says about it.
async fn check(setup: &str, config: SourceConfig, expected: &[&str]) {
    let database = Database::create().await;
    database.execute(setup).await;
    let source = start(&database, config);
    let reason = refusal(&source).await;
    for part in expected {
        assert!(reason.contains(part), "{part:?} is not in: {reason}");
    }
    let error = source.reader().next_batch(0, None, ALL).await.unwrap_err();
    assert_eq!(error, SourceError::Refused(reason.clone()));
    let error = source.wait_past(0).await.unwrap_err();
    assert_eq!(error, SourceError::Refused(reason));
}

fn of(table: &str) -> SourceConfig {
    SourceConfig {
        table: table.into(),
        ..config()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_none_is_refused() {
    check("", config(), &["there is no table public.events"]).await;
    check(
        EVENTS,
        of("events"),
        &["no table events", "with its schema"],
    )
    .await;
    check(EVENTS, of("public.events; drop"), &["public.events; drop"]).await;
    let view = format!("{EVENTS} create view public.v as select * from public.events");
    check(&view, of("public.v"), &["public.v is not a table"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_could_lose_or_hide_events_is_refused() {
    let unlogged = format!("{EVENTS} alter table public.events set unlogged");
    check(
        &unlogged,
        config(),
        &["public.events is not logged", "set logged"],
    )
    .await;
    let no_index = format!("{EVENTS} alter table public.events drop constraint events_pkey");
    check(
        &no_index,
        config(),
        &["no index on its position", "create index"],
    )
    .await;
    let beyond =
        format!("{EVENTS} insert into public.events (position) overriding system value values (7)");
    check(&beyond, config(), &["position 7", "only reached 0"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_do_not_fit_are_refused() {
    let mut missing = config();
    missing.columns.stream_id = Field::Column("stream".into());
    check(EVENTS, missing, &["column \"stream\" does not exist"]).await;
    let mut position = config();
    position.columns.position = "place".into();
    check(EVENTS, position, &["no column \"place\""]).await;
    let mut text = config();
    text.columns.position = "type".into();
    check(
        EVENTS,
        text,
        &["\"type\" is text; a position is an integer"],
    )
    .await;
    let mut cast = config();
    cast.columns.event_id = Field::Column("version".into());
    check(EVENTS, cast, &["cannot cast type bigint to uuid"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sequences_that_hold_back_values_are_refused() {
    let with =
        |change: &str| format!("{EVENTS} alter sequence public.events_position_seq {change}");
    check(&with("cache 20"), config(), &["CACHE 20", "cache 1"]).await;
    check(&with("increment 2"), config(), &["INCREMENT 2"]).await;
    check(&with("cycle"), config(), &["CYCLE"]).await;
    let mut none = config();
    none.sequence = Some("public.nothing".into());
    check(EVENTS, none, &["no sequence public.nothing"]).await;
    let no_default = format!("{EVENTS} alter table public.events alter position drop identity");
    check(&no_default, config(), &["draws from no sequence"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_fence_is_refused_when_the_default_does_not_draw_the_position() {
    let setup = format!("{EVENTS} create sequence public.other");
    let mut other = config();
    other.sequence = Some("public.other".into());
    other.fence = Fence::Table;
    let expected = ["is not nextval of public.other", "fence = \"transaction\""];
    check(&setup, other.clone(), &expected).await;
    other.fence = Fence::Transaction;
    let database = Database::create().await;
    database.execute(&setup).await;
    is_safe(&start(&database, other), 0).await;
    let mut own = config();
    own.fence = Fence::Table;
    is_safe(&start(&database, own), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_utf8_is_refused() {
    let outer = Database::create().await;
    let name = outer.query_json("select current_database() as name").await[0]["name"].clone();
    let name = format!("{}_latin", name.as_str().unwrap());
    outer
        .execute(&format!(
            "create database {name} template template0 encoding latin1 locale 'C'"
        ))
        .await;
    let url = gobo_tests::shared_cluster().url(&name);
    let source = start_at(&url, config(), Polling::default());
    assert!(refusal(&source).await.contains("LATIN1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_refused_until_it_is_promoted() {
    let mut cluster = Cluster::start(Options::ephemeral()).unwrap();
    let database = Database::create_in(&cluster).await;
    database.execute(EVENTS).await;
    std::fs::write(cluster.data().join("standby.signal"), "").unwrap();
    cluster.restart().unwrap();
    let source = start(&database, config());
    assert!(refusal(&source).await.contains("standby"));
    database.execute("select pg_promote()").await;
    source.poke();
    is_safe(&source, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_grant_is_named_and_mended_without_a_restart() {
    let database = Database::create().await;
    let name = database.query_json("select current_database() as n").await[0]["n"].clone();
    let role = format!("reader_{}", name.as_str().unwrap());
    database.execute(EVENTS).await;
    database.execute(&format!("create role {role} login")).await;
    let url = database.url().replacen("gobo@", &format!("{role}@"), 1);
    let grants = [
        (
            "grant select on sequence public.events_position_seq to",
            "grant select on public.events to",
        ),
        ("grant select on public.events to", ""),
    ];
    let source = start_at(&url, config(), Polling::default());
    let mut wanted = grants[0].0;
    for (grant, next) in grants {
        let reason = format!("{wanted} \"{role}\"");
        head(
            &source,
            &reason,
            |h| matches!(&h.state, State::Refused(r) if r.ends_with(&reason)),
        )
        .await;
        database.execute(&format!("{grant} {role}")).await;
        source.poke();
        wanted = next;
    }
    is_safe(&source, 0).await;
    database
        .execute("revoke usage on schema public from public")
        .await;
    let source = start_at(&url, config(), Polling::default());
    assert!(refusal(&source).await.contains("grant usage on the schema"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_is_raised_while_events_are_read_is_refused_for_good() {
    let (database, source) = events().await;
    is_safe(&source, 0).await;
    database
        .execute("alter sequence public.events_position_seq cache 10; notify \"Events\"")
        .await;
    assert!(refusal(&source).await.contains("CACHE 10"));
    // Sessions may still hold values of their blocks, so that lowering it again proves nothing.
    database
        .execute("alter sequence public.events_position_seq cache 1; insert into public.events default values")
        .await;
    source.poke();
    assert!(source.wait_past(0).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_that_falls_is_refused() {
    let (database, source) = events().await;
    database
        .execute("insert into public.events select from generate_series(1, 5)")
        .await;
    is_safe(&source, 5).await;
    database
        .execute("select setval('public.events_position_seq', 3); notify \"Events\"")
        .await;
    assert!(refusal(&source).await.contains("fell from 5 to 3"));
    let again = start(&database, config());
    assert!(refusal(&again).await.contains("position 5"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_does_not_fit_the_events_is_refused() {
    let (database, source) = events().await;
    database
        .execute("insert into public.events select from generate_series(1, 5)")
        .await;
    is_safe(&source, 5).await;
    let mut reader = source.reader();
    let id = event_id(&database, 4).await;
    assert_eq!(reader.verify_resume(0, None).await, Ok(()));
    assert_eq!(reader.verify_resume(5, Some((4, id))).await, Ok(()));
    let cases = [
        (6, Some((4, id)), "only reached 5"),
        (5, Some((5, id)), "is now"),
        (5, Some((4, Uuid::from_u128(1))), "is now"),
    ];
    for (checkpoint, last, expected) in cases {
        match reader.verify_resume(checkpoint, last).await {
            Err(SourceError::Refused(reason)) => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    database
        .execute("delete from public.events where position = 4")
        .await;
    let gone = reader.verify_resume(5, Some((4, id))).await.unwrap_err();
    assert!(gone.to_string().contains("is gone"), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_does_not_fit_is_named_after_those_before_it_were_given() {
    let cases = [
        ("data", "null", "data"),
        ("version", "null", "version"),
        ("recorded_at", "'infinity'", "recorded_at"),
    ];
    for (column, value, named) in cases {
        let (database, source) = events().await;
        let spoil = format!(
            "insert into public.events select from generate_series(1, 4);
             insert into public.events ({column}) values ({value});
             insert into public.events default values"
        );
        is_safe(&source, 0).await;
        database.execute(&spoil).await;
        is_safe(&source, 6).await;
        names_the_fifth(&mut source.reader(), named).await;
    }
    let database = Database::create().await;
    database.execute(EVENTS).await;
    database
        .execute(
            "insert into public.events (stream_id) select case n when 5 then 'no json' else '{}' end
               from generate_series(1, 6) n",
        )
        .await;
    let mut text = config();
    text.columns.data = Field::Column("stream_id".into());
    let source = start(&database, text);
    is_safe(&source, 6).await;
    names_the_fifth(&mut source.reader(), "invalid input syntax for type json").await;
}

async fn names_the_fifth(reader: &mut Reader, named: &str) {
    let batch = reader.next_batch(0, None, ALL).await.unwrap();
    assert_eq!((positions(&batch), batch.through), (vec![1, 2, 3, 4], 4));
    match reader.next_batch(4, None, ALL).await {
        Err(SourceError::Refused(reason)) => {
            assert!(reason.contains("position 5"), "{reason}");
            assert!(reason.contains(named), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_is_replaced_and_nothing_is_given_twice() {
    let (database, source) = events().await;
    database
        .execute("insert into public.events select from generate_series(1, 5)")
        .await;
    is_safe(&source, 5).await;
    let mut reader = source.reader();
    assert_eq!(read_all(&mut reader, 0, None, ALL).await.1, 5);
    database
        .execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
              where datname = current_database() and application_name like 'gobo %'",
        )
        .await;
    database
        .execute("insert into public.events select from generate_series(1, 5)")
        .await;
    is_safe(&source, 10).await;
    let rest = wait_for("the reader's new session", async || {
        reader.next_batch(5, None, ALL).await
    })
    .await;
    assert_eq!(positions(&rest), [6, 7, 8, 9, 10]);
}
