//! The second level of the cache: shared by the nodes, and never believed without a reason.

use gobo_tests::{Gobo, Persistence, Redis, own_redis, wait_until};

use super::truth::count;
use crate::generations::bookings;
use crate::scene::Scene;

pub(super) const HITS: &str = "gobo_cache_redis_total{outcome=\"hit\"}";
pub(super) const ODD: &str = "gobo_cache_redis_total{outcome=\"odd\"}";

pub(super) fn counted(gobo: &Gobo, series: &str) -> i64 {
    count(&gobo.get("/metrics").expect(200).text(), series)
}

fn read(gobo: &Gobo) -> String {
    gobo.get("/read/accounts?order=account").expect(200).text()
}

/// Waits until Redis is in use.
pub(super) fn wait_for_redis(gobo: &Gobo) {
    wait_until("Redis to be used", || {
        match counted(gobo, "gobo_redis_up") {
            1 => Ok(()),
            other => Err(other),
        }
    });
}

#[tokio::test]
async fn what_one_node_has_read_the_other_one_finds_and_odd_values_are_nobodys() {
    let redis = Redis::create();
    // However slow the machine is, nobody does without Redis.
    let patient = format!("{}timeout_ms = 10000\n", redis.section());
    let scene = Scene::new(&patient, &["ledger"]).await;
    let other = Gobo::start(scene.database.url(), &patient);
    let last = *scene.append(&bookings(5, 5)).await.last().unwrap();
    scene.wait_for("ledger", last);
    wait_for_redis(&scene.gobo);
    wait_for_redis(&other);
    let rows = read(&scene.gobo);
    let keys = || -> Vec<String> { redis.ask(redis::cmd("KEYS").arg(redis.key("page:*"))) };
    let found = wait_until("the rows to be in Redis", || match keys() {
        keys if keys.len() == 1 => Ok(keys),
        keys => Err(keys),
    });
    let ttl: i64 = redis.ask(redis::cmd("TTL").arg(&found[0]));
    assert!((1..=300).contains(&ttl), "{ttl}");
    assert_eq!(read(&other), rows);
    assert_eq!(counted(&other, HITS), 1);
    // Somebody else's value, half of one, one of another key.
    let value: Vec<u8> = redis.ask(redis::cmd("GET").arg(&found[0]));
    let half = value[..value.len() / 2].to_vec();
    let odd = [b"[{\"account\":\"x\"}]".to_vec(), half, Vec::new()];
    for (number, odd) in odd.iter().enumerate() {
        redis.ask::<()>(redis::cmd("SET").arg(&found[0]).arg(odd.as_slice()));
        // A node that has nothing in memory.
        let third = Gobo::start(scene.database.url(), &patient);
        wait_for_redis(&third);
        assert_eq!(read(&third), rows, "{number}");
        assert_eq!(counted(&third, ODD), 1, "{number}");
    }
}

#[tokio::test]
async fn reads_go_on_and_are_true_while_redis_is_killed_frozen_and_emptied() {
    let mut server = own_redis(Persistence::Nothing);
    let redis = Redis::on(&server);
    // Nothing in memory: every read asks Redis.
    let settings = format!("[cache]\nbytes = 0\n\n{}", redis.section());
    let scene = Scene::new(&settings, &["ledger"]).await;
    wait_for_redis(&scene.gobo);
    let mut total = 0;
    let book_and_read = async |what: &str, total: &mut i64| {
        for _ in 0..5 {
            let event = bookings(1, 1).remove(0);
            let position = scene.append(&[event]).await[0];
            *total += 1;
            let path = format!("/read/accounts/account-0?min_position={position}&wait=30s");
            let row = scene.gobo.get(&path).expect(200).json();
            assert_eq!(row["balance"], *total, "{what}");
            let again = scene
                .gobo
                .get("/read/accounts/account-0")
                .expect(200)
                .json();
            assert_eq!(again["balance"], *total, "{what}");
        }
    };
    book_and_read("there", &mut total).await;
    wait_until("an answer from Redis", || {
        read(&scene.gobo);
        match counted(&scene.gobo, HITS) {
            0 => Err(()),
            _ => Ok(()),
        }
    });
    server.pause().unwrap();
    book_and_read("frozen", &mut total).await;
    server.resume().unwrap();
    wait_for_redis(&scene.gobo);
    book_and_read("there again", &mut total).await;
    redis.ask::<()>(&mut redis::cmd("FLUSHALL"));
    book_and_read("emptied", &mut total).await;
    server.kill().unwrap();
    book_and_read("killed", &mut total).await;
    server.restart().unwrap();
    wait_for_redis(&scene.gobo);
    book_and_read("replaced", &mut total).await;
}
