//! A night's worth of deploys, kills, promotions, rollbacks and retries, in a minute, under load; then nothing differs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gobo_tests::{Random, connect, wait_until, wasm_bytes};
use serde_json::{Value, json};

use super::{Load, Scene, alone, matched, run};
use crate::generations::{ask, generations};

const SEED: u64 = 0x5eed_0fa1_17e5_7000;
const DEEDS: usize = 70;

const CONFIG: &str =
    "[projections.ledger]\npolicy = \"park\"\nbatch_events = 200\n[engine]\nlease_seconds = 2";

/// Amounts, now and then a fee, which only one of the two builds understands, now and then the end of an account.
fn booking(number: u64) -> Value {
    match number % 499 {
        113 => json!({ "amount": 3, "fee": 1 }),
        29 => json!({ "amount": 0, "close": true }),
        31 => json!({ "amount": 0, "look": true }),
        _ => json!({ "amount": 1 + number % 7 }),
    }
}

fn deploy(scene: &Scene, package: &str, mode: &str) {
    let path = format!("/admin/projections?mode={mode}");
    let answer = scene.gobo.request("POST", &path, &[], &wasm_bytes(package));
    answered(answer.status, &answer.text());
}

/// Whatever it is, it is an answer: done, begun, or refused because of the state that things are in, or for the moment.
#[track_caller]
fn answered(status: u16, text: &str) {
    assert!(
        [200, 201, 202, 404, 409, 503].contains(&status),
        "{status}: {text}"
    );
}

fn do_something(scene: &mut Scene, random: &mut Random) -> &'static str {
    let simple = |scene: &Scene, verb: &str, body: Value| {
        let answer = ask(&scene.gobo, "ledger", verb, body);
        answered(answer.status, &answer.text());
    };
    match random.below(14) {
        0 => (deploy(scene, "ledger-mended", "auto"), "deploy mended").1,
        1 => (deploy(scene, "ledger", "auto"), "deploy").1,
        2 => (deploy(scene, "ledger-mended", "continue"), "swap mended").1,
        3 => (deploy(scene, "ledger", "continue"), "swap").1,
        4 => (simple(scene, "rebuild", json!({})), "rebuild").1,
        5 => {
            (
                simple(scene, "rebuild", json!({ "hold": true })),
                "rebuild --hold",
            )
                .1
        }
        6 => (simple(scene, "promote", json!({})), "promote").1,
        7 => (simple(scene, "rollback", json!({})), "rollback").1,
        8 => (simple(scene, "cancel", json!({})), "cancel").1,
        9 => {
            simple(scene, "pause", json!({}));
            (simple(scene, "resume", json!({})), "pause, resume").1
        }
        10 => (simple(scene, "dead-letters/retry", json!({})), "retry").1,
        11 => {
            let code = run(&scene.gobo, &["diff", "ledger"]).code;
            assert!([0, 1, 3].contains(&code), "{code}");
            "diff"
        }
        12 => {
            scene.gobo.kill();
            (scene.gobo.start_again(), "kill").1
        }
        _ => {
            assert_eq!(scene.gobo.terminate(), 0);
            (scene.gobo.start_again(), "restart").1
        }
    }
}

/// Every row is the sum of its own history, so half a batch or a mixture of generations would show.
const CHECK: &str = "select count(*) from read.accounts where balance <> \
    (select sum(split_part(part, '-', 1)::int8 - split_part(part, '-', 2)::int8) \
       from regexp_split_to_table(trim(history), ' ') part)";

/// Reads until it is told to stop, and gives how often.
async fn read(url: &str, stop: &AtomicBool) -> usize {
    let client = connect(url).await;
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        let wrong: i64 = client.query_one(CHECK, &[]).await.unwrap().get(0);
        assert_eq!(wrong, 0);
        reads += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    reads
}

#[tokio::test]
async fn nothing_differs_after_a_night_of_deploys_kills_and_rollbacks() {
    let mut scene = Scene::new(CONFIG, &["ledger"]).await;
    let url = scene.database.url().to_owned();
    let load = Load::start(&url, 5, Duration::from_millis(5), booking);
    let stop = AtomicBool::new(false);
    let reads = std::thread::scope(|scope| {
        let reader = scope.spawn(|| alone(read(&url, &stop)));
        let night = scope.spawn(|| {
            let mut random = Random::new(SEED);
            for _ in 0..DEEDS {
                let goal = load.appended() + random.below(300);
                wait_until("more events", || match load.appended() {
                    enough if enough >= goal => Ok(()),
                    fewer => Err(fewer),
                });
                println!("{}", do_something(&mut scene, &mut random));
            }
        });
        let night = night.join();
        stop.store(true, Ordering::Relaxed);
        night.unwrap();
        reader.join().unwrap()
    });
    assert!(load.end() > 1_000);
    settle(&scene);
    // Fees and all, since the code that is live understands them now.
    let load = Load::start(&url, 5, Duration::from_millis(5), booking);
    let found = run(&scene.gobo, &["verify", "ledger", "--json"]);
    load.end();
    let diff = found.expect(0).diff();
    assert!(diff.is_empty() && matched(&diff).a > 10, "{diff:?}");
    assert!(reads > 100, "{reads}");
    tamper(&scene, diff.a).await;
}

/// Ends with the code that understands everything live, and nothing left to retry.
fn settle(scene: &Scene) {
    ask(&scene.gobo, "ledger", "resume", json!({})).expect(200);
    wait_until(
        "the mended code to be live, with nothing on its way",
        || {
            ask(&scene.gobo, "ledger", "cancel", json!({}));
            let path = "/admin/projections?mode=continue";
            let answer = scene
                .gobo
                .request("POST", path, &[], &wasm_bytes("ledger-mended"));
            let is_alone = scene.status("ledger")["candidate"].is_null();
            match answer.status == 200 && is_alone {
                true => Ok(()),
                false => Err(answer.text()),
            }
        },
    );
    wait_until("all dead letters to be retried", || {
        ask(&scene.gobo, "ledger", "dead-letters/retry", json!({}));
        let status = scene.status("ledger");
        match status["dead_letters"] == 0 && status["state"] == "running" {
            true => Ok(()),
            false => Err(status),
        }
    });
}

/// The same verification sees one changed row; and what the night made is gone but for two generations.
async fn tamper(scene: &Scene, live: i64) {
    let sql = format!(
        "update gobo_g{live}.accounts set balance = balance + 1 \
          where account = (select min(account) from gobo_g{live}.accounts)"
    );
    scene.database.execute(&sql).await;
    let diff = run(&scene.gobo, &["verify", "ledger", "--json"])
        .expect(1)
        .diff();
    assert_eq!(matched(&diff).changed, 1, "{diff:?}");
    let schemas = "select count(*) from pg_namespace where nspname like 'gobo\\_g%'";
    gobo_tests::wait_for("what is not kept to be dropped", async || {
        match scene.database.query_i64(schemas).await {
            left @ 1..=2 if generations(&scene.gobo, "ledger").len() as i64 == left => Ok(()),
            left => Err(left),
        }
    })
    .await;
}
