//! The fast fill of a generation that is being rebuilt: the same tables as those of a generation that followed the events,
//! with bounded memory, through kills, stops and events that cannot be processed.

use gobo_tests::{Database, Random, wait_for, wait_until};
use serde_json::{Value, json};

use crate::orders::{feed, head};
use crate::scene::{Event, Scene, append, raw};

const GUESTS: [(&str, &str); 4] = [
    ("orders", "orders"),
    ("trading-stats", "trading-stats"),
    ("raw-guest", "raw"),
    ("ledger-mended", "ledger"),
];

/// Rows of every type of column, shared by streams or not, written, added to, deleted and written again.
fn rows_of_all_kinds(count: u64) -> Vec<Event> {
    let mut random = Random::new(0x1234_5678_9abc_def1);
    let mut next = move |bound| random.below(bound);
    (0..count)
        .map(|number| {
            let (id, stream) = (format!("r{}", next(40)), format!("stream {}", next(20)));
            let data = match next(10) {
                0 | 1 => json!({"do": "put", "id": id, "n": number}),
                2 => json!({"do": "put", "id": id, "nulls": true}),
                3 => json!({"do": "delete", "id": id}),
                4 => json!({"do": "add", "id": id, "n": number}),
                5 => json!({"do": "unpair", "a": id, "b": next(3)}),
                6 => json!({"do": "gain", "id": stream, "n": number}),
                7 => json!({"do": "disown", "id": stream}),
                8 => return booked(&stream, i64::try_from(number % 100).unwrap(), 0),
                _ => json!({"do": "pair", "a": id, "b": next(3), "n": number}),
            };
            raw(stream, data)
        })
        .collect()
}

fn booked(stream: &str, amount: i64, fee: i64) -> Event {
    let data = json!({ "amount": amount, "fee": fee });
    (stream.to_owned(), "Booked", data)
}

/// Begins a rebuild that waits for an operator in the end, and gives the new generation.
fn rebuild(scene: &Scene, projection: &str) -> i64 {
    let path = format!("/admin/projections/{projection}/rebuild");
    let answer = scene.gobo.post(&path, &json!({"hold": true})).expect(202);
    answer.json()["generation"].as_i64().unwrap()
}

async fn live(database: &Database, projection: &str) -> i64 {
    let sql = format!("select live from gobo.projections where name = '{projection}'");
    database.query_i64(&sql).await
}

/// What the database has of a generation.
async fn state(database: &Database, generation: i64) -> Value {
    let sql = format!(
        "select g.bulk, c.position, c.revision, c.error from gobo.generations g \
         join gobo.checkpoints c on c.generation = g.id where g.id = {generation}"
    );
    database.query_json(&sql).await[0].clone()
}

/// Waits until a generation is filled and has reached the last event.
async fn filled(database: &Database, generation: i64) -> Value {
    let head = head(database).await;
    wait_for("the generation to be filled", async || {
        let state = state(database, generation).await;
        match state["bulk"] == false && state["position"].as_i64() >= Some(head) {
            true => Ok(state),
            false => Err(state),
        }
    })
    .await
}

async fn text(database: &Database, sql: &str) -> Vec<String> {
    let rows = database.connect().await.query(sql, &[]).await;
    let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// Fails unless two generations have the same tables: rows but for their revision, keys, indexes, positions.
async fn assert_same(database: &Database, one: i64, other: i64) {
    let tables = |generation: i64| {
        format!(
            "select table_name::text from information_schema.tables where table_schema = 'gobo_g{generation}' order by 1"
        )
    };
    let names = text(database, &tables(one)).await;
    assert_eq!(names, text(database, &tables(other)).await);
    assert!(!names.is_empty());
    for name in names {
        // As text, because `json` cannot be compared.
        let columns = format!(
            "select string_agg(format('%I::text', column_name), ', ' order by ordinal_position) \
               from information_schema.columns \
              where table_schema = 'gobo_g{one}' and table_name = '{name}' and column_name <> '_revision'"
        );
        let columns = text(database, &columns).await.remove(0);
        let rows = |generation: i64| format!("select {columns} from gobo_g{generation}.\"{name}\"");
        for (these, those) in [(one, other), (other, one)] {
            let more = format!("{} except all {}", rows(these), rows(those));
            let more = database
                .query_json(&format!("select * from ({more}) as more limit 3"))
                .await;
            assert_eq!(
                more,
                json!([]),
                "only generation {these} has these in {name}"
            );
        }
        let indexes = |generation: i64| {
            format!(
                "select replace(indexdef, 'gobo_g{generation}.', '') from pg_indexes \
                  where schemaname = 'gobo_g{generation}' and tablename = '{name}' order by 1"
            )
        };
        let found = text(database, &indexes(one)).await;
        assert!(!found.is_empty(), "{name} has no key");
        assert_eq!(found, text(database, &indexes(other)).await, "{name}");
    }
    let (one, other) = (state(database, one).await, state(database, other).await);
    assert_eq!(one["position"], other["position"]);
}

/// The same for the live generation of a projection, which has to have rows.
async fn assert_like_live(database: &Database, projection: &str, generation: i64) {
    assert_same(database, live(database, projection).await, generation).await;
}

/// Orders that nobody matches, or everybody: `orders` streams of one event each, then `matches` over them.
async fn append_orders(database: &Database, orders: i64, matches: i64) {
    let insert = |kind: &str, count: i64, version: &str, data: &str| {
        format!(
            "insert into gobo.events (stream_id, version, type, data, metadata, event_id, occurred_at) \
             select 'order-' || id, {version}, '{kind}', {data}, '{{}}', gen_random_uuid(), now() \
               from (select n, 'o' || n % {orders} as id from generate_series(0, {count} - 1) n) as numbered;"
        )
    };
    let created = "json_build_object('order_id', id, 'user_id', 'u' || n % 100, 'symbol', 'S', \
                   'side', 'buy', 'price', '1.25', 'quantity', '100000')";
    let matched =
        "json_build_object('order_id', id, 'quantity', '1', 'price', '1.25', 'trade_id', 't' || n)";
    database
        .execute(&insert("OrderCreated", orders, "0", created))
        .await;
    let version = format!("1 + n / {orders}");
    database
        .execute(&insert("OrderMatched", matches, &version, matched))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_fill_gives_the_tables_of_a_generation_that_followed_whatever_the_sizes() {
    let mut scene = Scene::new("", &GUESTS.map(|(guest, _)| guest)).await;
    feed(&scene.database, 0, 500).await;
    scene.append(&rows_of_all_kinds(1_500)).await;
    feed(&scene.database, 500, 100).await;
    let last = head(&scene.database).await;
    for (_, projection) in GUESTS {
        scene.wait_for(projection, last);
    }
    for (tables, commits) in [
        ("", 1..=1),
        (
            "[generations]\nrebuild_bytes = 65536\n[engine]\nbatch_events = 7\nrow_cache_bytes = 65536",
            2..=1_000,
        ),
        (
            "[generations]\nrebuild_bytes = 65536\n[engine]\nbatch_events = 1\nbatches_ahead = 1",
            2..=1_000,
        ),
    ] {
        scene.restart_with(tables);
        let begun = GUESTS.map(|(_, projection)| (projection, rebuild(&scene, projection)));
        for (projection, generation) in begun {
            let state = filled(&scene.database, generation).await;
            let revision = state["revision"].as_i64().unwrap();
            assert!(
                commits.contains(&revision) || projection != "raw",
                "{revision} commits of {projection} with {tables}"
            );
            assert_like_live(&scene.database, projection, generation).await;
            let path = format!("/admin/projections/{projection}/cancel");
            scene.gobo.post(&path, &json!({})).expect(200);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_by_a_setting_whatever_the_number_of_rows() {
    let tables = "[projections.orders]\nrebuild_bytes = 4194304\nrow_cache_bytes = 1048576\n";
    let scene = Scene::new(tables, &["orders"]).await;
    append_orders(&scene.database, 40_000, 60_000).await;
    scene.wait_for("orders", head(&scene.database).await);
    let generation = rebuild(&scene, "orders");
    let state = filled(&scene.database, generation).await;
    assert_like_live(&scene.database, "orders", generation).await;
    // 40,000 rows of some 500 bytes, and every set has 2 MiB.
    let commits = state["revision"].as_i64().unwrap();
    assert!((10..60).contains(&commits), "{commits} commits");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_during_a_fast_fill_leave_the_tables_of_an_uninterrupted_run() {
    let tables = "[engine]\nlease_seconds = 2\n[projections.orders]\nrebuild_bytes = 65536\nrow_cache_bytes = 65536\nbatch_events = 100\n";
    let mut scene = Scene::new(tables, &["orders"]).await;
    append_orders(&scene.database, 10_000, 30_000).await;
    scene.wait_for("orders", head(&scene.database).await);
    let generation = rebuild(&scene, "orders");
    let mut random = Random::new(0x2545_f491_4f6c_dd1d);
    let mut interrupted = 0;
    let mut before = 0;
    for _ in 0..10 {
        wait_for("some progress", async || {
            let state = state(&scene.database, generation).await;
            match state["bulk"] == false || state["position"].as_i64() > Some(before) {
                true => Ok(()),
                false => Err(state),
            }
        })
        .await;
        // The moment is random on purpose, some questions later: anything may be half done.
        for _ in 0..random.below(8) {
            state(&scene.database, generation).await;
        }
        scene.gobo.kill();
        let state = state(&scene.database, generation).await;
        before = state["position"].as_i64().unwrap();
        interrupted += i64::from(state["bulk"] == true);
        scene.gobo.start_again();
    }
    assert!(interrupted > 0, "the fill was over before the first kill");
    filled(&scene.database, generation).await;
    assert_like_live(&scene.database, "orders", generation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_without_events_has_tables_with_keys_and_follows() {
    let scene = Scene::new("", &GUESTS.map(|(guest, _)| guest)).await;
    let begun = GUESTS.map(|(_, projection)| (projection, rebuild(&scene, projection)));
    for (projection, generation) in begun {
        filled(&scene.database, generation).await;
        assert_like_live(&scene.database, projection, generation).await;
    }
    feed(&scene.database, 0, 300).await;
    scene.append(&rows_of_all_kinds(300)).await;
    let last = head(&scene.database).await;
    for (projection, generation) in begun {
        scene.wait_for(projection, last);
        filled(&scene.database, generation).await;
        assert_like_live(&scene.database, projection, generation).await;
    }
}

/// Accounts with many bookings, and events that the ledger does not understand in between.
fn bookings_with_fees() -> Vec<Event> {
    (0..400)
        .map(|number| {
            let fee = i64::from(number == 0 || number % 97 == 96);
            booked(&format!("s{}", number % 30), number, fee)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_processed_does_to_a_fast_fill_what_it_does_to_any_generation() {
    for policy in ["park", "skip"] {
        for rebuild_bytes in [65_536, 268_435_456] {
            let tables = format!(
                "[projections.ledger]\npolicy = \"{policy}\"\nrebuild_bytes = {rebuild_bytes}\nbatch_events = 50\n"
            );
            let scene = Scene::new(&tables, &["ledger"]).await;
            let positions = scene.append(&bookings_with_fees()).await;
            scene.wait_for("ledger", *positions.last().unwrap());
            let generation = rebuild(&scene, "ledger");
            filled(&scene.database, generation).await;
            assert_like_live(&scene.database, "ledger", generation).await;
            let letters = |generation: i64| {
                format!(
                    "select position, stream_id, state, message from gobo.dead_letters \
                      where generation = {generation} order by position"
                )
            };
            let live = live(&scene.database, "ledger").await;
            let expected = scene.database.query_json(&letters(live)).await;
            assert!(expected.as_array().unwrap().len() >= 5);
            let found = scene.database.query_json(&letters(generation)).await;
            assert_eq!(found, expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_fill_stops_in_front_of_an_event_that_cannot_be_processed_with_all_rows_before_it() {
    // The bytes that are filled do not understand fees, those that are live do.
    for events in [bookings_with_fees(), bookings_with_fees().split_off(1)] {
        let scene = Scene::new("", &["ledger"]).await;
        scene.append(&events).await;
        let error = scene.wait_for_stop("ledger");
        let generation = rebuild(&scene, "ledger");
        let state = wait_for("the fill to stop", async || {
            let state = state(&scene.database, generation).await;
            match state["error"].is_object() {
                true => Ok(state),
                false => Err(state),
            }
        })
        .await;
        assert_eq!(state["error"]["position"], error["position"]);
        assert_eq!(state["error"]["message"], error["message"]);
        let live = live(&scene.database, "ledger").await;
        let rows = |generation: i64| {
            format!(
                "select to_jsonb(r) - '_revision' as row from gobo_g{generation}.accounts r order by 1"
            )
        };
        assert_eq!(
            scene.database.query_json(&rows(generation)).await,
            scene.database.query_json(&rows(live)).await
        );
        assert_eq!(
            state["position"].as_i64().unwrap() + 1,
            error["position"].as_i64().unwrap()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_postgresql_refuses_costs_a_fast_fill_no_other_row() {
    // A key of so many bytes fits into the table, not into its index.
    let tables = "[projections.raw]\npolicy = \"skip\"\nbatch_events = 20\n";
    let scene = Scene::new(tables, &["raw-guest"]).await;
    let mut events = rows_of_all_kinds(200);
    let random: String = (0..300)
        .map(|_| uuid::Uuid::new_v4().simple().to_string())
        .collect();
    for place in [20, 150] {
        let id = format!("{place}{random}");
        events.insert(place, raw("long", json!({"do": "put", "id": id})));
    }
    let positions = append(&scene.database, &events).await;
    scene.wait_for("raw", *positions.last().unwrap());
    let generation = rebuild(&scene, "raw");
    filled(&scene.database, generation).await;
    assert_like_live(&scene.database, "raw", generation).await;
    let letters = format!(
        "select count(*) from gobo.dead_letters where generation = {generation} and state = 'skipped'"
    );
    assert_eq!(scene.database.query_i64(&letters).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_fast_fill_has_done_is_kept_when_the_engine_is_asked_to_end() {
    let tables = "[engine]\nbatch_events = 10\n";
    let mut scene = Scene::new(tables, &["orders"]).await;
    append_orders(&scene.database, 500, 500).await;
    scene.wait_for("orders", head(&scene.database).await);
    // A writer that is not done, and more than a batch behind it: the fill has to wait for it, with nothing committed.
    let mut client = scene.database.connect().await;
    let writer = client.transaction().await.unwrap();
    let late = r#"select from gobo.append('order-late', '[{"type": "Unwanted", "data": {}}]')"#;
    writer.query(late, &[]).await.unwrap();
    append_orders_behind(&scene.database).await;
    let generation = rebuild(&scene, "orders");
    let mut kept = state(&scene.database, generation).await;
    for questions in 0..100 {
        // It has longer every time: what it has in memory cannot be seen.
        for _ in 0..questions {
            state(&scene.database, generation).await;
        }
        assert_eq!(scene.gobo.terminate(), 0, "{}", scene.gobo.log());
        kept = state(&scene.database, generation).await;
        scene.gobo.start_again();
        if kept["position"].as_i64() > Some(0) {
            break;
        }
        // It was asked to end before it had processed anything.
    }
    assert!(kept["position"].as_i64() > Some(0), "{kept}");
    assert_eq!(kept["bulk"], true);
    writer.commit().await.unwrap();
    filled(&scene.database, generation).await;
    scene.wait_for("orders", head(&scene.database).await);
    assert_like_live(&scene.database, "orders", generation).await;
}

/// Orders of other streams than those of [`append_orders`].
async fn append_orders_behind(database: &Database) {
    let events: Vec<Event> = (0..50)
        .map(|n| crate::scene::order(&format!("behind-{n}")))
        .collect();
    append(database, &events).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_fill_is_promoted_and_readers_see_its_rows() {
    let scene = Scene::new("", &["orders"]).await;
    append_orders(&scene.database, 1_000, 1_000).await;
    scene.wait_for("orders", head(&scene.database).await);
    let before = scene.rows("orders").await;
    let old = live(&scene.database, "orders").await;
    let answer = scene
        .gobo
        .post("/admin/projections/orders/rebuild", &json!({}))
        .expect(202)
        .json();
    wait_until("the promotion", || {
        match scene.status("orders")["generation"] == answer["generation"] {
            true => Ok(()),
            false => Err(scene.status("orders")),
        }
    });
    assert_ne!(live(&scene.database, "orders").await, old);
    assert_eq!(scene.rows("orders").await, before);
    feed(&scene.database, 0, 300).await;
    scene.wait_for("orders", head(&scene.database).await);
}
