//! What SQL readers see of a switch that is not a plain READ COMMITTED statement over the same columns.

use gobo_tests::connect;
use serde_json::json;

use super::{ask, bookings, generation, wait_for_stage};
use crate::scene::Scene;

async fn filled() -> Scene {
    let scene = Scene::new("", &["ledger"]).await;
    let last = *scene.append(&bookings(5, 5)).await.last().unwrap();
    scene.wait_for("ledger", last);
    scene
}

fn rebuild(scene: &Scene) {
    let begun = ask(&scene.gobo, "ledger", "rebuild", json!({}))
        .expect(202)
        .json();
    wait_for_stage(&scene.gobo, "ledger", generation(&begun), "live");
}

#[tokio::test]
async fn a_prepared_statement_goes_on_over_the_new_generation() {
    let scene = filled().await;
    let sql = connect(scene.database.url()).await;
    let statement = sql
        .prepare("select count(*) from read.accounts")
        .await
        .unwrap();
    for _ in 0..3 {
        let count: i64 = sql.query_one(&statement, &[]).await.unwrap().get(0);
        assert_eq!(count, 5);
        rebuild(&scene);
    }
}

#[tokio::test]
async fn a_repeatable_read_transaction_that_is_older_than_the_fill_may_find_less() {
    let scene = filled().await;
    let sql = connect(scene.database.url()).await;
    // Its snapshot is older than the rows of the generation that it will read, and it has not looked at the view yet.
    sql.batch_execute("begin isolation level repeatable read; select 1")
        .await
        .unwrap();
    rebuild(&scene);
    let count: i64 = sql
        .query_one("select count(*) from read.accounts", &[])
        .await
        .unwrap()
        .get(0);
    assert!(
        count <= 5,
        "documented in ARCHITECTURE.md: the API has no such gap"
    );
    sql.batch_execute("commit").await.unwrap();
    let count: i64 = sql
        .query_one("select count(*) from read.accounts", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(count, 5);
}

#[tokio::test]
async fn one_that_has_read_the_view_keeps_the_switch_waiting_and_sees_the_same_rows_to_its_end() {
    let scene = filled().await;
    let sql = connect(scene.database.url()).await;
    sql.batch_execute("begin isolation level repeatable read")
        .await
        .unwrap();
    let sum = "select sum(balance)::int8 from read.accounts";
    let before: i64 = sql.query_one(sum, &[]).await.unwrap().get(0);
    let begun = ask(&scene.gobo, "ledger", "rebuild", json!({}))
        .expect(202)
        .json();
    let more = *scene.append(&bookings(5, 1)).await.last().unwrap();
    scene.wait_for("ledger", more);
    let again: i64 = sql.query_one(sum, &[]).await.unwrap().get(0);
    assert_eq!(again, before);
    sql.batch_execute("commit").await.unwrap();
    wait_for_stage(&scene.gobo, "ledger", generation(&begun), "live");
}

#[tokio::test]
async fn answers_over_http_change_their_etag_with_every_promotion_and_rollback() {
    let scene = filled().await;
    let tag = || {
        let answer = scene.gobo.get("/read/accounts").expect(200);
        answer.header("etag").unwrap().to_owned()
    };
    let mut seen = vec![tag()];
    rebuild(&scene);
    seen.push(tag());
    ask(&scene.gobo, "ledger", "rollback", json!({})).expect(200);
    seen.push(tag());
    ask(&scene.gobo, "ledger", "rollback", json!({})).expect(200);
    seen.push(tag());
    let mut unique = seen.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), seen.len(), "{seen:?}");
    let revisions = scene
        .database
        .query_i64("select revision from gobo.read_models")
        .await;
    assert!(revisions >= 4);
}
