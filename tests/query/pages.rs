//! Order and pages: every row once, in one total order, however it is cut.

use super::bench::{Bench, PATIENT, model};

async fn grid() -> Bench {
    let bench = Bench::new().await;
    let columns = "region text, id int8, rank int4?, price numeric?, seen timestamptz?, ratio float8?, doc jsonb?, ok bool?";
    bench
        .deploy(1, &model("grid", columns, &["region", "id"]))
        .await;
    bench
        .sql(
            "insert into gobo_g1.grid
             select case when i % 3 = 0 then 'a,/%\"' when i % 3 = 1 then 'b' else 'é' end, i,
               case when i % 4 > 0 then i % 7 end, case when i % 5 > 0 then (i % 6)::numeric / 3 end,
               case when i % 2 > 0 then timestamptz '2026-01-01' + (i % 8) * interval '0.000001s' end,
               case i % 6 when 0 then null when 1 then 'NaN' when 2 then '-Infinity' else (i % 9) / 10.0 end,
               case when i % 3 > 0 then jsonb_build_object('n', i % 4) end,
               case when i % 3 > 0 then i % 2 = 0 end
             from generate_series(1, 60) i",
        )
        .await;
    bench
}

#[tokio::test]
async fn pages_together_are_the_whole_in_every_order() {
    let bench = grid().await;
    for order in [
        "",
        "id",
        "id.desc",
        "region,id.desc",
        "region.desc,id",
        "rank",
        "rank.desc",
        "rank.nullsfirst",
        "rank.desc.nullslast",
        "rank.desc.nullslast,price.nullsfirst,seen.desc",
        "price.desc,rank.asc.nullsfirst,region.desc",
        "seen.nullsfirst,ratio.desc",
        "ratio",
        "ratio.desc.nullslast,rank",
        "doc,ok.desc",
        "ok,_position.desc,_updated_at",
    ] {
        let query = if order.is_empty() {
            String::new()
        } else {
            format!("&order={order}")
        };
        let whole = bench.rows(&format!("/read/grid?limit=1000{query}")).await;
        assert_eq!(whole.len(), 60, "{order}");
        for size in [1, 7, 59, 60] {
            let pages = bench
                .pages(&format!("/read/grid?limit={size}{query}"))
                .await;
            assert_eq!(pages, whole, "{order} by {size}");
        }
        let filtered = bench
            .rows(&format!("/read/grid?limit=1000&rank=gt.2{query}"))
            .await;
        let pages = bench
            .pages(&format!("/read/grid?limit=4&rank=gt.2{query}"))
            .await;
        assert_eq!(pages, filtered, "{order}, filtered");
    }
}

#[tokio::test]
async fn nulls_and_directions_are_as_asked_for() {
    let bench = grid().await;
    let check = async |order: &str, expected: &str| {
        let sql = format!(
            "select coalesce(json_agg(id order by n), '[]')::text from
             (select id, row_number() over (order by {expected}) n from gobo_g1.grid) g"
        );
        let row = bench.admin.query_one(&sql, &[]).await.unwrap();
        let expected: Vec<i64> = serde_json::from_str(row.get(0)).unwrap();
        let rows = bench
            .rows(&format!("/read/grid?select=id&order={order}"))
            .await;
        let found: Vec<i64> = rows.iter().map(|row| row["id"].as_i64().unwrap()).collect();
        assert_eq!(found, expected, "{order}");
    };
    check("rank,id", "rank asc nulls last, id, region").await;
    check("rank.desc,id", "rank desc nulls first, id, region").await;
    check(
        "rank.nullsfirst,id.desc",
        "rank nulls first, id desc, region desc",
    )
    .await;
    check(
        "price.desc.nullslast",
        "price desc nulls last, region desc, id desc",
    )
    .await;
}

#[tokio::test]
async fn a_cursor_fits_its_own_order_only() {
    let bench = grid().await;
    bench
        .deploy(
            1,
            &model(
                "other",
                "region text, id int8, rank int4?",
                &["region", "id"],
            ),
        )
        .await;
    let first = bench
        .get("/read/grid?order=rank.desc&limit=2&select=id")
        .await;
    let cursor = first.header("gobo-next-cursor").to_owned();
    assert!(!cursor.is_empty());
    assert_eq!(first.header("content-range"), "0-1/*");
    assert_eq!(
        first.header("link"),
        format!("</read/grid?order=rank.desc&limit=2&select=id&cursor={cursor}>; rel=\"next\"")
    );
    let next = bench
        .get(&format!(
            "/read/grid?order=rank.desc&limit=5&cursor={cursor}"
        ))
        .await;
    assert_eq!(next.status, 200);
    assert_eq!(next.header("content-range"), "");
    for query in [
        format!("order=rank&cursor={cursor}"),
        format!("order=rank.desc.nullslast&cursor={cursor}"),
        format!("order=rank.desc,id&cursor={cursor}"),
        format!("cursor={cursor}"),
        format!("order=rank.desc&cursor={cursor}x"),
        format!("order=rank.desc&cursor={}", &cursor[1..]),
        "cursor=".to_owned(),
        "cursor=e30".to_owned(),
        "cursor=bnVsbA".to_owned(),
    ] {
        let answer = bench.get(&format!("/read/grid?{query}")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.reason().as_str()),
            (400, "invalid_cursor"),
            "{query}"
        );
        assert!(answer.json()["hint"].is_string(), "{query}");
    }
    let answer = bench
        .get(&format!("/read/other?order=rank.desc&cursor={cursor}"))
        .await;
    assert_eq!(answer.reason(), "invalid_cursor");
}

#[tokio::test]
async fn the_last_page_has_no_next_one() {
    let bench = grid().await;
    for (uri, is_more) in [
        ("/read/grid?limit=59", true),
        ("/read/grid?limit=60", false),
        ("/read/grid?limit=61", false),
        ("/read/grid?limit=0", false),
        ("/read/grid?limit=10&offset=50", false),
        ("/read/grid?limit=10&offset=49", true),
        ("/read/grid?id=eq.-1", false),
    ] {
        let answer = bench.get(uri).await;
        assert_eq!(
            !answer.header("gobo-next-cursor").is_empty(),
            is_more,
            "{uri}"
        );
        assert_eq!(!answer.header("link").is_empty(), is_more, "{uri}");
    }
    assert_eq!(
        bench
            .get("/read/grid?limit=10&offset=55")
            .await
            .header("content-range"),
        "55-59/*"
    );
    assert_eq!(
        bench
            .get("/read/grid?id=eq.-1")
            .await
            .header("content-range"),
        "*/*"
    );
}

#[tokio::test]
async fn without_a_limit_there_are_as_many_rows_as_the_configuration_allows() {
    let limits = gobo::query::Limits {
        rows: 3,
        ..Default::default()
    };
    let bench = Bench::with(limits, PATIENT).await;
    bench.deploy(1, &model("numbers", "n int4", &["n"])).await;
    bench
        .sql("insert into gobo_g1.numbers select generate_series(1, 10)")
        .await;
    assert_eq!(bench.rows("/read/numbers").await.len(), 3);
    assert_eq!(bench.rows("/read/numbers?limit=1000").await.len(), 3);
    assert_eq!(bench.pages("/read/numbers").await.len(), 10);
}
