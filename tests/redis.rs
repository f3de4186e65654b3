//! Redis is optional: what happens when it is away, slow, or not what it was.

mod feed;
mod ingest;
mod tls;

use gobo_tests::{Database, Gobo, Persistence, Redis, own_redis, wait_until};

#[tokio::test]
async fn readiness_says_degraded_while_redis_is_away_and_ready_when_it_is_back() {
    let database = Database::create().await;
    let mut server = own_redis(Persistence::Nothing);
    let gobo = Gobo::start(database.url(), &Redis::on(&server).section());
    expect_readiness(&gobo, "ready", "ok");
    let metrics = gobo.get("/metrics").expect(200).text();
    assert!(metrics.contains("\ngobo_redis_up 1\n"), "{metrics}");

    server.kill().unwrap();
    let seen = expect_readiness(&gobo, "degraded", "degraded");
    let why = seen["components"]["redis"]["detail"].as_str().unwrap();
    assert!(!why.is_empty());
    let metrics = gobo.get("/metrics").expect(200).text();
    assert!(metrics.contains("\ngobo_redis_up 0\n"), "{metrics}");

    server.restart().unwrap();
    expect_readiness(&gobo, "ready", "ok");

    // Frozen: it accepts connections, and says nothing.
    server.pause().unwrap();
    let seen = expect_readiness(&gobo, "degraded", "degraded");
    assert!(
        seen["components"]["redis"]["detail"]
            .as_str()
            .unwrap()
            .contains("no answer within"),
        "{seen}"
    );
    server.resume().unwrap();
    expect_readiness(&gobo, "ready", "ok");
}

#[tokio::test]
async fn an_engine_starts_without_its_redis_and_finds_it_later() {
    let database = Database::create().await;
    let mut server = own_redis(Persistence::Nothing);
    server.kill().unwrap();
    let gobo = Gobo::start(database.url(), &Redis::on(&server).section());
    let seen = expect_readiness(&gobo, "degraded", "degraded");
    assert!(
        seen["components"]["redis"]["detail"]
            .as_str()
            .unwrap()
            .contains("cannot be reached"),
        "{seen}"
    );
    server.restart().unwrap();
    expect_readiness(&gobo, "ready", "ok");
}

#[tokio::test]
async fn the_password_of_redis_is_never_shown() {
    let database = Database::create().await;
    let url = "redis://reader:tops3cret@127.0.0.1:1/0";
    let gobo = Gobo::start(database.url(), &format!("[redis]\nurl = {url:?}\n"));
    expect_readiness(&gobo, "degraded", "degraded");
    assert!(!gobo.log().contains("tops3cret"), "{}", gobo.log());
    let config = gobo.folder().join("gobo.toml");
    let shown = gobo.command(&["serve", "--check", "--config", config.to_str().unwrap()]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("redis://reader:***@127.0.0.1:1/0"),
        "{shown}"
    );
    assert!(!shown.contains("tops3cret"), "{shown}");
}

/// Waits until readiness is 200 and says `status`, and `redis` of Redis.
#[track_caller]
fn expect_readiness(gobo: &Gobo, status: &str, redis: &str) -> serde_json::Value {
    wait_until(&format!("readiness to say {status}"), || {
        let answer = gobo.get("/health/ready");
        let seen = answer.json();
        let is_said = seen["status"] == status && seen["components"]["redis"]["status"] == redis;
        let is_so = answer.status == 200 && is_said;
        if is_so { Ok(seen) } else { Err(seen) }
    })
}
