//! Attacks on every place of the grammar: none is an error of the engine, none changes a table, none waits.

use serde_json::json;

use super::bench::Bench;
use super::operators::{encoded, related, things};
use super::problems::assert_shape;
use crate::scene::{Scene, raw};

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
const OTHERS: [&str; 12] = [
    "offset=@",
    "cursor=@",
    "min_position=@",
    "max_lag=@",
    "live=@",
    "last_event_id=@",
    "wait=@",
    "as_of=@",
    "select=%22@%22:count(),doc->%22@%22&order=%22@%22",
    "select=txt,%22@%22:id.sum()::text&order=%22@%22.desc",
    "select=%22@%22:id&order=%22@%22&limit=1",
    "select=x:txt.max()::@",
];

/// Where it can stand in what is asked of rows that are embedded: notes of a thing, and the thing that one refers to.
const EMBEDS: [&str; 52] = [
    "select=@:notes!thing(note)",
    "select=%22@%22:notes!thing(note)",
    "select=%22@%22:n(txt),%22x@%22:notes!others(note)",
    "select=@(note)",
    "select=notes!@(note)",
    "select=notes!%22@%22(note)",
    "select=notes!thing!@(note)",
    "select=id,notes!thing(@)",
    "select=id,notes!thing(@:note)",
    "select=id,notes!thing(%22@%22:note,%22x@%22:thing)",
    "select=id,notes!thing(note::@)",
    "select=id,notes!thing(%22@%22:count(),x:note.max()::@)",
    "select=...@(txt)",
    "select=...n(@)",
    "select=...n(%22@%22:txt)",
    "select=id,...n(%22@%22:doc->%22@%22,y:doc->>@)",
    "select=id,n(things(%22@%22:n(txt)))&n.things.%22@%22.txt=eq.@",
    "select=id,notes!thing(note)&notes.note=eq.@",
    "select=id,notes!thing(note)&notes.note=@",
    "select=id,notes!thing(note)&notes.note=@.1",
    "select=id,notes!thing(note)&notes.note=not.@.1",
    "select=id,notes!thing(note)&notes.note=in.(%22@%22,@)",
    "select=id,notes!thing(note)&notes.note=fts(@).x",
    "select=id,notes!thing(note)&notes.note=imatch.@",
    "select=id,notes!thing(note)&notes.note=like(any).{%22@%22}",
    "select=id,notes!thing(note)&notes.@=eq.1",
    "select=id,notes!thing(note)&notes.@.limit=1",
    "select=id,notes!thing(note)&@.note=eq.x",
    "select=id,notes!thing(note)&notes.or=@",
    "select=id,notes!thing(note)&notes.or=(@)",
    "select=id,notes!thing(note)&notes.or=(note.eq.%22@%22,note.not.like.%22@%22)",
    "select=id,notes!thing(note)&notes.not.and=(note.eq.@)",
    "select=id,notes!thing(note)&notes.order=@",
    "select=id,notes!thing(note)&notes.order=note.@",
    "select=id,notes!thing(%22@%22:note)&notes.order=%22@%22.desc",
    "select=id,notes!thing(note)&notes.limit=@",
    "select=id,notes!thing(note)&notes.offset=@",
    "select=id,notes!thing()&notes=@",
    "select=id,notes!thing()&notes=is.@",
    "select=id,notes!thing()&notes=not.@",
    "select=id,notes!thing()&notes=not.is.@",
    "select=id,notes!thing()&or=(notes.@,id.eq.1)",
    "select=id,%22@%22:notes!thing()&%22@%22=not.is.null",
    "select=id,%22@%22:notes!thing()&or=(%22@%22.is.null,txt.eq.%22@%22)",
    "select=id,n!inner(doc)&n.doc->>@=eq.1",
    "select=id,n!inner(doc)&n.doc->%22@%22=not.is.null",
    "select=id,n(doc)&n.tags=cs.{%22@%22}&n.doc=cs.@",
    "select=id,n(txt)&order=n(@)",
    "select=id,n(txt)&order=n(txt).@",
    "select=id,n(txt)&order=@(txt)",
    "select=id,%22@%22:n(txt)&order=%22@%22(txt).desc",
    "select=id,n(doc)&order=n(doc->>%22@%22).desc",
];

/// Headers that a read looks at.
const HEADERS: [&str; 9] = [
    "accept",
    "accept-profile",
    "prefer",
    "range",
    "range-unit",
    "if-none-match",
    "gobo-min-position",
    "last-event-id",
    "origin",
];

async fn is_intact(bench: &Bench, before: &str) {
    assert_eq!(fingerprint(bench).await, before);
}

async fn fingerprint(bench: &Bench) -> String {
    let query = "select (select md5(string_agg(t::text, '')) from gobo_g1.things t)
        || (select string_agg(oid::text, ',' order by oid) from pg_class where relnamespace::regnamespace::text like 'gobo%')";
    bench.admin.query_one(query, &[]).await.unwrap().get(0)
}

/// Asks with each attack at each place; gives how many were answered with rows, so that the attack was in a statement.
async fn attack(bench: &Bench, places: &[&str]) -> usize {
    let mut answered = 0;
    for attack in ATTACKS {
        let text = encoded(attack);
        for place in places {
            let query = place.replace('>', "%3E").replace('@', &text);
            let answer = bench.get(&format!("/read/things?{query}")).await;
            let status = answer.status.as_u16();
            let what = format!("{place} {attack}: {status} {}", answer.body);
            assert!([200, 400, 404, 416].contains(&status), "{what}");
            match status {
                200 => answered += 1,
                _ => assert_shape(&answer, &what),
            }
        }
    }
    answered
}

#[tokio::test]
async fn an_attack_on_any_place_of_a_query_is_refused_or_stays_text() {
    let bench = things().await;
    let before = fingerprint(&bench).await;
    let answered = attack(&bench, &[&PLACES[..], &OTHERS].concat()).await;
    assert!(answered > 500, "{answered}");
    for attack in ATTACKS {
        let text = encoded(attack);
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
    }
    is_intact(&bench, &before).await;
}

#[tokio::test]
async fn an_attack_on_any_place_of_an_embed_is_refused_or_stays_text() {
    let bench = related().await;
    let before = fingerprint(&bench).await;
    let answered = attack(&bench, &EMBEDS).await;
    assert!(answered > 300, "{answered}");
    is_intact(&bench, &before).await;
}

#[tokio::test]
async fn an_attack_in_a_header_is_refused_or_stays_text() {
    let bench = things().await;
    let before = fingerprint(&bench).await;
    for attack in ATTACKS {
        for header in HEADERS {
            for value in [
                attack.to_owned(),
                format!("count={attack}"),
                format!("\"{attack}\""),
                format!("0-{attack}"),
                format!("1{attack}"),
            ] {
                // Not every byte can stand in a header.
                if axum::http::HeaderValue::from_str(&value).is_err() {
                    continue;
                }
                let headers = [(header, value.as_str())];
                let answer = bench.send("GET", "/read/things?id=eq.1", &headers).await;
                let status = answer.status.as_u16();
                let what = format!("{header}: {value}: {status} {}", answer.body);
                assert!(status < 500, "{what}");
                if status >= 400 {
                    assert_shape(&answer, &what);
                }
            }
        }
    }
    is_intact(&bench, &before).await;
}

/// Rows and changes of them, over a running engine: those who follow say with an id where they go on, and what changed is
/// compared with their conditions by statements of its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_attack_by_those_who_follow_is_refused_or_stays_text() {
    let scene = Scene::new("", &["raw-guest"]).await;
    let put = |n: i64| raw("s", json!({"do": "put", "id": "a", "n": n}));
    let last = scene.append(&[put(1)]).await[0];
    scene.wait_for("raw", last);
    let begun = scene.gobo.get("/read/raw?live=poll&wait=0ms").expect(200);
    let id = begun.json()["id"].as_str().unwrap().to_owned();
    let last = scene.append(&[put(2)]).await[0];
    scene.wait_for("raw", last);
    for attack in ATTACKS {
        let text = encoded(attack);
        for query in [
            format!("live={text}"),
            format!("live=poll&wait={text}"),
            format!("live=poll&wait=0ms&last_event_id={text}"),
            format!("live=changes&last_event_id={text}"),
            format!("live=rows&last_event_id={id}{text}"),
            format!("live=poll&wait=0ms&last_event_id={id}&id=eq.{text}"),
            format!("live=poll&wait=0ms&last_event_id={id}&id=match.{text}"),
            format!(
                "live=poll&wait=0ms&last_event_id={id}&or=(id.eq.%22{text}%22,id.neq.%22{text}%22)"
            ),
            format!("live=poll&wait=0ms&last_event_id={id}&select=%22{text}%22:id"),
            format!("live=poll&wait=0ms&last_event_id={id}&{text}=eq.1"),
            format!("last_event_id={text}"),
            format!("min_position={text}"),
            format!("max_lag={text}"),
            format!("max_lag=1s&wait={text}"),
        ] {
            let answer = scene.gobo.get(&format!("/read/raw?{query}"));
            assert!([200, 400].contains(&answer.status), "{query}: {answer:?}");
        }
        if axum::http::HeaderValue::from_str(attack).is_ok_and(|value| value.to_str().is_ok()) {
            let headers = [("last-event-id", attack)];
            let path = "/read/raw?live=poll&wait=0ms";
            let answer = scene.gobo.request("GET", path, &headers, b"");
            assert_eq!(answer.status, 200, "{attack}: {answer:?}");
        }
    }
    let rows = scene.gobo.get("/read/raw?select=id").expect(200).json();
    assert_eq!(rows, json!([{"id": "a"}]));
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
