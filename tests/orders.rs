//! A small market for tests: orders, matches and trades, the same for the same numbers, appended through SQL.

use gobo_tests::Database;
use serde_json::Value;

/// Appends events number `first` to `first + count - 1` of the market, each in a transaction of its own.
pub(crate) async fn feed(database: &Database, first: i64, count: i64) {
    let client = database.connect().await;
    client
        .batch_execute(FEED)
        .await
        .expect("the feed's function");
    client
        .execute("select pg_temp.feed($1, $2)", &[&first, &count])
        .await
        .expect("events are appended");
}

/// One call appends in one transaction per stream at most; a few hundred orders give rows that many events change.
const FEED: &str = r#"
create function pg_temp.feed(first bigint, count bigint) returns void language plpgsql as $$
declare
    i bigint;
    o text;
    s text;
    at text;
begin
    for i in first .. first + count - 1 loop
        o := 'o' || (i % 200);
        s := 'S' || (i % 7);
        at := to_char(timestamptz '2026-01-01' + i * interval '700 milliseconds', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
        if i < 200 then
            perform gobo.append('order-' || o, json_build_array(json_build_object(
                'type', 'OrderCreated', 'occurred_at', at, 'data', json_build_object('order_id', o, 'user_id', 'u' || (i % 13),
                'symbol', s, 'side', case when i % 2 = 0 then 'buy' else 'sell' end,
                'price', (100 + i % 9)::text || '.25', 'quantity', '100000'))));
        elsif i % 3 = 0 then
            perform gobo.append('trades-' || s, json_build_array(json_build_object(
                'type', 'TradeExecuted', 'occurred_at', at, 'data', json_build_object('trade_id', 't' || i, 'symbol', s,
                'buyer_id', 'u' || (i % 13), 'seller_id', 'u' || (i % 11), 'price', (100 + i % 9)::text || '.25',
                'quantity', (1 + i % 5)::text || '.5'))));
        elsif i % 101 = 0 then
            perform gobo.append('noise-' || s, '[{"type": "Unwanted", "data": {}}]');
        else
            perform gobo.append('order-' || o, json_build_array(json_build_object(
                'type', 'OrderMatched', 'occurred_at', at, 'data', json_build_object('order_id', o, 'quantity', (1 + i % 5)::text || '.5',
                'price', (100 + i % 9)::text || '.25', 'trade_id', 't' || i))));
        end if;
    end loop;
end
$$;
"#;

/// Every row of the shipped projections, `_revision` aside: what two runs over the same events have to agree on.
pub(crate) async fn rows(database: &Database) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for model in ["orders", "user_symbol_stats", "symbol_bars"] {
        let sql = format!("select to_jsonb(r) - '_revision' as row from read.{model} r order by 1");
        all.push((model.to_owned(), database.query_json(&sql).await));
    }
    all
}

/// The lowest checkpoint among the projections; 0 before there is one.
pub(crate) async fn checkpoint(database: &Database) -> i64 {
    database
        .query_i64("select coalesce(min(position), 0) from gobo.checkpoints")
        .await
}

/// The last event's position.
pub(crate) async fn head(database: &Database) -> i64 {
    database
        .query_i64("select coalesce(max(position), 0) from gobo.events")
        .await
}

/// A database with the same events at the same positions, and nothing else.
pub(crate) async fn copy_of_events(from: &Database) -> Database {
    use futures_util::{SinkExt, StreamExt};
    let copy = Database::create().await;
    let mut target = copy.connect().await;
    gobo::migrate::migrate(&mut target)
        .await
        .expect("the schema");
    let source = from.connect().await;
    let out = source
        .copy_out("copy gobo.events to stdout (format binary)")
        .await
        .expect("copy out");
    let into = target
        .copy_in::<_, bytes::Bytes>("copy gobo.events from stdin (format binary)")
        .await
        .expect("copy in");
    let (mut out, mut into) = (std::pin::pin!(out), std::pin::pin!(into));
    while let Some(bytes) = out.next().await {
        into.send(bytes.expect("events")).await.expect("events");
    }
    into.as_mut().finish().await.expect("copy in");
    target
        .batch_execute("select setval(pg_get_serial_sequence('gobo.events', 'position'), (select max(position) from gobo.events))")
        .await
        .expect("the sequence");
    copy
}
