//! Commands that go on until they are ended.

use std::os::unix::fs::PermissionsExt;

use gobo_tests::{Background, Cluster, Database, Options, wait_until, wasm};
use serde_json::json;

use crate::scene::{Scene, append, raw};

fn said(message: &str) -> (String, &'static str, serde_json::Value) {
    raw(
        "s",
        json!({"do": "log", "level": "info", "message": message, "times": 1}),
    )
}

/// The text between two others.
fn between<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_followed_line_by_line_also_over_an_outage() {
    let mut cluster = Cluster::start(Options::ephemeral()).unwrap();
    let database = Database::create_in(&cluster).await;
    // What was shown is not to be lost with the server.
    let durable = "[engine]\nsynchronous_commit = true\n";
    let scene = Scene::over(database, durable, &["raw-guest"]);
    let mut position = scene.append(&[said("early")]).await[0];
    scene.wait_for("raw", position);
    let arguments = ["logs", "raw", "--follow", "--url", scene.gobo.url()];
    let mut logs = Background::start(scene.gobo.folder(), &arguments);
    let seen = |message: &'static str| move |printed: &str| printed.contains(message).then_some(());
    logs.wait_for("the lines that were there", seen("early"));
    scene.append(&[said("later")]).await;
    logs.wait_for("a line that came", seen("later"));

    cluster.kill().unwrap();
    wait_until("the engine to notice", || {
        match scene.gobo.get("/health/ready") {
            answer if answer.status == 503 => Ok(()),
            answer => Err(answer),
        }
    });
    cluster.restart().unwrap();
    position = append(&scene.database, &[said("after all")]).await[0];
    logs.wait_for("the first line after the outage", seen("after all"));
    scene.wait_for("raw", position);
    let printed = logs.printed();
    for message in ["early", "later", "after all"] {
        assert_eq!(printed.matches(message).count(), 1, "{printed}");
    }
    assert_eq!(printed.lines().count(), 3, "{printed}");
    logs.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_status_shows_what_changes() {
    let scene = Scene::new("", &["raw-guest"]).await;
    let arguments = ["status", "--watch", "--url", scene.gobo.url()];
    let mut status = Background::start(scene.gobo.folder(), &arguments);
    // Each look clears the screen.
    let last = |printed: &str| printed.rsplit("\x1b[2J\x1b[H").next().map(str::to_owned);
    let shows = |text: String| move |printed: &str| last(printed)?.contains(&text).then_some(());
    status.wait_for("the projection", shows("running".to_owned()));
    let position = scene.append(&[said("x"), said("y")]).await[1];
    status.wait_for("the new position", shows(format!("  {position}  ")));
    assert!(status.printed().matches("PROJECTION").count() > 1);
    status.terminate();
}

#[test]
fn dev_names_the_port_that_it_listens_on_and_ends_with_its_database() {
    let folder = tempfile::tempdir().unwrap();
    // A private database may run as another user.
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let plugins = folder.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    std::fs::copy(wasm("page-views"), plugins.join("page_views.wasm")).unwrap();
    let mut dev = Background::start(folder.path(), &["dev", "--listen", "127.0.0.1:0"]);
    let ready = |printed: &str| between(printed, "listening on ", "\n").map(str::to_owned);
    let url = dev.wait_for("the engine", ready);
    let printed = dev.printed();
    let shown = between(&printed, "status     curl ", "/admin/projections\n").unwrap();
    assert_eq!(shown, url, "{printed}");
    assert!(!url.ends_with(":0"), "{url}");
    wait_until("the plugin of the folder", || {
        let answer = ureq::get(format!("{shown}/read/page_views")).call();
        answer.map(drop)
    });
    let data = folder.path().join(".gobo/dev");
    assert!(data.join("postmaster.pid").exists(), "{printed}");
    assert_eq!(dev.terminate(), 0, "{}", dev.printed());
    assert!(!data.join("postmaster.pid").exists());
}
