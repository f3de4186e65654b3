//! A Redis that answers late: too late to be waited for, or just in time.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use gobo_tests::{Persistence, own_redis, wait_until};
use tempfile::TempDir;

use super::redis::{HITS, ODD, counted, wait_for_redis};
use crate::generations::bookings;
use crate::scene::Scene;

/// How long the engine waits for Redis.
const LIMIT: u64 = 400;

const TOO_LATE: u64 = LIMIT + 200;

const IN_TIME: u64 = LIMIT / 8;

/// Stands between the engine and Redis, and holds each answer back for a while.
struct Slow {
    folder: TempDir,
    delay: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Slow {
    /// In front of the server behind this socket.
    fn new(server: PathBuf) -> Self {
        let slow = Self {
            folder: tempfile::tempdir().unwrap(),
            delay: Arc::default(),
            is_over: Arc::default(),
        };
        let listener = UnixListener::bind(slow.socket()).unwrap();
        let (delay, is_over) = (slow.delay.clone(), slow.is_over.clone());
        thread::spawn(move || {
            for engine in listener.incoming() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                pass_on(engine.unwrap(), &server, &delay);
            }
        });
        slow
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("slow.sock")
    }

    /// From now on each answer takes so many milliseconds longer.
    fn by(&self, milliseconds: u64) {
        self.delay.store(milliseconds, Ordering::Relaxed);
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = UnixStream::connect(self.socket());
    }
}

/// Until one of both goes.
fn pass_on(engine: UnixStream, server: &Path, delay: &Arc<AtomicU64>) {
    let server = UnixStream::connect(server).unwrap();
    let copy = |mut from: UnixStream, mut to: UnixStream, delay: Option<Arc<AtomicU64>>| {
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                if let Some(delay) = &delay {
                    thread::sleep(Duration::from_millis(delay.load(Ordering::Relaxed)));
                }
                if to.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(std::net::Shutdown::Both);
        })
    };
    let (from, to) = (engine.try_clone().unwrap(), server.try_clone().unwrap());
    copy(from, to, None);
    copy(server, engine, Some(delay.clone()));
}

fn ready(scene: &Scene) -> serde_json::Value {
    scene.gobo.get("/health/ready").expect(200).json()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_redis_that_come_too_late_or_just_in_time_make_no_answer_stale_or_wrong() {
    let server = own_redis(Persistence::Nothing);
    let socket = server.url();
    let slow = Slow::new(socket.strip_prefix("redis+unix://").unwrap().into());
    // Nothing in memory: every read asks Redis.
    let settings = format!(
        "[cache]\nbytes = 0\n[redis]\nurl = \"redis+unix://{}\"\ntimeout_ms = {LIMIT}\n",
        slow.socket().display()
    );
    let scene = Scene::new(&settings, &["ledger"]).await;
    wait_for_redis(&scene.gobo);
    let mut totals = [0; 3];
    let mut book_and_read = async |what: &str| {
        for (event, (account, total)) in bookings(3, 1)
            .into_iter()
            .zip(totals.iter_mut().enumerate())
        {
            *total += event.2["amount"].as_i64().unwrap();
            let position = scene.append(&[event]).await[0];
            let path = format!("/read/accounts/account-{account}");
            let row = scene
                .gobo
                .get(&format!("{path}?min_position={position}&wait=30s"));
            assert_eq!(row.expect(200).json()["balance"], *total, "{what}");
            // Whatever comes late is an answer to another question.
            for _ in 0..2 {
                let row = scene.gobo.get(&path).expect(200).json();
                assert_eq!(row["balance"], *total, "{what}");
            }
        }
    };
    let is_used = || {
        let before = counted(&scene.gobo, HITS);
        wait_until("answers from Redis", || {
            scene.gobo.get("/read/accounts/account-1").expect(200);
            match counted(&scene.gobo, HITS) {
                now if now > before => Ok(()),
                now => Err((before, now)),
            }
        });
    };
    book_and_read("at once").await;
    is_used();
    slow.by(IN_TIME);
    book_and_read("just in time").await;
    is_used();
    // One or two that are late give no connection up: what comes late there is nobody's.
    for _ in 0..3 {
        slow.by(TOO_LATE);
        scene.gobo.get("/read/accounts/account-2").expect(200);
        slow.by(0);
        book_and_read("late once").await;
    }
    is_used();
    slow.by(TOO_LATE);
    book_and_read("too late").await;
    let said = wait_until("Redis to be given up", || {
        scene.gobo.get("/read/accounts/account-0").expect(200);
        match ready(&scene) {
            said if said["status"] == "degraded" => Ok(said),
            said => Err(said),
        }
    });
    // Or that of a connection that it tries anew, later.
    let redis = &said["components"]["redis"];
    assert_eq!(redis["status"], "degraded");
    let why = redis["detail"].as_str().unwrap();
    assert!(why.starts_with("no answer within "), "{why}");
    let hits = counted(&scene.gobo, HITS);
    book_and_read("given up").await;
    assert_eq!(counted(&scene.gobo, HITS), hits, "nobody asks it");
    assert_eq!(ready(&scene)["status"], "degraded");
    slow.by(0);
    wait_for_redis(&scene.gobo);
    wait_until("the engine to say so", || match ready(&scene) {
        said if said["status"] == "ready" => Ok(()),
        said => Err(said),
    });
    book_and_read("at once again").await;
    is_used();
    assert_eq!(counted(&scene.gobo, ODD), 0);
}
