//! The publisher is killed, Redis is killed, frozen, emptied.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gobo_tests::{
    Cluster, Database, Options, Persistence, Random, Redis, own_redis, wait_for, wait_until,
};
use serde_json::json;

use super::consumer::{Consumer, rows_of};
use super::{changes, current_stream, entries, tables, told, wait_for_all};
use crate::scene::{Scene, append, raw};

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_group_finds_every_change_once_and_in_order_while_publisher_and_redis_are_killed()
 {
    let mut server = own_redis(Persistence::Everything);
    let redis = Redis::on(&server);
    let mut scene = Scene::new(&tables(&redis), &["raw-guest"]).await;
    let stream = current_stream(&redis);
    let begun = entries(&redis, &stream)[0].revision();
    let revision = "SELECT revision FROM gobo.read_models WHERE name = 'raw'";
    let ended = AtomicBool::new(false);
    let writing = write_all_the_time(scene.database.url().to_owned());
    let consumer = std::thread::scope(|threads| {
        let consuming = threads.spawn(|| {
            let mut consumer = Consumer::new(&redis, &stream);
            let is_first = Cell::new(true);
            // The stream begins when there are no rows yet.
            let rows = || {
                assert!(
                    is_first.replace(false),
                    "nothing was lost, but is to be read anew"
                );
                BTreeMap::new()
            };
            while !ended.load(Ordering::Relaxed) {
                consumer.read(&rows);
                std::thread::sleep(Duration::from_millis(2));
            }
            consumer
        });
        let run = async {
            for round in 0..5 {
                let from = scene.database.query_i64(revision).await;
                wait_for("some commits", async || {
                    let now = scene.database.query_i64(revision).await;
                    if now > from + 15 { Ok(()) } else { Err(now) }
                })
                .await;
                if round % 2 == 0 {
                    scene.gobo.kill();
                    scene.gobo.start_again();
                } else {
                    server.kill().unwrap();
                    server.restart().unwrap();
                }
            }
            writing.end().await;
            wait_for_all(&scene, &redis).await
        };
        let found = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(run));
        let mut pending = redis::cmd("XPENDING");
        pending.arg(&stream).arg("copy");
        wait_until("everything to be acknowledged", || {
            let mut group = redis::cmd("XINFO");
            let about: Vec<std::collections::HashMap<String, redis::Value>> =
                redis.ask(group.arg("GROUPS").arg(&stream));
            let last: String =
                redis::from_redis_value(about[0]["last-delivered-id"].clone()).unwrap();
            let pending: Vec<redis::Value> = redis.ask(&mut pending);
            let is_done = Some(&last) == found.last().map(|entry| &entry.id)
                && pending[0] == redis::Value::Int(0);
            if is_done {
                Ok(())
            } else {
                Err((last, pending))
            }
        });
        ended.store(true, Ordering::Relaxed);
        consuming.join().unwrap()
    });
    let expected = told(&scene.database, begun).await;
    assert!(expected.len() > 75, "{}", expected.len());
    // The first entry only says where the stream begins.
    assert_eq!(consumer.told[1..], expected[..]);
    assert_eq!(consumer.missed, 0);
    assert_eq!(consumer.rows, rows_of(&scene));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_redis_in_the_place_of_another_begins_with_a_refetch() {
    let mut server = own_redis(Persistence::Nothing);
    let redis = Redis::on(&server);
    let scene = Scene::new(&tables(&redis), &["raw-guest"]).await;
    let mut random = Random::new(13);
    scene.append(&changes(&mut random, 20)).await;
    wait_for_all(&scene, &redis).await;
    server.replace().unwrap();
    let last = scene.append(&changes(&mut random, 20)).await;
    scene.wait_for("raw", *last.last().unwrap());
    let stream = current_stream(&redis);
    let mut consumer = Consumer::new(&redis, &stream);
    consumer.follow(&scene);
    scene.append(&changes(&mut random, 20)).await;
    let found = wait_for_all(&scene, &redis).await;
    assert_eq!(found[0].op, "refetch");
    assert_eq!(
        found[1..],
        told(&scene.database, found[0].revision()).await[..]
    );
    consumer.follow(&scene);
    assert_eq!(consumer.refetched, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_its_tail_is_told_it_again_under_the_same_ids() {
    let redis = Redis::create();
    let mut scene = Scene::new(&tables(&redis), &["raw-guest"]).await;
    let mut random = Random::new(17);
    scene.append(&changes(&mut random, 20)).await;
    let before = wait_for_all(&scene, &redis).await;
    let stream = current_stream(&redis);
    let mut dump = redis::cmd("DUMP");
    let kept: Vec<u8> = redis.ask(dump.arg(&stream));
    scene.append(&changes(&mut random, 20)).await;
    let all = wait_for_all(&scene, &redis).await;
    assert!(all.len() > before.len());
    scene.gobo.kill();
    let mut restore = redis::cmd("RESTORE");
    restore.arg(&stream).arg(0).arg(kept).arg("REPLACE");
    redis.ask::<()>(&mut restore);
    assert_eq!(entries(&redis, &stream), before);
    scene.gobo.start_again();
    assert_eq!(wait_for_all(&scene, &redis).await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_slows_neither_commits_nor_reads_and_gets_everything_when_it_wakes() {
    let mut server = own_redis(Persistence::Nothing);
    let redis = Redis::on(&server);
    let scene = Scene::new(&tables(&redis), &["raw-guest"]).await;
    current_stream(&redis);
    append_and_read(&scene).await;
    let before = commands(&scene);
    server.pause().unwrap();
    append_and_read(&scene).await;
    let (failed, skipped) = commands(&scene);
    server.resume().unwrap();
    // Three in a row, and what was under way beside them: nobody has waited for Redis after that.
    let (failed, skipped) = (failed - before.0, skipped - before.1);
    assert!(failed <= 10 && skipped >= 20, "{failed}, {skipped}");
    let found = wait_for_all(&scene, &redis).await;
    assert_eq!(
        found[1..],
        told(&scene.database, found[0].revision()).await[..]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_in_a_stream_that_a_crash_of_the_database_takes_back() {
    // Batches commit without waiting for the disk, and nobody else writes the log out.
    let options = Options::ephemeral().with("wal_writer_delay", "10s");
    let mut cluster = Cluster::start(options).unwrap();
    let database = Database::create_in(&cluster).await;
    let redis = Redis::create();
    let scene = Scene::over(database, &tables(&redis), &["raw-guest"]);
    let last_of = |stream: &str| entries(&redis, stream).last().unwrap().revision();
    for n in 0..4 {
        let stream = current_stream(&redis);
        let before = last_of(&stream);
        let data = json!({ "do": "put", "id": "a", "n": n });
        scene.append(&[raw("s", data)]).await;
        let told = wait_until("the change to be told", || match last_of(&stream) {
            same if same == before => Err(same),
            told => Ok(told),
        });
        cluster.kill().unwrap();
        cluster.restart().unwrap();
        let revision = "SELECT revision FROM gobo.read_models WHERE name = 'raw'";
        let kept = scene.database.query_i64(revision).await;
        assert!(kept >= told, "revision {told} was told, {kept} is there");
        // What is told of a database that has crashed is told elsewhere.
        wait_until("another stream", || match current_stream(&redis) {
            same if same == stream => Err(same),
            _ => Ok(()),
        });
    }
}

/// Appends forty times and reads each row that comes of it.
async fn append_and_read(scene: &Scene) {
    for n in 0..40 {
        let data = json!({ "do": "put", "id": "a", "n": n });
        let position = scene.append(&[raw("s", data)]).await[0];
        let path = format!("/read/raw/a?min_position={position}&wait=30s");
        assert_eq!(scene.gobo.get(&path).expect(200).json()["c_int8"], n);
    }
}

/// How many commands Redis has not answered in time, and how many it was spared.
fn commands(scene: &Scene) -> (i64, i64) {
    let metrics = scene.gobo.get("/metrics").expect(200).text();
    let of = |outcome: &str| {
        let series = format!("gobo_redis_commands_total{{outcome=\"{outcome}\"}} ");
        let value = metrics.split(&series).nth(1).unwrap().lines().next();
        value.unwrap().parse().unwrap()
    };
    (of("failed"), of("skipped"))
}

/// A task that appends events until it is told to end.
struct Writing {
    end: std::sync::Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

fn write_all_the_time(url: String) -> Writing {
    let end = std::sync::Arc::new(AtomicBool::new(false));
    let asked = end.clone();
    let task = tokio::spawn(async move {
        let database = Database::at(&url);
        let mut random = Random::new(3);
        while !asked.load(Ordering::Relaxed) {
            append(&database, &changes(&mut random, 2)).await;
        }
    });
    Writing { end, task }
}

impl Writing {
    async fn end(self) {
        self.end.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}
