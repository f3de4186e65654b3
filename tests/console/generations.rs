//! Generations in the console: what is shown of them, and what their buttons do.

use serde_json::json;

use super::{LEDGER, assert_shows, page, press, press_in_vain, submit};
use crate::generations::{ask, bookings, generation, generations, wait_for_drop, wait_for_stage};
use crate::scene::Scene;
use gobo_tests::wait_until;

async fn scene() -> (Scene, i64) {
    let scene = Scene::new("[projections.ledger]\nlinger_ms = 1", &["ledger"]).await;
    let last = *scene.append(&bookings(3, 3)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let live = scene.status("ledger")["generation"].as_i64().unwrap();
    (scene, live)
}

fn wait_for_state(scene: &Scene, state: &str) {
    wait_until(&format!("the projection to be {state}"), || {
        match scene.status("ledger") {
            status if status["state"] == state => Ok(()),
            status => Err(status),
        }
    });
}

/// The page says that a generation is live, or that it is about to be; then it is.
fn wait_for_promise(scene: &Scene, shown: &str, generation: i64) {
    let said = ["is live now.", "becomes the live one as soon as it can"]
        .map(|how| format!("Generation {generation} {how}"));
    assert!(said.iter().any(|words| shown.contains(words)), "{shown}");
    wait_for_stage(&scene.gobo, "ledger", generation, "live");
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_are_shown_and_their_buttons_do_what_they_say() {
    let (scene, first) = scene().await;
    let gobo = &scene.gobo;
    let shown = press(gobo, &format!("{LEDGER}/rebuild"), "");
    let second = generations(gobo, "ledger").last().map(generation).unwrap();
    assert_shows(&shown, &[&format!("Generation {second} is being filled")]);
    wait_for_stage(gobo, "ledger", second, "live");
    let shown = page(gobo, LEDGER, 200);
    assert_shows(
        &shown,
        &[
            r##"<h2 id="generations">Generations</h2>"##,
            "kept",
            &format!("{LEDGER}/promote?generation={first}"),
            &format!("{LEDGER}/cancel?generation={first}"),
        ],
    );
    // The live one can be neither promoted nor given up.
    for verb in ["promote", "cancel", "pause"] {
        let form = format!("{LEDGER}/{verb}?generation={second}");
        assert!(!shown.contains(&form), "{form} in {shown}");
    }
    let shown = press(gobo, &format!("{LEDGER}/rollback"), "");
    wait_for_promise(&scene, &shown, first);
    let shown = press(gobo, &format!("{LEDGER}/promote?generation={second}"), "");
    wait_for_promise(&scene, &shown, second);
    let shown = press(gobo, &format!("{LEDGER}/cancel?generation={first}"), "");
    assert_shows(&shown, &[&format!("Generation {first} is given up")]);
    wait_for_drop(&scene, first).await;
    press(gobo, &format!("{LEDGER}/pause"), "");
    wait_for_state(&scene, "paused");
    assert_shows(&page(gobo, LEDGER, 200), &["/resume\"", "paused"]);
    press(gobo, &format!("{LEDGER}/resume"), "");
    wait_for_state(&scene, "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_is_shown_with_its_progress_and_why_it_waits() {
    let (scene, _) = scene().await;
    let begun = ask(&scene.gobo, "ledger", "rebuild", json!({ "hold": true }))
        .expect(202)
        .json();
    let candidate = generation(&begun);
    let shown = page(&scene.gobo, LEDGER, 200);
    assert_shows(
        &shown,
        &[
            "building",
            "held",
            "<progress max=",
            "an operator asked for it",
            &format!("{LEDGER}/cancel?generation={candidate}"),
            &format!("{LEDGER}/pause?generation={candidate}"),
        ],
    );
    // While one is being filled, there is no button to begin another.
    assert!(!shown.contains(&format!("{LEDGER}/rebuild\"")), "{shown}");
    press(
        &scene.gobo,
        &format!("{LEDGER}/pause?generation={candidate}"),
        "",
    );
    assert_shows(
        &page(&scene.gobo, LEDGER, 200),
        &[&format!("{LEDGER}/resume?generation={candidate}")],
    );
    press(
        &scene.gobo,
        &format!("{LEDGER}/cancel?generation={candidate}"),
        "",
    );
    wait_for_drop(&scene, candidate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_with_a_generation_is_said_and_strangers_forms_are_refused() {
    let (scene, live) = scene().await;
    let nothing = press_in_vain(&scene.gobo, &format!("{LEDGER}/rollback"), "", 409);
    assert_shows(&nothing, &["nothing to go back to"]);
    let refused = press_in_vain(
        &scene.gobo,
        &format!("{LEDGER}/cancel?generation={live}"),
        "",
        409,
    );
    assert_shows(&refused, &["is the live one"]);
    press_in_vain(
        &scene.gobo,
        &format!("{LEDGER}/promote?generation=many"),
        "",
        400,
    );
    press_in_vain(&scene.gobo, &format!("{LEDGER}/promote"), "", 404);
    for verb in [
        "rebuild", "promote", "rollback", "cancel", "pause", "resume",
    ] {
        let foreign = [("origin", "http://127.0.0.1:3000")];
        let (status, _, _) = submit(&scene.gobo, &format!("{LEDGER}/{verb}"), &foreign, "");
        assert_eq!(status, 403, "{verb}");
        // Somebody who only looks at the address is sent to the page.
        let shown = page(&scene.gobo, &format!("{LEDGER}/{verb}"), 200);
        assert_shows(&shown, &["Generations"]);
    }
    assert_eq!(generations(&scene.gobo, "ledger").len(), 1);
    assert_eq!(scene.status("ledger")["state"], "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_shown_with_where_they_come_from() {
    let (scene, _) = scene().await;
    let body = br#"{"batch_events": 1234}"#;
    let path = "/admin/projections/ledger/settings";
    scene.gobo.request("PATCH", path, &[], body).expect(200);
    let shown = page(&scene.gobo, LEDGER, 200);
    assert_shows(
        &shown,
        &[
            "1,234",
            "set at run time; otherwise 8,000",
            "configuration: <code>projections.ledger.linger_ms</code>",
            "gobo settings ledger",
        ],
    );
}
