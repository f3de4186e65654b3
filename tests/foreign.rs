//! A team's own table as source: configuration, and nothing migrated.

use gobo_tests::{Database, Gobo, wait_for};
use serde_json::json;

/// Its configuration, for the projection `page-views`.
pub(crate) const SHOP: &str = r#"
[sources.shop]
table = "public.shop_events"
notify = "shop"

[sources.shop.columns]
position = "id"
stream_id = { sql = "'visit-' || visitor" }
version = { sql = "id" }
type = { sql = "kind" }
data = { sql = "payload" }
metadata = { sql = "null::json" }
event_id = { sql = "md5(id::text)::uuid" }
occurred_at = "happened_at"
recorded_at = "happened_at"

[projections.page-views]
source = "shop"
"#;

/// A database with that table, and no events yet.
pub(crate) async fn shop() -> Database {
    let database = Database::create().await;
    database
        .execute(
            "create table shop_events (id bigserial primary key, visitor int not null, kind text not null, \
             payload jsonb not null, happened_at timestamptz not null default now())",
        )
        .await;
    database
}

async fn view(database: &Database, page: &str) {
    let insert = format!(
        "insert into shop_events (visitor, kind, payload) values (7, 'PageViewed', '{{\"page\": \"{page}\"}}')"
    );
    database.execute(&insert).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_reads_a_foreign_table_by_its_columns_and_expressions() {
    let database = shop().await;
    view(&database, "/").await;
    let gobo = Gobo::start(database.url(), SHOP);
    gobo.deploy("page-views").expect(201);
    view(&database, "/").await;
    database
        .execute("begin; insert into shop_events (visitor, kind, payload) values (1, 'PageViewed', '{}'); rollback")
        .await;
    view(&database, "/about").await;
    let answer = gobo
        .get("/read/page_views?select=page,views,_position&order=page&min_position=4&wait=30s")
        .expect(200);
    assert_eq!(
        answer.json(),
        json!([{"page": "/", "views": 2, "_position": 2}, {"page": "/about", "views": 1, "_position": 4}])
    );
    let status = gobo.get("/admin/projections/page-views").json();
    assert_eq!(status["source"], "shop");
    assert_eq!(status["head_position"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_table_that_cannot_be_read_exactly_is_refused_with_the_reason() {
    let database = shop().await;
    database
        .execute("alter sequence shop_events_id_seq cache 10")
        .await;
    let gobo = Gobo::start(database.url(), SHOP);
    gobo.deploy("page-views").expect(201);
    let status = wait_for("the reason", async || {
        let status = gobo.get("/admin/projections/page-views").json();
        match status["error"]["message"].as_str() {
            Some(why) if why.to_lowercase().contains("cache") => Ok(()),
            _ => Err(status),
        }
    });
    status.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_has_read_one_source_does_not_go_on_in_another() {
    let database = shop().await;
    view(&database, "/").await;
    let mut gobo = Gobo::start(database.url(), &SHOP.replace("page-views", "ledger"));
    gobo.deploy("ledger").expect(201);
    wait_for("the first event to be passed", async || {
        match database
            .query_i64("select position from gobo.checkpoints")
            .await
        {
            1 => Ok(()),
            position => Err(position),
        }
    })
    .await;
    gobo.terminate();
    let gobo = Gobo::start(database.url(), "");
    let refused = gobo.deploy("ledger-mended").expect(409).json();
    assert_eq!(refused["code"], "source_changed", "{refused}");
}
