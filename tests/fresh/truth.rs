//! Two nodes with caches, readers of every kind, appends, promotions and rollbacks at the same time: no answer claims a
//! position that its rows do not have.
//!
//! Every event books 1, so the sum of an answer's balances is the number of events up to its position, exactly.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Instant;

use gobo_tests::{Answer, Gobo, PATIENCE, Random, Redis, wait_until};
use serde_json::{Value, json};

use crate::generations::{ask, generation, generations};
use crate::scene::Scene;

const STREAMS: u64 = 6;
/// At least so many appends; more until the others have done what they are for.
const APPENDS: u64 = 300;
const READERS: u64 = 4;

/// What an answer said.
#[derive(Debug)]
struct Claim {
    what: String,
    /// One stream's row, or all of them.
    stream: Option<u64>,
    position: i64,
    sum: i64,
}

/// What everybody shares.
struct World<'a> {
    nodes: [&'a Gobo; 2],
    /// The position and the stream of every event.
    events: Mutex<Vec<(i64, u64)>>,
    /// The last position that an append was answered with.
    acknowledged: AtomicI64,
    is_over: AtomicBool,
    /// Answers that claimed something, those of them that were not modified, and switches so far.
    answers: AtomicUsize,
    not_modified: AtomicUsize,
    switches: AtomicUsize,
    seed: u64,
}

impl World<'_> {
    /// Whether enough has happened to show something.
    fn is_enough(&self) -> bool {
        let count = |number: &AtomicUsize| number.load(Ordering::SeqCst);
        count(&self.answers) > 200 && count(&self.not_modified) > 10 && count(&self.switches) > 2
    }
}

/// One client, which remembers what it was answered.
struct Reader<'w> {
    world: &'w World<'w>,
    random: Random,
    /// Tags and sums by node and address.
    kept: HashMap<(usize, String), (String, i64)>,
    claims: Vec<Claim>,
    /// The highest position and revision that it was told of.
    seen: (i64, i64),
}

impl Reader<'_> {
    fn run(mut self) -> Vec<Claim> {
        while !self.world.is_over.load(Ordering::SeqCst) {
            self.ask();
        }
        self.claims
    }

    /// One request, plain or with a wish.
    fn ask(&mut self) {
        let stream = match self.random.below(3) {
            0 => None,
            _ => Some(self.random.below(STREAMS)),
        };
        let path = match stream {
            None => self
                .random
                .one_of(&[
                    "/read/accounts?select=account,balance&order=account",
                    "/read/accounts?balance=gte.0&order=balance.desc",
                ])
                .to_owned(),
            Some(stream) => format!("/read/accounts/s{stream}"),
        };
        let node = self.random.below(2) as usize;
        let acknowledged = self.world.acknowledged.load(Ordering::SeqCst);
        let seen = self.seen.0.to_string();
        let mut headers = Vec::new();
        let (mut asked, mut least) = (path.clone(), 0);
        match self.random.below(4) {
            0 => {
                let separator = if path.contains('?') { '&' } else { '?' };
                asked.push_str(&format!("{separator}min_position={acknowledged}&wait=30s"));
                least = acknowledged;
            }
            1 => {
                headers.push(("gobo-min-position", seen.as_str()));
                least = self.seen.0;
            }
            _ => {}
        }
        let key = (node, path.clone());
        let kept = self.kept.get(&key).cloned();
        if let Some((tag, _)) = kept.as_ref().filter(|_| self.random.below(2) == 0) {
            headers.push(("if-none-match", tag.as_str()));
        }
        let answer = self.world.nodes[node].request("GET", &asked, &headers, &[]);
        let what = format!(
            "seed {}: GET {asked} {headers:?} on node {node}",
            self.world.seed
        );
        let number = |name: &str| answer.header(name).and_then(|n| n.parse::<i64>().ok());
        let position = number("gobo-position").unwrap_or_else(|| panic!("{what}: {answer:?}"));
        let revision = number("gobo-revision").unwrap();
        assert!(position >= least, "{what}: {position}");
        if headers.iter().any(|(name, _)| *name == "gobo-min-position") {
            assert!(
                revision >= self.seen.1,
                "{what}: {revision} {:?}",
                self.seen
            );
        }
        self.seen = (self.seen.0.max(position), self.seen.1.max(revision));
        let sum = match (answer.status, kept) {
            (304, Some((_, sum))) => {
                self.world.not_modified.fetch_add(1, Ordering::SeqCst);
                sum
            }
            (200, _) => {
                let sum = sum(&answer);
                let tag = answer.header("etag").unwrap_or_default().to_owned();
                self.kept.insert(key, (tag, sum));
                sum
            }
            (404, _) if stream.is_some() => 0,
            _ => panic!("{what}: {answer:?}"),
        };
        self.world.answers.fetch_add(1, Ordering::SeqCst);
        self.claims.push(Claim {
            what,
            stream,
            position,
            sum,
        });
    }
}

fn sum(answer: &Answer) -> i64 {
    let balance = |row: &Value| row["balance"].as_i64().unwrap();
    match answer.json() {
        Value::Array(rows) => rows.iter().map(balance).sum(),
        row => balance(&row),
    }
}

/// Appends through both nodes, one to three events at a time, until enough has happened.
fn append(world: &World<'_>) {
    let mut random = Random::new(world.seed);
    let deadline = Instant::now() + PATIENCE;
    for number in 0.. {
        let is_done = number >= APPENDS && (world.is_enough() || Instant::now() > deadline);
        if is_done || world.is_over.load(Ordering::SeqCst) {
            break;
        }
        let stream = random.below(STREAMS);
        let event = json!({ "type": "Booked", "data": { "amount": 1 } });
        let events = vec![event; 1 + random.below(3) as usize];
        let node = world.nodes[random.below(2) as usize];
        let wait = random.one_of(&["", "", "", "?wait_for=ledger&wait=30s"]);
        let path = format!("/streams/s{stream}/events{wait}");
        let answer = node.post(&path, &json!({ "events": events }));
        let body = answer.expect(200).json();
        let mut all = world.events.lock().unwrap();
        for event in body["events"].as_array().unwrap() {
            all.push((event["position"].as_i64().unwrap(), stream));
        }
        drop(all);
        let position = body["position"].as_i64().unwrap();
        world.acknowledged.fetch_max(position, Ordering::SeqCst);
    }
    world.is_over.store(true, Ordering::SeqCst);
}

/// Rebuilds and goes back, again and again, on either node.
fn operate(world: &World<'_>) {
    while !world.is_over.load(Ordering::SeqCst) {
        let switches = world.switches.load(Ordering::SeqCst);
        let node = world.nodes[switches % 2];
        if switches % 3 == 2 {
            // Refused while another decision is being taken; begun, and not done yet, when that takes long.
            let back = ask(node, "ledger", "rollback", json!({}));
            let is_known = [200, 202, 409, 503].contains(&back.status);
            assert!(is_known, "{}", back.text());
        } else {
            let begun = ask(node, "ledger", "rebuild", json!({}));
            let is_known = [200, 202].contains(&begun.status);
            assert!(is_known, "{}", begun.text());
            let begun = generation(&begun.json());
            wait_until("the rebuild, or everything, to end", || {
                let all = generations(node, "ledger");
                let found = all.iter().find(|one| one["generation"] == begun);
                let is_building = found.is_some_and(|one| one["stage"] == "building");
                match is_building && !world.is_over.load(Ordering::SeqCst) {
                    true => Err(all.clone()),
                    false => Ok(()),
                }
            });
        }
        world.switches.fetch_add(1, Ordering::SeqCst);
    }
}

async fn check(settings: &str, seed: u64) -> [String; 2] {
    let scene = Scene::new(settings, &["ledger"]).await;
    let other = Gobo::start(scene.database.url(), settings);
    let shared = World {
        nodes: [&scene.gobo, &other],
        events: Mutex::default(),
        acknowledged: AtomicI64::new(0),
        is_over: AtomicBool::new(false),
        answers: AtomicUsize::new(0),
        not_modified: AtomicUsize::new(0),
        switches: AtomicUsize::new(0),
        seed,
    };
    let world = &shared;
    let claims: Vec<Claim> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|number| {
                let reader = Reader {
                    world,
                    random: Random::new(seed + number + 1),
                    kept: HashMap::new(),
                    claims: Vec::new(),
                    seen: (0, 0),
                };
                scope.spawn(move || {
                    let over = Over(world);
                    let found = reader.run();
                    drop(over);
                    found
                })
            })
            .collect();
        let operator = scope.spawn(|| {
            let over = Over(world);
            operate(world);
            drop(over);
        });
        let over = Over(world);
        append(world);
        drop(over);
        operator.join().unwrap();
        let found = readers.into_iter().map(|reader| reader.join().unwrap());
        found.flatten().collect()
    });
    assert!(
        shared.is_enough(),
        "{:?} answers, {:?} of them not modified, {:?} switches",
        shared.answers,
        shared.not_modified,
        shared.switches
    );
    let mut events = shared.events.into_inner().unwrap();
    events.sort_unstable();
    for claim in &claims {
        let upto = &events[..events.partition_point(|event| event.0 <= claim.position)];
        let is_meant = |event: &&(i64, u64)| claim.stream.is_none_or(|stream| event.1 == stream);
        let expected = upto.iter().filter(is_meant).count() as i64;
        assert_eq!(claim.sum, expected, "{}: {claim:?}", claim.what);
    }
    [&scene.gobo, &other].map(|node| node.get("/metrics").expect(200).text())
}

/// Whoever panics ends it for all.
struct Over<'w>(&'w World<'w>);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.is_over.store(true, Ordering::SeqCst);
        }
    }
}

/// A counter of `/metrics`.
pub(crate) fn count(metrics: &str, series: &str) -> i64 {
    let line = metrics.lines().find(|line| line.starts_with(series));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("{series} in {metrics}"))
}

#[tokio::test]
async fn no_answer_of_two_nodes_claims_a_position_that_its_rows_do_not_have() {
    for metrics in check("", 4_711).await {
        assert!(count(&metrics, "gobo_cache_answers_total{outcome=\"hit\"}") > 0);
        assert!(
            count(
                &metrics,
                "gobo_cache_answers_total{outcome=\"not_modified\"}"
            ) > 0
        );
        assert!(count(&metrics, "gobo_freshness_looks_total{outcome=\"shared\"}") > 0);
    }
}

#[tokio::test]
async fn nor_does_one_with_redis_between_them() {
    // So little memory that most answers come from Redis.
    let redis = Redis::create();
    let settings = format!(
        "[cache]\nbytes = 8192\n\n{}timeout_ms = 10000\n",
        redis.section()
    );
    let metrics = check(&settings, 815).await;
    let hits = metrics.map(|m| count(&m, "gobo_cache_redis_total{outcome=\"hit\"}"));
    assert!(hits.iter().sum::<i64>() > 0, "{hits:?}");
}
