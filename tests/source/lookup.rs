//! Questions to a source: where it was at a time, and the events of one stream.

use super::shared::looked_at;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_the_last_position_before_the_first_later_event() {
    let database = Database::create().await;
    database.execute(EVENTS).await;
    // 1 to 600,000 at the second of their number, but 550,000 too early and 570,000 too late; 10 to 20 are missing.
    database
        .execute(
            "insert into public.events (recorded_at)
             select timestamptz '2000-01-01 00:00:00+00' + interval '1 second'
                    * case n when 550000 then 5 when 570000 then 590000 else n end
               from generate_series(1, 600000) n;
             delete from public.events where position between 10 and 20",
        )
        .await;
    let source = start(&database, config());
    is_safe(&source, 600_000).await;
    let mut reader = source.reader();
    let second = 1_000_000;
    for (time, position) in [
        (0, 0),
        (second - 1, 0),
        (second, 1),
        (9 * second, 20),
        (549_999 * second, 550_000),
        (569_999 * second, 569_999),
        (570_000 * second, 570_000 - 1),
        (571_000 * second, 570_000 - 1),
        (590_000 * second, 590_000),
        (600_000 * second, 600_000),
        (i64::MAX - 1, 600_000),
    ] {
        assert_eq!(reader.position_at(time).await, Ok(position), "{time}");
    }
    // What is not safe yet does not count.
    let insert = "insert into public.events (recorded_at) values ('3000-01-01')";
    let writer = open(&database, insert).await;
    database.execute(insert).await;
    safe_once_drawn(&source, 600_002).await;
    assert_eq!(reader.position_at(600_000 * second).await, Ok(600_000));
    writer.batch_execute("commit").await.unwrap();
    is_safe(&source, 600_002).await;
    assert_eq!(reader.position_at(600_000 * second).await, Ok(600_000));
}

/// All of one stream's positions in `(after, upto]`.
async fn stream(
    reader: &mut Reader,
    stream_id: &str,
    after: Position,
    upto: Position,
    limits: Limits,
) -> (Vec<Position>, Position) {
    let mut found = Vec::new();
    let mut through = after;
    loop {
        let batch = reader
            .stream_batch(stream_id, through, upto, limits)
            .await
            .unwrap();
        assert!((0..batch.len()).all(|index| batch.stream_id(index) == stream_id));
        found.extend(positions(&batch));
        if batch.through == through {
            return (found, through);
        }
        through = batch.through;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_of_the_own_store_is_read_without_looking_at_the_others() {
    let database = Database::create().await;
    let mut session = database.connect().await;
    gobo::migrate::migrate(&mut session).await.unwrap();
    session
        .batch_execute(
            r#"insert into gobo.events (stream_id, version, type, data, event_id)
               select case when n % 20000 = 0 then 'it''s "rare" = ' else 's' || n % 50 end, n, 't', '{}', gen_random_uuid()
                 from generate_series(1, 200000) n"#,
        )
        .await
        .unwrap();
    let source = start(&database, SourceConfig::default());
    is_safe(&source, 200_000).await;
    let rare: Vec<Position> = (1..=10).map(|n| n * 20_000).collect();
    let one = Limits {
        max_events: 1,
        ..ALL
    };
    // Before the table's statistics are known, and with them.
    for sql in ["select 1", "analyze gobo.events"] {
        database.execute(sql).await;
        let mut reader = source.reader();
        drop(reader.next_batch(199_999, None, ALL).await.unwrap());
        drop(reader);
        let before = looked_at(&database).await;
        let mut reader = source.reader();
        let name = "it's \"rare\" = ";
        let found = stream(&mut reader, name, 0, Position::MAX, ALL).await;
        assert_eq!(found, (rare.clone(), 200_000));
        let found = stream(&mut reader, name, 20_000, 100_000, one).await;
        assert_eq!(found, (rare[1..5].to_vec(), 100_000));
        let limited = Limits {
            upto: Some(70_000),
            ..ALL
        };
        let found = stream(&mut reader, name, 0, 100_000, limited).await;
        assert_eq!(found, (rare[..3].to_vec(), 70_000));
        for absent in ["none", "no\0ne", ""] {
            let found = stream(&mut reader, absent, 7, 100_000, ALL).await;
            assert_eq!(found, (vec![], 100_000));
        }
        drop(reader);
        let looked = looked_at(&database).await - before;
        assert!(looked < 500, "{looked} events were looked at");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_of_a_foreign_table_is_read_by_whatever_index_there_is() {
    let expression = |sql: &str| Field::Expression(Expression { sql: sql.into() });
    let column = |name: &str| Field::Column(name.into());
    let id = "00000000-0000-0000-0000-00000000000";
    let cases = [
        (
            "create index on public.events (stream, position)",
            column("stream"),
            "3",
            true,
        ),
        (
            "create index on public.events (id)",
            column("id"),
            &*format!("{id}3"),
            true,
        ),
        (
            "create index on public.events (('n-' || stream))",
            expression("'n-' || stream"),
            "n-3",
            true,
        ),
        ("select 1", expression("'n-' || stream"), "n-3", false),
        ("select 1", column("stream"), "3", false),
        ("select 1", column("id"), &*format!("{id}3"), false),
    ];
    for (index, field, name, found_by_index) in cases {
        let database = Database::create().await;
        database
            .execute(&format!(
                "create table public.events (position bigserial primary key, stream varchar(20), id uuid);
                 insert into public.events (stream, id)
                 select n % 1000, ('{id}' || n % 10)::uuid from generate_series(1, 1000) n;
                 insert into public.events (stream, id)
                 select 'other', gen_random_uuid() from generate_series(1, 50000) n;
                 {index}; analyze public.events"
            ))
            .await;
        let columns = Columns {
            stream_id: field.clone(),
            version: expression("0"),
            kind: expression("'t'"),
            data: expression("case position when 40000 then '{' else '{}' end"),
            metadata: expression("null"),
            event_id: expression("gen_random_uuid()"),
            occurred_at: expression("now()"),
            recorded_at: expression("now()"),
            ..Columns::default()
        };
        let source = start(
            &database,
            SourceConfig {
                columns,
                ..config()
            },
        );
        is_safe(&source, 51_000).await;
        let before = looked_at(&database).await;
        let mut reader = source.reader();
        let expected: Vec<Position> = match &field {
            Field::Column(name) if name == "id" => (0..100).map(|n| n * 10 + 3).collect(),
            _ => vec![3],
        };
        let what = format!("{index}, {field:?}");
        let found = stream(&mut reader, name, 0, Position::MAX, ALL).await;
        assert_eq!(found, (expected, 51_000), "{what}");
        if field == column("id") {
            let found = stream(&mut reader, "no uuid", 0, Position::MAX, ALL).await;
            assert_eq!(found, (vec![], 51_000), "{what}");
        }
        drop(reader);
        let looked = looked_at(&database).await - before;
        assert_eq!(
            looked < 500,
            found_by_index,
            "{what}: {looked} were looked at"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_stream_that_does_not_fit_is_named_when_it_is_its_turn() {
    let database = Database::create().await;
    database.execute(EVENTS).await;
    database
        .execute(
            "create index on public.events (stream_id, version);
             insert into public.events (stream_id) select 's' || n % 100 from generate_series(1, 20000) n;
             alter table public.events alter column data type text;
             update public.events set data = '{' where position in (7001, 7002);
             analyze public.events",
        )
        .await;
    let source = start(&database, config());
    is_safe(&source, 20_000).await;
    let mut reader = source.reader();
    let found = stream(&mut reader, "s1", 6_500, 7_000, ALL).await;
    assert_eq!(found, (vec![6501, 6601, 6701, 6801, 6901], 7_000));
    let found = stream(&mut reader, "s3", 19_800, 20_000, ALL).await;
    assert_eq!(found, (vec![19_803, 19_903], 20_000));
    let mut after = 6_500;
    let refused = loop {
        match reader.stream_batch("s1", after, 20_000, ALL).await {
            Ok(batch) => after = batch.through,
            Err(error) => break error,
        }
    };
    assert!((6_901..7_001).contains(&after), "{after}");
    let SourceError::Refused(reason) = refused else {
        panic!("not refused, but {refused:?}");
    };
    assert!(reason.contains("position 7001"), "{reason}");
    let found = stream(&mut reader, "s1", 7001, 20_000, ALL).await;
    assert_eq!(found.1, 20_000);
}
