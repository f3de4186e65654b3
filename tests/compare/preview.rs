//! `gobo deploy --preview`: what would change, before anybody sees it.

use gobo_tests::wasm;
use serde_json::json;

use super::{Scene, live, matched, run};
use crate::generations::{ask, bookings, generation, generations, wait_for_drop, wait_for_stage};

const PARK: &str = "[projections.ledger]\npolicy = \"park\"";

/// Rows that the code without fees lacks, has too many, and has otherwise than the code with fees.
async fn with_fees() -> Scene {
    let scene = Scene::new(PARK, &["ledger"]).await;
    scene.append(&bookings(5, 5)).await;
    let fees = [
        ("new", json!({ "amount": 9, "fee": 1 })),
        ("account-0", json!({ "amount": 5, "fee": 2 })),
        ("account-1", json!({ "amount": 0, "fee": 1, "close": true })),
    ];
    let fees = fees.map(|(stream, data)| (stream.to_owned(), "Booked", data));
    let last = *scene.append(&fees).await.last().unwrap();
    scene.wait_for("ledger", last);
    scene
}

fn preview(scene: &Scene, package: &str, more: &[&str]) -> super::Ended {
    let file = wasm(package);
    let mut arguments = vec!["deploy", file.to_str().unwrap(), "--preview"];
    arguments.extend(more);
    run(&scene.gobo, &arguments)
}

#[tokio::test]
async fn a_preview_shows_what_would_change_and_leaves_the_decision() {
    let scene = with_fees().await;
    let before = live(&scene);
    let shown = preview(&scene, "ledger-mended", &[]).expect(1);
    for part in [
        "differ at position",
        "added:",
        "account=new",
        "removed:",
        "account=account-1",
        "changed:",
        "account=account-0",
    ] {
        assert!(shown.out.contains(part), "{part}: {}", shown.out);
    }
    assert!(
        shown.err.contains("`gobo promote ledger`") && shown.err.contains("`gobo cancel ledger`"),
        "{}",
        shown.err
    );
    assert!(
        shown
            .err
            .contains(&format!("generation {before} has 3 dead letters")),
        "{}",
        shown.err
    );
    assert_eq!(live(&scene), before);
    scene.gobo.get("/read/accounts/new").expect(404);
    // The same bytes again: the same candidate, compared anew.
    let candidate = generations(&scene.gobo, "ledger")[1].clone();
    assert_eq!(candidate["hold"], true);
    let again = preview(&scene, "ledger-mended", &["--json", "--samples", "0"]).expect(1);
    let diff = again.diff();
    let rows = matched(&diff);
    assert_eq!((rows.added, rows.removed, rows.changed), (1, 1, 1));
    assert_eq!((rows.a, rows.b), (5, 5));
    assert!(rows.samples.added.is_empty() && rows.samples.changed.is_empty());
    assert_eq!((diff.a, diff.b), (before, generation(&candidate)));
    // And the same over `gobo diff`, with what the engine knows of each row.
    let diff = run(&scene.gobo, &["diff", "ledger", "--all", "--json"])
        .expect(1)
        .diff();
    let columns: Vec<&str> = matched(&diff)
        .columns
        .iter()
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!(
        columns,
        [
            "balance",
            "history",
            "_stream_id",
            "_position",
            "_updated_at"
        ]
    );
    ask(&scene.gobo, "ledger", "promote", json!({})).expect(200);
    scene.gobo.get("/read/accounts/new").expect(200);
    let (a, b) = (before.to_string(), diff.b.to_string());
    run(&scene.gobo, &["diff", "ledger", &b, &a]).expect(1);
    run(&scene.gobo, &["rebuild", "ledger"]).expect(0);
    run(&scene.gobo, &["diff", "ledger"]).expect(0);
}

#[tokio::test]
async fn a_preview_of_the_same_rows_ends_well_and_can_be_discarded() {
    let scene = Scene::new("", &["ledger"]).await;
    let last = *scene.append(&bookings(5, 5)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let shown = preview(&scene, "ledger-mended", &["--json", "--discard"]).expect(0);
    let diff = shown.diff();
    assert!(diff.is_empty());
    assert_eq!(matched(&diff).b, 5);
    wait_for_drop(&scene, diff.b).await;
    assert_eq!(generations(&scene.gobo, "ledger").len(), 1);
}

#[tokio::test]
async fn a_preview_of_what_runs_or_is_new_says_so_and_changes_nothing() {
    let scene = Scene::new("", &["ledger"]).await;
    let candidate = scene.gobo.deploy("ledger-mended").expect(202).json();
    wait_for_stage(&scene.gobo, "ledger", generation(&candidate), "live");
    let begun = ask(&scene.gobo, "ledger", "rebuild", json!({ "hold": true }));
    let begun = generation(&begun.expect(202).json());
    let shown = preview(&scene, "ledger-mended", &[]).expect(0);
    assert!(
        shown.out.contains("runs these very bytes already"),
        "{}",
        shown.out
    );
    // Who previews has not decided anything: what is being filled goes on.
    let all = generations(&scene.gobo, "ledger");
    assert_eq!(generation(all.last().unwrap()), begun);
    let refused = preview(&scene, "orders", &[]).expect(3);
    assert!(refused.err.contains("is new"), "{}", refused.err);
    scene.gobo.get("/admin/projections/orders").expect(404);
    run(&scene.gobo, &["deploy", "no-such.wasm", "--preview"]).expect(3);
    run(
        &scene.gobo,
        &["deploy", "x.wasm", "--preview", "--continue"],
    )
    .expect(2);
    run(&scene.gobo, &["deploy", "x.wasm", "--discard"]).expect(2);
}
