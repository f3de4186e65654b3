//! Every operator, compared with the SQL that it stands for.

use serde_json::json;

use super::bench::{Bench, PATIENT, model};
use super::embed::refer;

const THINGS: &str = "id int4, n int4?, num numeric?, f8 float8?, flag bool?, txt text?, bin bytea?, uid uuid?, \
    day date?, at timestamptz?, raw json?, doc jsonb?, tags text[]?, nums int8[]?";

pub(super) async fn things() -> Bench {
    let bench = Bench::new().await;
    bench.deploy(1, &model("things", THINGS, &["id"])).await;
    bench
        .sql(
            r#"insert into gobo_g1.things values
            (1, 1, 1.5, 0.5, true, 'apple pie', '\x00', '00000000-0000-0000-0000-000000000001', '2026-01-01',
             '2026-01-01 00:00:00+00', '{"a": 1, "t": "x"}', '{"a": 1, "t": "cats and dogs", "n": {"k": [1, 2, {"z": "deep"}]}}', '{a,b}', '{1,2}'),
            (2, -5, 2.50, 'NaN', false, 'Apfelküchlein, 100% (süß)', '\xff', '00000000-0000-0000-0000-000000000002', '2026-01-02',
             '2026-01-02 12:00:00.5+00', '[1, 2]', '{"a": 2, "t": "a dog", "n": null, "odd key.x": "q"}', '{b,"c,d"}', '{}'),
            (3, 7, -3, 'Infinity', null, 'a_b\c"d', '\x', '00000000-0000-0000-0000-000000000003', 'infinity',
             '-infinity', 'null', '[10, "x", {"t": "in an array"}]', '{}', '{2,3}'),
            (4, 7, 0, -0.5, true, '', null, null, null, null, '"s"', '"dogs"', '{NULL,a}', '{5}'),
            (5, 100, 1e30, 1e300, false, 'The quick brown foxes were jumping', '\xffee', null, '1999-12-31',
             '1999-12-31 23:59:59+00', '1', 'null', null, null),
            (6, null, null, null, null, null, null, null, null, null, null, null, null, null)"#,
        )
        .await;
    bench
}

/// The same, where `n` refers to another of the things, and notes refer to two of them.
pub(super) async fn related() -> Bench {
    let bench = things().await;
    let mut things = model("things", THINGS, &["id"]);
    refer(&mut things, "things_n_fkey", &["n"], "things");
    bench.publish(1, &things);
    let mut notes = model("notes", "note text, thing int4?, other int4?", &["note"]);
    refer(&mut notes, "notes_thing_fkey", &["thing"], "things");
    refer(&mut notes, "others", &["other"], "things");
    bench.deploy(1, &notes).await;
    bench
        .sql("insert into gobo_g1.notes values ('a', 1, 2), ('b', 1, null), ('c', 3, 1), ('d', null, null)")
        .await;
    bench
}

/// Text as it stands in a URL's query.
pub(super) fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}

/// `name=value`, both percent-encoded.
pub(super) fn parameter(text: &str) -> String {
    let (name, value) = text.split_once('=').unwrap();
    format!("{}={}", encoded(name), encoded(value))
}

pub(super) async fn ids(bench: &Bench, condition: &str) -> Vec<i32> {
    let query = format!("select id from gobo_g1.things t where {condition} order by id");
    let rows = bench.admin.query(&query, &[]).await;
    let rows = rows.unwrap_or_else(|error| panic!("{condition}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn an_operator_finds_the_rows_that_its_sql_finds() {
    let bench = things().await;
    for (filter, condition) in [
        ("n=eq.7", "n = 7"),
        ("n=neq.7", "n <> 7"),
        ("n=gt.1", "n > 1"),
        ("n=gte.7", "n >= 7"),
        ("n=lt.1", "n < 1"),
        ("n=lte.1", "n <= 1"),
        ("n=not.gt.1", "not n > 1"),
        ("n=isdistinct.7", "n is distinct from 7"),
        ("n=not.isdistinct.7", "n is not distinct from 7"),
        ("n=in.(1, 7,100)", "n in (1, 7, 100)"),
        ("n=not.in.(1,7)", "n not in (1, 7)"),
        ("n=eq(any).{1,7,null}", "n = any('{1,7,null}')"),
        ("n=not.eq(any).{1,7}", "not n = any('{1,7}')"),
        ("n=gt(all).{-6,3}", "n > all('{-6,3}')"),
        ("n=lte(any).{-6,3}", "n <= any('{-6,3}')"),
        ("n=lt(all).{}", "n < all('{}')"),
        ("n=gte(any).{}", "n >= any('{}')"),
        ("flag=eq.yes", "flag"),
        ("flag=is.true", "flag is true"),
        ("flag=is.FALSE", "flag is false"),
        ("flag=is.unknown", "flag is unknown"),
        ("flag=is.not_null", "flag is not null"),
        ("flag=not.is.null", "flag is not null"),
        ("flag=eq(any).{t}", "flag = any('{t}')"),
        ("num=gt.1.4999", "num > 1.4999"),
        ("num=in.(1.50,2.5)", "num in (1.5, 2.5)"),
        ("f8=lt.Infinity", "f8 < 'Infinity'"),
        ("f8=eq.NaN", "f8 = 'NaN'"),
        ("txt=like.*pie", "txt like '%pie'"),
        ("txt=like.A%", "txt like 'A%'"),
        ("txt=ilike.APF*", "txt ilike 'APF%'"),
        ("txt=like.a_b*", "txt like 'a_b%'"),
        ("txt=like.a\\_b*", "txt like 'a\\_b%'"),
        ("txt=not.like.*e*", "txt not like '%e%'"),
        (
            "txt=like(any).{*pie,*jump*}",
            "txt like any('{%pie,%jump%}')",
        ),
        (
            "txt=ilike(all).{*E*,\"*, 100*\"}",
            "txt ilike all('{%E%,\"%, 100%\"}')",
        ),
        ("txt=match.^[aA]p", "txt ~ '^[aA]p'"),
        ("txt=imatch.^ap", "txt ~* '^ap'"),
        ("txt=match(any).{^The,pie$}", "txt ~ any('{^The,pie$}')"),
        (
            "txt=imatch(all).{^A,\"\\\\(\"}",
            "txt ~* all(array['^A', '\\('])",
        ),
        ("txt=eq.a_b\\c\"d", "txt = 'a_b\\c\"d'"),
        (
            "txt=in.(\"Apfelküchlein, 100% (süß)\",\"a_b\\\\c\\\"d\")",
            "id in (2, 3)",
        ),
        ("txt=eq.", "txt = ''"),
        ("txt=isdistinct.", "txt is distinct from ''"),
        (
            "txt=fts.fox|pie",
            "to_tsvector(txt) @@ to_tsquery('fox|pie')",
        ),
        (
            "txt=fts(english).foxes & !pie",
            "to_tsvector('english', txt) @@ to_tsquery('english', 'foxes & !pie')",
        ),
        (
            "txt=fts(simple).jump",
            "to_tsvector('simple', txt) @@ to_tsquery('simple', 'jump')",
        ),
        (
            "txt=plfts(english).the fox jumps",
            "to_tsvector('english', txt) @@ plainto_tsquery('english', 'the fox jumps')",
        ),
        (
            "txt=phfts(english).brown foxes",
            "to_tsvector('english', txt) @@ phraseto_tsquery('english', 'brown foxes')",
        ),
        (
            "txt=wfts(english).pie or \"brown foxes\"",
            "to_tsvector('english', txt) @@ websearch_to_tsquery('english', 'pie or \"brown foxes\"')",
        ),
        (
            "txt=not.wfts(english).pie",
            "not to_tsvector('english', txt) @@ websearch_to_tsquery('english', 'pie')",
        ),
        (
            "doc=fts(english).dog",
            "to_tsvector('english', doc) @@ to_tsquery('english', 'dog')",
        ),
        (
            "raw=plfts(simple).x",
            "to_tsvector('simple', raw) @@ plainto_tsquery('simple', 'x')",
        ),
        (
            "doc->>t=wfts(english).dog -cat",
            "to_tsvector('english', doc->>'t') @@ websearch_to_tsquery('english', 'dog -cat')",
        ),
        ("bin=gt.\\x00", "bin > '\\x00'"),
        ("uid=in.(00000000-0000-0000-0000-000000000002)", "id = 2"),
        (
            "uid=gt(any).{00000000-0000-0000-0000-000000000001,00000000-0000-0000-0000-000000000002}",
            "id in (2, 3)",
        ),
        (
            "day=gte(all).{2026-01-01,1999-12-31}",
            "day >= all('{2026-01-01,1999-12-31}')",
        ),
        (
            "at=lt.2026-01-02T12:00:00.6Z",
            "at < '2026-01-02 12:00:00.6+00'",
        ),
        ("tags=cs.{b}", "tags @> '{b}'"),
        ("tags=cs.{\"c,d\"}", "tags @> '{\"c,d\"}'"),
        ("tags=cd.{a,b,c}", "tags <@ '{a,b,c}'"),
        ("tags=ov.{a,\"c,d\"}", "tags && '{a,\"c,d\"}'"),
        ("tags=not.ov.{a}", "not tags && '{a}'"),
        ("tags=eq.{NULL,a}", "tags = '{NULL,a}'"),
        ("tags=isdistinct.{}", "tags is distinct from '{}'"),
        ("nums=cs.{2}", "nums @> '{2}'"),
        ("nums=ov.{5,1}", "nums && '{5,1}'"),
        ("nums=lt.{1,3}", "nums < '{1,3}'"),
        ("nums->0=eq.2", "to_jsonb(nums)->0 = '2'"),
        ("nums->>-1=eq.3", "to_jsonb(nums)->>-1 = '3'"),
        ("doc=cs.{\"a\":1}", "doc @> '{\"a\":1}'"),
        ("doc=cs.[10]", "doc @> '[10]'"),
        (
            "doc=cd.{\"a\":2,\"t\":\"a dog\",\"n\":null,\"odd key.x\":\"q\"}",
            "id = 2",
        ),
        ("doc=eq.\"dogs\"", "doc = '\"dogs\"'"),
        (
            "doc=eq(any).{\"\\\"dogs\\\"\",null}",
            "doc = any(array['\"dogs\"', null]::jsonb[])",
        ),
        ("doc=isdistinct.null", "doc is distinct from 'null'"),
        ("doc->a=eq.1", "doc->'a' = '1'"),
        ("doc->a=gt.1", "doc->'a' > '1'"),
        ("doc->>a=eq.2", "doc->>'a' = '2'"),
        ("doc->>a=in.(1,2)", "doc->>'a' in ('1', '2')"),
        ("doc->>t=like.*dog*", "doc->>'t' like '%dog%'"),
        ("doc->>t=is.null", "doc->>'t' is null"),
        ("doc->n=is.null", "doc->'n' is null"),
        ("doc->n=eq.null", "doc->'n' = 'null'"),
        ("doc->n->k=cs.[2]", "doc->'n'->'k' @> '[2]'"),
        (
            "doc->n->k->2->>z=eq.deep",
            "doc->'n'->'k'->2->>'z' = 'deep'",
        ),
        ("doc->n->k->>0=eq.1", "doc->'n'->'k'->>0 = '1'"),
        ("doc->-1->>t=match.array$", "doc->-1->>'t' ~ 'array$'"),
        ("doc->>\"odd key.x\"=eq.q", "doc->>'odd key.x' = 'q'"),
        ("doc->>1=eq.x", "doc->>1 = 'x'"),
        ("raw->>a=eq.1", "raw->>'a' = '1'"),
        ("raw->>1=eq.2", "raw->>1 = '2'"),
        ("raw->a=is.not_null", "raw->'a' is not null"),
        ("or=(n.eq.1,doc->>a.eq.2)", "n = 1 or doc->>'a' = '2'"),
        (
            "or=(tags.cs.{a,b},nums.cd.{2,3,4})",
            "tags @> '{a,b}' or nums <@ '{2,3,4}'",
        ),
        (
            "or=(doc.cs.{\"n\":{\"k\":[1,2]}},txt.like(any).{*pie,x})",
            "id = 1",
        ),
        (
            "and=(n.gt.0,or(txt.ilike.*APPLE*,not.and(flag.is.true,n.lt.100)))",
            "n > 0 and (txt ilike '%apple%' or not (flag is true and n < 100))",
        ),
        (
            "not.or=(n.eq.7,txt.fts(english).pie)",
            "not (n = 7 or to_tsvector('english', txt) @@ to_tsquery('english', 'pie'))",
        ),
        (
            "and=(txt.eq.\"Apfelküchlein, 100% (süß)\", n.not.in.(1,7) )",
            "id = 2",
        ),
        ("or=(txt.eq.a_b\\c\"d,n.eq.1)", "id in (1, 3)"),
    ] {
        let uri = format!("/read/things?select=id&order=id&{}", parameter(filter));
        let rows = bench.rows(&uri).await;
        let found: Vec<i32> = rows
            .iter()
            .map(|r| r["id"].as_i64().unwrap() as i32)
            .collect();
        assert_eq!(found, ids(&bench, condition).await, "{filter}");
    }
}

#[tokio::test]
async fn an_operator_on_a_type_that_it_does_not_fit_is_refused_with_what_fits() {
    let bench = things().await;
    let check = async |query: &str, reason: &str, words: &str| {
        let answer = bench
            .get(&format!("/read/things?{}", parameter(query)))
            .await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.body);
        assert_eq!(answer.reason(), reason, "{query}: {}", answer.body);
        assert!(answer.body.contains(words), "{query}: {}", answer.body);
    };
    check("n=like.1*", "unfit_operator", "type int4").await;
    check(
        "n=match.1",
        "unfit_operator",
        "eq, neq, gt, gte, lt, lte, in, isdistinct",
    )
    .await;
    check("bin=like.a", "unfit_operator", "like works on text").await;
    check("n=fts.1", "unfit_operator", "text, json and jsonb").await;
    check("tags=fts.a", "unfit_operator", "type text[]").await;
    check("txt=cs.a", "unfit_operator", "arrays and jsonb").await;
    check("doc=ov.[1]", "unfit_operator", "ov works on arrays").await;
    check("doc=like.a", "unfit_operator", "type jsonb").await;
    check("doc->a=ilike.a", "unfit_operator", "doc->a").await;
    check("raw=eq.1", "unfit_operator", "declare the column as jsonb").await;
    check("raw->a=eq.1", "unfit_operator", "->>").await;
    check("raw=cs.{}", "unfit_operator", "type json").await;
    check("raw=in.(1)", "unfit_operator", "type json").await;
    check("tags=eq(any).{a}", "unfit_operator", "elements of an array").await;
    check("n=is.true", "unfit_operator", "not bool").await;
    check("doc->a=is.false", "unfit_operator", "not bool").await;
    check("n=neq(any).{1}", "invalid_filter", "neither any nor all").await;
    check(
        "tags=cs(any).{1}",
        "invalid_filter",
        "eq, gt, gte, lt, lte, like",
    )
    .await;
    check("n=eq(none).{1}", "invalid_filter", "any and all").await;
    check("n=adj.1", "unknown_operator", "ranges").await;
    check("txt=ftss.1", "unknown_operator", "did you mean").await;
    check("txt=fts(englisch).a", "unknown_configuration", "english").await;
    check(
        "txt=fts(pg_catalog.english).a",
        "invalid_filter",
        "character 15",
    )
    .await;
    check("n=eq(any).1", "invalid_value", "int4[]").await;
    check("n=eq(any).{1,x}", "invalid_value", "int4").await;
    check("n=eq(any).{{1}}", "invalid_value", "array").await;
    check("day=eq(any).{now}", "invalid_value", "2026-01-31").await;
    check("nums=cs.{1,a}", "invalid_value", "int8[]").await;
    check("doc=cs.{a}", "invalid_value", "JSON").await;
    check("doc->a=eq.x", "invalid_value", "doc->a").await;
    check("txt->a=eq.x", "invalid_path", "a path finds nothing").await;
    check("doc->>a->b=eq.x", "invalid_path", "->> before the last one").await;
    check(
        "or=(docs->a.eq.1)",
        "unknown_column",
        "did you mean \\\"doc\\\"?",
    )
    .await;
    check("nn->a=eq.1", "unknown_column", "character 1").await;
    check("id->=eq.1", "invalid_filter", "a key").await;
    check(
        "lines.price=eq.1",
        "not_embedded",
        "'lines' is not an embedded resource",
    )
    .await;
    check("lines.order=price", "not_embedded", "select").await;
    check("lines.not.or=(a.eq.1)", "not_embedded", "lines").await;
    check("order=lines(price)", "not_embedded", "lines").await;
    check("select=id,lines(*)", "not_related", "character 4").await;
    check("select=txt(*)", "not_related", "without parentheses").await;
    check("select=...lines(price)", "not_related", "lines").await;
}

#[tokio::test]
async fn what_only_postgresql_can_judge_is_still_refused_and_never_an_error() {
    let bench = things().await;
    for query in [
        "txt=match.(",
        "txt=imatch.[z-a]",
        "txt=match.a{99999}",
        "txt=match(any).{(}",
        "txt=like.a\\",
        "txt=fts.fox jumps",
        "txt=fts.!",
        "txt=fts(english).(a",
        "doc->>t=fts.a &",
        "day=eq.2026-02-30",
        "day=eq(any).{2026-02-30}",
        "at=in.(2026-13-01)",
        "f8=eq.1e999",
        "nums=cs.{9223372036854775807,99999999999999999999}",
    ] {
        let answer = bench
            .get(&format!("/read/things?{}", parameter(query)))
            .await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.body);
        assert_eq!(answer.reason(), "invalid_value", "{query}: {}", answer.body);
    }
    let long = format!("txt=fts.{}", "a".repeat(900));
    let answer = bench.get(&format!("/read/things?{long}")).await;
    assert!(
        [200, 400].contains(&answer.status.as_u16()),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn patterns_arrays_and_nesting_are_bounded() {
    let bench = things().await;
    let deep = format!("doc{}=is.null", "->a".repeat(11));
    for (query, reason) in [
        (
            format!("txt=match.{}", "(a*)*".repeat(201)),
            "query_too_large",
        ),
        (format!("txt=like.{}", "*".repeat(1_001)), "query_too_large"),
        (format!("txt=wfts.{}", "a ".repeat(501)), "query_too_large"),
        (
            format!("n=eq(any).{{{}1}}", "1,".repeat(1_000)),
            "query_too_large",
        ),
        (
            format!("nums=cs.{{{}1}}", "1,".repeat(1_000)),
            "query_too_large",
        ),
        (deep, "invalid_path"),
        (
            format!(
                "select=a:id{}",
                (0..300).map(|n| format!(",b{n}:id")).collect::<String>()
            ),
            "query_too_large",
        ),
        (
            format!(
                "order=id{}",
                (0..300).map(|n| format!(",doc->a{n}")).collect::<String>()
            ),
            "query_too_large",
        ),
        (format!("select={}", "a(".repeat(12)), "query_too_large"),
    ] {
        let answer = bench
            .get(&format!("/read/things?{}", parameter(&query)))
            .await;
        let shown: String = query.chars().take(60).collect();
        assert_eq!(
            (answer.status.as_u16(), answer.reason().as_str()),
            (400, reason),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn a_pattern_that_explodes_is_cut_off_by_the_statement_timeout() {
    let bench = Bench::with(gobo::query::Limits::default(), "3s").await;
    bench
        .deploy(1, &model("things", "id int4, txt text?", &["id"]))
        .await;
    bench
        .sql("insert into gobo_g1.things select g, repeat('a', 2001) || 'b' from generate_series(1, 2000) g")
        .await;
    let query = parameter("txt=match.^(a+)(a+)(a+)\\1\\2\\3b$");
    let answer = bench.get(&format!("/read/things?{query}")).await;
    assert_eq!(answer.reason(), "statement_timeout", "{}", answer.body);
}

#[tokio::test]
async fn a_query_beyond_the_cost_limit_is_refused_before_it_runs() {
    let limits = gobo::query::Limits {
        cost: Some(500),
        ..Default::default()
    };
    let bench = Bench::with(limits, PATIENT).await;
    bench
        .deploy(1, &model("things", "id int4, txt text?", &["id"]))
        .await;
    bench
        .sql("insert into gobo_g1.things select g, 'x' from generate_series(1, 100000) g; analyze gobo_g1.things")
        .await;
    assert_eq!(
        bench.rows("/read/things?id=eq.7").await,
        [json!({"id": 7, "txt": "x"})]
    );
    let answer = bench.get("/read/things?order=txt").await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert_eq!(answer.code(), "query_too_costly");
    let context = &answer.json()["context"];
    assert_eq!(context["max_cost"], 500);
    assert!(context["cost"].as_u64().unwrap() > 500, "{}", answer.body);
    assert_eq!(bench.get("/read/things/7").await.status, 200);
}
