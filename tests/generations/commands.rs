//! The same from the command line.

use gobo_tests::{wait_until, wasm};
use serde_json::json;

use super::{bookings, generations};
use crate::scene::Scene;

#[tokio::test]
async fn an_operator_rebuilds_promotes_rolls_back_and_cancels_from_the_command_line() {
    let scene = Scene::new("", &["ledger"]).await;
    let last = *scene.append(&bookings(5, 5)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let run = |arguments: &[&str]| {
        let output = scene.gobo.command(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let rebuilt = run(&["rebuild", "ledger"]);
    assert!(rebuilt.contains("is live at position"), "{rebuilt}");
    let held = run(&["rebuild", "ledger", "--hold"]);
    assert!(held.contains("waits for `gobo promote ledger`"), "{held}");
    let listed = run(&["generations", "ledger"]);
    for word in ["kept", "live", "building", "held for `gobo promote`"] {
        assert!(listed.contains(word), "{listed}");
    }
    assert!(run(&["promote", "ledger"]).starts_with("promoted: "));
    assert!(run(&["rollback", "ledger"]).starts_with("promoted: "));
    run(&["rebuild", "ledger", "--hold", "--detach"]);
    assert!(run(&["cancel", "ledger"]).starts_with("cancelled: "));
    assert!(run(&["pause", "ledger"]).starts_with("paused: "));
    wait_until("the projection to be paused", || {
        match scene.status("ledger")["state"] == json!("paused") {
            true => Ok(()),
            false => Err(scene.status("ledger")),
        }
    });
    assert!(run(&["resume", "ledger"]).starts_with("resumed: "));
    let file = wasm("ledger-mended");
    let deployed = run(&["deploy", file.to_str().unwrap()]);
    assert!(
        deployed.starts_with("rebuilding: ") && deployed.contains("is live at position"),
        "{deployed}"
    );
    let json = run(&["generations", "ledger", "--json"]);
    assert!(json.contains("\"stage\": \"live\""), "{json}");
    let refused = scene.gobo.command(&["cancel", "ledger"]);
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && text.contains("has no generation"),
        "{text}"
    );
    let unknown = scene.gobo.command(&["rebuild", "nothing"]);
    assert!(!unknown.status.success());
    assert_eq!(generations(&scene.gobo, "ledger").len(), 2);
}
