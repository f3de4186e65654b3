//! The switch itself: readers see old rows, then new rows, and never wait behind it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use gobo_tests::{connect, wait_for};
use serde_json::json;

use super::{ask, bookings, generation, generations};
use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_see_old_rows_then_new_rows_through_twenty_promotions() {
    let scene = Scene::new("", &["ledger"]).await;
    let last = *scene.append(&bookings(20, 50)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let (stop, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    let sql_reads = AtomicUsize::new(0);
    let sql = connect(scene.database.url()).await;
    let idle = connect(scene.database.url()).await;
    let writer = connect(scene.database.url()).await;
    // Every row is the sum of its own history, so a mixture of generations or half a batch would show.
    let check = "select count(*), count(*) filter (where balance <> \
                 (select sum(split_part(part, '-', 1)::int8) from regexp_split_to_table(trim(history), ' ') part)), max(_position) \
                 from read.accounts";
    let run = async {
        for round in 0..20 {
            let begun = blocking(|| ask(&scene.gobo, "ledger", "rebuild", json!({})));
            let candidate = generation(&begun.expect(202).json());
            if round % 2 == 1 {
                let read = "begin; select 1 from read.accounts limit 1";
                idle.batch_execute(read).await.unwrap();
                wait_for("the switch to wait for the idle transaction", async || {
                    let all = blocking(|| generations(&scene.gobo, "ledger"));
                    let waits = all.iter().any(|one| {
                        let trouble = one["trouble"].as_str();
                        trouble.is_some_and(|why| why.contains("idle in transaction"))
                    });
                    let is_late = all
                        .iter()
                        .any(|one| one["generation"] == candidate && one["stage"] == "live");
                    match waits || is_late {
                        true => Ok(()),
                        false => Err(all),
                    }
                })
                .await;
                // One may have been under way. Whoever waited behind the idle transaction would wait for ever.
                let before = sql_reads.load(Ordering::Relaxed);
                wait_for("readers to go on beside it", async || {
                    match sql_reads.load(Ordering::Relaxed) {
                        more if more > before + 1 => Ok(()),
                        same => Err(same),
                    }
                })
                .await;
                idle.batch_execute("commit").await.unwrap();
            }
            wait_for(&format!("generation {candidate} to be live"), async || {
                let all = blocking(|| generations(&scene.gobo, "ledger"));
                match all
                    .iter()
                    .any(|one| one["generation"] == candidate && one["stage"] == "live")
                {
                    true => Ok(()),
                    false => Err(all),
                }
            })
            .await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    let over_sql = async {
        let mut position = 0;
        while !stop.load(Ordering::Relaxed) {
            let row = sql.query_one(check, &[]).await.unwrap();
            let (rows, wrong, newest): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
            assert_eq!((rows, wrong), (20, 0));
            assert!(newest >= position, "went back from {position} to {newest}");
            position = newest;
            sql_reads.fetch_add(1, Ordering::Relaxed);
        }
    };
    let over_http = async {
        let (mut position, mut revision) = (0, 0);
        while !stop.load(Ordering::Relaxed) {
            let answer = blocking(|| scene.gobo.get("/read/accounts?limit=100")).expect(200);
            let number = |name: &str| answer.header(name).unwrap().parse::<i64>().unwrap();
            assert_eq!(answer.json().as_array().unwrap().len(), 20);
            assert!(number("gobo-position") >= position);
            assert!(number("gobo-revision") >= revision);
            (position, revision) = (number("gobo-position"), number("gobo-revision"));
            let newest = (answer.json().as_array().unwrap().iter())
                .map(|row| row["_position"].as_i64().unwrap_or_default())
                .max();
            assert!(newest <= Some(position), "rows of {newest:?} at {position}");
            reads.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    };
    let load = async {
        let mut n = 0;
        while !stop.load(Ordering::Relaxed) {
            n += 1;
            let append =
                "select gobo.append($1, '[{\"type\": \"Booked\", \"data\": {\"amount\": 2}}]')";
            let stream = format!("account-{}", n % 20);
            writer.query(append, &[&stream]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::join!(run, over_sql, over_http, load);
    for reads in [reads, sql_reads] {
        assert!(reads.into_inner() > 20);
    }
}

/// HTTP from a test blocks its thread; the other tasks go on elsewhere meanwhile.
fn blocking<T>(ask: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(ask)
}
