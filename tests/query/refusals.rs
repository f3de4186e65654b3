//! Every way in which a query can be wrong: the answer says what, where, and how to mend it.

use super::bench::Bench;
use super::operators::{encoded, parameter, related};
use super::problems::assert_shape;

/// A query, the word for what is wrong with it, and where that is.
const MALFORMED: [(&str, &str, &str); 109] = [
    // What a filter is written like.
    ("id=1", "unknown_operator", "at 1, parameter id"),
    ("id=equals.1", "unknown_operator", "at 1, parameter id"),
    ("id=not.1", "unknown_operator", "at 5, parameter id"),
    ("id=sl.[1,2]", "unknown_operator", "at 1, parameter id"),
    ("id=eq", "invalid_filter", "at 3, parameter id"),
    ("id=eq(some).{1}", "invalid_filter", "at 3, parameter id"),
    ("id=eq(any.{1}", "invalid_filter", "at 7, parameter id"),
    ("id=neq(any).{1}", "invalid_filter", "at 4, parameter id"),
    ("id=in.1", "invalid_filter", "at 4, parameter id"),
    ("id=in.(1", "invalid_filter", "at 6, parameter id"),
    ("id=in.(1)x", "invalid_filter", "at 7, parameter id"),
    ("txt=in.(\"a)", "invalid_filter", "at 5, parameter txt"),
    ("txt=is.nothing", "invalid_filter", "at 4, parameter txt"),
    (
        "txt=fts(english.x",
        "invalid_filter",
        "at 12, parameter txt",
    ),
    ("or=", "invalid_filter", "at 1, parameter or"),
    ("or=()", "invalid_filter", "at 2, parameter or"),
    ("or=(id.eq.1", "invalid_filter", "at 9, parameter or"),
    ("or=(id.eq.1,", "invalid_filter", "at 10, parameter or"),
    ("or=(id.eq.1))", "invalid_filter", "at 10, parameter or"),
    ("or=(id)", "invalid_filter", "at 4, parameter or"),
    ("or=(id.is.1)", "invalid_filter", "at 8, parameter or"),
    ("and=id.eq.1", "invalid_filter", "at 1, parameter and"),
    (
        "not.or=(txt.eq.\"x)",
        "invalid_filter",
        "at 9, parameter not.or",
    ),
    ("=eq.1", "invalid_filter", "in query string"),
    ("id:x=eq.1", "invalid_filter", "at 3, parameter id:x"),
    ("doc->=eq.1", "invalid_filter", "at 6, parameter doc->"),
    (
        "doc->--1=eq.1",
        "invalid_filter",
        "at 6, parameter doc->--1",
    ),
    (
        "doc->99999999999=eq.1",
        "invalid_filter",
        "at 6, parameter doc->99999999999",
    ),
    ("things.=eq.1", "invalid_filter", "at 8, parameter things."),
    // Names, types and values.
    ("txtt=eq.1", "unknown_column", "at 1, parameter txtt"),
    (
        "nothing_like_it=eq.1",
        "unknown_column",
        "at 1, parameter nothing_like_it",
    ),
    (
        "or=(nothing_like_it.eq.1)",
        "unknown_column",
        "at 2, parameter or",
    ),
    (
        "select=nothing_like_it",
        "unknown_column",
        "at 1, parameter select",
    ),
    (
        "order=nothing_like_it",
        "unknown_column",
        "at 1, parameter order",
    ),
    ("id=eq.x", "invalid_value", "at 4, parameter id"),
    ("id=in.(1,x)", "invalid_value", "at 7, parameter id"),
    ("id=eq(any).{1,x}", "invalid_value", "at 9, parameter id"),
    ("nums=cs.1,2", "invalid_value", "at 4, parameter nums"),
    ("id=eq.null", "invalid_value", "at 4, parameter id"),
    ("txt=like.a\\", "invalid_value", "at 6, parameter txt"),
    ("id=like.1", "unfit_operator", "at 6, parameter id"),
    ("raw=eq.1", "unfit_operator", "at 4, parameter raw"),
    ("txt=cs.x", "unfit_operator", "at 4, parameter txt"),
    ("txt=is.true", "unfit_operator", "at 4, parameter txt"),
    ("tags=eq(any).{a}", "unfit_operator", "at 9, parameter tags"),
    ("id=fts.x", "unfit_operator", "at 5, parameter id"),
    (
        "txt=fts(klingon).x",
        "unknown_configuration",
        "at 5, parameter txt",
    ),
    ("txt->a=eq.1", "invalid_path", "at 1, parameter txt->a"),
    (
        "select=doc->>a->b",
        "invalid_path",
        "at 1, parameter select",
    ),
    (
        "select=doc->a->a->a->a->a->a->a->a->a->a->a",
        "invalid_path",
        "at 1, parameter select",
    ),
    // Only PostgreSQL knows that these are wrong.
    ("day=eq.2026-02-30", "invalid_value", "column day"),
    (
        "or=(id.eq.1,day.eq.2026-02-30)",
        "invalid_value",
        "column day",
    ),
    ("num=eq.1e999999", "invalid_value", "column num"),
    ("txt=match.(", "invalid_value", "in query string"),
    ("txt=fts.(", "invalid_value", "in query string"),
    ("select=txt::int4", "invalid_value", "in query string"),
    // What is shown.
    ("select=id,,txt", "invalid_select", "at 4, parameter select"),
    ("select=id)", "invalid_select", "at 3, parameter select"),
    ("select=id::", "invalid_select", "at 5, parameter select"),
    ("select=id::intt", "unknown_type", "at 5, parameter select"),
    ("select=id::uuid", "invalid_cast", "at 5, parameter select"),
    (
        "select=id.sum()::uuid",
        "invalid_cast",
        "at 11, parameter select",
    ),
    ("select=id.sum", "invalid_select", "at 4, parameter select"),
    (
        "select=id.median()",
        "unknown_function",
        "at 4, parameter select",
    ),
    (
        "select=txt.sum()",
        "unfit_function",
        "at 1, parameter select",
    ),
    (
        "select=doc.max()",
        "unfit_function",
        "at 1, parameter select",
    ),
    (
        "select=raw,count()",
        "invalid_select",
        "at 1, parameter select",
    ),
    ("select=\"id", "invalid_select", "at 1, parameter select"),
    ("select=doc->(a", "invalid_select", "at 6, parameter select"),
    ("select=id,id", "invalid_select", "at 4, parameter select"),
    // Embeds.
    (
        "select=id,nots(note)",
        "not_related",
        "at 4, parameter select",
    ),
    (
        "select=id,txt(note)",
        "not_related",
        "at 4, parameter select",
    ),
    (
        "select=notes!nobody(note)",
        "not_related",
        "at 7, parameter select",
    ),
    (
        "select=notes!thing(note",
        "invalid_select",
        "at 17, parameter select",
    ),
    (
        "select=notes!thing",
        "invalid_select",
        "at 12, parameter select",
    ),
    (
        "select=notes!thing!other(note)",
        "invalid_select",
        "at 13, parameter select",
    ),
    (
        "select=id,...notes!thing(count())",
        "not_supported",
        "at 7, parameter select",
    ),
    (
        "select=id,n(txt.max())",
        "not_supported",
        "at 4, parameter select",
    ),
    (
        "select=count(),notes!thing(note)",
        "not_supported",
        "at 9, parameter select",
    ),
    (
        "select=id,notes!thing(nte)",
        "unknown_column",
        "at 16, parameter select",
    ),
    (
        "notes.note=eq.x",
        "not_embedded",
        "at 1, parameter notes.note",
    ),
    ("order=notes(note)", "not_embedded", "at 1, parameter order"),
    (
        "select=id,notes!thing(note)&order=notes(note)",
        "related_order",
        "at 1, parameter order",
    ),
    (
        "select=count()&order=n(txt)",
        "not_supported",
        "at 1, parameter order",
    ),
    (
        "select=id,notes!thing(note)&notes=eq.x",
        "invalid_embed_filter",
        "at 1, parameter notes",
    ),
    (
        "select=id,notes!thing(note)&notes.limit=x",
        "invalid_limit",
        "at 1, parameter notes.limit",
    ),
    (
        "select=id,things(id,things(id,things(id)))",
        "query_too_large",
        "at 4, parameter select",
    ),
    (
        "select=n(n(n(n(n(id)))))",
        "query_too_large",
        "at 11, parameter select",
    ),
    // Order and pages.
    ("order=id.up", "invalid_order", "at 4, parameter order"),
    ("order=id,", "invalid_order", "at 4, parameter order"),
    ("order=id txt", "unknown_column", "at 1, parameter order"),
    ("order=id(txt", "invalid_order", "at 7, parameter order"),
    ("order=id,id.desc", "invalid_order", "at 4, parameter order"),
    ("order=raw", "invalid_order", "at 1, parameter order"),
    (
        "select=txt,count()&order=id",
        "invalid_order",
        "at 1, parameter order",
    ),
    (
        "select=txt,count()&order=txt,txt",
        "invalid_order",
        "at 5, parameter order",
    ),
    ("limit=ten", "invalid_limit", "at 1, parameter limit"),
    ("offset=-1", "invalid_offset", "at 1, parameter offset"),
    (
        "limit=1&limit=2",
        "duplicate_parameter",
        "at 1, parameter limit",
    ),
    ("cursor=x", "invalid_cursor", "at 1, parameter cursor"),
    (
        "cursor=x&select=count()",
        "invalid_cursor",
        "at 1, parameter cursor",
    ),
    (
        "cursor=x&offset=1",
        "invalid_offset",
        "at 1, parameter offset",
    ),
    (
        "cursor=x&select=id,n(id)&order=n(id)",
        "invalid_cursor",
        "at 1, parameter cursor",
    ),
    // What else there is to say.
    (
        "min_position=x",
        "invalid_min_position",
        "at 1, parameter min_position",
    ),
    ("max_lag=5", "invalid_max_lag", "at 1, parameter max_lag"),
    ("wait=61s", "invalid_wait", "at 1, parameter wait"),
    ("as_of=X", "invalid_as_of", "at 1, parameter as_of"),
    (
        "as_of=5&max_lag=1s",
        "unsupported_parameter",
        "at 1, parameter max_lag",
    ),
    (
        "columns=id",
        "unsupported_parameter",
        "at 1, parameter columns",
    ),
];

async fn check(bench: &Bench, uri: &str, headers: &[(&str, &str)], reason: &str, place: &str) {
    let answer = bench.send("GET", uri, headers).await;
    let shown: String = uri.chars().take(200).collect();
    let what = format!("{shown} {headers:?}: {}", answer.body);
    assert_eq!(
        (answer.status.as_u16(), &*answer.reason()),
        (400, reason),
        "{what}"
    );
    assert_shape(&answer, &what);
    assert_eq!(answer.json()["details"], place, "{what}");
    assert!(answer.body.len() < 5_000, "{what}");
}

#[tokio::test]
async fn every_malformed_query_is_answered_with_its_place_and_a_hint() {
    let bench = related().await;
    for (query, reason, place) in MALFORMED {
        let query: Vec<String> = query.split('&').map(parameter).collect();
        let uri = format!("/read/things?{}", query.join("&"));
        check(&bench, &uri, &[], reason, place).await;
    }
}

#[tokio::test]
async fn a_path_a_header_and_bytes_that_are_wrong_are_told_with_their_place_and_a_hint() {
    let bench = related().await;
    for (path, reason, place) in [
        ("things/x", "invalid_value", "in path"),
        ("things/1,2", "invalid_key", "in path"),
        ("things/1/2", "invalid_key", "in path"),
        ("things/%FF", "invalid_encoding", "in path"),
        ("%zz", "invalid_encoding", "in path"),
        (
            "things/1?id=eq.1",
            "unsupported_parameter",
            "at 1, parameter id",
        ),
        (
            "things/1?not.or=(id.eq.1,id.eq.2)",
            "unsupported_parameter",
            "at 2, parameter not.or",
        ),
        (
            "things/1?order=id",
            "unsupported_parameter",
            "at 1, parameter order",
        ),
        (
            "things/1?limit=1",
            "unsupported_parameter",
            "at 1, parameter limit",
        ),
        (
            "things/1?select=count()",
            "invalid_select",
            "at 1, parameter select",
        ),
        (
            "things?txt=eq.a%00b",
            "invalid_encoding",
            "at 1, parameter txt",
        ),
        (
            "things?txt=eq.%FF",
            "invalid_encoding",
            "at 1, parameter txt",
        ),
        (
            "things?txt=eq.%zz",
            "invalid_encoding",
            "at 1, parameter txt",
        ),
        ("things?%FF=eq.1", "invalid_encoding", "in query string"),
    ] {
        check(&bench, &format!("/read/{path}"), &[], reason, place).await;
    }
    let strict = [("prefer", "handling=strict, nonsense")];
    let nonsense = "Invalid preferences: nonsense";
    check(
        &bench,
        "/read/things",
        &strict,
        "invalid_preferences",
        nonsense,
    )
    .await;
    let position = [("gobo-min-position", "soon")];
    let header = "header Gobo-Min-Position";
    check(
        &bench,
        "/read/things",
        &position,
        "invalid_min_position",
        header,
    )
    .await;
}

#[tokio::test]
async fn a_query_that_is_too_large_is_told_where_and_how_to_ask_for_less() {
    let bench = related().await;
    let many = |count: usize, one: &str, between: &str| vec![one; count].join(between);
    let long = |name: &str, value: String| format!("{name}={}", encoded(&value));
    for (query, reason, place) in [
        (many(40_000, "x", ""), "query_too_large", "in query string"),
        (
            many(101, "id=eq.1", "&"),
            "query_too_large",
            "at 1, parameter id",
        ),
        (
            long("id", format!("in.({})", many(1_001, "1", ","))),
            "query_too_large",
            "at 2005, parameter id",
        ),
        (
            long("nums", format!("cs.{{{}}}", many(1_001, "1", ","))),
            "query_too_large",
            "at 4, parameter nums",
        ),
        (
            long("txt", format!("match.{}", many(1_001, "x", ""))),
            "query_too_large",
            "at 7, parameter txt",
        ),
        (
            long("select", many(301, "id", ",")),
            "query_too_large",
            "at 901, parameter select",
        ),
        (
            long("order", many(301, "id", ",")),
            "query_too_large",
            "at 901, parameter order",
        ),
        (
            long("or", format!("({}", many(11, "or(", ""))),
            "invalid_filter",
            "at 31, parameter or",
        ),
        (
            format!(
                "select=id,up:n!inner(id)&{}",
                many(100, "up=not.is.null", "&")
            ),
            "query_too_large",
            "at 7, parameter select",
        ),
    ] {
        let uri = format!("/read/things?{query}");
        check(&bench, &uri, &[], reason, place).await;
    }
    // Refused before it is looked at, however long its name is.
    let name = many(5_000, "x", "");
    for query in [
        format!("{name}=eq.1"),
        format!("{name}.or=x"),
        format!("{name}.limit=x"),
    ] {
        let answer = bench.get(&format!("/read/things?{query}")).await;
        assert_eq!(answer.status, 400);
        assert!(answer.body.len() < 2_000, "{}", answer.body);
    }
}
