//! PostgREST's own clients, unchanged: each through all its documented calls for reading tables.

use std::process::Command;

use gobo_tests::{Gobo, node_folder, python_venv, workspace};
use serde_json::Value;

use crate::scene::{Event, Scene};

/// The library of `tests/clients/library.json`, served.
pub(crate) async fn library() -> Scene {
    let scene = Scene::new("", &["library"]).await;
    let text = std::fs::read(workspace().join("tests/clients/library.json")).unwrap();
    let events: Vec<Value> = serde_json::from_slice(&text).unwrap();
    let events: Vec<Event> = events
        .into_iter()
        .map(|event| {
            let kind = match event["type"].as_str().unwrap() {
                "AuthorAdded" => "AuthorAdded",
                "BookAdded" => "BookAdded",
                "ShelfAdded" => "ShelfAdded",
                "BookShelved" => "BookShelved",
                other => panic!("{other}"),
            };
            let stream = format!("{kind}-{}", event["data"]["id"]);
            (stream, kind, event["data"].clone())
        })
        .collect();
    let positions = scene.append(&events).await;
    scene.wait_for("library", positions[events.len() - 1]);
    scene
}

/// Runs a client's script, which says itself what does not hold.
fn run(gobo: &Gobo, script: &mut Command) {
    let output = script
        .env("GOBO_URL", gobo.url())
        .output()
        .unwrap_or_else(|error| panic!("{script:?}: {error}; see `cargo xtask setup`"));
    let printed = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{printed}");
    println!("{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgrest_js_reads_with_each_of_its_calls() {
    let scene = library().await;
    let folder = node_folder("tests/clients/js");
    run(
        &scene.gobo,
        Command::new("node").arg("reading.mjs").current_dir(folder),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn postgrest_py_reads_with_each_of_its_calls() {
    let scene = library().await;
    let python = python_venv("tests/clients/python/requirements.txt");
    let script = workspace().join("tests/clients/python/reading.py");
    run(&scene.gobo, Command::new(python).arg(script));
}
