//! Two generations are brought to one position and compared there: diff, preview, verify.

mod barrier;
mod long;
mod night;
mod preview;
mod refused;
mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use gobo::generations::diff::{Diff, Matched, RowDiff};
use gobo_tests::{Answer, Gobo, connect, wait_until};
use serde_json::{Value, json};

use crate::generations::{ask, bookings, generation, generations};
use crate::scene::Scene;

/// `gobo ...` as it ended.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    /// The comparison that it printed.
    #[track_caller]
    fn diff(&self) -> Diff {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error} in {:?}, {:?}", self.out, self.err))
    }

    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self
    }
}

fn run(gobo: &Gobo, arguments: &[&str]) -> Ended {
    let output = gobo.command(arguments);
    Ended {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn diff(gobo: &Gobo, query: &str) -> Answer {
    gobo.get(&format!("/admin/projections/ledger/diff?{query}"))
}

/// A comparison that was answered.
#[track_caller]
fn compared(answer: Answer) -> Diff {
    serde_json::from_value(answer.expect(200).json()).unwrap()
}

/// The only read model's rows.
#[track_caller]
fn matched(diff: &Diff) -> &Matched {
    match &diff.read_models[0].rows {
        RowDiff::Matched(rows) => rows,
        other => panic!("{other:?}"),
    }
}

/// A ledger of bookings with a candidate that waits, as far as the live generation.
async fn with_candidate() -> (Scene, i64) {
    with_candidate_and("").await
}

async fn with_candidate_and(tables: &str) -> (Scene, i64) {
    let scene = Scene::new(tables, &["ledger"]).await;
    let last = *scene.append(&bookings(20, 20)).await.last().unwrap();
    scene.wait_for("ledger", last);
    let begun = ask(&scene.gobo, "ledger", "rebuild", json!({ "hold": true }));
    let candidate = generation(&begun.expect(202).json());
    wait_for_position(&scene.gobo, candidate, last);
    (scene, candidate)
}

fn wait_for_position(gobo: &Gobo, generation: i64, position: i64) {
    wait_until(
        &format!("generation {generation} to pass {position}"),
        || {
            let all = generations(gobo, "ledger");
            let found = all.iter().find(|one| one["generation"] == generation);
            match found.is_some_and(|one| {
                one["position"].as_i64() >= Some(position) && one["bulk"] == false
            }) {
                true => Ok(()),
                false => Err(all),
            }
        },
    );
}

fn live(scene: &Scene) -> i64 {
    generation(&scene.status("ledger"))
}

/// Runs to its end on this thread alone.
fn alone<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

/// Appends to the accounts' streams on a thread of its own, until it ends.
struct Load {
    stop: Arc<AtomicBool>,
    appended: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Load {
    /// `burst` events of one stream, then a pause, and so on.
    fn start(url: &str, burst: u64, pause: Duration, event: fn(u64) -> Value) -> Self {
        let (stop, appended) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (url, stopped, count) = (url.to_owned(), stop.clone(), appended.clone());
        let thread = std::thread::spawn(move || {
            alone(async {
                let client = connect(&url).await;
                let append = "select count(*) from gobo.append($1, $2::text::json)";
                let append = client.prepare(append).await.unwrap();
                let mut number = 0;
                while !stopped.load(Ordering::Relaxed) {
                    let stream = format!("account-{}", number / burst % 20);
                    let events = number..number + burst;
                    let events = events.map(|n| json!({ "type": "Booked", "data": event(n) }));
                    let events = events.collect::<Value>().to_string();
                    client.query(&append, &[&stream, &events]).await.unwrap();
                    number += burst;
                    count.store(number, Ordering::Relaxed);
                    tokio::time::sleep(pause).await;
                }
            });
        });
        Self {
            stop,
            appended,
            thread,
        }
    }

    fn appended(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    /// Gives how many events there were.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.appended.load(Ordering::Relaxed)
    }
}
