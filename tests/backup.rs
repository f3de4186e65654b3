//! A plain dump of a live database, restored elsewhere, goes on.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gobo_tests::{Database, Gobo};
use serde_json::json;

use crate::generations::{ask, bookings, generation, wait_for_stage};
use crate::scene::{Scene, append, rows};

/// The words of the plan's line that begins with `program`, as a shell would hand them on.
fn command(plan: &str, program: &str) -> Vec<String> {
    let line = plan
        .lines()
        .find(|line| line.trim_start().starts_with(program));
    let line = line.unwrap_or_else(|| panic!("no {program} in {plan}"));
    let words = line.split_whitespace().skip(1);
    words.map(|word| word.replace(['\'', '"'], "")).collect()
}

fn run(program: &str, arguments: &[String]) {
    let binaries = gobo_cluster::find_binaries().unwrap();
    let output = Command::new(binaries.program(program))
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
}

/// Runs the plan's own commands.
fn dump_and_restore(plan: &str, from: &str, to: &str, file: &Path) {
    let file = file.display().to_string();
    let dump = command(plan, "pg_dump")
        .into_iter()
        .map(|word| match word.as_str() {
            "$DATABASE_URL" => from.to_owned(),
            word if word.starts_with("--file=") => format!("--file={file}"),
            _ => word,
        });
    run("pg_dump", &dump.collect::<Vec<_>>());
    let restore = command(plan, "pg_restore")
        .into_iter()
        .map(|word| match word.as_str() {
            word if word.starts_with("--dbname=") => format!("--dbname={to}"),
            word if word.ends_with(".dump") => file.clone(),
            _ => word,
        });
    run("pg_restore", &restore.collect::<Vec<_>>());
}

fn plan_of(scene: &Scene) -> String {
    let output = scene
        .gobo
        .command(&["backup-plan", "--database-url", scene.database.url()]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_taken_under_load_is_restored_served_and_goes_on() {
    let scene = Scene::new("", &["ledger", "page-views"]).await;
    let last = *scene.append(&bookings(50, 20)).await.last().unwrap();
    scene.wait_for("ledger", last);
    // A rebuild and a role that reads, so that there is more than the simplest.
    let begun = ask(&scene.gobo, "ledger", "rebuild", json!({}))
        .expect(202)
        .json();
    wait_for_stage(&scene.gobo, "ledger", generation(&begun), "live");
    let role = "create role backup_reader; grant usage on schema read to backup_reader; grant select on read.accounts to backup_reader";
    scene.database.execute(role).await;
    let plan = plan_of(&scene);
    assert!(plan.contains("backup_reader may read"), "{plan}");
    assert!(plan.contains("schemas gobo, read"), "{plan}");
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (stop, database) = (stop.clone(), Database::at(scene.database.url()));
        async move {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                append(&database, &bookings(10, 1)).await;
                count += 1;
            }
            count
        }
    });
    let restored = Database::create().await;
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (scene.database.url().to_owned(), restored.url().to_owned());
    let file = folder.path().join("gobo.dump");
    tokio::task::spawn_blocking(move || dump_and_restore(&plan, &from, &to, &file))
        .await
        .unwrap();
    stop.store(true, Ordering::Relaxed);
    assert!(load.await.unwrap() > 0);

    // Rows and checkpoint are of one moment: what the rows say is what the events up to the checkpoint say.
    let at_checkpoint = restored
        .query_json(
            "select (select sum(balance) from read.accounts)::int8 as rows, \
                    (select sum((data ->> 'amount')::int8) from gobo.events e \
                      where e.position <= (select c.position from gobo.checkpoints c join gobo.projections p on p.live = c.generation \
                                            where p.name = 'ledger'))::int8 as events",
        )
        .await;
    assert_eq!(at_checkpoint[0]["rows"], at_checkpoint[0]["events"]);
    let drawn =
        "select last_value - (select max(position) from gobo.events) from gobo.events_position_seq";
    assert!(restored.query_i64(drawn).await >= 0);

    let gobo = Gobo::start(restored.url(), "");
    let restored = Scene {
        database: restored,
        gobo,
    };
    let head = restored
        .database
        .query_i64("select max(position) from gobo.events")
        .await;
    restored.wait_for("ledger", head);
    restored.wait_for("page-views", 0);
    let served = rows(&restored.database, "accounts").await;
    let begun = ask(&restored.gobo, "ledger", "rebuild", json!({}))
        .expect(202)
        .json();
    wait_for_stage(&restored.gobo, "ledger", generation(&begun), "live");
    assert_eq!(rows(&restored.database, "accounts").await, served);
    // It goes on.
    let more = *restored.append(&bookings(50, 1)).await.last().unwrap();
    assert!(more > head);
    restored.wait_for("ledger", more);
    assert_ne!(rows(&restored.database, "accounts").await, served);
    let granted = "select has_table_privilege('backup_reader', 'read.accounts', 'select')::int";
    assert_eq!(restored.database.query_i64(granted).await, 1);
    // What clients have kept of the old one is not taken for the new one's.
    let token = "select token from gobo.incarnation";
    let (old, new) = (
        scene.database.query_json(token).await,
        restored.database.query_json(token).await,
    );
    assert_eq!(
        (old.as_array().map(Vec::len), new.as_array().map(Vec::len)),
        (Some(1), Some(1))
    );
    assert_ne!(old, new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_events_alone_were_restored_from_before_says_so_and_can_be_mended() {
    let scene = Scene::new("", &["ledger"]).await;
    let positions = scene.append(&bookings(5, 4)).await;
    let last = *positions.last().unwrap();
    scene.wait_for("ledger", last);
    // The events as they were some time ago, under checkpoints of now.
    let (kept, gone) = (positions[9], positions[10]);
    let mut gobo = scene.gobo;
    gobo.terminate();
    let restored = format!(
        "begin; set local gobo.change_events = 'on'; delete from gobo.events where position >= {gone}; \
         select setval('gobo.events_position_seq', {kept}); commit"
    );
    scene.database.execute(&restored).await;
    gobo.start_again();
    let scene = Scene { gobo, ..scene };
    let error = scene.wait_for_stop("ledger");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("restored from an older state"),
        "{message}"
    );
    // As the plan says.
    let plan = plan_of(&scene);
    assert!(
        plan.contains("gobo remove NAME --yes, gobo deploy FILE"),
        "{plan}"
    );
    let removed = scene.gobo.command(&["remove", "ledger", "--yes"]);
    assert!(removed.status.success(), "{removed:?}");
    scene.gobo.deploy("ledger").expect(201);
    scene.wait_for("ledger", kept);
    let events: i64 = scene
        .database
        .query_i64("select sum((data ->> 'amount')::int8) from gobo.events")
        .await;
    assert_eq!(
        scene
            .database
            .query_i64("select sum(balance) from read.accounts")
            .await,
        events
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_of_a_database_without_gobo_says_that_there_is_none() {
    let scene = Scene::new("", &[]).await;
    let empty = Database::create().await;
    let output = scene
        .gobo
        .command(&["backup-plan", "--database-url", empty.url()]);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("has no gobo in it"), "{text}");
    let plan = plan_of(&scene);
    assert!(plan.contains("Gobo's own store, in schema gobo"), "{plan}");
}
