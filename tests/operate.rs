//! What operators do from day to day: settings changed while projections run, projections removed.

use gobo_tests::{Gobo, wait_for, wait_until};
use serde_json::{Value, json};

use crate::generations::{ask, bookings, generation, wait_for_drop, wait_for_stage};
use crate::scene::{Event, Scene};

fn booked(stream: &str, amount: i64, fee: i64) -> Event {
    let data = json!({ "amount": amount, "fee": fee });
    (stream.to_owned(), "Booked", data)
}

fn change(gobo: &Gobo, changes: Value) -> gobo_tests::Answer {
    let body = changes.to_string();
    gobo.request(
        "PATCH",
        "/admin/projections/ledger/settings",
        &[],
        body.as_bytes(),
    )
}

fn setting(answer: &Value, key: &str) -> Value {
    let settings = answer["settings"].as_array().unwrap();
    settings
        .iter()
        .find(|one| one["key"] == key)
        .unwrap()
        .clone()
}

fn remove(gobo: &Gobo, query: &str) -> gobo_tests::Answer {
    gobo.request(
        "DELETE",
        &format!("/admin/projections/ledger{query}"),
        &[],
        b"",
    )
}

fn said(gobo: &Gobo, arguments: &[&str]) -> (bool, String) {
    let output = gobo.command(arguments);
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.success(),
        text(&output.stdout) + &text(&output.stderr),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_say_where_each_value_comes_from_and_are_changed_over_http_and_in_the_shell() {
    let tables = "[engine]\nbatch_events = 500\n[projections.ledger]\nlinger_ms = 1\n";
    let scene = Scene::new(tables, &["ledger"]).await;
    let path = "/admin/projections/ledger/settings";
    let shown = scene.gobo.get(path).expect(200).json();
    let seen = |shown: &Value, key: &str| {
        let setting = setting(shown, key);
        (setting["value"].clone(), setting["origin"].clone())
    };
    assert_eq!(seen(&shown, "policy"), (json!("stop"), json!("default")));
    assert_eq!(
        seen(&shown, "batch_events"),
        (json!(500), json!("configuration"))
    );
    assert_eq!(
        setting(&shown, "batch_events")["configured_as"],
        "engine.batch_events"
    );
    assert_eq!(
        seen(&shown, "linger_ms"),
        (json!(1), json!("configuration"))
    );
    let changed = change(&scene.gobo, json!({ "batch_events": 7, "policy": "park" }));
    let changed = changed.expect(200).json();
    assert_eq!(
        seen(&changed, "batch_events"),
        (json!(7), json!("run_time"))
    );
    assert_eq!(setting(&changed, "batch_events")["otherwise"], 500);
    assert_eq!(scene.gobo.get(path).expect(200).json(), changed);
    let (done, text) = said(
        &scene.gobo,
        &["settings", "ledger", "linger_ms=20", "--unset", "policy"],
    );
    assert!(done, "{text}");
    let line = |key: &str| {
        text.lines()
            .find(|line| line.starts_with(key))
            .unwrap()
            .to_owned()
    };
    assert!(
        line("linger_ms").contains("20  run time (otherwise 1)"),
        "{text}"
    );
    assert!(line("policy").contains("stop  default"), "{text}");
    assert!(
        line("batch_events").contains("7  run time (otherwise 500)"),
        "{text}"
    );
    // They are the database's: another process finds them.
    let other = Gobo::start(scene.database.url(), "");
    let seen = setting(&other.get(path).expect(200).json(), "linger_ms");
    assert_eq!(
        (&seen["value"], &seen["otherwise"]),
        (&json!(20), &json!(0))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_makes_no_sense_is_refused_and_nothing_changes() {
    let scene = Scene::new("", &["ledger"]).await;
    for (changes, part) in [
        (json!({ "polcy": "skip" }), "did you mean policy?"),
        (
            json!({ "source": "shop" }),
            "source cannot be changed while the engine runs",
        ),
        (json!({ "policy": "ignore" }), "policy cannot be"),
        (json!({ "batch_events": 0 }), "not between 1 and"),
        (
            json!({ "batch_bytes": 4096, "linger_ms": "long" }),
            "linger_ms cannot be",
        ),
    ] {
        let problem = change(&scene.gobo, changes).expect(400).json();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(part), "{detail}");
    }
    let stored = scene
        .database
        .query_json("select settings from gobo.projections")
        .await;
    assert_eq!(stored, json!([{ "settings": {} }]));
    let missing = scene
        .gobo
        .request("PATCH", "/admin/projections/nobody/settings", &[], b"{}");
    missing.expect(404);
    let (done, text) = said(&scene.gobo, &["settings", "ledger", "policy"]);
    assert!(!done && text.contains("key=value"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_set_at_run_time_lets_a_stopped_projection_go_on() {
    let scene = Scene::new("", &["ledger"]).await;
    let positions = scene
        .append(&[booked("a", 1, 0), booked("a", 2, 9), booked("a", 3, 0)])
        .await;
    scene.wait_for_stop("ledger");
    change(&scene.gobo, json!({ "policy": "skip" })).expect(200);
    let (done, text) = said(&scene.gobo, &["restart", "ledger"]);
    assert!(done, "{text}");
    scene.wait_for("ledger", positions[2]);
    scene.wait_for_letters("ledger", &[(positions[1], "a", "skipped")]);
    // And back, without a restart of anything: the next poison event stops it.
    let epoch = async || {
        let sql = "select epoch from gobo.checkpoints";
        scene.database.query_i64(sql).await
    };
    let before = epoch().await;
    change(&scene.gobo, json!({ "policy": null })).expect(200);
    wait_for("the loop to begin again", async || match epoch().await {
        now if now > before => Ok(()),
        now => Err(now),
    })
    .await;
    let poison = scene.append(&[booked("b", 1, 9)]).await[0];
    assert_eq!(scene.wait_for_stop("ledger")["position"], poison);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linger_that_is_set_at_run_time_collects_events_until_a_reader_waits() {
    let scene = Scene::new("", &["ledger"]).await;
    let first = scene.append(&[booked("a", 1, 0)]).await[0];
    scene.wait_for("ledger", first);
    let before = scene.status("ledger");
    change(&scene.gobo, json!({ "linger_ms": 3_600_000 })).expect(200);
    // The loop has begun again with it when its lease has the next epoch.
    wait_for("the loop to begin again", async || {
        match scene
            .database
            .query_i64("select epoch from gobo.checkpoints")
            .await
        {
            1 => Err("the old loop runs"),
            _ => Ok(()),
        }
    })
    .await;
    let mut last = first;
    for n in 0..20 {
        last = scene.append(&[booked(&format!("s{n}"), 1, 0)]).await[0];
    }
    // Nothing is committed for an hour unless somebody waits for it.
    let path = format!("/read/accounts?min_position={last}&wait=30s");
    let answer = scene.gobo.get(&path).expect(200);
    assert_eq!(
        answer.header("gobo-position"),
        Some(last.to_string().as_str())
    );
    assert_eq!(answer.json().as_array().unwrap().len(), 21);
    let revision = |status: &Value| status["read_models"][0]["revision"].as_i64().unwrap();
    // Twenty appends, one transaction (some more, if the reader came while some were still being read).
    let taken = revision(&scene.status("ledger")) - revision(&before);
    assert!((1..=5).contains(&taken), "{taken} transactions");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_projection_is_gone_with_all_that_it_had_and_can_be_deployed_as_new() {
    let scene = Scene::new("[projections.ledger]\npolicy = \"park\"", &["ledger"]).await;
    let mut events = bookings(3, 3);
    events.push(booked("z", 1, 9));
    let last = *scene.append(&events).await.last().unwrap();
    scene.wait_for("ledger", last);
    change(&scene.gobo, json!({ "linger_ms": 1 })).expect(200);
    let live = scene.status("ledger")["generation"].as_i64().unwrap();
    let begun = ask(&scene.gobo, "ledger", "rebuild", json!({ "hold": true }));
    let candidate = generation(&begun.expect(202).json());
    let plan = scene
        .gobo
        .get("/admin/projections/ledger/removal")
        .expect(200)
        .json();
    assert_eq!(plan["views"], json!(["read.accounts"]));
    assert_eq!(plan["read_models"], json!(["accounts"]));
    assert_eq!(plan["has_settings"], true);
    assert!(plan["dead_letters"].as_i64() >= Some(1), "{plan}");
    let numbers: Vec<i64> = plan["generations"]
        .as_array()
        .unwrap()
        .iter()
        .map(generation)
        .collect();
    assert_eq!(numbers, [live, candidate]);
    let table = &plan["generations"][0]["tables"][0];
    assert_eq!(table["name"], format!("gobo_g{live}.accounts"));
    // Nothing goes unless its name is said.
    for query in ["", "?confirm=", "?confirm=other"] {
        let problem = remove(&scene.gobo, query).expect(400).json();
        assert_eq!(problem["code"], "not_confirmed");
    }
    let (done, text) = said(&scene.gobo, &["remove", "ledger"]);
    assert!(
        !done && text.contains("view read.accounts") && text.contains("--yes"),
        "{text}"
    );
    scene.gobo.get("/read/accounts").expect(200);
    let (done, text) = said(&scene.gobo, &["remove", "ledger", "--yes"]);
    assert!(done && text.contains("is removed"), "{text}");
    scene.gobo.get("/read/accounts").expect(404);
    scene.gobo.get("/admin/projections/ledger").expect(404);
    remove(&scene.gobo, "?confirm=ledger").expect(404);
    wait_for_drop(&scene, live).await;
    wait_for_drop(&scene, candidate).await;
    let left = "select (select count(*) from gobo.projections) + (select count(*) from gobo.dead_letters) \
              + (select count(*) from gobo.read_models) + (select count(*) from gobo.deploys) \
              + (select count(*) from gobo.plugin_logs) + (select count(*) from pg_views where schemaname = 'read')";
    wait_for("nothing to be left", async || {
        match scene.database.query_i64(left).await {
            0 => Ok(()),
            left => Err(left),
        }
    })
    .await;
    let again = scene.gobo.deploy("ledger").expect(201).json();
    assert_eq!(again["outcome"], "created");
    scene.wait_for("ledger", last);
    assert_eq!(scene.rows("accounts").await.as_array().unwrap().len(), 3);
    let settings = scene
        .gobo
        .get("/admin/projections/ledger/settings")
        .expect(200)
        .json();
    assert_eq!(setting(&settings, "linger_ms")["origin"], "default");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_something_was_built_on_is_not_removed_and_what_is_named() {
    let scene = Scene::new("", &["ledger"]).await;
    let last = *scene.append(&bookings(2, 2)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let live = scene.status("ledger")["generation"].as_i64().unwrap();
    for (sql, name) in [
        (
            "create view public.rich as select * from read.accounts where balance > 1".to_owned(),
            "rich",
        ),
        (
            format!("create view public.direct as select * from gobo_g{live}.accounts"),
            "direct",
        ),
    ] {
        scene.database.execute(&sql).await;
        let plan = scene
            .gobo
            .get("/admin/projections/ledger/removal")
            .expect(200)
            .json();
        assert!(
            plan["built_on_it"][0].as_str().unwrap().contains(name),
            "{plan}"
        );
        let refused = remove(&scene.gobo, "?confirm=ledger").expect(409).json();
        assert_eq!(refused["code"], "dependent_objects");
        assert!(
            refused["detail"].as_str().unwrap().contains(name),
            "{refused}"
        );
        scene.gobo.get("/read/accounts").expect(200);
        scene
            .database
            .execute(&format!("drop view public.{name}"))
            .await;
    }
    let more = *scene.append(&bookings(2, 1)).await.last().unwrap();
    scene.wait_for("ledger", more);
    remove(&scene.gobo, "?confirm=ledger").expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_waits_for_a_reader_and_says_who_is_in_the_way() {
    let scene = Scene::new("", &["ledger"]).await;
    let mut reader = scene.database.connect().await;
    let transaction = reader.transaction().await.unwrap();
    transaction
        .query("select * from read.accounts", &[])
        .await
        .unwrap();
    let refused = remove(&scene.gobo, "?confirm=ledger").expect(409).json();
    assert!(
        refused["detail"]
            .as_str()
            .unwrap()
            .contains("was not removed"),
        "{refused}"
    );
    scene.gobo.get("/read/accounts").expect(200);
    transaction.rollback().await.unwrap();
    remove(&scene.gobo, "?confirm=ledger").expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_is_finished_by_whoever_comes_next_after_a_kill() {
    let mut scene = Scene::new("", &["ledger"]).await;
    let last = *scene.append(&bookings(3, 3)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let live = scene.status("ledger")["generation"].as_i64().unwrap();
    // Somebody reads the table itself, so that it cannot be dropped yet.
    let mut reader = scene.database.connect().await;
    let transaction = reader.transaction().await.unwrap();
    let lock = format!("lock table gobo_g{live}.accounts in access share mode");
    transaction.batch_execute(&lock).await.unwrap();
    remove(&scene.gobo, "?confirm=ledger").expect(200);
    // The name is free at once, whatever becomes of the tables.
    let names = "select count(*) from gobo.read_models";
    assert_eq!(scene.database.query_i64(names).await, 0);
    scene.gobo.kill();
    // Deployed again while the old tables are still there.
    scene.gobo.start_again();
    scene.gobo.get("/read/accounts").expect(404);
    scene.gobo.deploy("ledger").expect(201);
    scene.wait_for("ledger", last);
    transaction.rollback().await.unwrap();
    wait_for_drop(&scene, live).await;
    assert_eq!(scene.rows("accounts").await.as_array().unwrap().len(), 3);
    scene.wait_for("ledger", last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_watched_folder_does_not_bring_a_removed_projection_back() {
    let scene = Scene::new("[plugins]\nwatch = \"plugins\"", &[]).await;
    let folder = scene.gobo.folder().join("plugins");
    wait_until("the watched folder", || match folder.is_dir() {
        true => Ok(()),
        false => Err("not there"),
    });
    let bytes = gobo_tests::wasm_bytes("ledger");
    let deployed = || {
        wait_until("the file to be deployed", || {
            match scene.gobo.get("/admin/projections/ledger") {
                answer if answer.status == 200 => Ok(()),
                answer => Err(answer.text()),
            }
        });
    };
    std::fs::write(folder.join("ledger.wasm"), &bytes).unwrap();
    deployed();
    remove(&scene.gobo, "?confirm=ledger").expect(200);
    // The same bytes again, and another file beside it that tells when the folder has been looked at.
    std::fs::write(folder.join("ledger.wasm"), &bytes).unwrap();
    std::fs::write(folder.join("zz.wasm"), gobo_tests::wasm_bytes("page-views")).unwrap();
    wait_until("the other file to be deployed", || {
        match scene.gobo.get("/admin/projections/page-views") {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.text()),
        }
    });
    scene.gobo.get("/admin/projections/ledger").expect(404);
    // Other bytes do.
    std::fs::write(
        folder.join("ledger.wasm"),
        gobo_tests::wasm_bytes("ledger-mended"),
    )
    .unwrap();
    deployed();
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_plugins_replaced_long_ago_are_given_up_and_those_in_use_are_not() {
    let scene = Scene::new("[generations]\nkeep = 0", &["ledger"]).await;
    let hashes = "select count(*) from gobo.plugins where bytes is not null";
    let first = scene.status("ledger")["generation"].as_i64().unwrap();
    let deployed = scene.gobo.deploy("ledger-mended").expect(202).json();
    wait_for_stage(&scene.gobo, "ledger", generation(&deployed), "live");
    wait_for_drop(&scene, first).await;
    // Among the last twenty deploys: kept.
    assert_eq!(scene.database.query_i64(hashes).await, 2);
    scene
        .database
        .execute(
            "insert into gobo.deploys (projection, generation, action, plugin_hash, detail) \
             select p.name, p.live, 'promoted', g.plugin_hash, 'made up' \
               from gobo.projections p join gobo.generations g on g.id = p.live, generate_series(1, 20)",
        )
        .await;
    let begun = ask(&scene.gobo, "ledger", "rebuild", json!({ "hold": true }));
    let candidate = generation(&begun.expect(202).json());
    ask(&scene.gobo, "ledger", "cancel", json!({})).expect(200);
    wait_for_drop(&scene, candidate).await;
    wait_for("the old bytes to be given up", async || {
        match scene.database.query_i64(hashes).await {
            1 => Ok(()),
            kept => Err(kept),
        }
    })
    .await;
    // They can be deployed again.
    let again = scene.gobo.deploy("ledger").expect(202).json();
    wait_for_stage(&scene.gobo, "ledger", generation(&again), "live");
}
