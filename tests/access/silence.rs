//! Errors and hidden rows: what would fail for a row that the reader may not see must not be told by failing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::rows::{order, shop};
use super::{get, jwt_for};
use crate::scene::append;

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_hidden_rows_alone_tells_nothing_of_them() {
    // A rule that costs more than what is asked, so that PostgreSQL would ask that first.
    let shop = shop(
        "[read_models.orders]\nrows = \"user_id = claim.sub or user_id = claim.other or user_id in claim.more\"",
    )
    .await;
    let own = [order("1", "carl", "1"), order("2", "carl", "1")];
    let positions = append(&shop.database, &own).await;
    let carl = jwt_for(json!({"role": "read", "sub": "carl", "other": "-", "more": ["-", "--"]}));
    // Casts of others' ids would fail.
    let path = format!(
        "/read/orders?select=n:order_id::int4&order=n&limit=1&min_position={}&wait=30s",
        positions[1]
    );
    let page = get(&shop.gobo, &path, &carl).expect(200);
    assert_eq!(page.json(), json!([{"n": 1}]));
    assert_eq!(page.header("gobo-next-cursor"), None);
    let forged =
        json!({"v": 1, "m": "orders", "o": "order_id::int4.asc,order_id.asc", "k": ["0", "0"]});
    let forged = URL_SAFE_NO_PAD.encode(forged.to_string());
    let path = format!("/read/orders?select=n:order_id::int4&order=n&cursor={forged}");
    let refused = get(&shop.gobo, &path, &carl).expect(400).json();
    assert_eq!(refused["reason"], "invalid_cursor", "{refused}");
    // So would a pattern whose last escape is reached by rows that match so far, in the planner's statistics too.
    shop.database
        .connect()
        .await
        .batch_execute("set role none; do $$ declare t text; begin for t in select format('%I.%I', schemaname, tablename) from pg_tables where tablename = 'orders' loop execute 'analyze ' || t; end loop; end $$")
        .await
        .unwrap();
    for hidden in ["b", "zzz"] {
        let path = format!("/read/orders?order_id=like.{hidden}%25%5C");
        let refused = get(&shop.gobo, &path, &carl).expect(400).json();
        assert_eq!(refused["reason"], "invalid_value", "{refused}");
        let path = format!("/read/orders?order_id=like(any).%7B{hidden}%25%5C%5C%7D");
        get(&shop.gobo, &path, &carl).expect(400);
    }
    // What can be asked is asked of the own rows.
    let path = "/read/orders?select=order_id&order_id=match.^[0-9]&order_id=fts(simple).1|2&order=order_id";
    let rows = get(&shop.gobo, path, &carl).expect(200).json();
    assert_eq!(rows, json!([{"order_id": "1"}, {"order_id": "2"}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_that_explodes_is_not_tried_on_hidden_rows() {
    // Whoever waits for it would learn what they hold.
    let rule = "user_id = claim.sub or user_id = claim.other or user_id in claim.more";
    let tables =
        format!("[read_models.orders]\nrows = {rule:?}\n[api]\nstatement_timeout_ms = 3000");
    let shop = shop(&tables).await;
    shop.database
        .execute(
            "set role none;
             do $$ declare t text; begin
               select format('%I.%I', schemaname, tablename) into t from pg_tables where tablename = 'orders';
               execute format('insert into %s select (jsonb_populate_record(o, jsonb_build_object(%L, %L || g, %L, repeat(%L, 2001) || %L))).*
                 from %s o, generate_series(1, 2000) g where order_id = %L', t, 'order_id', 'h', 'symbol', 'a', 'b', t, 'b1');
             end $$",
        )
        .await;
    let alice = json!({"role": "read", "sub": "alice", "other": "-", "more": ["-", "--"]});
    let path = "/read/orders?select=order_id&symbol=match.%5E(a%2B)(a%2B)(a%2B)%5C1%5C2%5C3b$";
    let seen = get(&shop.gobo, path, &jwt_for(alice)).expect(200);
    assert_eq!(seen.json(), json!([]));
    let tried = get(&shop.gobo, path, &shop.admin).expect(500).json();
    assert_eq!(tried["reason"], "statement_timeout", "{tried}");
}
