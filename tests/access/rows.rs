//! Which read models somebody may read, and which rows of them they see.

use gobo_tests::{Gobo, wait_until};
use serde_json::{Value, json};

use super::{Guarded, SECRET, get, jwt_for, token};
use crate::scene::{Event, append};

/// An order of somebody.
pub(super) fn order(id: &str, user: &str, price: &str) -> Event {
    let data = json!({
        "order_id": id, "user_id": user, "symbol": "S", "side": "buy", "price": price, "quantity": "10",
    });
    (format!("order-{id}"), "OrderCreated", data)
}

/// An engine with orders of alice (a1, a2, a3) and bob (b1, b2), where JWTs count as well; `read_models` is configuration.
pub(super) async fn shop(read_models: &str) -> Guarded {
    let guarded = Guarded::new(
        "",
        &format!("[access.jwt]\nsecret = {SECRET:?}\naudience = \"gobo\"\n{read_models}"),
    )
    .await;
    guarded.deploy("orders");
    let orders = [
        order("a1", "alice", "1"),
        order("b1", "bob", "2"),
        order("a2", "alice", "3"),
        order("b2", "bob", "4"),
        order("a3", "alice", "5"),
    ];
    let positions = append(&guarded.database, &orders).await;
    let path = format!("/read/orders?min_position={}&wait=30s", positions[4]);
    guarded.get(&path, &guarded.admin).expect(200);
    guarded
}

fn ids(gobo: &Gobo, jwt: &str) -> Vec<String> {
    let rows = get(gobo, "/read/orders?select=order_id&order=order_id", jwt)
        .expect(200)
        .json();
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| row["order_id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_sees_the_rows_that_the_rule_gives_them() {
    let shop = shop("[read_models.orders]\nrows = \"user_id = claim.sub\"").await;
    let check = |claims: Value, expected: &[&str]| {
        assert_eq!(
            ids(&shop.gobo, &jwt_for(claims.clone())),
            expected,
            "{claims}"
        )
    };
    check(json!({"role": "read", "sub": "alice"}), &["a1", "a2", "a3"]);
    check(json!({"role": "read", "sub": "bob"}), &["b1", "b2"]);
    // Without the claim, or with one that is no text, nothing.
    for sub in [
        json!(null),
        json!(true),
        json!(""),
        json!("ALICE"),
        json!("alice\u{0}"),
        json!("' or 1=1 --"),
    ] {
        check(json!({"role": "read", "sub": sub}), &[]);
    }
    // A JWT whose subject is no plain value is none.
    for sub in [json!(["alice"]), json!({"alice": 1})] {
        let jwt = jwt_for(json!({"role": "read", "sub": sub}));
        get(&shop.gobo, "/read/orders", &jwt).expect(401);
    }
    check(json!({"role": "read"}), &[]);
    check(json!({"role": "read", "user": {"sub": "alice"}}), &[]);
    // Claims of a token count the same; an administrator sees everything.
    let carol = token(
        &shop.database,
        "bobs helper",
        &["--role", "read", "--claim", "sub=bob"],
    );
    wait_until("the token to be known", || {
        match get(&shop.gobo, "/read/orders", &carol) {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer),
        }
    });
    assert_eq!(ids(&shop.gobo, &carol), ["b1", "b2"]);
    assert_eq!(ids(&shop.gobo, &shop.read), [""; 0]);
    assert_eq!(ids(&shop.gobo, &shop.admin).len(), 5);
    check(
        json!({"roles": ["read", "admin"], "sub": "bob"}),
        &["a1", "a2", "a3", "b1", "b2"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_compare_combine_and_fail_closed() {
    let cases = [
        (
            "user_id in claim.users",
            json!({"users": ["bob", 7, null]}),
            "b1 b2",
        ),
        ("user_id in claim.users", json!({"users": "bob"}), ""),
        ("user_id in claim.users", json!({"users": []}), ""),
        (
            "user_id not in claim.users",
            json!({"users": ["bob"]}),
            "a1 a2 a3",
        ),
        (
            "user_id not in claim.users",
            json!({"users": ["bob", null]}),
            "",
        ),
        ("not user_id = claim.sub", json!({"sub": "bob"}), "a1 a2 a3"),
        ("not user_id = claim.sub", json!({}), ""),
        ("not (user_id = claim.sub or price > 4)", json!({}), ""),
        ("user_id <> claim.sub", json!({}), ""),
        ("not user_id <> claim.sub", json!({}), ""),
        ("user_id = claim.sub or price > 4", json!({}), "a3"),
        (
            "user_id = claim.sub and price > 1",
            json!({"sub": "alice"}),
            "a2 a3",
        ),
        (
            "user_id in ('bob', 'carol') and not price >= 4",
            json!({}),
            "b1",
        ),
        ("claim.limit >= price", json!({"limit": 2}), "a1 b1"),
        ("claim.limit >= price", json!({"limit": 2.5}), "a1 b1"),
        ("claim.limit >= price", json!({"limit": "2"}), "a1 b1"),
        ("claim.limit >= price", json!({"limit": "two"}), ""),
        ("claim.limit >= price", json!({"limit": 1e20}), ""),
        (
            "user_id = claim.app.user.id",
            json!({"app": {"user": {"id": "bob"}}}),
            "b1 b2",
        ),
        (
            "user_id = claim.app.user.id",
            json!({"app": {"user": "bob"}}),
            "",
        ),
        (
            "user_id = claim.\"https://x.example/user\"",
            json!({"https://x.example/user": "bob"}),
            "b1 b2",
        ),
        (
            "claim.department = 'audit'",
            json!({"department": "audit"}),
            "a1 a2 a3 b1 b2",
        ),
        ("claim.department = 'audit'", json!({}), ""),
        ("not claim.department = 'audit'", json!({}), ""),
        ("claim.department <> 'audit'", json!({"department": 7}), ""),
        (
            "'audit' in claim.groups or user_id = claim.sub",
            json!({"groups": ["audit"]}),
            "a1 a2 a3 b1 b2",
        ),
        (
            "'audit' in claim.groups or user_id = claim.sub",
            json!({"groups": "audit", "sub": "bob"}),
            "b1 b2",
        ),
        (
            "average_price is null and user_id = 'bob'",
            json!({}),
            "b1 b2",
        ),
        ("average_price is not null", json!({}), ""),
        ("average_price > 0", json!({}), ""),
        ("not average_price > 0", json!({}), ""),
        ("\"user_id\" = 'bob' AND TRUE = true", json!({}), "b1 b2"),
        (
            "created_at > '2000-01-01' and user_id = 'bob'",
            json!({}),
            "b1 b2",
        ),
        ("_position <= 2", json!({}), "a1 b1"),
    ];
    // One rule for all of them: a claim says which part counts.
    let parts: Vec<String> = cases
        .iter()
        .enumerate()
        .map(|(n, (rule, ..))| format!("claim.case = {n} and ({rule})"))
        .collect();
    let shop = shop(&format!(
        "[read_models.orders]\nrows = {:?}",
        parts.join(" or ")
    ))
    .await;
    for (n, (rule, claims, expected)) in cases.into_iter().enumerate() {
        let mut all = json!({"role": "read", "case": n});
        for (name, value) in claims.as_object().unwrap() {
            all[name] = value.clone();
        }
        assert_eq!(
            ids(&shop.gobo, &jwt_for(all)).join(" "),
            expected,
            "{rule} with {claims}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_does_not_fit_shows_nothing_and_says_so_in_the_log() {
    for (rule, why) in [
        ("owner = claim.sub", "has no column \\\"owner\\\""),
        ("price > 'many'", "is no value of column"),
        ("user_id = 7", "write the value in single quotes"),
    ] {
        let shop = shop(&format!("[read_models.orders]\nrows = {rule:?}")).await;
        wait_until("the log to say so", || match shop.gobo.log() {
            said if said.contains(&why.replace("\\\"", "\"")) || said.contains(why) => Ok(()),
            said => Err(said),
        });
        let jwt = jwt_for(json!({"role": "read", "sub": "alice"}));
        for path in [
            "/read/orders",
            "/read/orders/a1",
            "/read/orders?select=order_id&limit=1",
        ] {
            let answer = get(&shop.gobo, path, &jwt).expect(500);
            assert_eq!(answer.json()["reason"], "broken_rule");
            assert!(!answer.text().contains("owner"), "{}", answer.text());
        }
        assert_eq!(ids(&shop.gobo, &shop.admin).len(), 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_takes_no_json_not_even_to_say_that_it_is_null() {
    for column in ["c_json", "c_jsonb"] {
        for rule in ["is null", "is not null"] {
            let tables = format!("[read_models.raw]\nrows = \"{column} {rule}\"");
            let shop = shop(&tables).await;
            shop.deploy("raw-guest");
            let jwt = jwt_for(json!({"role": "read", "sub": "alice"}));
            let answer = get(&shop.gobo, "/read/raw", &jwt).expect(500);
            assert_eq!(answer.json()["reason"], "broken_rule");
            wait_until("the log to say why", || match shop.gobo.log() {
                log if log.contains("not even with null") => Ok(()),
                log => Err(log),
            });
            get(&shop.gobo, "/read/raw", &shop.admin).expect(200);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_cannot_be_read_or_protects_nothing_keeps_the_engine_from_starting() {
    let database = gobo_tests::Database::create().await;
    let check = |tables: &str, said: &[&str]| {
        let refused = Gobo::try_start(database.url(), tables).unwrap_err();
        assert_eq!(refused.code, 2, "{}", refused.log);
        for part in said {
            assert!(
                refused.log.contains(part),
                "{part} is missing in: {}",
                refused.log
            );
        }
    };
    for (rule, place) in [
        ("user_id = ", "(character 11)"),
        ("user_id == claim.sub", "(character 10)"),
        ("user_id = claim", "(character 16)"),
        ("user_id = claim.sub or", "(character 23)"),
        ("(user_id = claim.sub", "(character 21)"),
        ("user_id = claim.sub)", "(character 20)"),
        ("user_id = order_id", "two columns"),
        ("claim.a < 7", "without a column"),
        ("claim.a is null", "only a column"),
        ("user_id = 'x", "is not closed"),
        ("user_id = claim.sub; drop table x", "(character 20)"),
        ("", "(character 1)"),
    ] {
        let tables = format!("[access]\ntokens = true\n[read_models.orders]\nrows = {rule:?}");
        check(&tables, &["read_models.orders.rows", place]);
    }
    let deep = format!(
        "[access]\ntokens = true\n[read_models.orders]\nrows = \"{}a = 1\"",
        "not ".repeat(100)
    );
    check(&deep, &["nested deeper"]);
    check(
        "[read_models.orders]\nrows = \"user_id = claim.sub\"",
        &["protect nothing"],
    );
    check(
        "[read_models.orders]\nreaders = [\"read\"]",
        &["protect nothing"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_that_one_may_not_read_does_not_exist_for_one() {
    let shop = shop("[read_models.orders]\nreaders = [\"support\"]").await;
    shop.deploy("page-views");
    let support = jwt_for(json!({"role": "support"}));
    let reader = jwt_for(json!({"role": "read"}));
    assert_eq!(ids(&shop.gobo, &support).len(), 5);
    assert_eq!(ids(&shop.gobo, &shop.admin).len(), 5);
    get(&shop.gobo, "/read/page_views", &reader).expect(200);
    get(&shop.gobo, "/read/page_views", &support).expect(404);
    // Answers about it differ from those about what nobody has, by its name alone.
    for path in [
        "/read/orders",
        "/read/orders/a1",
        "/read/orders?select=nonsense",
        "/read/orders?nonsense=eq.1",
        "/read/orders?as_of=1",
        "/read/orders?as_of=label",
        "/read/orders?min_position=1",
        "/read/orders?min_position=999999&wait=0s",
        "/read/order",
        "/read/orderss",
        "/read/orders?limit=x",
    ] {
        let hidden = get(&shop.gobo, path, &reader);
        let absent = get(&shop.gobo, &path.replace("order", "zzzzz"), &reader);
        assert_eq!(hidden.status, absent.status, "{path}");
        assert_eq!(
            hidden.text().replace("order", "zzzzz"),
            absent.text(),
            "{path}"
        );
        let names = |answer: &gobo_tests::Answer| -> Vec<String> {
            answer
                .headers
                .iter()
                .map(|(name, _)| name.clone())
                .collect()
        };
        assert_eq!(names(&hidden), names(&absent), "{path}");
    }
    let hint = get(&shop.gobo, "/read/page_view", &reader)
        .expect(404)
        .json();
    assert!(
        hint["hint"].as_str().unwrap().contains("page_views"),
        "{hint}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_clients_see_every_row_of_a_view_that_they_were_granted_whatever_rules_say() {
    let shop = shop("[read_models.orders]\nrows = \"user_id = claim.sub\"").await;
    let client = shop.database.connect().await;
    let role = format!("reader_{}", std::process::id());
    let prepare = format!(
        "set role none;
         do $$ declare t text; begin
           select format('%I.%I', schemaname, tablename) into t from pg_tables where tablename = 'orders';
           execute 'alter table ' || t || ' enable row level security';
         end $$;
         create role {role}; grant usage on schema read to {role}; grant select on read.orders to {role};
         set role {role}"
    );
    client.batch_execute(&prepare).await.unwrap();
    let row = client.query_one("select count(*) from read.orders", &[]);
    let count: i64 = row.await.unwrap().get(0);
    let tidy = format!("reset role; drop owned by {role}; drop role {role}");
    client.batch_execute(&tidy).await.unwrap();
    assert_eq!(count, 5);
}
