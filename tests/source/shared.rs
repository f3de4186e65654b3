//! Readers that rebuild: they share one scan, and are given what each would read alone.

use futures_util::FutureExt as _;

use super::*;

/// Before a lost connection is tried anew.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// Events of the types a to e in turn, with holes in between.
async fn history(events: i64) -> Database {
    let database = Database::create().await;
    database.execute(EVENTS).await;
    let insert = format!(
        "insert into public.events (stream_id, type, data)
         select 's' || n % 100, chr((97 + n % 5)::int), json_build_object('n', n) from generate_series(1, {events}) n;
         delete from public.events where position % 1000 < 10 and position < {events};
         analyze public.events"
    );
    database.execute(&insert).await;
    database
}

fn types(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Reads everything, beginning again where it was when the connection is lost.
async fn frames(
    reader: &mut Reader,
    types: Option<&[String]>,
    mut after: Position,
    limits: Limits,
) -> (Vec<u8>, Position) {
    let mut found = Vec::new();
    loop {
        match reader.next_batch(after, types, limits).await {
            Ok(batch) if batch.through == after => return (found, after),
            Ok(batch) => {
                assert!(batch.len() <= limits.max_events);
                found.extend_from_slice(batch.frame());
                after = batch.through;
            }
            // There need not be anything beyond to be waited for.
            Err(SourceError::Infrastructure(_)) => tokio::time::sleep(PAUSE).await,
            Err(refused) => panic!("{refused}"),
        }
    }
}

/// How many events the server has looked at for sessions that have ended; waits for those of readers to end.
pub(super) async fn looked_at(database: &Database) -> i64 {
    let readers = "select count(*) from pg_stat_activity
                    where datname = current_database() and application_name = 'gobo reader'";
    wait_for("the readers' sessions to end", async || {
        match database.query_i64(readers).await {
            0 => Ok(()),
            more => Err(more),
        }
    })
    .await;
    database
        .query_i64(
            "select idx_tup_fetch + seq_tup_read from pg_stat_user_tables where relname = 'events'",
        )
        .await
}

type Wish = (Option<Vec<String>>, Limits);

fn wishes() -> [Wish; 3] {
    let small = Limits {
        max_events: 3000,
        max_bytes: 200_000,
        upto: Some(150_001),
    };
    [
        (Some(types(&["a", "b"])), ALL),
        (None, small),
        (Some(types(&["e", "a"])), ALL),
    ]
}

async fn read_at_once(readers: [Reader; 3]) -> Vec<(Vec<u8>, Position)> {
    let tasks = readers.into_iter().zip(wishes()).map(|(mut reader, wish)| {
        tokio::spawn(async move { frames(&mut reader, wish.0.as_deref(), 0, wish.1).await })
    });
    let mut found = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        found.push(task.await.unwrap());
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_rebuild_at_once_are_given_the_same_and_the_events_are_read_once() {
    const EVENTS: i64 = 200_000;
    let database = history(EVENTS).await;
    let source = start(&database, config());
    is_safe(&source, EVENTS).await;
    let before = looked_at(&database).await;
    let alone = read_at_once([source.reader(), source.reader(), source.reader()]).await;
    let middle = looked_at(&database).await;
    let shared = read_at_once([0; 3].map(|_| source.rebuilding_reader())).await;
    let after = looked_at(&database).await;
    assert!(alone == shared);
    let through: Vec<_> = shared.iter().map(|(_, through)| *through).collect();
    assert_eq!(through, [EVENTS, 150_001, EVENTS]);
    let (alone, shared) = (middle - before, after - middle);
    assert!(alone > 5 * EVENTS / 2, "alone, {alone} were read");
    assert!(shared < 9 * EVENTS / 4, "together, {shared} were read");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_killed_while_they_read_for_others_are_survived() {
    const EVENTS: i64 = 100_000;
    let database = history(EVENTS).await;
    let polling = Polling {
        ring_bytes: 1 << 20,
        ..Polling::default()
    };
    let source = start_at(database.url(), config(), polling);
    is_safe(&source, EVENTS).await;
    let alone = read_at_once([0; 3].map(|_| source.reader())).await;
    let readers = [0; 3].map(|_| source.rebuilding_reader());
    let shared = tokio::spawn(read_at_once(readers));
    // Who reads at this moment, then all of them, the tail too; and once more.
    let mut killed = 0;
    for sessions in [
        "reader' and state = 'active",
        "%",
        "reader' and state = 'active",
        "%",
    ] {
        let kill = format!(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
              where datname = current_database() and application_name like 'gobo {sessions}'"
        );
        killed += wait_for("a session that reads", async || {
            match database.query_i64(&kill).await {
                0 if !shared.is_finished() => Err(0),
                killed => Ok(killed),
            }
        })
        .await;
    }
    assert!(killed > 1);
    assert!(alone == shared.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_stalls_or_is_dropped_while_it_reads_does_not_stop_the_others() {
    const EVENTS: i64 = 50_000;
    let database = history(EVENTS).await;
    let polling = Polling {
        ring_bytes: 1 << 20,
        ..Polling::default()
    };
    let source = start_at(database.url(), config(), polling);
    is_safe(&source, EVENTS).await;
    let limits = Limits {
        max_events: 1000,
        ..ALL
    };
    let expected = frames(&mut source.reader(), None, 0, limits).await;
    let mut stalled = source.rebuilding_reader();
    let mut steady = source.rebuilding_reader();
    let mut fickle = source.rebuilding_reader();
    let first = stalled.next_batch(0, None, limits).await.unwrap();
    let mut found = Vec::new();
    let mut after = 0;
    let all = async {
        while after < EVENTS {
            // Whatever it has begun to do for all is broken off.
            let _ = fickle.next_batch(after, None, limits).now_or_never();
            let batch = steady.next_batch(after, None, limits).await.unwrap();
            after = batch.through;
            found.extend_from_slice(batch.frame());
        }
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("nobody is waited for as long as that");
    assert!((found, after) == expected);
    let (rest, through) = frames(&mut stalled, None, first.through, limits).await;
    assert!(([first.frame(), &rest].concat(), through) == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_does_not_fit_stops_only_those_that_want_it() {
    let database = history(20_000).await;
    database
        .execute(
            "alter table public.events alter column data type text;
             update public.events set data = '{', type = 'bad' where position = 5500",
        )
        .await;
    let source = start(&database, config());
    is_safe(&source, 20_000).await;
    let limits = Limits {
        max_events: 500,
        ..ALL
    };
    let follow = |mut reader: Reader, types: Vec<String>| async move {
        let mut after = 0;
        loop {
            match reader.next_batch(after, Some(&types), limits).await {
                Ok(batch) if batch.through == after => return (after, None),
                Ok(batch) => after = batch.through,
                Err(error) => return (after, Some(error)),
            }
        }
    };
    let (after, error) = follow(source.reader(), types(&["c", "bad"])).await;
    let Some(SourceError::Refused(reason)) = &error else {
        panic!("not refused, but {error:?} after {after}");
    };
    assert!(reason.contains("position 5500"), "{reason}");
    let readers = [["a", "b"], ["c", "bad"], ["d", "e"]].map(|wanted| {
        let reader = source.rebuilding_reader();
        tokio::spawn(follow(reader, types(&wanted)))
    });
    let mut found = Vec::new();
    for reader in readers {
        found.push(reader.await.unwrap());
    }
    assert_eq!(found[0], (20_000, None));
    assert_eq!(found[1].1, error);
    assert_eq!(found[2], (20_000, None));
}
