//! `feed = "redis"`: a consumer group finds every change once, in order, whoever is killed when.

mod consumer;
mod outages;
mod trimmed;

use gobo_tests::{Database, Gobo, Random, Redis, wait_until};
use redis::streams::StreamRangeReply;
use serde_json::{Value, json};

use crate::generations::{ask, wait_for_stage};
use crate::scene::{Event, Scene, raw};
use consumer::{Consumer, Entry, rows_of, shown};

/// The configuration that publishes the read model `raw`.
fn tables(redis: &Redis) -> String {
    format!(
        "{}\n[read_models.raw]\nfeed = \"redis\"\n\n[engine]\nbatch_events = 4\n",
        redis.section()
    )
}

/// Changes of a few rows, again and again: most of them in one batch with others.
fn changes(random: &mut Random, count: usize) -> Vec<Event> {
    let change = |_| {
        let id = format!("r{}", random.below(6));
        let data = match random.below(3) {
            0 => json!({ "do": "delete", "id": id }),
            _ => {
                json!({ "do": "put", "id": id, "n": random.below(1_000), "text": "a\"b\n\u{1F600}" })
            }
        };
        raw(format!("s{}", random.below(3)), data)
    };
    (0..count).map(change).collect()
}

/// The name of the stream that is current.
fn current_stream(redis: &Redis) -> String {
    wait_until("a stream", || {
        let mut connection = redis.try_connect().map_err(|error| error.to_string())?;
        let mut get = redis::cmd("GET");
        let found: Option<String> = (get.arg(redis.key("feed:raw")).query(&mut connection))
            .map_err(|error| error.to_string())?;
        found.ok_or("no pointer".to_owned())
    })
}

/// All that a stream holds.
fn entries(redis: &Redis, stream: &str) -> Vec<Entry> {
    let mut range = redis::cmd("XRANGE");
    let found: StreamRangeReply = redis.ask(range.arg(stream).arg("-").arg("+"));
    found.ids.iter().map(Entry::of).collect()
}

/// What the database has told of `raw` after a revision, as a stream has to tell it.
async fn told(database: &Database, after: i64) -> Vec<Entry> {
    let sql = format!(
        "SELECT f.revision, f.position, c.place, c.change->'k' AS key, c.change->'a' AS row \
           FROM gobo.feed f, json_array_elements(f.changes) WITH ORDINALITY AS c(change, place) \
          WHERE f.read_model = 'raw' AND f.revision > {after} ORDER BY f.revision, c.place"
    );
    let found = database.query_json(&sql).await;
    let (mut before, mut revision) = (after, after);
    let entry = |line: &Value| Entry {
        id: format!("{}-{}", line["revision"], line["place"]),
        op: if line["row"].is_null() {
            "delete"
        } else {
            "upsert"
        }
        .to_owned(),
        key: line["key"].clone(),
        row: line["row"].clone(),
        position: line["position"].as_i64().unwrap(),
        previous: {
            // All entries of a commit have the same.
            let this = line["revision"].as_i64().unwrap();
            if this != revision {
                before = std::mem::replace(&mut revision, this);
            }
            Some(before)
        },
        next: None,
    };
    found.as_array().unwrap().iter().map(entry).collect()
}

/// Waits until the current stream has everything that follows from the events, and returns what it holds.
async fn wait_for_all(scene: &Scene, redis: &Redis) -> Vec<Entry> {
    let last = "SELECT max(position) FROM gobo.events";
    scene.wait_for("raw", scene.database.query_i64(last).await);
    let sql = "SELECT revision FROM gobo.read_models WHERE name = 'raw'";
    let revision = scene.database.query_i64(sql).await;
    wait_until("the stream to be complete", || {
        let found = entries(redis, &current_stream(redis));
        match found.last().map(Entry::revision) {
            Some(last) if last == revision => Ok(found),
            last => Err(format!("{last:?} of {revision}")),
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_each_change_of_a_read_model_as_readers_see_it() {
    let redis = Redis::create();
    let scene = Scene::new(&tables(&redis), &["raw-guest"]).await;
    let stream = current_stream(&redis);
    assert!(stream.starts_with(&redis.key("feed:raw:")), "{stream}");
    let put = scene
        .append(&[raw("s", json!({ "do": "put", "id": "a", "n": 7 }))])
        .await;
    scene.wait_for("raw", put[0]);
    let row = scene.gobo.get("/read/raw/a").expect(200).json();
    let gone = scene
        .append(&[raw("s", json!({ "do": "delete", "id": "a" }))])
        .await;
    scene.wait_for("raw", gone[0]);
    let found = wait_for_all(&scene, &redis).await;
    let ops: Vec<&str> = found.iter().map(|entry| entry.op.as_str()).collect();
    assert_eq!(ops, ["refetch", "upsert", "delete"]);
    assert_eq!(found[1].key, json!(["a"]));
    assert_eq!(shown(&found[1].row), row);
    assert_eq!(found[1].row["_position"], put[0]);
    assert_eq!((found[1].position, found[2].position), (put[0], gone[0]));
    // It counts when Redis has answered, which is after others see it.
    wait_until("everything to be counted", || {
        let metrics = scene.gobo.get("/metrics").expect(200).text();
        let missing = [
            "gobo_redis_feed_lag_revisions{read_model=\"raw\"} 0",
            "gobo_redis_feed_entries_total{read_model=\"raw\"} 3",
            "gobo_redis_feed_refetches_total{read_model=\"raw\"} 1",
        ]
        .into_iter()
        .find(|line| !metrics.contains(line));
        match missing {
            None => Ok(()),
            Some(line) => Err((line, metrics)),
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_publish_the_same_leave_nothing_out_and_repeat_nothing() {
    let redis = Redis::create();
    let scene = Scene::new(&tables(&redis), &["raw-guest"]).await;
    let other = Gobo::start(scene.database.url(), &tables(&redis));
    let stream = current_stream(&redis);
    let begun = entries(&redis, &stream)[0].revision();
    let mut random = Random::new(5);
    for _ in 0..60 {
        scene.append(&changes(&mut random, 3)).await;
    }
    let found = wait_for_all(&scene, &redis).await;
    assert_eq!(found[1..], told(&scene.database, begun).await[..]);
    // Both of them did it.
    let added = |gobo: &Gobo| {
        let metrics = gobo.get("/metrics").expect(200).text();
        let line = "gobo_redis_feed_entries_total{read_model=\"raw\"} ";
        let value = metrics.split(line).nth(1).unwrap().lines().next().unwrap();
        value.parse::<u64>().unwrap()
    };
    wait_until("everything to be counted", || {
        let added = [added(&scene.gobo), added(&other)];
        match added[0] + added[1] == found.len() as u64 {
            true => Ok(()),
            false => Err((added, found.len())),
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_ends_the_stream_with_a_refetch_that_names_the_next_one_and_a_rollback_goes_back()
 {
    let redis = Redis::create();
    let scene = Scene::new(&tables(&redis), &["raw-guest"]).await;
    let first = current_stream(&redis);
    let mut random = Random::new(7);
    let last = scene.append(&changes(&mut random, 20)).await;
    scene.wait_for("raw", *last.last().unwrap());
    let mut consumer = Consumer::new(&redis, &first);
    wait_for_all(&scene, &redis).await;

    let begun = ask(&scene.gobo, "raw", "rebuild", json!({}))
        .expect(202)
        .json();
    wait_for_stage(
        &scene.gobo,
        "raw",
        begun["generation"].as_i64().unwrap(),
        "live",
    );
    let second = wait_until("another stream", || match current_stream(&redis) {
        same if same == first => Err(same),
        other => Ok(other),
    });
    let end = entries(&redis, &first).pop().unwrap();
    assert_eq!(
        (end.op.as_str(), end.next.as_deref()),
        ("refetch", Some(second.as_str()))
    );
    assert_eq!(entries(&redis, &second)[0].op, "refetch");
    let mut ttl = redis::cmd("PTTL");
    assert!(
        redis.ask::<i64>(ttl.arg(&first)) > 0,
        "it is kept for a while"
    );
    let last = scene.append(&changes(&mut random, 20)).await;
    scene.wait_for("raw", *last.last().unwrap());
    wait_for_all(&scene, &redis).await;

    ask(&scene.gobo, "raw", "rollback", json!({})).expect(200);
    wait_until("the first stream", || match current_stream(&redis) {
        back if back == first => Ok(()),
        other => Err(other),
    });
    let mut ttl = redis::cmd("PTTL");
    assert_eq!(redis.ask::<i64>(ttl.arg(&first)), -1, "it is kept again");
    scene.append(&changes(&mut random, 20)).await;
    let found = wait_for_all(&scene, &redis).await;
    assert!(found.is_sorted_by_key(Entry::place));
    // Whoever follows `next` gets the rows that are there.
    consumer.follow(&scene);
    // Begun, promoted, begun, rolled back, begun again.
    assert_eq!((consumer.refetched, consumer.missed), (5, 0));
    assert_eq!(consumer.rows, rows_of(&scene));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_forgotten_before_it_was_published_is_to_be_read_anew() {
    let redis = Redis::create();
    let mut scene = Scene::new(&tables(&redis), &["raw-guest"]).await;
    let stream = current_stream(&redis);
    let mut random = Random::new(9);
    scene.append(&changes(&mut random, 9)).await;
    wait_for_all(&scene, &redis).await;
    // It projects, and publishes nothing.
    scene.restart_with("[engine]\nbatch_events = 4");
    // Commits of their own.
    for _ in 0..8 {
        let last = scene.append(&changes(&mut random, 3)).await;
        scene.wait_for("raw", *last.last().unwrap());
    }
    let before = entries(&redis, &stream).pop().unwrap();
    let cut = "(SELECT revision - 2 FROM gobo.read_models WHERE name = 'raw')";
    let forget = format!("DELETE FROM gobo.feed WHERE read_model = 'raw' AND revision <= {cut}");
    scene.database.execute(&forget).await;
    scene.restart_with(&tables(&redis));
    let found = wait_for_all(&scene, &redis).await;
    let new: Vec<&Entry> = found
        .iter()
        .skip_while(|entry| entry.id != before.id)
        .collect();
    assert_eq!(new[1].op, "refetch");
    let told = told(&scene.database, new[1].revision()).await;
    assert!(!told.is_empty());
    assert!(new[2..].iter().copied().eq(told.iter()));
    wait_until("it to be counted and logged", || {
        let metrics = scene.gobo.get("/metrics").expect(200).text();
        let is_counted = metrics.contains("gobo_redis_feed_refetches_total{read_model=\"raw\"} 1");
        let log = scene.gobo.log();
        match is_counted && log.contains("not every change could be published") {
            true => Ok(()),
            false => Err((metrics, log)),
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_changes_too_much_to_be_told_is_to_be_read_anew() {
    let redis = Redis::create();
    let live = "\n[live]\nmax_changes = 2\n";
    let scene = Scene::new(&(tables(&redis) + live), &["raw-guest"]).await;
    let stream = current_stream(&redis);
    let put = |id: &str| raw("s", json!({ "do": "put", "id": id, "n": 1 }));
    let last = scene
        .append(&[put("a"), put("b"), put("c"), put("d")])
        .await;
    scene.wait_for("raw", last[3]);
    let last = scene.append(&[put("e")]).await;
    scene.wait_for("raw", last[0]);
    let found = wait_for_all(&scene, &redis).await;
    assert!(
        found.iter().skip(1).any(|entry| entry.op == "refetch"),
        "{found:?}"
    );
    assert_eq!(found.last().unwrap().key, json!(["e"]));
    let mut consumer = Consumer::new(&redis, &stream);
    consumer.follow(&scene);
    assert_eq!(consumer.rows, rows_of(&scene));
}
