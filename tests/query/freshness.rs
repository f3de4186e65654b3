//! How fresh an answer is, waiting for one's own write, and revalidation.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gobo::query::Limits;
use gobo::query::catalog::Head;

use super::bench::{Bench, PATIENT, beside, model};

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
    let lag = bench.get("/read/orders").await;
    assert!(lag.header("gobo-lag-seconds").starts_with("1.5"), "{lag:?}");
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
        bench.progress.committed(1);
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
async fn a_client_may_send_the_position_it_saw_back_with_everything_it_asks() {
    let bench = orders().await;
    let ask = async |uri: &str, position: &str| {
        let headers = [("gobo-min-position", position)];
        bench.send("GET", uri, &headers).await
    };
    assert_eq!(ask("/read/orders", "10").await.status, 200);
    let late = ask("/read/orders?wait=1ms", "11").await;
    assert_eq!(
        (late.status.as_u16(), late.code().as_str()),
        (503, "not_yet")
    );
    // The higher one counts.
    let late = ask("/read/orders?wait=1ms&min_position=5", "11").await;
    assert_eq!(late.json()["context"]["min_position"], 11);
    let late = ask("/read/orders?wait=1ms&min_position=12", "11").await;
    assert_eq!(late.json()["context"]["min_position"], 12);
    for nonsense in ["", "-1", "ten", "99999999999999999999"] {
        let refused = ask("/read/orders", nonsense).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["reason"]),
            (400, &"invalid_min_position".into()),
            "{nonsense}"
        );
    }
}

#[tokio::test]
async fn rows_that_lag_by_more_than_is_wanted_are_waited_for() {
    let bench = orders().await;
    bench.head.send_replace(Head { safe: 11, head: 11 });
    let near = bench.get("/read/orders?max_lag=60s&wait=0ms").await;
    assert_eq!(near.status, 200);
    let late = bench.get("/read/orders?max_lag=1s&wait=20ms").await;
    assert_eq!(
        (late.status.as_u16(), late.code().as_str()),
        (503, "not_yet")
    );
    assert!(late.body.contains("lags by "), "{}", late.body);
    assert_eq!(late.header("retry-after"), "1");
    let stale = [("prefer", "stale=ok")];
    let uri = "/read/orders?max_lag=1s&wait=1ms";
    let stale = bench.send("GET", uri, &stale).await;
    assert_eq!(
        (stale.status.as_u16(), stale.header("gobo-stale")),
        (200, "true")
    );
    let loop_of_the_projection = async {
        bench.progress.awaited(1).await;
        commit(&bench, 11).await;
        bench.age.send_replace(None);
        bench.progress.committed(1);
    };
    let uri = "/read/orders?max_lag=0s&wait=30s";
    let answer = beside(bench.get(uri), loop_of_the_projection).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("gobo-position")),
        (200, "11")
    );
    for nonsense in ["max_lag=2", "max_lag=", "max_lag=2s&max_lag=3s"] {
        let uri = format!("/read/orders?{nonsense}");
        assert_eq!(bench.get(&uri).await.status, 400, "{nonsense}");
    }
    assert_eq!(
        bench.get("/read/orders?max_lag=1s&as_of=5").await.json()["reason"],
        "unsupported_parameter"
    );
}

#[tokio::test]
async fn the_number_of_waiting_readers_is_bounded() {
    let limits = Limits {
        waiters: 1,
        ..Limits::default()
    };
    let bench = Bench::with(limits, PATIENT).await;
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
    assert_eq!(same.header("vary"), first.header("vary"));
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
    let looks = || bench.reader.counts().0.asked;
    let before = looks();
    let changed = again("/read/orders?order=id", &tag).await;
    assert_eq!(looks(), before + 1, "one look is enough");
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
async fn a_star_stands_for_whatever_there_is() {
    let bench = orders().await;
    commit(&bench, 11).await;
    let ask = async |uri: &str| bench.send("GET", uri, &[("if-none-match", "*")]).await;
    for uri in ["/read/orders", "/read/orders?id=eq.5", "/read/orders/11"] {
        let plain = bench.get(uri).await;
        let answer = ask(uri).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (304, ""));
        for header in ["etag", "vary"] {
            assert_eq!(answer.header(header), plain.header(header));
            assert_ne!(answer.header(header), "");
        }
    }
    assert_eq!(ask("/read/orders/12").await.status, 404);
    assert_eq!(ask("/read/orders?nothing=eq.1").await.status, 400);
}

#[tokio::test]
async fn a_column_that_is_added_shows_in_an_address_that_was_asked_before() {
    let bench = orders().await;
    commit(&bench, 11).await;
    let ask = async |tag: &str| {
        let headers = [("if-none-match", tag)];
        bench.send("GET", "/read/orders", &headers).await
    };
    let tag = bench.get("/read/orders").await.header("etag").to_owned();
    assert_eq!(ask(&tag).await.status, 304);
    bench
        .sql("alter table gobo_g1.orders add note text default 'new'")
        .await;
    bench.publish(1, &model("orders", "id int4, note text?", &["id"]));
    let changed = ask(&tag).await;
    assert_eq!(changed.status, 200);
    assert_eq!(changed.json()[0]["note"], "new");
}

#[tokio::test]
async fn the_body_says_what_the_headers_say_where_that_is_preferred() {
    let bench = orders().await;
    bench.head.send_replace(Head { safe: 11, head: 12 });
    commit(&bench, 11).await;
    commit(&bench, 12).await;
    let ask = async |uri: &str, more: &[(&str, &str)]| {
        let mut headers = vec![("prefer", "count=exact, metadata")];
        headers.extend_from_slice(more);
        bench.send("GET", uri, &headers).await
    };
    let uri = "/read/orders?order=id&limit=1";
    let answer = ask(uri, &[]).await;
    assert_eq!(answer.header("preference-applied"), "count=exact, metadata");
    let body = answer.json();
    assert_eq!(body["data"], serde_json::json!([{ "id": 11 }]));
    assert_eq!(
        body["metadata"],
        serde_json::json!({
            "position": 12, "head_position": 12, "lag_seconds": 0.0, "generation": 1, "revision": 3, "stale": false,
            "dead_letters": 0, "count": 1, "total": 2, "next_cursor": answer.header("gobo-next-cursor"),
        })
    );
    // Positions move on without the rows: the tag is a weak one, and not that of the rows alone.
    let tag = answer.header("etag").to_owned();
    assert!(tag.starts_with("W/\""), "{tag}");
    let again = ask(uri, &[("if-none-match", tag.as_str())]).await;
    assert_eq!(
        (again.status.as_u16(), again.header("etag")),
        (304, tag.as_str())
    );
    let plain = [("if-none-match", tag.as_str()), ("prefer", "count=exact")];
    assert_eq!(bench.send("GET", uri, &plain).await.status, 206);
    let row = ask("/read/orders/12", &[]).await.json();
    assert_eq!(row["data"], serde_json::json!({ "id": 12 }));
    assert_eq!(row["metadata"]["position"], 12);
    let csv = ask(uri, &[("accept", "text/csv")]).await;
    assert_eq!(
        (csv.body.as_str(), csv.header("preference-applied")),
        ("id\n11", "count=exact")
    );
    let stale = [("prefer", "metadata, stale=ok")];
    let uri = "/read/orders?min_position=99&wait=1ms";
    let stale = bench.send("GET", uri, &stale).await;
    assert_eq!(stale.json()["metadata"]["stale"], true);
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
            .sql(
                "delete from gobo.projections where live = 1;
                 update gobo.checkpoints set position = 11 where generation = 2",
            )
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
