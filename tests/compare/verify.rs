//! `gobo verify`: the live rows are those that the events give, or it shows where not.

use std::time::Duration;

use gobo_tests::{Background, wait_for, wait_until};
use serde_json::json;

use super::{Load, Scene, live, matched, run};
use crate::generations::{ask, bookings, generations};
use crate::scene::{matched as order_matched, order, raw};

/// Waits until nothing is left of any scratch generation.
async fn wait_for_nothing_left(scene: &Scene) {
    let sql = "select (select count(*) from gobo.generations where purpose = 'verify') \
             + (select count(*) from pg_namespace n where nspname like 'gobo\\_g%' \
                   and not exists (select from gobo.generations g where 'gobo_g' || g.id = nspname))";
    wait_for("scratch generations to be dropped", async || {
        match scene.database.query_i64(sql).await {
            0 => Ok(()),
            left => Err(left),
        }
    })
    .await;
}

#[tokio::test]
async fn every_projection_verifies_while_events_come_in() {
    let scene = Scene::new("", &["ledger", "orders", "raw-guest"]).await;
    let mut events = bookings(10, 20);
    events.extend((0..50).map(|n| order(&n.to_string())));
    events.extend((0..50).map(|n| order_matched(&n.to_string(), "3")));
    events.extend((0..50).map(|n| {
        raw(
            format!("r{n}"),
            json!({ "do": "add", "id": format!("{}", n % 7), "n": n }),
        )
    }));
    let last = *scene.append(&events).await.last().unwrap();
    for projection in ["ledger", "orders", "raw"] {
        scene.wait_for(projection, last);
    }
    let load = Load::start(
        scene.database.url(),
        10,
        Duration::from_millis(20),
        |n| json!({ "amount": n % 5 }),
    );
    for projection in ["ledger", "orders", "raw"] {
        let diff = run(&scene.gobo, &["verify", projection, "--json"])
            .expect(0)
            .diff();
        assert!(diff.is_empty() && matched(&diff).a > 0, "{diff:?}");
    }
    assert!(load.end() > 100);
    wait_for_nothing_left(&scene).await;
}

#[tokio::test]
async fn a_row_that_somebody_changed_is_found() {
    let scene = Scene::new("", &["ledger"]).await;
    let last = *scene.append(&bookings(10, 5)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let shown = run(&scene.gobo, &["verify", "ledger"]).expect(0);
    assert!(
        shown.out.contains("are the same at position"),
        "{}",
        shown.out
    );
    let live = live(&scene);
    let tampered = [
        (
            "balance",
            format!(
                "update gobo_g{live}.accounts set balance = balance + 1 where account = 'account-3'"
            ),
        ),
        (
            "_position",
            format!(
                "update gobo_g{live}.accounts set balance = balance - 1, _position = _position - 1 where account = 'account-3'"
            ),
        ),
    ];
    for (column, sql) in tampered {
        scene.database.execute(&sql).await;
        let shown = run(&scene.gobo, &["verify", "ledger"]).expect(1);
        assert!(
            shown.out.contains("account=account-3") && shown.out.contains(column),
            "{}",
            shown.out
        );
        let diff = run(&scene.gobo, &["verify", "ledger", "--json"])
            .expect(1)
            .diff();
        assert_eq!(matched(&diff).changed, 1);
        assert_eq!(diff.a, live);
    }
    wait_for_nothing_left(&scene).await;
    assert_eq!(generations(&scene.gobo, "ledger").len(), 1);
}

#[tokio::test]
async fn a_verification_that_is_interrupted_leaves_nothing_behind() {
    let scene = Scene::new("", &["ledger"]).await;
    let last = *scene.append(&bookings(10, 200)).await.last().unwrap();
    scene.wait_for("ledger", last);
    // Its scratch generation never gets far.
    let sql = "create function public.stuck() returns trigger language plpgsql as $$ \
               begin new.barrier := 1; new.barrier_expires := now() + interval '1 hour'; return new; end $$; \
               create trigger stuck before insert on gobo.generations for each row \
               when (new.purpose = 'verify') execute function public.stuck()";
    scene.database.execute(sql).await;
    let mut verify = Background::start(
        scene.gobo.folder(),
        &["verify", "ledger", "--url", scene.gobo.url()],
    );
    wait_until("the scratch generation", || {
        let all = generations(&scene.gobo, "ledger");
        match all
            .iter()
            .any(|one| one["purpose"] == "verify" && one["position"] == 1)
        {
            true => Ok(()),
            false => Err(all),
        }
    });
    let second = run(&scene.gobo, &["verify", "ledger"]).expect(3);
    assert!(
        second.err.contains("is being verified already"),
        "{}",
        second.err
    );
    ask(&scene.gobo, "nothing", "verify", json!({})).expect(404);
    assert_eq!(verify.terminate(), 3);
    wait_for_nothing_left(&scene).await;
}

#[tokio::test]
async fn a_forgotten_scratch_generation_expires() {
    let scene = Scene::new("", &["ledger"]).await;
    let last = *scene.append(&bookings(2, 2)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let begun = ask(&scene.gobo, "ledger", "verify", json!({}))
        .expect(202)
        .json();
    let scratch = begun["generation"].as_i64().unwrap();
    let all = generations(&scene.gobo, "ledger");
    assert!(all[1]["expires_at"].is_string(), "{all:?}");
    let expire = format!("update gobo.generations set expires_at = now() where id = {scratch}");
    scene.database.execute(&expire).await;
    wait_for_nothing_left(&scene).await;
}
