//! Rows of related read models, embedded in the rows that they belong to.

use gobo::read_model::{ReadModel, Reference};
use serde_json::{Value, json};

use super::bench::{Answer, Bench, model};

pub(super) fn refer(model: &mut ReadModel, name: &str, columns: &[&str], target: &str) {
    let place = |name: &&str| model.columns.iter().position(|c| c.name == **name).unwrap();
    let columns = columns.iter().map(place).collect();
    model.references.push(Reference {
        name: name.to_owned(),
        columns,
        target: target.to_owned(),
        target_columns: None,
    });
}

/// Cities 1 and 2, users in them (carl in none), who sell and buy each other's things. Users are another projection's.
async fn market() -> Bench {
    let bench = Bench::new().await;
    let cities = model("cities", "city_id int4, name text", &["city_id"]);
    let mut users = model(
        "users",
        "user_id text, name text, city_id int4?, mentor text?",
        &["user_id"],
    );
    refer(&mut users, "users_city_id_fkey", &["city_id"], "cities");
    refer(&mut users, "users_mentor_fkey", &["mentor"], "users");
    let mut orders = model(
        "orders",
        "order_id int8, buyer text, seller text?, price numeric",
        &["order_id"],
    );
    refer(&mut orders, "orders_buyer_fkey", &["buyer"], "users");
    refer(&mut orders, "orders_seller_fkey", &["seller"], "users");
    let mut notes = model("notes", "order_id int8, text text", &["order_id"]);
    refer(&mut notes, "notes_order_id_fkey", &["order_id"], "orders");
    for (generation, model) in [(1, &cities), (2, &users), (3, &orders), (3, &notes)] {
        bench.deploy(generation, model).await;
    }
    bench
        .sql(
            "insert into gobo_g1.cities values (1, 'Basel'), (2, 'Bern');
             insert into gobo_g2.users values ('ann', 'Ann', 1, null), ('bob', 'Bob', 2, 'ann'), ('carl', 'Carl', null, 'ann');
             insert into gobo_g3.orders values (1, 'ann', 'bob', 10.5), (2, 'ann', null, 20), (3, 'bob', 'ann', 5), (4, 'dora', 'bob', 1);
             insert into gobo_g3.notes values (1, 'fragile');
             update gobo.checkpoints set position = 40 where generation = 1;
             update gobo.checkpoints set position = 30 where generation = 2;
             update gobo.checkpoints set position = 50 where generation = 3",
        )
        .await;
    bench
}

pub(super) async fn check(bench: &Bench, cases: &[(&str, Value)]) {
    for (query, expected) in cases {
        let rows = bench.rows(&format!("/read/{query}")).await;
        assert_eq!(Value::from(rows), *expected, "{query}");
    }
}

#[tokio::test]
async fn a_row_that_is_referred_to_is_an_object_or_null_and_rows_that_refer_are_an_array() {
    let bench = market().await;
    check(
        &bench,
        &[
            (
                "users?select=user_id,cities(name)",
                json!([
                    {"user_id": "ann", "cities": {"name": "Basel"}},
                    {"user_id": "bob", "cities": {"name": "Bern"}},
                    {"user_id": "carl", "cities": null},
                ]),
            ),
            (
                "cities?select=*,users(user_id)",
                json!([
                    {"city_id": 1, "name": "Basel", "users": [{"user_id": "ann"}]},
                    {"city_id": 2, "name": "Bern", "users": [{"user_id": "bob"}]},
                ]),
            ),
            // The key refers: at most one on either side.
            (
                "orders?select=order_id,notes(text)&order_id=lt.3",
                json!([{"order_id": 1, "notes": {"text": "fragile"}}, {"order_id": 2, "notes": null}]),
            ),
            ("notes?select=orders(price)", json!([{"orders": {"price": 10.5}}])),
            // Aliases, nesting, and what two references to one read model are told apart by.
            (
                "orders?select=id:order_id,by:users!orders_buyer_fkey(name,town:cities(name)),from:users!seller(name)&order_id=in.(1,4)",
                json!([
                    {"id": 1, "by": {"name": "Ann", "town": {"name": "Basel"}}, "from": {"name": "Bob"}},
                    {"id": 4, "by": null, "from": {"name": "Bob"}},
                ]),
            ),
            (
                "orders?select=order_id,buyer(name),orders_seller_fkey(name)&order_id=eq.3",
                json!([{"order_id": 3, "buyer": {"name": "Bob"}, "orders_seller_fkey": {"name": "Ann"}}]),
            ),
            // A read model that refers to itself.
            (
                "users?select=user_id,mentor(name),pupils:users(user_id)&user_id=neq.carl",
                json!([
                    {"user_id": "ann", "mentor": null, "pupils": [{"user_id": "bob"}, {"user_id": "carl"}]},
                    {"user_id": "bob", "mentor": {"name": "Ann"}, "pupils": []},
                ]),
            ),
            // Columns of the other row as the row's own.
            (
                "users?select=user_id,...cities(town:name)",
                json!([
                    {"user_id": "ann", "town": "Basel"},
                    {"user_id": "bob", "town": "Bern"},
                    {"user_id": "carl", "town": null},
                ]),
            ),
            // Of several other rows, the columns become arrays, in the order of the rows.
            (
                "cities?select=name,...users(user_id,called:name)&users.order=name.desc",
                json!([
                    {"name": "Basel", "user_id": ["ann"], "called": ["Ann"]},
                    {"name": "Bern", "user_id": ["bob"], "called": ["Bob"]},
                ]),
            ),
            (
                "users?select=...orders!buyer(order_id,price,from:users!seller(name),...users!seller(seller:name))&user_id=neq.bob&orders.order=price.desc",
                json!([
                    {"order_id": [2, 1], "price": [20, 10.5], "from": [null, {"name": "Bob"}], "seller": [null, "Bob"]},
                    {"order_id": [], "price": [], "from": [], "seller": []},
                ]),
            ),
            (
                "cities?select=name,...users(...orders!buyer(order_id))&users.orders.order=order_id&name=eq.Basel",
                json!([{"name": "Basel", "order_id": [[1, 2]]}]),
            ),
            // Rows are grouped by columns of another row, whether there is one or not.
            (
                "orders?select=price.sum(),...users!seller(seller:name)&order=seller",
                json!([
                    {"sum": 5, "seller": "Ann"},
                    {"sum": 11.5, "seller": "Bob"},
                    {"sum": 20, "seller": null},
                ]),
            ),
            (
                "orders?select=n:count(),...users!buyer(...cities(town:name))&order=n.desc,town",
                json!([{"n": 2, "town": "Basel"}, {"n": 1, "town": "Bern"}, {"n": 1, "town": null}]),
            ),
            (
                "cities?select=name,users(n:count(),...mentor(by:name))",
                json!([
                    {"name": "Basel", "users": [{"n": 1, "by": null}]},
                    {"name": "Bern", "users": [{"n": 1, "by": "Ann"}]},
                ]),
            ),
            (
                "users?select=user_id,cities!left(name)&user_id=eq.carl",
                json!([{"user_id": "carl", "cities": null}]),
            ),
            (
                "cities?select=name,users(count())",
                json!([{"name": "Basel", "users": [{"count": 1}]}, {"name": "Bern", "users": [{"count": 1}]}]),
            ),
        ],
    )
    .await;
    let row = bench
        .get("/read/users/ann?select=name,bought:orders!buyer(order_id)")
        .await;
    assert_eq!(
        row.json(),
        json!({"name": "Ann", "bought": [{"order_id": 1}, {"order_id": 2}]})
    );
    let csv = bench
        .send(
            "GET",
            "/read/users?select=user_id,cities(name)&limit=1",
            &[("accept", "text/csv")],
        )
        .await;
    assert_eq!(
        csv.body,
        "user_id,cities\nann,\"{\"\"name\"\":\"\"Basel\"\"}\""
    );
}

#[tokio::test]
async fn embedded_rows_are_filtered_sorted_and_cut_apart_from_the_rows_that_they_belong_to() {
    let bench = market().await;
    let bought = "users?select=user_id,orders!buyer(order_id)&user_id=neq.carl";
    check(
        &bench,
        &[
            (
                &format!("{bought}&orders.order=price.desc"),
                json!([
                    {"user_id": "ann", "orders": [{"order_id": 2}, {"order_id": 1}]},
                    {"user_id": "bob", "orders": [{"order_id": 3}]},
                ]),
            ),
            (
                &format!("{bought}&orders.order=price.desc&orders.limit=1&orders.offset=1"),
                json!([{"user_id": "ann", "orders": [{"order_id": 1}]}, {"user_id": "bob", "orders": []}]),
            ),
            (
                &format!("{bought}&orders.price=gt.10&orders.or=(order_id.eq.1,order_id.eq.3)"),
                json!([{"user_id": "ann", "orders": [{"order_id": 1}]}, {"user_id": "bob", "orders": []}]),
            ),
            // With !inner, rows without any are left out; and with a test of the whole.
            (
                "users?select=user_id,orders!buyer!inner(order_id)&orders.price=lt.10",
                json!([{"user_id": "bob", "orders": [{"order_id": 3}]}]),
            ),
            (
                "users?select=user_id,orders!buyer()&orders=is.null",
                json!([{"user_id": "carl"}]),
            ),
            (
                "users?select=user_id,orders!buyer()&orders=not.is.null&order=user_id.desc",
                json!([{"user_id": "bob"}, {"user_id": "ann"}]),
            ),
            (
                "users?select=user_id,orders!buyer(),cities()&or=(orders.is.null,cities.is.null)",
                json!([{"user_id": "carl"}]),
            ),
            // Conditions two levels down.
            (
                "cities?select=name,users!inner(orders!seller!inner(order_id))&users.orders.order_id=eq.3",
                json!([{"name": "Basel", "users": [{"orders": [{"order_id": 3}]}]}]),
            ),
            // Sorted by a value of the other row.
            (
                "users?select=user_id,cities(name)&order=cities(name).desc.nullslast,user_id",
                json!([
                    {"user_id": "bob", "cities": {"name": "Bern"}},
                    {"user_id": "ann", "cities": {"name": "Basel"}},
                    {"user_id": "carl", "cities": null},
                ]),
            ),
        ],
    )
    .await;
    // Pages go on by the rows' own values, and count them.
    let pages = bench
        .pages("/read/orders?select=order_id,buyer(name)&limit=3")
        .await;
    assert_eq!(pages.len(), 4);
    let counted = bench
        .send(
            "GET",
            "/read/users?select=user_id,cities!inner(name)",
            &[("prefer", "count=exact")],
        )
        .await;
    assert_eq!(counted.header("content-range"), "0-1/2");
    let by_other = bench
        .get("/read/users?select=user_id,cities(name)&order=cities(name)&limit=1")
        .await;
    assert_eq!(by_other.header("gobo-next-cursor"), "");
}

#[tokio::test]
async fn what_cannot_be_embedded_is_refused_as_postgrest_does() {
    let bench = market().await;
    for (query, status, code, part) in [
        ("orders?select=*,cities(*)", 400, "PGRST200", "related to"),
        (
            "orders?select=*,note(*)",
            400,
            "PGRST200",
            "did you mean \"notes\"?",
        ),
        (
            "orders?select=*,users!bayer(*)",
            400,
            "PGRST200",
            "orders_buyer_fkey",
        ),
        (
            "orders?select=*,price(*)",
            400,
            "PGRST200",
            "without parentheses",
        ),
        (
            "orders?select=*,users(*)",
            300,
            "PGRST201",
            "'users!orders_buyer_fkey', 'users!orders_seller_fkey'",
        ),
        (
            "orders?select=*&users.name=eq.x",
            400,
            "PGRST108",
            "'select' query parameter",
        ),
        (
            "orders?select=*&order=users(name)",
            400,
            "PGRST108",
            "'select' query parameter",
        ),
        (
            "cities?select=*,users(*)&order=users(name)",
            400,
            "PGRST118",
            "many-to-one",
        ),
        (
            "cities?select=*,users(*)&users=eq.1",
            400,
            "PGRST120",
            "is null",
        ),
        (
            "cities?select=name,...users(count())",
            400,
            "PGRST127",
            "leave the three dots out",
        ),
        (
            "cities?select=count(),...users(name)",
            400,
            "PGRST127",
            "cannot be grouped",
        ),
        (
            "users?select=count(),...cities(users(name))",
            400,
            "PGRST127",
            "cannot be grouped",
        ),
        (
            "cities?select=count(),users(name)",
            400,
            "PGRST127",
            "within the embed",
        ),
        (
            "orders?select=price.sum(),...users!seller(count())",
            400,
            "PGRST127",
            "a single row",
        ),
        (
            "orders?select=order_id,users!seller(count())",
            400,
            "PGRST127",
            "a single row",
        ),
        (
            "users?select=city_id,count(),cities()&order=cities(name)",
            400,
            "PGRST127",
            "groups of rows",
        ),
        (
            "users?select=*,cities(nome)",
            400,
            "42703",
            "did you mean \"name\"?",
        ),
        (
            "users?select=*,cities(name)&cities.nome=eq.1",
            400,
            "42703",
            "did you mean \"name\"?",
        ),
        (
            "users?select=user_id,name:cities(name),name",
            400,
            "PGRST100",
            "another name",
        ),
        (
            "users?select=user_id,cities(name)&cities.limit=x",
            400,
            "PGRST100",
            "limit",
        ),
    ] {
        let answer = bench.get(&format!("/read/{query}")).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.code()),
            (status, code),
            "{query}: {}",
            answer.body
        );
        assert!(
            answer.body.replace("\\\"", "\"").contains(part),
            "{query}: {}",
            answer.body
        );
    }
    let ambiguous = bench.get("/read/orders?select=*,users(*)").await.json();
    assert_eq!(
        ambiguous["details"][0],
        json!({
            "cardinality": "many-to-one",
            "embedding": "orders with users",
            "relationship": "orders_buyer_fkey using orders(buyer) and users(user_id)",
        })
    );
    // Deep nesting ends somewhere.
    let depth = 60;
    let deep = format!("{}*{}", "mentor(".repeat(depth), ")".repeat(depth));
    let answer = bench.get(&format!("/read/users?select={deep}")).await;
    assert_eq!(answer.status, 400);
}

async fn is_too_large(bench: &Bench, query: &str, part: &str) {
    let answer = bench.get(&format!("/read/{query}")).await;
    let problem = answer.json();
    assert_eq!(
        (answer.status.as_u16(), &problem["reason"]),
        (400, &json!("query_too_large")),
        "{query}: {}",
        answer.body
    );
    assert!(answer.body.contains(part), "{query}: {}", answer.body);
    assert!(problem["hint"].is_string(), "{query}: {}", answer.body);
}

#[tokio::test]
async fn tests_of_embeds_that_repeat_each_other_are_refused_before_they_multiply() {
    let bench = market().await;
    let tests = |count: usize| {
        let levels = ["mentor", "mentor.mentor", "mentor.mentor.mentor"];
        let all = levels
            .iter()
            .map(|level| format!("&{level}=not.is.null").repeat(count));
        all.collect::<String>()
    };
    let select = "users?select=user_id,mentor(mentor(mentor(user_id)))";
    // mentor is a column too, and a filter is about the column: so the embeds have other names.
    let named = |count| tests(count).replace("mentor", "m");
    let select = select.replace("mentor(", "m:mentor(");
    check(&bench, &[(&format!("{select}{}", named(1)), json!([]))]).await;
    is_too_large(
        &bench,
        &format!("{select}{}", named(11)),
        "more than 100 times",
    )
    .await;
    let deep = |depth: usize| {
        format!(
            "users?select={}user_id{}",
            "m:mentor(".repeat(depth),
            ")".repeat(depth)
        )
    };
    assert_eq!(bench.get(&format!("/read/{}", deep(4))).await.status, 200);
    is_too_large(&bench, &deep(5), "deeper than 4").await;
}

#[tokio::test]
async fn columns_of_embedded_rows_are_each_read_once_however_deep() {
    let bench = market().await;
    let ids: Vec<String> = (0..280).map(|n| format!("a{n}:order_id")).collect();
    let orders = format!("...orders!buyer({})", ids.join(","));
    // Were each column read with all the others beside it, these would be millions of subqueries.
    let two = format!("cities?select=...users({orders})&users.limit=1&users.orders.limit=1");
    let answer = bench.get(&format!("/read/{two}")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()[0]["a279"], json!([[1]]));
    let four = format!("cities?select=...users(...users(...users({orders})))");
    let none = "&users.limit=0&users.users.limit=0&users.users.users.limit=0";
    let answer = bench.get(&format!("/read/{four}{none}")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()[1]["a0"], json!([]));
    // They count as rows, and so do the tests within them.
    is_too_large(&bench, &two.replace("limit=1", "limit=5"), "limit").await;
    let tested = format!("{two}&users.orders=not.is.null");
    is_too_large(&bench, &tested, "tested more than").await;
}

#[tokio::test]
async fn limits_along_embeds_that_could_give_too_many_rows_are_asked_for() {
    let bench = market().await;
    let select = "cities?select=name,users(user_id,users(user_id,orders!buyer(order_id)))";
    is_too_large(&bench, select, "users.limit").await;
    for query in [
        "cities?select=name,users(user_id,orders!buyer(order_id))",
        &format!("{select}&users.limit=10&users.users.limit=100"),
        "orders?select=order_id,buyer(name,cities(name,users(user_id)))",
        "cities?select=name,users(user_id,users(user_id,orders!buyer(count())))",
    ] {
        let answer = bench.get(&format!("/read/{query}")).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
    }
}

#[tokio::test]
async fn columns_of_an_embedded_row_that_is_cut_off_are_null() {
    let bench = market().await;
    for part in ["limit=0", "offset=1"] {
        let query =
            format!("users?select=user_id,...cities(town:name)&cities.{part}&user_id=eq.ann");
        check(
            &bench,
            &[(&query, json!([{"user_id": "ann", "town": null}]))],
        )
        .await;
    }
}

#[tokio::test]
async fn an_answer_claims_no_more_than_every_embedded_read_model_has_and_its_tag_changes_with_each()
{
    let bench = market().await;
    let query = "/read/orders?select=order_id,buyer(name,cities(name))";
    let fresh = async |query: &str| bench.get(query).await;
    let plain = fresh("/read/orders").await;
    let embedded = fresh(query).await;
    assert_eq!(plain.header("gobo-position"), "50");
    assert_eq!(embedded.header("gobo-position"), "30");
    let same = async |answer: &Answer| {
        let tag = answer.header("etag").to_owned();
        let again = bench.send("GET", query, &[("if-none-match", &tag)]).await;
        again.status == 304
    };
    assert!(same(&embedded).await);
    for change in [
        "update gobo.read_models set revision = revision + 1 where name = 'users'",
        "update gobo.read_models set revision = revision + 1 where name = 'cities'",
        "update gobo.read_models set revision = revision + 1 where name = 'orders'",
    ] {
        let before = fresh(query).await;
        bench.sql(change).await;
        assert!(!same(&before).await, "{change}");
        assert!(same(&fresh(query).await).await, "{change}");
    }
    // What does not matter does not disturb it.
    let before = fresh(query).await;
    bench
        .sql("update gobo.read_models set revision = revision + 1 where name = 'notes'")
        .await;
    assert!(same(&before).await);

    // A reader of its own write waits for every one of them.
    let late = fresh(&format!("{query}&min_position=35&wait=0ms")).await;
    assert_eq!(late.status, 503, "{}", late.body);
    bench
        .sql("update gobo.checkpoints set position = 35 where generation = 2")
        .await;
    let there = fresh(&format!("{query}&min_position=35&wait=0ms")).await;
    assert_eq!(
        (there.status.as_u16(), there.header("gobo-position")),
        (200, "35")
    );
    // Letters of an embedded projection count.
    bench
        .sql("insert into gobo.dead_letters values (2, 7, 's')")
        .await;
    assert_eq!(fresh(query).await.header("gobo-dead-letters"), "1");
}

#[tokio::test]
async fn another_generation_of_an_embedded_read_model_is_read_as_soon_as_it_is_live() {
    let bench = market().await;
    let cities = model("cities", "city_id int4, name text", &["city_id"]);
    let query = "/read/users?select=user_id,cities(name)&user_id=eq.ann";
    let before = bench.get(query).await;
    // The database has switched; this node hears of it while the reader asks again.
    bench
        .sql(
            "create schema gobo_g9; create table gobo_g9.cities as select city_id, 'New ' || name as name, _position, _revision, _updated_at from gobo_g1.cities;
             insert into gobo.checkpoints values (9, 60);
             update gobo.projections set live = 9 where live = 1",
        )
        .await;
    let refresh = bench.refresh.clone();
    let other = async {
        refresh.notified().await;
        bench.publish(9, &cities);
    };
    let after = super::bench::beside(bench.get(query), other).await;
    assert_eq!(
        after.json(),
        json!([{"user_id": "ann", "cities": {"name": "New Basel"}}])
    );
    assert_ne!(before.header("etag"), after.header("etag"));
}
