//! Media types: JSON, one object, stripped of NULLs, CSV.

use super::bench::{Answer, Bench, PATIENT, model};

async fn things() -> Bench {
    let bench = Bench::new().await;
    let columns =
        "id int4, name text?, ok bool?, doc jsonb?, tags text[]?, at timestamptz?, price numeric?";
    bench.deploy(1, &model("things", columns, &["id"])).await;
    bench
        .sql(
            r#"insert into gobo_g1.things values
            (1, 'plain', true, '{"a": null, "b": 1}', '{x,"y z"}', '2026-01-31 12:30:00+00', 1.50),
            (2, 'a "quoted", text', false, null, '{}', null, null),
            (3, E'two\nlines', null, '[null]', null, null, null),
            (4, '', null, null, null, null, null),
            (5, null, null, null, null, null, null),
            (6, E'back\\slash (and) é', null, null, null, null, null)"#,
        )
        .await;
    bench
}

async fn ask(bench: &Bench, uri: &str, accept: &str) -> Answer {
    bench.send("GET", uri, &[("accept", accept)]).await
}

#[tokio::test]
async fn csv_has_a_line_of_names_and_then_the_rows() {
    let bench = things().await;
    let answer = ask(&bench, "/read/things?order=id", "text/csv").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(answer.header("content-range"), "0-5/*");
    assert_eq!(
        answer.body,
        concat!(
            "id,name,ok,doc,tags,at,price\n",
            "1,plain,t,\"{\"\"a\"\": null, \"\"b\"\": 1}\",\"{x,\"\"y z\"\"}\",2026-01-31 12:30:00+00,1.50\n",
            "2,\"a \"\"quoted\"\", text\",f,,{},,\n",
            "3,\"two\nlines\",,[null],,,\n",
            "4,\"\",,,,,\n",
            "5,,,,,,\n",
            "6,back\\slash (and) é,,,,,",
        )
    );
    // The names stand there when no row does, and pages are as in any other format.
    let none = ask(&bench, "/read/things?id=eq.0&select=name,id", "text/csv").await;
    assert_eq!(none.body, "name,id");
    let page = ask(
        &bench,
        "/read/things?order=id&limit=2&select=id",
        "text/csv",
    )
    .await;
    assert_eq!(page.body, "id\n1\n2");
    let next = page.header("gobo-next-cursor").to_owned();
    let uri = format!("/read/things?order=id&limit=2&select=id&cursor={next}");
    assert_eq!(ask(&bench, &uri, "text/csv").await.body, "id\n3\n4");
    let row = ask(&bench, "/read/things/1?select=id,name", "text/csv").await;
    assert_eq!(row.body, "id,name\n1,plain");
    assert_eq!(ask(&bench, "/read/things/7", "text/csv").await.status, 404);
}

#[tokio::test]
async fn nulls_are_left_out_when_that_is_asked_for() {
    let bench = things().await;
    let array = "application/vnd.pgrst.array+json;nulls=stripped";
    let answer = ask(
        &bench,
        "/read/things?id=in.(1,5)&order=id&select=id,name,doc",
        array,
    )
    .await;
    assert_eq!(
        answer.header("content-type"),
        format!("{array}; charset=utf-8")
    );
    assert_eq!(
        answer.body,
        r#"[{"id":1,"name":"plain","doc":{"b":1}},{"id":5}]"#
    );
    let object = "application/vnd.pgrst.object+json;nulls=stripped";
    let answer = ask(&bench, "/read/things?id=eq.5", object).await;
    assert_eq!(
        answer.header("content-type"),
        format!("{object}; charset=utf-8")
    );
    assert_eq!(answer.body, r#"{"id":5}"#);
    let whole = ask(
        &bench,
        "/read/things?id=eq.4&select=id,ok",
        "application/vnd.pgrst.array+json",
    )
    .await;
    assert_eq!(whole.body, r#"[{"id":4,"ok":null}]"#);
}

#[tokio::test]
async fn each_format_is_a_representation_of_its_own() {
    let bench = things().await;
    let mut tags = Vec::new();
    for accept in [
        "application/json",
        "text/csv",
        "application/vnd.pgrst.object+json",
        "application/vnd.pgrst.object+json;nulls=stripped",
        "application/vnd.pgrst.array+json;nulls=stripped",
    ] {
        let answer = ask(&bench, "/read/things?id=eq.1", accept).await;
        assert_eq!(answer.status, 200, "{accept}");
        assert!(answer.header("vary").contains("accept"));
        let tag = answer.header("etag").to_owned();
        assert!(!tag.is_empty() && !tags.contains(&tag), "{accept}");
        let again = [("accept", accept), ("if-none-match", tag.as_str())];
        let again = bench.send("GET", "/read/things?id=eq.1", &again).await;
        assert_eq!(again.status, 304, "{accept}");
        tags.push(tag);
    }
}

#[tokio::test]
async fn the_schema_may_be_named_and_no_other() {
    let bench = things().await;
    // The second is what supabase-js and postgrest-py send unless they are told otherwise.
    for schema in ["read", "public"] {
        let named = [("accept-profile", schema)];
        let answer = bench.send("GET", "/read/things?id=eq.1", &named).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-profile")),
            (200, schema)
        );
    }
    let other = [("accept-profile", "private")];
    let answer = bench.send("GET", "/read/things?id=eq.1", &other).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (406, "PGRST106")
    );
    assert!(answer.json()["hint"].as_str().unwrap().ends_with(": read"));
}

#[tokio::test]
async fn head_and_options_are_answered_without_a_body() {
    let bench = things().await;
    for accept in ["application/json", "text/csv"] {
        let headers = [("accept", accept), ("prefer", "count=exact")];
        let get = bench.send("GET", "/read/things?limit=2", &headers).await;
        let head = bench.send("HEAD", "/read/things?limit=2", &headers).await;
        assert_eq!((head.status, head.body.as_str()), (get.status, ""));
        for (name, value) in &get.headers {
            assert_eq!(head.headers.get(name), Some(value), "{name}");
        }
        assert_eq!(head.header("content-range"), "0-1/6");
    }
    let refused = bench.send("HEAD", "/read/things?nam=eq.1", &[]).await;
    assert_eq!((refused.status.as_u16(), refused.body.as_str()), (400, ""));
    for uri in ["/read/things", "/read/things/1"] {
        let options = bench.send("OPTIONS", uri, &[]).await;
        assert_eq!((options.status.as_u16(), options.body.as_str()), (200, ""));
        assert_eq!(options.header("allow"), "OPTIONS,GET,HEAD");
        assert_eq!(bench.send("DELETE", uri, &[]).await.status, 405);
    }
}

#[tokio::test]
async fn the_bytes_of_csv_are_bounded_as_well() {
    let limits = gobo::query::Limits {
        answer_bytes: 1_000,
        ..Default::default()
    };
    let bench = Bench::with(limits, PATIENT).await;
    bench
        .deploy(1, &model("texts", "id int4, t text", &["id"]))
        .await;
    bench
        .sql("insert into gobo_g1.texts select i, repeat('\"', 150) from generate_series(1, 4) i")
        .await;
    let answer = ask(&bench, "/read/texts", "text/csv").await;
    assert_eq!(
        (answer.status.as_u16(), answer.reason().as_str()),
        (400, "answer_too_large")
    );
    assert_eq!(
        ask(&bench, "/read/texts?limit=3", "text/csv").await.status,
        200
    );
}
