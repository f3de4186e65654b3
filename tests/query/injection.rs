//! Attacks on every place of the grammar: none is an error of the engine, none changes a table, none waits.

use super::bench::Bench;
use super::operators::{encoded, things};

const ATTACKS: [&str; 26] = [
    "'; drop table gobo_g1.things; --",
    "\"; drop table gobo_g1.things; --",
    "1) or (1=1",
    "1); delete from gobo_g1.things; --",
    "$1",
    "$1::text",
    "{1}\"'",
    "\\'; select pg_sleep(10); --",
    "id\" from gobo.read_models; --",
    "*/ or 1=1 /*",
    "t.id",
    "*",
    "pg_sleep(10)",
    "(select pg_sleep(10))",
    "int4) from pg_authid --",
    "text; drop table gobo_g1.things",
    "english'::regconfig, 'x') or true or ('",
    "a'->'b",
    "a->>'b' is null or true or '",
    "%s%s%n%1$s",
    "\u{ff07}; drop table gobo_g1.things; --",
    "E'\\x27'",
    "U&\"\\0061\"",
    "$$; drop table gobo_g1.things; $$",
    "\u{202e}",
    "\n;\r\tdrop table gobo_g1.things",
];

/// Where a reader's text can stand; `@` is the text, percent-encoded.
const PLACES: [&str; 62] = [
    "@=eq.1",
    "@.id=eq.1",
    "id.@=eq.1",
    "%22@%22=eq.1",
    "doc->@=eq.1",
    "doc->>@=eq.1",
    "doc->>%22@%22=eq.x",
    "doc->%22@%22->>a=like.x",
    "doc->a->@->b=is.null",
    "id=@",
    "id=@.1",
    "id=not.@.1",
    "id=eq.@",
    "id=eq(@).1",
    "id=eq(any).@",
    "id=eq(any).{@}",
    "txt=eq.@",
    "txt=neq.@",
    "txt=gte.@",
    "txt=isdistinct.@",
    "txt=like.@",
    "txt=ilike.*@*",
    "txt=like(any).{@,x}",
    "txt=ilike(all).{%22@%22}",
    "txt=match.@",
    "txt=imatch(any).{@}",
    "txt=fts.@",
    "txt=fts(@).x",
    "txt=plfts(english).@",
    "txt=phfts(simple).@",
    "txt=wfts(english).@",
    "doc=fts.@",
    "txt=in.(@)",
    "txt=in.(%22@%22)",
    "txt=is.@",
    "tags=cs.@",
    "tags=cs.{@}",
    "tags=cd.{%22@%22}",
    "tags=ov.{@}",
    "doc=cs.@",
    "doc=cs.%22@%22",
    "doc=cd.{%22a%22:%22@%22}",
    "or=@",
    "or=(@)",
    "or=(@.eq.1)",
    "or=(%22@%22.eq.1)",
    "or=(doc->@.eq.1,txt.eq.@)",
    "and=(txt.@.1)",
    "not.or=(txt.fts(@).x)",
    "@.or=(id.eq.1)",
    "select=@",
    "select=%22@%22",
    "select=@:id",
    "select=%22@%22:id,x:%22@%22",
    "select=id::@",
    "select=doc->@,x:doc->>%22@%22",
    "select=id.@()",
    "select=@(id)&@.order=id",
    "order=@",
    "order=id.@",
    "order=doc->>%22@%22.desc,doc->@",
    "limit=@",
];

/// More of them, which are not about conditions.
const OTHERS: [&str; 9] = [
    "offset=@",
    "cursor=@",
    "min_position=@",
    "wait=@",
    "as_of=@",
    "select=%22@%22:count(),doc->%22@%22&order=%22@%22",
    "select=txt,%22@%22:id.sum()::text&order=%22@%22.desc",
    "select=%22@%22:id&order=%22@%22&limit=1",
    "select=x:txt.max()::@",
];

async fn is_intact(bench: &Bench, before: &str) {
    assert_eq!(fingerprint(bench).await, before);
}

async fn fingerprint(bench: &Bench) -> String {
    let query = "select (select md5(string_agg(t::text, '')) from gobo_g1.things t)
        || (select string_agg(oid::text, ',' order by oid) from pg_class where relnamespace::regnamespace::text like 'gobo%')";
    bench.admin.query_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn an_attack_on_any_place_of_a_query_is_refused_or_stays_text() {
    let bench = things().await;
    let before = fingerprint(&bench).await;
    for attack in ATTACKS {
        let text = encoded(attack);
        for place in PLACES.iter().chain(&OTHERS) {
            let uri = format!(
                "/read/things?{}",
                place.replace('>', "%3E").replace('@', &text)
            );
            let answer = bench.get(&uri).await;
            let status = answer.status.as_u16();
            assert!(
                [200, 400, 404, 416].contains(&status),
                "{place} {attack}: {status} {}",
                answer.body
            );
            if status != 200 {
                assert!(
                    !answer.code().is_empty(),
                    "{place} {attack}: {}",
                    answer.body
                );
            }
        }
        for uri in [
            format!("/read/things/{text}"),
            format!("/read/{text}"),
            format!("/read/{text}/{text}"),
        ] {
            let answer = bench.get(&uri).await;
            assert!(
                [400, 404].contains(&answer.status.as_u16()),
                "{uri}: {}",
                answer.body
            );
        }
        for header in ["accept", "prefer", "range", "if-none-match"] {
            let Ok(value) = axum::http::HeaderValue::from_str(attack) else {
                continue;
            };
            let Ok(value) = value.to_str() else { continue };
            for value in [
                value.to_owned(),
                format!("count={value}"),
                format!("\"{value}\""),
                format!("0-{value}"),
            ] {
                let answer = bench
                    .send("GET", "/read/things?id=eq.1", &[(header, &value)])
                    .await;
                assert!(
                    answer.status.as_u16() < 500,
                    "{header}: {value}: {}",
                    answer.body
                );
            }
        }
    }
    is_intact(&bench, &before).await;
}

#[tokio::test]
async fn a_condition_that_is_always_true_cannot_be_smuggled_in() {
    let bench = things().await;
    // Each would find rows if any of its text became SQL; as a value it finds none.
    for query in [
        "txt=eq.x' or 'a'='a",
        "txt=eq.x\"\" or true",
        "txt=in.(\"x') or ('a'='a\")",
        "txt=like.x' or true --",
        "txt=fts(english).nowhere",
        "doc->>a' is null or 'x=eq.x",
        "doc->>\"' is null or '\"=eq.x",
        "tags=cs.{\"x'} or true\"}",
        "or=(txt.eq.\"x' or true --\",txt.eq.\"x) or (true\")",
        "txt=eq(any).{\"x'::text} or true --\"}",
    ] {
        let (name, value) = query.split_once('=').unwrap();
        let uri = format!("/read/things?{}={}", encoded(name), encoded(value));
        let answer = bench.get(&uri).await;
        let is_empty = answer.status == 200 && answer.body == "[]";
        assert!(is_empty || answer.status == 400, "{query}: {}", answer.body);
    }
}
