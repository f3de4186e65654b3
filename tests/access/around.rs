//! Ways around a row rule, and that there are none: whatever is asked, the answer is the one that an administrator gets who
//! asks for the same and for the visible rows alone.

use gobo_tests::{Answer, wait_until};
use serde_json::{Value, json};

use super::rows::{order, shop};
use super::{Guarded, bearer, jwt_for};
use crate::scene::append;

const RULE: &str = "[read_models.orders]\nrows = \"user_id = claim.sub\"";

/// Somebody's requests.
struct Asks<'g> {
    guarded: &'g Guarded,
    token: String,
}

impl Asks<'_> {
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let bearer = bearer(&self.token);
        let headers = [headers, &[("authorization", bearer.as_str())]].concat();
        self.guarded.gobo.request(method, path, &headers, b"")
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[])
    }
}

fn people(guarded: &Guarded) -> [Asks<'_>; 3] {
    let somebody = |name: &str| Asks {
        guarded,
        token: jwt_for(json!({"role": "read", "sub": name})),
    };
    let admin = Asks {
        guarded,
        token: guarded.admin.clone(),
    };
    [somebody("alice"), somebody("bob"), admin]
}

/// What an answer says of rows: the rest is about freshness, or names the query.
fn told(answer: &Answer) -> (u16, String, Option<String>) {
    let range = answer.header("content-range").map(str::to_owned);
    (answer.status, answer.text(), range)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_shows_more_than_the_visible_rows() {
    let shop = shop(RULE).await;
    let [alice, _, admin] = people(&shop);
    let queries = [
        "select=*",
        "select=order_id,user_id&order=user_id.desc",
        "user_id=eq.bob",
        "user_id=neq.alice",
        "user_id=in.(bob,alice)",
        "user_id=not.is.null",
        "or=(user_id.eq.bob,user_id.eq.alice)",
        "or=(user_id.eq.alice,order_id.gte.a)",
        "not.and=(user_id.eq.alice,price.gt.0)",
        "and=(or(user_id.eq.bob,price.gt.0),not.or(order_id.eq.a1))",
        "user_id=eq.alice&user_id=eq.bob",
        "order_id=eq.b1",
        "order_id=like.b*",
        "price=gt.1&order=price.desc&limit=2",
        "order=price&offset=1",
        "order=price&limit=1&offset=4",
        "limit=0",
        "select=_position,order_id&_position=gte.2",
        "order=created_at.desc.nullsfirst",
        "select=count()",
        "select=price.sum(),price.max(),order_id.min()",
        "select=user_id,count()",
        "select=user_id,price.avg()&order=user_id",
        "select=price::text,who:user_id",
        "user_id=match.^b",
        "user_id=like(any).{b*,a*}",
        "order_id=isdistinct.a1",
        "symbol=fts(english).s",
        "user_id=fts.bob",
        "user_id=not.plfts(simple).alice",
    ];
    for query in queries {
        for count in ["exact", "planned", "estimated"] {
            for accept in [
                "application/json",
                "text/csv",
                "application/vnd.pgrst.object+json",
            ] {
                for method in ["GET", "HEAD"] {
                    let prefer = format!("count={count}");
                    let headers = [("prefer", prefer.as_str()), ("accept", accept)];
                    let seen = alice.ask(method, &format!("/read/orders?{query}"), &headers);
                    // An administrator's counts may be the planner's: theirs are compared exactly.
                    let headers = [("prefer", "count=exact"), ("accept", accept)];
                    let expected = admin.ask(
                        method,
                        &format!("/read/orders?{query}&user_id=eq.alice"),
                        &headers,
                    );
                    assert_eq!(
                        told(&seen),
                        told(&expected),
                        "{method} {query} {count} {accept}"
                    );
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_cursors_reach_no_hidden_row() {
    let shop = shop(RULE).await;
    let [alice, bob, admin] = people(&shop);
    for range in ["0-0", "1-2", "0-99", "3-4"] {
        let headers = [
            ("range", range),
            ("range-unit", "items"),
            ("prefer", "count=exact"),
        ];
        let seen = alice.ask("GET", "/read/orders?order=price", &headers);
        let expected = admin.ask("GET", "/read/orders?order=price&user_id=eq.alice", &headers);
        assert_eq!(told(&seen), told(&expected), "{range}");
    }
    // A cursor of somebody else says where to go on, and not what is seen there.
    let page = admin
        .get("/read/orders?select=order_id&order=price&limit=1")
        .expect(200);
    let cursor = page.header("gobo-next-cursor").unwrap();
    let path = format!("/read/orders?select=order_id&order=price&limit=2&cursor={cursor}");
    assert_eq!(
        bob.get(&path).expect(200).json(),
        json!([{"order_id": "b1"}, {"order_id": "b2"}])
    );
    assert_eq!(
        alice.get(&path).expect(200).json(),
        json!([{"order_id": "a2"}, {"order_id": "a3"}])
    );
    // The last visible row is the last: nothing says that there are more.
    let all = alice.get("/read/orders?order=price&limit=3").expect(200);
    assert!(
        all.header("gobo-next-cursor").is_none() && all.header("link").is_none(),
        "{all:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_row_is_answered_as_one_that_does_not_exist() {
    let shop = shop(RULE).await;
    let [alice, ..] = people(&shop);
    alice.get("/read/orders/a1").expect(200);
    for query in ["", "?select=price", "?min_position=1"] {
        let hidden = alice.get(&format!("/read/orders/b1{query}"));
        let absent = alice.get(&format!("/read/orders/zz{query}"));
        assert_eq!(hidden.status, 404, "{query}");
        assert_eq!(hidden.text().replace("b1", "zz"), absent.text(), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_was_shown_is_not_confirmed_to_another() {
    let shop = shop(RULE).await;
    let [alice, bob, admin] = people(&shop);
    for path in [
        "/read/orders",
        "/read/orders?select=order_id",
        "/read/orders/b1",
    ] {
        for other in [&bob, &admin] {
            let theirs = other.get(path).expect(200);
            let tag = theirs.header("etag").unwrap();
            let answer = alice.ask("GET", path, &[("if-none-match", tag)]);
            assert_ne!(answer.status, 304, "{path}");
            assert!(!answer.text().contains("bob"), "{path}: {}", answer.text());
        }
    }
    // Asked again and again by everybody, which is when answers come from a cache.
    for _ in 0..3 {
        let seen = |who: &Asks<'_>| {
            let rows = who.get("/read/orders?select=user_id").expect(200).json();
            let mut users: Vec<String> = rows
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["user_id"].to_string())
                .collect();
            users.dedup();
            users
        };
        assert_eq!(seen(&alice), ["\"alice\""]);
        assert_eq!(seen(&bob), ["\"bob\""]);
        assert_eq!(seen(&admin).len(), 2);
        alice.get("/read/orders/b1").expect(404);
        bob.get("/read/orders/b1").expect(200);
    }
    let tag = alice
        .get("/read/orders")
        .expect(200)
        .header("etag")
        .unwrap()
        .to_owned();
    alice
        .ask("GET", "/read/orders", &[("if-none-match", &tag)])
        .expect(304);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_shows_new_rows_to_those_who_may_see_them() {
    let shop = shop(RULE).await;
    let [alice, bob, _] = people(&shop);
    let position = append(&shop.database, &[order("b3", "bob", "9")]).await[0];
    let path = format!(
        "/read/orders?select=order_id&order=price.desc&limit=1&min_position={position}&wait=30s"
    );
    assert_eq!(
        alice.get(&path).expect(200).json(),
        json!([{"order_id": "a3"}])
    );
    assert_eq!(
        bob.get(&path).expect(200).json(),
        json!([{"order_id": "b3"}])
    );
    for preference in ["stale=ok", "count=exact, stale=ok"] {
        let answer = alice
            .ask(
                "GET",
                "/read/orders?min_position=999999&wait=0s",
                &[("prefer", preference)],
            )
            .expect(200);
        assert!(!answer.text().contains("bob"), "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_seen_under_the_rule_of_today() {
    let shop = shop(RULE).await;
    let [alice, bob, _] = people(&shop);
    let made = shop.gobo.command(&[
        "snapshot",
        "orders",
        "--as",
        "before",
        "--token",
        &shop.admin,
    ]);
    assert!(made.status.success(), "{made:?}");
    let rows = |who: &Asks<'_>| -> Value {
        wait_until("the past", || {
            match who.get("/read/orders?select=order_id&order=order_id&as_of=before") {
                answer if answer.status == 200 => Ok(answer.json()),
                answer => Err(answer),
            }
        })
    };
    assert_eq!(
        rows(&alice),
        json!([{"order_id": "a1"}, {"order_id": "a2"}, {"order_id": "a3"}])
    );
    assert_eq!(rows(&bob), json!([{"order_id": "b1"}, {"order_id": "b2"}]));
    alice.get("/read/orders/b1?as_of=before").expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_no_way_around_for_who_may_only_read() {
    let shop = shop(RULE).await;
    let [alice, ..] = people(&shop);
    for path in [
        "/events",
        "/streams/order-b1/events",
        "/admin/projections",
        "/admin/projections/orders",
        "/metrics",
        "/console",
        "/console/projections/orders",
    ] {
        alice.get(path).expect(403);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_query_is_expected_to_cost_is_not_told_to_those_who_do_not_see_every_row() {
    // No index serves this rule, and every comparison is part of the cost, whatever the statistics say.
    let rule = "[read_models.orders]\nrows = \"user_id = claim.sub or price < 0\"";
    let shop = shop(&format!("{rule}\n[api]\nmax_cost = 2000")).await;
    let [alice, _, admin] = people(&shop);
    let part = "order_id.match.a,".repeat(90);
    let path = format!("/read/orders?select=user_id,count()&or=({part}order_id.match.b)");
    shop.database
        .execute(
            "set role none;
             do $$ declare t text; begin
               select format('%I.%I', schemaname, tablename) into t from pg_tables where tablename = 'orders';
               execute format('insert into %s select (jsonb_populate_record(o, jsonb_build_object(%L, %L || g))).*
                 from %s o, generate_series(1, 20000) g where order_id = %L', t, 'order_id', 'b1', t, 'b1');
               execute 'analyze ' || t;
             end $$",
        )
        .await;
    let told = admin.get(&path).expect(400).json();
    assert_eq!(told["reason"], "query_too_costly", "{told}");
    let cost = told["context"]["cost"].as_u64().unwrap();
    assert!(cost > 2_000, "{told}");
    let said = alice.get(&path).expect(400).json();
    assert_eq!(said["reason"], "query_too_costly", "{said}");
    assert_eq!(said["context"]["max_cost"], 2_000, "{said}");
    assert!(said["context"].get("cost").is_none(), "{said}");
    let message = said["message"].as_str().unwrap().replace("2000", "");
    assert!(!message.contains(|c: char| c.is_ascii_digit()), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_of_an_append_names_nothing_that_its_writer_may_not_read() {
    let shop = shop("[read_models.orders]\nreaders = [\"staff\"]").await;
    let body = json!({"events": [{"type": "x", "data": {}}]}).to_string();
    let append = |roles: Value| {
        let jwt = jwt_for(json!({"roles": roles, "sub": "writer"}));
        let headers = [
            ("authorization", &*bearer(&jwt)),
            ("content-type", "application/json"),
        ];
        let path = "/streams/s/events?wait_for=ordes";
        let answer = shop.gobo.request("POST", path, &headers, body.as_bytes());
        answer.expect(400).text()
    };
    assert!(append(json!(["append", "staff"])).contains("orders"));
    for roles in [json!(["append"]), json!(["append", "read"])] {
        let said = append(roles);
        assert!(!said.contains("orders"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_configuration_of_the_database_does_not_take_the_place_of_postgresqls() {
    let shop = shop(RULE).await;
    let [alice, ..] = people(&shop);
    shop.database
        .execute(
            "create text search configuration public.english (copy = simple);
             create text search configuration read.english (copy = simple);
             create text search configuration public.own (copy = simple)",
        )
        .await;
    let query = |text: &str| alice.get(&format!("/read/orders?select=order_id&{text}"));
    // "s" is a word that English leaves out, and "simple" does not.
    let found = query("symbol=fts(simple).s").expect(200).json();
    assert_eq!(found.as_array().unwrap().len(), 3);
    assert_eq!(query("symbol=fts(english).s").expect(200).json(), json!([]));
    for name in [
        "own",
        "public.own",
        "pg_catalog.english",
        "public.english",
        "read.english",
        "english'",
        "%22english%22",
        "13043",
        "ENGLISH",
    ] {
        let refused = query(&format!("symbol=fts({name}).s"));
        assert_eq!(refused.status, 400, "{name}: {}", refused.text());
    }
}
