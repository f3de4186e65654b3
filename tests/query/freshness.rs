//! How fresh an answer is, waiting for one's own write, and revalidation.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gobo::query::Limits;
use gobo::query::catalog::Head;

use super::bench::{Bench, beside, model};

async fn orders() -> Bench {
    let bench = Bench::new().await;
    bench.deploy(1, &model("orders", "id int4", &["id"])).await;
    bench
}

/// What a projection does: rows, revision and checkpoint in one transaction.
async fn commit(bench: &Bench, position: i64) {
    bench
        .sql(&format!(
            "begin;
             insert into gobo_g1.orders values ({position});
             update gobo.read_models set revision = revision + 1 where name = 'orders';
             update gobo.checkpoints set position = {position} where generation = 1;
             commit"
        ))
        .await;
}

#[tokio::test]
async fn answers_say_how_fresh_they_are() {
    let bench = orders().await;
    bench.head.send_replace(Head { safe: 10, head: 12 });
    let answer = bench.get("/read/orders").await;
    for (name, value) in [
        ("gobo-position", "10"),
        ("gobo-head-position", "12"),
        ("gobo-lag-seconds", "0.000"),
        ("gobo-generation", "1"),
        ("gobo-revision", "1"),
        ("gobo-dead-letters", ""),
        ("gobo-stale", ""),
        ("cache-control", "no-cache"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    bench.head.send_replace(Head { safe: 11, head: 12 });
    assert_eq!(
        bench.get("/read/orders").await.header("gobo-lag-seconds"),
        "1.500"
    );
    // What the source knows may be older than what was projected meanwhile.
    bench.head.send_replace(Head { safe: 5, head: 7 });
    assert_eq!(
        bench.get("/read/orders").await.header("gobo-head-position"),
        "10"
    );
}

#[tokio::test]
async fn dead_letters_are_counted_and_named_up_to_the_position_asked_for() {
    let bench = orders().await;
    bench.sql("insert into gobo.dead_letters values (1, 3, 'a'), (1, 5, 'a'), (1, 9, 'b'), (2, 1, 'c'); insert into gobo.dead_letters values (1, 4, 'd', 'discarded')").await;
    assert_eq!(
        bench.get("/read/orders").await.header("gobo-dead-letters"),
        "3"
    );
    let answer = bench.get("/read/orders?min_position=5").await;
    assert_eq!(answer.header("gobo-dead-letters"), "3; positions=\"3 5\"");
}

#[tokio::test]
async fn rows_and_position_are_of_one_snapshot() {
    let bench = orders().await;
    let writer = async {
        for position in 11..200 {
            commit(&bench, position).await;
        }
    };
    let reader = async {
        for _ in 0..200 {
            let answer = bench.get("/read/orders?order=id.desc&limit=1").await;
            let newest = answer.json()[0]["id"].as_i64().unwrap_or(10);
            assert_eq!(answer.header("gobo-position"), newest.to_string());
            assert_eq!(answer.header("gobo-revision"), (newest - 9).to_string());
        }
    };
    tokio::join!(writer, reader);
}

#[tokio::test]
async fn a_reader_waits_for_its_own_write_and_wakes_when_it_is_there() {
    let bench = orders().await;
    let loop_of_the_projection = async {
        // Only a reader who waits makes the loop go on.
        bench.progress.awaited(1).await;
        commit(&bench, 11).await;
        bench.progress.committed();
    };
    let answer = beside(
        bench.get("/read/orders?min_position=11&wait=30s"),
        loop_of_the_projection,
    )
    .await;
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_str()),
        (200, "[{\"id\":11}]")
    );
    assert_eq!(
        bench.pokes.load(Ordering::SeqCst),
        1,
        "the source was asked to look"
    );
    assert!(!bench.progress.is_awaited(1));
}

#[tokio::test]
async fn a_commit_of_another_process_is_noticed_without_a_hint() {
    let bench = orders().await;
    let elsewhere = async {
        bench.progress.awaited(1).await;
        commit(&bench, 11).await;
    };
    let answer = beside(
        bench.get("/read/orders/11?min_position=11&wait=30s"),
        elsewhere,
    )
    .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn waiting_ends_with_the_reason_or_with_old_rows_as_preferred() {
    let bench = orders().await;
    bench.head.send_replace(Head { safe: 11, head: 11 });
    let started = Instant::now();
    let late = bench.get("/read/orders?min_position=11&wait=50ms").await;
    assert!(started.elapsed() >= Duration::from_millis(50));
    assert_eq!(
        (late.status.as_u16(), late.reason().as_str()),
        (503, "not_yet")
    );
    assert_eq!(
        (late.header("gobo-position"), late.header("retry-after")),
        ("10", "1")
    );
    assert!(
        !late.body.contains("no event has that position"),
        "{}",
        late.body
    );
    let beyond = bench.get("/read/orders?min_position=12&wait=0ms").await;
    assert!(
        beyond
            .body
            .contains("no event has that position yet, the last one has 11"),
        "{}",
        beyond.body
    );
    let stale = [("prefer", "return=minimal, stale=ok")];
    let stale = bench
        .send("GET", "/read/orders?min_position=11&wait=1ms", &stale)
        .await;
    assert_eq!(
        (stale.status.as_u16(), stale.header("gobo-stale")),
        (200, "true")
    );
    assert_eq!(stale.header("gobo-position"), "10");
}

#[tokio::test]
async fn the_number_of_waiting_readers_is_bounded() {
    let limits = Limits {
        waiters: 1,
        ..Limits::default()
    };
    let bench = Bench::with(limits, "2s").await;
    bench.deploy(1, &model("orders", "id int4", &["id"])).await;
    let second = async {
        bench.progress.awaited(1).await;
        let refused = bench.get("/read/orders?min_position=11").await;
        assert_eq!(
            (refused.status.as_u16(), refused.reason().as_str()),
            (503, "too_many_waiters")
        );
        assert_eq!(refused.header("gobo-position"), "10");
        assert_eq!(
            bench.get("/read/orders?min_position=10").await.status,
            200,
            "nothing to wait for"
        );
        commit(&bench, 11).await;
    };
    let first = beside(bench.get("/read/orders?min_position=11&wait=30s"), second).await;
    assert_eq!(first.status, 200);
}

#[tokio::test]
async fn a_reader_who_has_the_rows_is_told_so() {
    let bench = orders().await;
    commit(&bench, 11).await;
    let first = bench.get("/read/orders?order=id").await;
    let tag = first.header("etag").to_owned();
    let again =
        async |uri: &str, tag: &str| bench.send("GET", uri, &[("if-none-match", tag)]).await;
    let same = again("/read/orders?order=id", &tag).await;
    assert_eq!(
        (
            same.status.as_u16(),
            same.body.as_str(),
            same.header("etag")
        ),
        (304, "", tag.as_str())
    );
    assert_eq!(same.header("gobo-position"), "11");
    assert_eq!(
        again("/read/orders?order=id", &format!("\"x\", W/{tag}"))
            .await
            .status,
        304
    );
    assert_eq!(
        again("/read/orders?order=id.desc", &tag).await.status,
        200,
        "another representation"
    );
    // Events that do not touch the read model move the position only.
    bench.sql("update gobo.checkpoints set position = 20").await;
    let moved = again("/read/orders?order=id", &tag).await;
    assert_eq!(
        (moved.status.as_u16(), moved.header("gobo-position")),
        (304, "20")
    );
    commit(&bench, 21).await;
    let changed = again("/read/orders?order=id", &tag).await;
    assert_eq!(
        (changed.status.as_u16(), changed.header("gobo-revision")),
        (200, "3")
    );
    assert_ne!(changed.header("etag"), tag);
    let row = bench.get("/read/orders/21").await;
    assert_eq!(
        again("/read/orders/21", row.header("etag")).await.status,
        304
    );
    assert_eq!(bench.get("/read/orders/22").await.header("etag"), "");
}

#[tokio::test]
async fn a_reader_who_waits_goes_on_with_the_generation_that_is_promoted_meanwhile() {
    let bench = Bench::new().await;
    let orders = model("orders", "id int4", &["id"]);
    bench.deploy(1, &orders).await;
    let promotion = async {
        bench.progress.awaited(1).await;
        bench.deploy(2, &orders).await;
        bench
            .sql("update gobo.checkpoints set position = 11 where generation = 2")
            .await;
    };
    let answer = beside(
        bench.get("/read/orders?min_position=11&wait=30s"),
        promotion,
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("gobo-generation"), "2");
}
