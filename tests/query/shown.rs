//! What rows show: names, casts, JSON paths, functions over rows; and orders by them.

use serde_json::{Value, json};

use super::bench::{Bench, model};
use super::operators::{ids, parameter, things};

/// The address of `things` with this query, percent-encoded.
fn asking(query: &str) -> String {
    let parameters: Vec<String> = query.split('&').map(parameter).collect();
    format!("/read/things?{}", parameters.join("&"))
}

async fn expect_refused(bench: &Bench, query: &str, reason: &str, words: &str) {
    let answer = bench.get(&asking(query)).await;
    assert_eq!(answer.status, 400, "{query}: {}", answer.body);
    assert_eq!(answer.reason(), reason, "{query}: {}", answer.body);
    assert!(answer.body.contains(words), "{query}: {}", answer.body);
}

#[tokio::test]
async fn values_are_shown_by_name_cast_and_path() {
    let bench = things().await;
    let check = async |id: i32, select: &str, expected: &str| {
        let query = format!("id=eq.{id}&select={select}");
        let answer = bench.get(&asking(&query)).await;
        assert_eq!(answer.body, expected, "{select}");
    };
    check(1, "id", r#"[{"id":1}]"#).await;
    check(1, "", "[{}]").await;
    check(1, "name:id,txt", r#"[{"name":1,"txt":"apple pie"}]"#).await;
    check(1, " id , txt ", r#"[{"id":1,"txt":"apple pie"}]"#).await;
    check(
        1,
        "\"a \\\"name\\\" %s $1 ü'\":id",
        r#"[{"a \"name\" %s $1 ü'":1}]"#,
    )
    .await;
    check(
        1,
        "id::text,n:num::int,flag::int",
        r#"[{"id":"1","n":2,"flag":1}]"#,
    )
    .await;
    check(
        1,
        "x:at::date,day::timestamp with time zone",
        r#"[{"x":"2026-01-01","day":"2026-01-01T00:00:00+00:00"}]"#,
    )
    .await;
    check(
        1,
        "tags::text,nums::text[]",
        r#"[{"tags":"{a,b}","nums":["1","2"]}]"#,
    )
    .await;
    check(1, "doc->a,doc->>t", r#"[{"a":1,"t":"cats and dogs"}]"#).await;
    check(
        1,
        "doc->n->k->2->>z,k:doc->n->k->-1",
        r#"[{"z":"deep","k":{"z": "deep"}}]"#,
    )
    .await;
    check(1, "doc->n->k->0::int", r#"[{"k":1}]"#).await;
    check(
        1,
        "doc->>a::int,raw->>t,r:raw->a",
        r#"[{"a":1,"t":"x","r":1}]"#,
    )
    .await;
    check(1, "nums->0,t:tags->>1", r#"[{"nums":1,"t":"b"}]"#).await;
    check(2, "doc->>\"odd key.x\"", r#"[{"odd key.x":"q"}]"#).await;
    check(
        3,
        "doc->2->>t,doc->9,x:doc->missing->there",
        r#"[{"t":"in an array","doc":null,"x":null}]"#,
    )
    .await;
    check(
        6,
        "n,d:doc->a,t:txt::json",
        r#"[{"n":null,"d":null,"t":null}]"#,
    )
    .await;
    check(1, "sum:n", r#"[{"sum":1}]"#).await;
    check(1, "n:txt,txt:n", r#"[{"n":"apple pie","txt":1}]"#).await;
    let single = bench.get("/read/things/1?select=who:id,a:doc-%3Ea").await;
    assert_eq!(single.body, r#"{"who":1,"a":1}"#);
}

#[tokio::test]
async fn selections_that_cannot_be_are_refused() {
    let bench = things().await;
    for (select, reason, words) in [
        ("n,a:n,n:id", "invalid_select", "\\\"n\\\" is named twice"),
        ("*,n:id", "invalid_select", "other:column"),
        ("*,*", "invalid_select", "twice"),
        (
            "n.sum(),id.sum()",
            "invalid_select",
            "give one of them another name",
        ),
        ("n::regclass", "unknown_type", "regclass"),
        (
            "n::inteegr",
            "unknown_type",
            "did you mean \\\"integer\\\"?",
        ),
        ("n::int4; drop table x", "unknown_type", "character 4"),
        ("n::int(4)", "invalid_select", "character 7"),
        ("n::date", "invalid_cast", "cannot be cast to date"),
        ("uid::int", "invalid_cast", "it can be cast to text"),
        ("doc::uuid", "invalid_cast", "jsonb"),
        ("n.sum()::uuid", "invalid_cast", "sum() gives int8"),
        ("txt.sum()", "unfit_function", "data->>a::numeric.sum()"),
        ("flag.max()", "unfit_function", "type bool"),
        ("doc->a.avg()", "unfit_function", "type jsonb"),
        (
            "n.frobnicate()",
            "unknown_function",
            "count(), sum(), avg(), min() and max()",
        ),
        (
            "n.maxx()",
            "unknown_function",
            "did you mean \\\"max()\\\"?",
        ),
        ("n.sum", "invalid_select", "parentheses"),
        ("sum()", "not_related", "sum"),
        ("raw,count()", "invalid_select", "cannot be grouped"),
        ("*,count()", "invalid_select", "raw"),
        ("txt->a", "invalid_path", "type text"),
        ("doc->>a->b", "invalid_path", "last step"),
    ] {
        expect_refused(&bench, &format!("select={select}"), reason, words).await;
    }
    let unfit = bench.get("/read/things?select=txt::int").await;
    assert_eq!(
        (unfit.status.as_u16(), unfit.code().as_str()),
        (400, "22P02"),
        "{}",
        unfit.body
    );
    let single = bench.get("/read/things/1?select=count()").await;
    assert_eq!(single.reason(), "invalid_select", "{}", single.body);
}

#[tokio::test]
async fn casts_are_possible_exactly_where_postgresql_has_them() {
    let kinds = [
        "bool",
        "int2",
        "int4",
        "int8",
        "float4",
        "float8",
        "numeric",
        "text",
        "bytea",
        "uuid",
        "date",
        "timestamptz",
        "json",
        "jsonb",
    ];
    let with_arrays: Vec<String> = kinds
        .iter()
        .map(|kind| (*kind).to_owned())
        .chain(kinds[..12].iter().map(|kind| format!("{kind}[]")))
        .collect();
    let columns: Vec<String> = with_arrays
        .iter()
        .map(|kind| format!("c_{} {kind}?", kind.replace("[]", "_a")))
        .collect();
    let bench = Bench::new().await;
    bench
        .deploy(
            1,
            &model(
                "casts",
                &format!("id int4, {}", columns.join(", ")),
                &["id"],
            ),
        )
        .await;
    bench.sql("insert into gobo_g1.casts (id) values (1)").await;
    for from in &with_arrays {
        for to in &with_arrays {
            let column = format!("c_{}", from.replace("[]", "_a"));
            let query = parameter(&format!("select={column}::{to}"));
            let answer = bench.get(&format!("/read/casts?{query}")).await;
            let sql = format!("select null::{from}::{to}");
            let is_possible = bench.admin.query(&sql, &[]).await.is_ok();
            // Newer servers have some casts more, from and to bytea.
            let is_newer = [from, to].iter().any(|kind| kind.starts_with("bytea"));
            let expected = if is_possible && !is_newer {
                200
            } else {
                answer.status.as_u16()
            };
            assert_eq!(answer.status, expected, "{from} to {to}: {}", answer.body);
            assert!(
                is_possible || answer.reason() == "invalid_cast",
                "{from} to {to}: {}",
                answer.body
            );
        }
    }
}

#[tokio::test]
async fn every_configuration_exists_and_none_is_missing() {
    let bench = things().await;
    let rows = bench
        .admin
        .query(
            "select cfgname::text from pg_ts_config where oid < 16384",
            &[],
        )
        .await
        .unwrap();
    assert!(rows.len() > 20);
    for row in rows {
        let name: String = row.get(0);
        let answer = bench
            .get(&format!("/read/things?txt=wfts({name}).pie"))
            .await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
    }
}

#[tokio::test]
async fn functions_over_rows_say_what_sql_says() {
    let bench = things().await;
    let check = async |query: &str, sql: &str| {
        let answer = bench.get(&asking(query)).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
        let sql =
            format!("select coalesce(json_agg(every_row), '[]')::text from ({sql}) every_row");
        let row = bench.admin.query_one(&sql, &[]).await;
        let expected: String = row.unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0);
        let expected: Value = serde_json::from_str(&expected).unwrap();
        assert_eq!(answer.json(), expected, "{query}");
    };
    let t = "from gobo_g1.things t";
    check("select=count()", &format!("select count(*) {t}")).await;
    check("select=count", &format!("select count(*) {t}")).await;
    check("select=count:id&id=eq.1", "select 1 as count").await;
    check(
        "select=n.count(),all:count()::text",
        &format!("select count(n), count(*)::text as all {t}"),
    )
    .await;
    check(
        "select=n.sum(),a:n.avg(),b:n.min(),c:n.max()",
        &format!("select sum(n), avg(n) a, min(n) b, max(n) c {t}"),
    )
    .await;
    check(
        "select=num.sum()::int8,m:f8.max()&id=neq.5",
        &format!("select sum(num)::int8, max(f8) m {t} where id <> 5"),
    )
    .await;
    check(
        "select=num::int8.sum()::text&id=neq.5",
        &format!("select sum(num::int8)::text {t} where id <> 5"),
    )
    .await;
    check(
        "select=txt.max(),d:day.min(),x:at.max(),y:tags.min()",
        &format!("select max(txt), min(day) d, max(at) x, min(tags) y {t}"),
    )
    .await;
    check(
        "select=s:doc->>a::int.sum()::text",
        &format!("select sum((doc->>'a')::int)::text s {t}"),
    )
    .await;
    check(
        "select=doc->>a.count()",
        &format!("select count(doc->>'a') {t}"),
    )
    .await;
    check(
        "select=n.sum()&n=gt.1000",
        &format!("select sum(n) {t} where n > 1000"),
    )
    .await;
    check(
        "select=n,count()&n=gt.1000",
        &format!("select n, count(*) {t} where n > 1000 group by n"),
    )
    .await;
    check(
        "select=n,count()&order=n",
        &format!("select n, count(*) {t} group by n order by n"),
    )
    .await;
    check(
        "select=who:n,num.sum()&order=n.desc.nullslast",
        &format!("select n as who, sum(num) {t} group by n order by n desc nulls last"),
    )
    .await;
    check(
        "select=n,num.sum()&order=sum.desc,n",
        &format!("select n, sum(num) {t} group by n order by 2 desc, 1"),
    )
    .await;
    check(
        "select=flag,k:count()&order=k.desc,flag",
        &format!("select flag, count(*) k {t} group by flag order by 2 desc, 1"),
    )
    .await;
    check(
        "select=a:doc->a,count()&order=doc->a",
        &format!("select doc->'a' a, count(*) {t} group by 1 order by 1"),
    )
    .await;
    check(
        "select=a:doc->>a::int,count()&order=a.desc",
        &format!("select (doc->>'a')::int a, count(*) {t} group by 1 order by 1 desc"),
    )
    .await;
    check(
        "select=d:at::date,count()&order=d",
        &format!("select at::date d, count(*) {t} group by 1 order by 1"),
    )
    .await;
    check(
        "select=raw->>a,count()&order=a",
        &format!("select raw->>'a' a, count(*) {t} group by 1 order by 1"),
    )
    .await;
    check(
        "select=n,count()&order=n&limit=2&offset=1",
        &format!("select n, count(*) {t} group by n order by n limit 2 offset 1"),
    )
    .await;
    check(
        "select=n:num.max(),num:n&order=n",
        &format!("select max(num) n, n num {t} group by 2 order by 2"),
    )
    .await;
}

#[tokio::test]
async fn groups_are_counted_as_groups_and_have_no_cursor() {
    let bench = things().await;
    let headers = [("prefer", "count=exact")];
    let answer = bench
        .send("GET", "/read/things?select=n,count()&limit=2", &headers)
        .await;
    assert_eq!(answer.header("content-range"), "0-1/5");
    assert_eq!(answer.header("gobo-next-cursor"), "");
    let one = bench
        .send("GET", "/read/things?select=count()", &headers)
        .await;
    assert_eq!(one.header("content-range"), "0-0/1");
    let csv = bench
        .send(
            "GET",
            &asking("select=n,\"a,b\":count()&order=n&limit=2"),
            &[("accept", "text/csv")],
        )
        .await;
    assert_eq!(csv.body, "n,\"a,b\"\n-5,1\n1,1");
    let object = bench
        .send(
            "GET",
            "/read/things?select=count()",
            &[("accept", "application/vnd.pgrst.object+json")],
        )
        .await;
    assert_eq!(object.body, r#"{"count":6}"#);
    let page = bench.get("/read/things?order=n&limit=1").await;
    let cursor = page.header("gobo-next-cursor");
    assert!(!cursor.is_empty());
    let query = format!("select=n,count()&order=n&cursor={cursor}");
    expect_refused(&bench, &query, "invalid_cursor", "limit and offset").await;
}

#[tokio::test]
async fn rows_are_sorted_by_paths_and_by_the_names_that_values_are_given() {
    let bench = things().await;
    for (query, order) in [
        ("order=doc->>t", "doc->>'t'"),
        ("order=doc->>t.desc.nullslast", "doc->>'t' desc nulls last"),
        ("order=doc->a.desc,n", "doc->'a' desc, n"),
        ("order=nums->0.nullsfirst", "to_jsonb(nums)->0 nulls first"),
        ("order=doc->n->>\"k\",id.desc", "doc->'n'->>'k', id desc"),
        ("select=id,size:n&order=size.desc", "n desc"),
        ("select=id,word:n::text&order=word", "n::text"),
        (
            "select=id,x:doc->>a::int&order=x.desc.nullslast",
            "(doc->>'a')::int desc nulls last",
        ),
        ("select=id,n:txt&order=n", "n"),
    ] {
        let expected = format!(
            "true order by {order}, id{}",
            if order.contains(" desc") && !order.contains(", ") {
                " desc"
            } else {
                ""
            }
        );
        let expected = expected.replace(", id desc, id", ", id desc");
        let sql = format!(
            "select array_agg(id) from (select id from gobo_g1.things t where {expected}) x"
        );
        let row = bench.admin.query_one(&sql, &[]).await;
        let expected: Vec<i32> = row.unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0);
        // Whole, and by pages of two, each continued from a cursor.
        for rows in [
            bench.rows(&asking(query)).await,
            bench.pages(&format!("{}&limit=2", asking(query))).await,
        ] {
            let found: Vec<i32> = rows
                .iter()
                .map(|r| r["id"].as_i64().unwrap() as i32)
                .collect();
            assert_eq!(found, expected, "{query}");
        }
    }
    for (query, reason) in [
        ("order=raw->a", "invalid_order"),
        ("order=missing->a", "unknown_column"),
        ("select=id,x:n&order=y", "unknown_column"),
        ("order=doc->a,doc->a.desc", "invalid_order"),
        ("select=n,count()&order=id", "invalid_order"),
        ("select=count()&order=doc->a", "invalid_order"),
        ("select=n,count()&order=n,n.desc", "invalid_order"),
        ("select=n,count()&order=zzzz", "unknown_column"),
    ] {
        expect_refused(&bench, query, reason, "").await;
    }
    assert_eq!(ids(&bench, "n = 7").await, [3, 4]);
}

#[tokio::test]
async fn a_cursor_of_a_path_fits_no_other_path() {
    let bench = things().await;
    let page = bench.get(&asking("order=doc->>t&limit=1")).await;
    let cursor = page.header("gobo-next-cursor");
    let other = format!("order=doc->>a&cursor={cursor}");
    // The order that it is of.
    expect_refused(&bench, &other, "invalid_cursor", "doc->>t.asc").await;
    let same = format!("order=doc->>t&limit=1&cursor={cursor}&select=id");
    let same = bench.get(&asking(&same)).await;
    assert_eq!(same.json(), json!([{"id": 1}]), "{}", same.body);
}
