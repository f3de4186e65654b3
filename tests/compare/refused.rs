//! What cannot be brought to one position is refused with the reason.

use gobo_tests::{wait_for, wait_until};
use serde_json::{Value, json};

use super::{Gobo, compared, diff, live, run, wait_for_position, with_candidate};
use crate::generations::{ask, bookings, generation, generations};
use crate::scene::Scene;

#[track_caller]
fn refused(gobo: &Gobo, query: &str, status: u16, why: &str) {
    let answer = diff(gobo, query).expect(status).json();
    let detail = answer["detail"].as_str().unwrap();
    assert!(detail.contains(why), "{detail}");
}

#[tokio::test]
async fn what_is_not_there_or_does_not_move_is_not_compared() {
    let (scene, candidate) = with_candidate().await;
    let live = live(&scene);
    let gobo = &scene.gobo;
    refused(
        gobo,
        &format!("a={live}&b={live}"),
        400,
        "compared with itself",
    );
    refused(gobo, "b=999", 404, "no generation 999");
    refused(gobo, "samples=-1", 400, "samples");
    refused(gobo, "oops=1", 400, "oops");
    gobo.get("/admin/projections/nothing/diff").expect(404);
    ask(
        gobo,
        "ledger",
        &format!("generations/{candidate}/pause"),
        json!({}),
    )
    .expect(200);
    refused(
        gobo,
        "",
        409,
        &format!("it is paused (gobo resume ledger --generation {candidate})"),
    );
    let ended = run(gobo, &["diff", "ledger"]).expect(3);
    assert!(
        ended.out.is_empty() && ended.err.contains("paused"),
        "{}",
        ended.err
    );
    run(gobo, &["diff", "ledger", "1"]).expect(2);
    run(gobo, &["diff", "ledger", "--url", "http://127.0.0.1:9"]).expect(3);
    ask(
        gobo,
        "ledger",
        &format!("generations/{candidate}/resume"),
        json!({}),
    )
    .expect(200);
    // Given up while it is still there.
    let _reader = scene.database.connect().await;
    _reader
        .batch_execute(&format!("begin; select from gobo_g{candidate}.accounts"))
        .await
        .unwrap();
    ask(gobo, "ledger", "cancel", json!({})).expect(200);
    refused(gobo, &format!("b={candidate}"), 409, "given up");
    refused(gobo, "", 409, "the only one");
}

#[tokio::test]
async fn a_generation_that_stopped_at_an_event_is_not_compared() {
    let (scene, candidate) = with_candidate().await;
    scene
        .append(&[(
            "account-1".into(),
            "Booked",
            json!({ "amount": 1, "fee": 1 }),
        )])
        .await;
    scene.wait_for_stop("ledger");
    wait_until("the candidate to stop", || {
        let all = generations(&scene.gobo, "ledger");
        match all[1]["state"] == "stopped" {
            true => Ok(()),
            false => Err(all),
        }
    });
    refused(
        &scene.gobo,
        "",
        409,
        "it has stopped: Booked at position 401",
    );
    let ended = run(&scene.gobo, &["verify", "ledger"]).expect(3);
    assert!(
        ended.err.contains("a fee of 1 is not understood"),
        "{}",
        ended.err
    );
    // The scratch generation went.
    wait_for("the scratch generation to be dropped", async || {
        let all = generations(&scene.gobo, "ledger");
        match all.iter().all(|one| one["purpose"] == "projection") {
            true => Ok(()),
            false => Err(all),
        }
    })
    .await;
    assert_eq!(
        generations(&scene.gobo, "ledger")[1]["generation"],
        candidate
    );
}

/// Lets every scratch generation end at a position.
async fn end_scratch_at(scene: &Scene, position: i64) {
    let sql = format!(
        "create function public.ends() returns trigger language plpgsql as $$ \
         begin new.until := {position}; return new; end $$; \
         create trigger ends before insert on gobo.generations for each row \
         when (new.purpose = 'verify') execute function public.ends()"
    );
    scene.database.execute(&sql).await;
}

#[tokio::test]
async fn a_complete_generation_is_compared_at_its_position_or_not_at_all() {
    let scene = Scene::new("", &["ledger"]).await;
    let last = *scene.append(&bookings(5, 5)).await.last().unwrap();
    scene.wait_for("ledger", last);
    end_scratch_at(&scene, last).await;
    let begun: Value = ask(&scene.gobo, "ledger", "verify", json!({}))
        .expect(202)
        .json();
    let done = generation(&begun);
    wait_for_position(&scene.gobo, done, last);
    crate::generations::wait_for_stage(&scene.gobo, "ledger", done, "done");
    let found = compared(diff(&scene.gobo, &format!("b={done}&all=true")));
    assert!(found.is_empty());
    assert_eq!(found.position, last);
    let more = *scene.append(&bookings(1, 1)).await.last().unwrap();
    scene.wait_for("ledger", more);
    let why = format!("`gobo replay ledger --until {last} --as NAME`");
    refused(&scene.gobo, &format!("b={done}"), 409, &why);
}
