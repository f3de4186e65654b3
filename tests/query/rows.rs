//! Single rows, media types, and what goes wrong.

use gobo::query::Limits;
use serde_json::json;

use super::bench::{Bench, PATIENT, beside, model};

#[tokio::test]
async fn a_row_is_found_by_its_percent_encoded_key() {
    let bench = Bench::new().await;
    bench
        .deploy(1, &model("things", "a text, b int4, c text?", &["a", "b"]))
        .await;
    bench
        .sql("insert into gobo_g1.things values ('x,y/z', 7, 'one'), ('é+ %', -1, null), ('', 0, 'empty')")
        .await;
    for (key, expected) in [
        ("x%2Cy%2Fz,7", json!({"a": "x,y/z", "b": 7, "c": "one"})),
        ("x%2cy%2fz,%37", json!({"a": "x,y/z", "b": 7, "c": "one"})),
        ("%C3%A9+%20%25,-1", json!({"a": "é+ %", "b": -1, "c": null})),
        (",0", json!({"a": "", "b": 0, "c": "empty"})),
        (",0?select=c", json!({"c": "empty"})),
    ] {
        let answer = bench.get(&format!("/read/things/{key}")).await;
        assert_eq!(answer.status, 200, "{key}: {}", answer.body);
        assert_eq!(answer.json(), expected, "{key}");
        assert_eq!(answer.header("gobo-position"), "10");
    }
    for (key, status, code) in [
        ("x,7", 404, "row_not_found"),
        ("x", 400, "invalid_key"),
        ("x,y/z,7", 400, "invalid_key"),
        ("x,y,7", 400, "invalid_key"),
        ("x,seven", 400, "invalid_value"),
        ("%FF,7", 400, "invalid_encoding"),
        ("x,7?a=eq.x", 400, "unsupported_parameter"),
        ("x,7?limit=1", 400, "unsupported_parameter"),
    ] {
        let answer = bench.get(&format!("/read/things/{key}")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.reason().as_str()),
            (status, code),
            "{key}: {}",
            answer.body
        );
    }
    let wrong = bench.get("/read/things/x").await;
    assert!(
        wrong.body.contains("a, b"),
        "the key's columns are named: {}",
        wrong.body
    );
    let absent = bench.get("/read/things/x,7").await;
    assert_eq!(
        (
            absent.header("gobo-position"),
            absent.header("gobo-generation")
        ),
        ("10", "1")
    );
}

#[tokio::test]
async fn an_unknown_read_model_names_the_nearest_one() {
    let bench = Bench::new().await;
    bench.deploy(1, &model("orders", "id int4", &["id"])).await;
    let answer = bench.get("/read/ordesr").await;
    assert_eq!(
        (answer.status.as_u16(), answer.reason().as_str()),
        (404, "unknown_read_model")
    );
    assert!(
        answer.body.contains("did you mean \\\"orders\\\"?"),
        "{}",
        answer.body
    );
    assert_eq!(
        bench.get("/read/ordesr/1").await.reason(),
        "unknown_read_model"
    );
}

#[tokio::test]
async fn head_answers_with_the_headers_only() {
    let bench = Bench::new().await;
    bench.deploy(1, &model("orders", "id int4", &["id"])).await;
    bench.sql("insert into gobo_g1.orders values (1)").await;
    for uri in ["/read/orders", "/read/orders/1"] {
        let answer = bench.send("HEAD", uri, &[]).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, ""));
        assert_eq!(answer.header("gobo-position"), "10");
    }
    assert_eq!(bench.send("DELETE", "/read/orders", &[]).await.status, 405);
}

#[tokio::test]
async fn the_media_type_is_as_accepted() {
    let bench = Bench::new().await;
    bench.deploy(1, &model("orders", "id int4", &["id"])).await;
    bench
        .sql("insert into gobo_g1.orders values (1), (2)")
        .await;
    let object = "application/vnd.pgrst.object+json";
    let check = async |uri: &str, accept: &str, status: u16, body: &str| {
        let answer = bench.send("GET", uri, &[("accept", accept)]).await;
        assert_eq!(answer.status, status, "{uri} {accept}: {}", answer.body);
        assert!(
            answer.body.contains(body),
            "{uri} {accept}: {}",
            answer.body
        );
    };
    check("/read/orders?id=eq.1", object, 200, "{\"id\":1}").await;
    check("/read/orders?limit=1", object, 200, "{\"id\":1}").await;
    check("/read/orders", object, 406, "The result contains 2 rows").await;
    check(
        "/read/orders?id=eq.3",
        object,
        406,
        "The result contains 0 rows",
    )
    .await;
    check(
        "/read/orders?id=eq.1",
        "text/html, */*;q=0.8",
        200,
        "[{\"id\":1}]",
    )
    .await;
    check("/read/orders?order=id", "text/csv", 200, "id\n1\n2").await;
    check("/read/orders", "image/png", 406, "not_acceptable").await;
}

#[tokio::test]
async fn a_reader_of_a_generation_that_is_gone_gets_the_next_ones_rows() {
    let bench = Bench::new().await;
    let orders = model("orders", "id int4", &["id"]);
    bench.deploy(2, &orders).await;
    bench.deploy(1, &orders).await;
    bench
        .sql("insert into gobo_g2.orders values (2); drop schema gobo_g1 cascade; delete from gobo.checkpoints where generation = 1")
        .await;
    let refresh = async {
        bench.refresh.notified().await;
        bench.publish(2, &orders);
    };
    let answer = beside(bench.get("/read/orders"), refresh).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_str()),
        (200, "[{\"id\":2}]")
    );
    assert_eq!(answer.header("gobo-generation"), "2");
}

#[tokio::test]
async fn a_query_that_takes_too_long_says_so_and_how_to_mend_it() {
    let bench = Bench::with(Limits::default(), "3s").await;
    bench.deploy(1, &model("orders", "id int4", &["id"])).await;
    bench
        .sql(
            "alter table gobo_g1.orders rename to kept;
             create view gobo_g1.orders as select * from gobo_g1.kept where pg_sleep(60) is not null;
             insert into gobo_g1.kept values (1)",
        )
        .await;
    let answer = bench.get("/read/orders").await;
    assert_eq!(
        (answer.status.as_u16(), answer.reason().as_str()),
        (500, "statement_timeout")
    );
    assert_eq!(answer.header("gobo-position"), "10");
}

#[tokio::test]
async fn rows_with_too_many_bytes_are_refused() {
    let limits = Limits {
        answer_bytes: 1_000,
        ..Limits::default()
    };
    let bench = Bench::with(limits, PATIENT).await;
    bench
        .deploy(1, &model("texts", "id int4, t text", &["id"]))
        .await;
    bench
        .sql("insert into gobo_g1.texts select i, repeat('x', 300) from generate_series(1, 4) i")
        .await;
    let answer = bench.get("/read/texts").await;
    assert_eq!(
        (answer.status.as_u16(), answer.reason().as_str()),
        (400, "answer_too_large")
    );
    assert_eq!(bench.rows("/read/texts?limit=3").await.len(), 3);
}

#[tokio::test]
async fn a_database_that_is_away_is_unavailable_and_then_back() {
    let cluster = gobo_tests::Cluster::start(gobo_tests::Options::ephemeral()).unwrap();
    let bench = Bench::on(&cluster).await;
    bench.deploy(1, &model("orders", "id int4", &["id"])).await;
    assert_eq!(bench.get("/read/orders").await.status, 200);
    let mut cluster = cluster;
    cluster.stop().unwrap();
    let away = bench.get("/read/orders").await;
    assert_eq!(
        (away.status.as_u16(), away.reason().as_str()),
        (503, "unavailable")
    );
    assert_eq!(away.header("retry-after"), "1");
    cluster.restart().unwrap();
    gobo_tests::wait_for("the reader to come back", async || {
        match bench.get("/read/orders").await {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer),
        }
    })
    .await;
}
