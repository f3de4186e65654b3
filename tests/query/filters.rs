//! Filters, on every type, and what is refused.

use serde_json::json;

use super::bench::{Bench, model};

const EVERYTHING: &str = "id int4, flag bool?, i2 int2?, i4 int4?, i8 int8?, f4 float4?, f8 float8?, \
    num numeric?, txt text?, bin bytea?, uid uuid?, day date?, at timestamptz?, raw json?, doc jsonb?, tags text[]?, \
    nums int8[]?";

async fn everything() -> Bench {
    let bench = Bench::new().await;
    bench
        .deploy(1, &model("everything", EVERYTHING, &["id"]))
        .await;
    bench
        .sql(
            r#"insert into gobo_g1.everything values
            (1, true, 1, 1, 9007199254740993, 0.5, 0.1, 12345678901234567890.123456789, 'a,b)"\c', '\x00ff',
             '67e55044-10b1-426f-9247-bb680e5fe0c8', '2026-01-31', '2026-01-31 12:30:00.123456+00', '{"b": 1, "a": 1.10}',
             '{"a": 1}', '{x,"y,z"}', '{1,2}'),
            (2, false, -2, -2, -9223372036854775808, 'NaN', 'Infinity', 'NaN', '', '\x', 
             '00000000-0000-0000-0000-000000000000', 'infinity', '-infinity', 'null', 'null', '{}', '{}'),
            (3, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null)"#,
        )
        .await;
    bench
}

#[tokio::test]
async fn every_type_can_be_filtered() {
    let bench = everything().await;
    for (filter, ids) in [
        ("flag=eq.true", vec![1]),
        ("flag=is.false", vec![2]),
        ("flag=not.is.true", vec![2, 3]),
        ("flag=is.unknown", vec![3]),
        ("i2=lt.0", vec![2]),
        ("i4=gte.-2&i4=lt.1", vec![2]),
        ("i8=eq.9007199254740993", vec![1]),
        (
            "i8=in.(9007199254740993,-9223372036854775808,5)",
            vec![1, 2],
        ),
        ("f4=eq.NaN", vec![2]),
        ("f8=eq.0.1", vec![1]),
        ("f8=gt.1e300", vec![2]),
        ("num=eq.12345678901234567890.123456789", vec![1]),
        ("num=not.eq.12345678901234567890.123456789", vec![2]),
        ("txt=eq.a,b)%22%5Cc", vec![1]),
        ("txt=in.(%22a,b)%5C%22%5C%5Cc%22,zzz)", vec![1]),
        ("txt=eq.", vec![2]),
        ("txt=neq.x", vec![1, 2]),
        ("bin=eq.%5Cx00FF", vec![1]),
        ("bin=in.(%5Cx,%5Cx00)", vec![2]),
        ("uid=eq.67E5504410B1426F9247BB680E5FE0C8", vec![1]),
        ("day=lte.2026-02-01", vec![1]),
        ("day=eq.infinity", vec![2]),
        ("at=gt.2026-01-31T13:30:00.1%2B01:00", vec![1]),
        ("at=lt.2026-01-01", vec![2]),
        ("raw=not.is.null", vec![1, 2]),
        ("doc=eq.{\"a\":1.0}", vec![1]),
        ("doc=eq.null", vec![2]),
        ("doc=is.null", vec![3]),
        ("tags=eq.{x,\"y,z\"}", vec![1]),
        ("tags=in.(%22{}%22)", vec![2]),
        ("nums=gt.{1,1}", vec![1]),
        ("id=in.()", vec![]),
        ("or=(id.eq.1,and(flag.is.null,id.gt.2))", vec![1, 3]),
        ("not.or=(id.eq.1,flag.eq.true)", vec![2]),
        ("not.and=(id.gt.1,flag.is.null)", vec![1, 2]),
        ("_position=gte.1&_updated_at=lt.2026-01-02&id=eq.3", vec![3]),
    ] {
        let uri = format!(
            "/read/everything?select=id&order=id&{}",
            filter.replace('"', "%22")
        );
        let found: Vec<i64> = bench
            .rows(&uri)
            .await
            .iter()
            .map(|r| r["id"].as_i64().unwrap())
            .collect();
        assert_eq!(found, ids, "{filter}");
    }
}

#[tokio::test]
async fn values_are_shown_with_all_their_digits() {
    let bench = everything().await;
    let answer = bench.get("/read/everything?id=eq.1").await;
    assert_eq!(
        answer.header("content-type"),
        "application/json; charset=utf-8"
    );
    assert_eq!(
        answer.body,
        concat!(
            r#"[{"id":1,"flag":true,"i2":1,"i4":1,"i8":9007199254740993,"f4":0.5,"f8":0.1,"#,
            r#""num":12345678901234567890.123456789,"txt":"a,b)\"\\c","bin":"\\x00ff","#,
            r#""uid":"67e55044-10b1-426f-9247-bb680e5fe0c8","day":"2026-01-31","at":"2026-01-31T12:30:00.123456+00:00","#,
            r#""raw":{"b": 1, "a": 1.10},"doc":{"a": 1},"tags":["x","y,z"],"nums":[1,2]}]"#
        )
    );
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_the_reason() {
    let bench = everything().await;
    for (query, code, words) in [
        ("txd=eq.1", "unknown_column", "did you mean \\\"txt\\\"?"),
        ("limt=5", "unknown_column", "did you mean \\\"limit\\\"?"),
        ("select=idd", "unknown_column", "did you mean \\\"id\\\"?"),
        ("order=zzzzzz", "unknown_column", "no column"),
        ("or=(idd.eq.1)", "unknown_column", "character 2"),
        ("select=id,id", "invalid_select", "twice"),
        ("order=id,id.desc", "invalid_order", "twice"),
        ("order=raw", "invalid_order", "json"),
        ("raw=eq.1", "unfit_operator", "jsonb"),
        ("raw=in.(1)", "unfit_operator", "json"),
        ("id=is.true", "unfit_operator", "not bool"),
        ("id=eq.abc", "invalid_value", "\\\"id\\\""),
        ("id=eq.null", "invalid_value", "is.null"),
        ("id=in.(1,x)", "invalid_value", "character 7"),
        ("i2=eq.32768", "invalid_value", "32767"),
        ("at=eq.now", "invalid_value", "2026-01-31T12:30:00Z"),
        ("day=eq.2026-02-30", "invalid_value", "\\\"day\\\""),
        ("at=gt.2026-01-31T25:00:00Z", "invalid_value", "\\\"at\\\""),
        ("f4=eq.1e60", "invalid_value", "\\\"f4\\\""),
        ("doc=eq.%22%5Cu0000%22", "invalid_value", "\\\"doc\\\""),
        ("nums=eq.{a}", "invalid_value", "\\\"nums\\\""),
        ("day=in.(2026-02-30)", "invalid_value", "\\\"day\\\""),
        ("txt=eq.%FF", "invalid_encoding", "UTF-8"),
        ("txt=eq.%00", "invalid_encoding", "NUL"),
        ("offset=5&cursor=x", "invalid_offset", "offset"),
        ("live=sse", "unsupported_parameter", "live"),
    ] {
        let answer = bench.get(&format!("/read/everything?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.body);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.reason(), code, "{query}: {}", answer.body);
        assert!(answer.body.contains(words), "{query}: {}", answer.body);
    }
}

#[tokio::test]
async fn queries_are_bounded() {
    let bench = everything().await;
    let long = format!("txt=eq.{}", "x".repeat(40_000));
    let many = vec!["id=eq.1"; 101].join("&");
    let list = format!("id=in.({})", vec!["1"; 1_001].join(","));
    let deep = format!("or={}id.eq.1{}", "(or".repeat(11) + "(", ")".repeat(12));
    for query in [long, many, list] {
        let answer = bench.get(&format!("/read/everything?{query}")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.reason().as_str()),
            (400, "query_too_large")
        );
    }
    assert_eq!(
        bench
            .get(&format!("/read/everything?{deep}"))
            .await
            .reason(),
        "invalid_filter"
    );
}

#[tokio::test]
async fn injected_sql_stays_text() {
    let bench = everything().await;
    let attacks = [
        "'; drop table gobo_g1.everything; --",
        "\"; drop table gobo_g1.everything; --",
        "1) or (1=1",
        "$1",
        "{1}\"'",
        "\\'; select pg_sleep(10); --",
        "id\" from gobo.read_models; --",
        "*/ or 1=1 /*",
    ];
    for attack in attacks {
        let encoded: String = attack.bytes().map(|b| format!("%{b:02X}")).collect();
        for uri in [
            format!("/read/everything?txt=eq.{encoded}"),
            format!("/read/everything?txt=in.(%22{encoded}%22)"),
            format!("/read/everything?txt=in.({encoded})"),
            format!("/read/everything?id=eq.{encoded}"),
            format!("/read/everything?nums=eq.{encoded}"),
            format!("/read/everything?{encoded}=eq.1"),
            format!("/read/everything?id={encoded}"),
            format!("/read/everything?select={encoded}"),
            format!("/read/everything?select=%22{encoded}%22"),
            format!("/read/everything?order={encoded}"),
            format!("/read/everything?order=id.{encoded}"),
            format!("/read/everything?or=(%22{encoded}%22.eq.1)"),
            format!("/read/everything?limit={encoded}"),
            format!("/read/everything?offset={encoded}"),
            format!("/read/everything?cursor={encoded}"),
            format!("/read/everything?min_position={encoded}"),
            format!("/read/everything/{encoded}"),
            format!("/read/{encoded}"),
        ] {
            let answer = bench.get(&uri).await;
            let refused = [400, 404].contains(&answer.status.as_u16());
            assert!(
                refused || answer.body == "[]",
                "{uri}: {} {}",
                answer.status,
                answer.body
            );
        }
    }
    assert_eq!(bench.rows("/read/everything").await.len(), 3);
}

#[tokio::test]
async fn columns_are_selected_and_the_rows_own_history_is_shown_when_asked_for() {
    let bench = everything().await;
    let check = async |select: &str, expected: serde_json::Value| {
        let rows = bench
            .rows(&format!("/read/everything?id=eq.3&select={select}"))
            .await;
        assert_eq!(json!(rows), expected, "{select}");
    };
    check("id,txt", json!([{"id": 3, "txt": null}])).await;
    check("_revision,id", json!([{"_revision": 1, "id": 3}])).await;
    let all = bench
        .get("/read/everything?id=eq.3&select=*,_position")
        .await;
    assert!(
        all.body.ends_with("\"nums\":null,\"_position\":1}]"),
        "{}",
        all.body
    );
}
