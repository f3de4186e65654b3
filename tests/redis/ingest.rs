//! `gobo ingest redis`: every entry becomes an event once, in the order of the stream, whoever is killed when.

use std::process::{Command, Output, Stdio};

use gobo_tests::{
    Background, Cluster, Database, Options, Persistence, Redis, gobo_binary, own_redis, wait_until,
};
use redis::Value;
use serde_json::json;

/// A database and a stream that belong to one test.
struct Scene {
    database: Database,
    redis: Redis,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new(database: Database, redis: Redis) -> Scene {
        Scene {
            database,
            redis,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    async fn shared() -> Scene {
        Scene::new(Database::create().await, Redis::create())
    }

    fn stream(&self) -> String {
        self.redis.key("orders")
    }

    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let (stream, database) = (self.stream(), self.database.url());
        let fixed = ["ingest", "redis", "--stream", &stream, "--redis-url"];
        let rest = [self.redis.url(), "--database-url", database];
        let all = fixed.iter().chain(&rest).chain(more);
        all.map(|&argument| argument.to_owned()).collect()
    }

    /// An ingestion that goes on until it is ended.
    fn start(&self, more: &[&str]) -> Background {
        let arguments = self.arguments(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        // Each has a folder of its own for what it prints.
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        Background::start(&folder, &arguments)
    }

    /// An ingestion up to the end of the stream.
    fn run_once(&self, more: &[&str]) -> Output {
        let mut command = Command::new(gobo_binary());
        command.args(self.arguments(more)).arg("--once");
        command
            .env_clear()
            .envs(xtask::serve::plain_environment())
            .stdin(Stdio::null());
        command.output().unwrap()
    }

    /// Adds entries numbered `numbers` to the stream, for seven streams in turn.
    fn add(&self, numbers: std::ops::Range<usize>) {
        let mut connection = self.redis.connect();
        let all: Vec<usize> = numbers.collect();
        for part in all.chunks(1_000) {
            let mut pipeline = redis::pipe();
            for number in part {
                let (stream, data) = (format!("s{}", number % 7), json!({ "n": number }));
                pipeline.cmd("XADD").arg(self.stream()).arg("*");
                pipeline
                    .arg("stream_id")
                    .arg(stream)
                    .arg("type")
                    .arg("Counted");
                pipeline.arg("data").arg(data.to_string()).ignore();
            }
            pipeline.query::<()>(&mut connection).unwrap();
        }
    }

    /// Adds one entry with these fields, and returns its id.
    fn add_entry(&self, fields: &[(&str, &[u8])]) -> String {
        let mut command = redis::cmd("XADD");
        command.arg(self.stream()).arg("*");
        for (name, value) in fields {
            command.arg(*name).arg(*value);
        }
        self.redis.ask(&mut command)
    }

    async fn count(&self) -> i64 {
        // The table comes with the first ingestion.
        let is_there = "SELECT (to_regclass('gobo.events') IS NOT NULL)::int";
        if self.database.query_i64(is_there).await == 0 {
            return 0;
        }
        self.database
            .query_i64("SELECT count(*) FROM gobo.events")
            .await
    }

    /// Waits until so many events are stored.
    async fn wait_for_events(&self, count: i64) {
        gobo_tests::wait_for(&format!("{count} events"), async || {
            let found = self.count().await;
            if found >= count { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// Fails unless the entries numbered 0 to `count` are there once each, in order, and all are acknowledged.
    async fn expect_all(&self, count: usize) {
        let sql =
            "SELECT (data->>'n')::int8 AS n, stream_id, version FROM gobo.events ORDER BY position";
        let found = self.database.query_json(sql).await;
        let expected = (0..count)
            .map(|n| json!({ "n": n, "stream_id": format!("s{}", n % 7), "version": n / 7 }));
        let expected: Vec<_> = expected.collect();
        let found = found.as_array().unwrap();
        let differs = found.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(differs.map(|at| &found[at]), None, "out of order");
        assert_eq!(found.len(), count);
        assert_eq!(self.pending(), 0);
    }

    /// Entries that were handed out and not acknowledged.
    fn pending(&self) -> i64 {
        let mut command = redis::cmd("XPENDING");
        let found: Vec<Value> = self.redis.ask(command.arg(self.stream()).arg("gobo"));
        redis::from_redis_value(found[0].clone()).unwrap()
    }
}

#[tokio::test]
async fn an_ingestion_that_is_killed_again_and_again_stores_every_entry_once_and_in_order() {
    let scene = Scene::shared().await;
    scene.add(0..20_000);
    // A consumer that is no more has these in its hands.
    let mut make = redis::cmd("XGROUP");
    make.arg("CREATE").arg(scene.stream()).arg("gobo").arg("0");
    scene.redis.ask::<()>(&mut make);
    let mut taken = redis::cmd("XREADGROUP");
    taken
        .arg("GROUP")
        .arg("gobo")
        .arg("dead")
        .arg("COUNT")
        .arg(120);
    scene
        .redis
        .ask::<Value>(taken.arg("STREAMS").arg(scene.stream()).arg(">"));
    for kill_at in [1, 1_000, 3_000] {
        let mut ingestion = scene.start(&["--batch", "2"]);
        scene.wait_for_events(kill_at).await;
        ingestion.kill();
        assert!(scene.count().await < 20_000, "killed too late");
    }
    let printed = scene.run_once(&["--batch", "50"]);
    assert!(printed.status.success(), "{printed:?}");
    scene.expect_all(20_000).await;
    // Whatever is read again is there already.
    let mut again = redis::cmd("XGROUP");
    again.arg("SETID").arg(scene.stream()).arg("gobo").arg("0");
    scene.redis.ask::<()>(&mut again);
    let printed = scene.run_once(&[]);
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(
        text.contains("0 events stored") && text.contains("20000 were there already"),
        "{text}"
    );
    scene.expect_all(20_000).await;
}

#[tokio::test]
async fn of_two_ingestions_one_stands_by_and_takes_over_what_the_other_had_taken() {
    let scene = Scene::shared().await;
    let mut first = scene.start(&["--batch", "20", "--consumer", "first"]);
    first.wait_for("the first to read", |printed| {
        printed.contains("reading stream").then_some(())
    });
    let mut second = scene.start(&["--batch", "20", "--consumer", "second"]);
    second.wait_for("the second to stand by", |printed| {
        printed.contains("standing by").then_some(())
    });
    scene.add(0..3_000);
    scene.wait_for_events(500).await;
    first.kill();
    scene.add(3_000..6_000);
    scene.wait_for_events(6_000).await;
    assert_eq!(second.terminate(), 0);
    scene.expect_all(6_000).await;
}

#[tokio::test]
async fn an_ingestion_goes_on_by_itself_when_redis_or_postgresql_was_killed() {
    let mut server = own_redis(Persistence::Everything);
    let mut cluster = Cluster::start(Options::ephemeral()).unwrap();
    let database = Database::create_in(&cluster).await;
    let scene = Scene::new(database, Redis::on(&server));
    let mut ingestion = scene.start(&["--batch", "10"]);
    scene.add(0..500);
    scene.wait_for_events(20).await;
    server.kill().unwrap();
    ingestion.wait_for("it to notice", |printed| {
        printed.contains("trying again: Redis").then_some(())
    });
    server.restart().unwrap();
    scene.wait_for_events(500).await;

    scene.add(500..2_000);
    scene.wait_for_events(520).await;
    cluster.kill().unwrap();
    // Without anything to store, nobody would notice.
    scene.add(2_000..2_100);
    ingestion.wait_for("it to notice", |printed| {
        printed.contains("trying again: the database").then_some(())
    });
    cluster.restart().unwrap();
    scene.wait_for_events(2_100).await;

    // An empty one in its place: the group is made again, and what is added from now on is new.
    server.replace().unwrap();
    scene.add(2_100..2_200);
    scene.wait_for_events(2_200).await;
    assert_eq!(ingestion.terminate(), 0);
    scene.expect_all(2_200).await;
}

#[tokio::test]
async fn an_entry_that_cannot_be_stored_stops_the_ingestion_in_front_of_it_or_is_set_aside() {
    let scene = Scene::shared().await;
    let id = "7d444840-9dc0-11d1-b245-5ffdce74fad2";
    let good: [(&str, &[u8]); 4] = [
        ("stream_id", b"a"),
        ("type", b"T"),
        ("data", b"{\"n\":1}"),
        ("event_id", id.as_bytes()),
    ];
    scene.add_entry(&good);
    let with = |name: &'static str, value: &'static [u8]| {
        let mut fields: Vec<(&str, &[u8])> = good[..3].to_vec();
        fields.retain(|(found, _)| *found != name);
        fields.push((name, value));
        fields
    };
    let long = Box::leak(vec![b'x'; 513].into_boxed_slice());
    let bad = [
        (with("data", b""), "--data-field"),
        (with("data", b"{\"n\":"), "its field \"data\" is not JSON"),
        (with("data", b"{\"n\":\"\\u0000\"}"), "\\u0000"),
        (with("data", b"null"), "its data is missing"),
        (with("data", b"\xff"), "is not UTF-8"),
        (with("type", b""), "--type-field"),
        (with("stream_id", long), "513 bytes"),
        (with("metadata", b"[]"), "its metadata is not an object"),
        (with("event_id", b"17"), "UUID"),
        (
            with("event_id", b"7d444840-9dc0-11d1-b245-5ffdce74fad2"),
            "is stored already, with other content",
        ),
        (with("occurred_at", b"yesterday"), "is not a moment"),
    ];
    let mut entries = Vec::new();
    for (number, (mut fields, reason)) in bad.into_iter().enumerate() {
        if fields.iter().any(|(name, _)| *name == "event_id") && reason.contains("already") {
            fields.retain(|(name, _)| *name != "type");
            fields.push(("type", b"Other"));
        }
        entries.push((scene.add_entry(&fields), reason));
        let n = format!("{{\"n\":{}}}", number + 2);
        scene.add_entry(&[("stream_id", b"a"), ("type", b"T"), ("data", n.as_bytes())]);
    }

    let stopped = scene.run_once(&[]);
    assert_eq!(stopped.status.code(), Some(1));
    let error = String::from_utf8_lossy(&stopped.stderr).into_owned();
    let (first, reason) = &entries[0];
    for part in [first.as_str(), reason, "data, ", "--on-bad skip"] {
        let part = part.trim_end_matches(", ");
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    assert_eq!(scene.count().await, 1);

    let skipped = scene.run_once(&["--on-bad", "skip"]);
    assert!(skipped.status.success(), "{skipped:?}");
    assert_eq!(scene.count().await, 1 + entries.len() as i64);
    assert_eq!(scene.pending(), 0);
    let order = "SELECT (data->>'n')::int8 AS n FROM gobo.events ORDER BY position";
    let order = scene.database.query_json(order).await;
    let expected: Vec<_> = (1..entries.len() + 2).map(|n| json!({ "n": n })).collect();
    assert_eq!(order, json!(expected));

    let refused = scene.redis.key("orders:refused");
    let mut range = redis::cmd("XRANGE");
    let found: redis::streams::StreamRangeReply =
        scene.redis.ask(range.arg(&refused).arg("-").arg("+"));
    assert_eq!(found.ids.len(), entries.len());
    for (found, (id, reason)) in found.ids.iter().zip(&entries) {
        assert_eq!(&found.get::<String>("refused_entry").unwrap(), id);
        let why: String = found.get("refused_because").unwrap();
        assert!(why.contains(reason), "{reason:?} is not in {why:?}");
    }
}

#[tokio::test]
async fn the_fields_of_an_entry_can_have_other_names_and_all_of_them_are_kept() {
    let scene = Scene::shared().await;
    let mut command = redis::cmd("XADD");
    command.arg(scene.stream()).arg("1700000000123-0");
    for (name, value) in [
        ("who", "käthe"),
        ("what", "Renamed"),
        ("payload", " {\"big\": 12345678901234567890.5} "),
        ("meta", "{\"by\":\"x\"}"),
        ("unused", "1"),
    ] {
        command.arg(name).arg(value);
    }
    scene.redis.ask::<String>(&mut command);
    let names = [
        "--stream-field",
        "who",
        "--type-field",
        "what",
        "--data-field",
        "payload",
        "--metadata-field",
        "meta",
    ];
    let printed = scene.run_once(&names);
    assert!(printed.status.success(), "{printed:?}");
    let sql = "SELECT stream_id, type, data::text AS data, metadata::text AS metadata, occurred_at::text AS at \
               FROM gobo.events";
    let expected = json!([{
        "stream_id": "käthe", "type": "Renamed", "data": "{\"big\": 12345678901234567890.5}",
        "metadata": "{\"by\":\"x\"}", "at": "2023-11-14 22:13:20.123+00",
    }]);
    assert_eq!(scene.database.query_json(sql).await, expected);
}

#[tokio::test]
async fn entries_that_were_deleted_before_they_could_be_stored_are_counted() {
    let scene = Scene::shared().await;
    scene.add(0..14);
    let printed = scene.run_once(&["--batch", "7"]);
    assert!(printed.status.success(), "{printed:?}");
    let lost = scene.add_entry(&[("stream_id", b"a"), ("type", b"T"), ("data", b"1")]);
    let mut taken = redis::cmd("XREADGROUP");
    taken.arg("GROUP").arg("gobo").arg("other").arg("STREAMS");
    scene.redis.ask::<Value>(taken.arg(scene.stream()).arg(">"));
    let mut delete = redis::cmd("XDEL");
    scene.redis.ask::<i64>(delete.arg(scene.stream()).arg(lost));
    let printed = scene.run_once(&[]);
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(text.contains("1 entries were deleted"), "{text}");
    wait_until("nothing to be pending", || match scene.pending() {
        0 => Ok(()),
        pending => Err(pending),
    });
    scene.expect_all(14).await;
}
