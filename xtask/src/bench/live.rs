//! Many who follow a read model live while it changes at a steady rate; and what it costs a commit to tell its changes.

mod follower;
mod usage;

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::table::Table;
use super::{Bench, Options, middle, number, stop};
use crate::demo::client::Client;
use crate::demo::market::{Append, SYMBOLS};
use crate::serve::Served;
use follower::{Follower, Receipt};
use usage::{Usage, open_files};

/// Orders that change in turn.
const ORDERS: u64 = 1_000;
/// Users to whom they belong.
const USERS: u64 = 200;
/// Connections that append. Each waits for its own answers; the schedule waits for none.
const CONNECTIONS: usize = 32;
/// Connections that are opened at the same time.
pub(super) const OPENERS: usize = 8;
/// How long a follower may take to be told of what was appended last.
const PATIENCE: Duration = Duration::from_secs(60);
/// Changed rows per commit at which the feed's cost is measured, and how many events are read for that.
const COMMITS: [(u64, u64); 5] = [
    (1, 5_000),
    (10, 20_000),
    (100, 100_000),
    (1_000, 200_000),
    (10_000, 200_000),
];

/// What somebody follows. Of a hundred subscribers this many follow each.
const SHARES: [(Kind, usize); 5] = [
    (Kind::Key, 60),
    (Kind::User, 30),
    (Kind::Symbol, 8),
    (Kind::Number, 1),
    (Kind::Everything, 1),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// One order, by its key.
    Key,
    /// The orders of one user.
    User,
    /// The orders of one symbol.
    Symbol,
    /// By a number with digits after the point, which PostgreSQL judges.
    Number,
    /// The whole read model.
    Everything,
}

/// Who follows what.
#[derive(Debug, Clone, Copy)]
struct Part {
    kind: Kind,
    number: u64,
}

/// One run.
#[derive(Debug, Default)]
struct Run {
    /// From an append's answer until a subscriber had its change; nothing if that was earlier.
    delays: Vec<Duration>,
    /// From the moment at which an append was due.
    whole: Vec<Duration>,
    /// Until everybody had the rows to begin with.
    opened: Duration,
    /// Changes per second, as many as there were; and what subscribers were told of them.
    changes: f64,
    told: f64,
    /// Processor time per second.
    engine: f64,
    postgres: f64,
    peak_bytes: Option<u64>,
}

impl Bench {
    /// Measures in databases of its own.
    pub(super) fn live(&self, options: &Options, module: &[u8], table: &mut Table) -> Result<()> {
        let wanted = u64::from(options.subscribers) + 200;
        if let Some(most) = open_files()?.filter(|most| *most < wanted) {
            bail!(
                "{} subscribers need {wanted} open files here and in the engine, and there may be {most}: ulimit -n {wanted}",
                options.subscribers
            );
        }
        let crowd = usize::try_from(options.subscribers)?;
        let mut runs: [Vec<Run>; 3] = Default::default();
        for round in 0..self.repeat {
            for (runs, subscribers) in runs.iter_mut().zip([0, 1, crowd]) {
                eprintln!(
                    "{subscribers} subscribers, {} s, {} of {}",
                    options.seconds,
                    round + 1,
                    self.repeat
                );
                runs.push(self.follow(options, module, subscribers)?);
            }
        }
        let [alone, one, crowd_runs] = runs.map(|runs| Middle::of(&runs));
        table.live(options, &alone, &one, &crowd_runs);
        self.feed_cost(module, table)
    }

    /// Changes orders for a while, with so many who follow.
    fn follow(&self, options: &Options, module: &[u8], subscribers: usize) -> Result<Run> {
        let database = self.create("live", None)?;
        // A quarter of the connections is kept for others.
        let connections = subscribers * 2 + 200;
        let config = format!(
            "[api]\nmax_connections = {connections}\n\n[live]\nmax_subscribers = {}\n",
            subscribers.max(1)
        );
        let served = self.serve_with(&database, &config)?;
        let client = Client::new(&served.url);
        client.deploy("orders", module)?;
        let mut last = 0;
        for number in 0..ORDERS {
            last = create_order(&client, number)?;
        }
        client.get(&format!("/read/orders/live-0?min_position={last}&wait=30s"))?;
        let run = load(&served, &self.cluster, options, subscribers)?;
        stop(served)?;
        Ok(run)
    }

    /// How fast events are followed when commits tell so many changed rows each, beside commits that tell nothing.
    fn feed_cost(&self, module: &[u8], table: &mut Table) -> Result<()> {
        let file = self.folder.join("market.jsonl");
        for (rows, events) in COMMITS {
            super::data::orders(&file, events)?;
            let database = self.create("market", None)?;
            // What is there when a projection is deployed is filled in, and not told.
            let served = self.serve(&database)?;
            let client = Client::new(&served.url);
            client.deploy("orders", module)?;
            create_order(&client, 0)?;
            super::wait(&served, &client, "orders", super::has_read_all)?;
            stop(served)?;
            self.gobo_import(&database, &file)?;
            database.run("truncate gobo.feed; vacuum (analyze) gobo.events")?;
            let (mut told, mut silent) = (Vec::new(), Vec::new());
            for round in 0..self.repeat {
                eprintln!(
                    "feed of {rows} rows per commit, {} of {}",
                    round + 1,
                    self.repeat
                );
                for (runs, most) in [(&mut silent, 0), (&mut told, 100_000)] {
                    let config = format!(
                        "[engine]\nbatch_events = {rows}\ncommit_rows = {rows}\n\n[live]\nmax_changes = {most}\n"
                    );
                    runs.push(self.follow_all(&config)?);
                }
            }
            let bytes = told.iter().map(|run| run.bytes).max().unwrap_or(0) / events;
            let commits = told.iter().map(|run| run.commits).max().unwrap_or(0);
            let times = |runs: &[Followed]| middle(runs.iter().map(|run| run.took).collect());
            table.rate(
                format!(
                    "following in {commits} commits of {} rows, all told ({bytes} bytes of the feed per row)",
                    events / commits.max(1)
                ),
                events,
                times(&told),
                &[("none told (live.max_changes = 0)", times(&silent))],
            );
        }
        Ok(())
    }

    /// Follows everything that is in the database called market.
    fn follow_all(&self, config: &str) -> Result<Followed> {
        let database = self.create("rebuild", Some("market"))?;
        let served = self.serve_with(&database, config)?;
        let client = Client::new(&served.url);
        super::wait(&served, &client, "orders", super::has_read_all)?;
        stop(served)?;
        let answer = database.run(
            "select count(*), (extract(epoch from max(committed_at) - min(committed_at)) * 1e6)::bigint, \
             pg_total_relation_size('gobo.feed') from gobo.feed",
        )?;
        let figures = answer.split('|').map(number).collect::<Result<Vec<_>>>()?;
        let [commits, micros, bytes] = figures[..] else {
            bail!("three figures were asked for: {answer}");
        };
        Ok(Followed {
            took: Duration::from_micros(micros),
            commits,
            bytes,
        })
    }
}

/// What following left.
struct Followed {
    /// From the first commit to the last.
    took: Duration,
    commits: u64,
    bytes: u64,
}

/// Gives its position.
fn create_order(client: &Client, number: u64) -> Result<i64> {
    let (symbol, _) = SYMBOLS[number as usize % SYMBOLS.len()];
    let data = json!({
        "order_id": format!("live-{number}"), "user_id": format!("live-user-{}", number % USERS), "symbol": symbol,
        "side": "buy", "price": "61420.50", "quantity": "1000000",
    });
    append(client, number, "OrderCreated", data)
}

/// Every change fills an order by one: how far it is filled says which change it was.
fn change(client: &Client, number: u64) -> Result<i64> {
    let order = number % ORDERS;
    let data = json!({ "order_id": format!("live-{order}"), "quantity": "1", "price": "61420.50" });
    append(client, order, "OrderMatched", data)
}

fn append(client: &Client, order: u64, kind: &str, data: serde_json::Value) -> Result<i64> {
    let append = Append {
        stream: format!("order-live-{order}"),
        expected: None,
        events: vec![json!({ "type": kind, "data": data })],
    };
    Ok(client.append(&append)?.0)
}

fn load(
    served: &Served,
    cluster: &gobo_cluster::Cluster,
    options: &Options,
    subscribers: usize,
) -> Result<Run> {
    let total = options.rate * options.seconds;
    let is_over = AtomicBool::new(false);
    let joined = Barrier::new(subscribers + 1);
    let began = Instant::now();
    let followers = open(&served.url, &parts(subscribers))?;
    let opened = began.elapsed();
    let (is_over, joined) = (&is_over, &joined);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (followers.into_iter())
            .map(|(part, follower)| {
                let builder = std::thread::Builder::new().stack_size(128 << 10);
                builder.spawn_scoped(scope, move || {
                    joined.wait();
                    listen(follower, part, total, is_over)
                })
            })
            .collect::<std::io::Result<_>>()?;
        joined.wait();
        let before = Usage::of(served.process.id(), cluster)?;
        let changing = Instant::now();
        let appended = changes(&served.url, options);
        is_over.store(true, Ordering::Release);
        let mut run = Run {
            opened,
            ..Run::default()
        };
        let mut receipts = Vec::new();
        for thread in threads {
            let Ok(found) = thread.join() else {
                bail!("a subscriber's thread panicked");
            };
            receipts.extend(found?);
        }
        let used = Usage::of(served.process.id(), cluster)?.since(&before);
        let seconds = changing.elapsed().as_secs_f64();
        (run.engine, run.postgres) = (used.engine / seconds, used.postgres / seconds);
        run.peak_bytes = super::peak_memory(served.process.id());
        let appended = appended?;
        for Receipt { change, at } in receipts {
            let (due, answered) = appended
                .get(&change)
                .with_context(|| format!("change {change} was told and never made"))?;
            run.delays.push(at.saturating_duration_since(*answered));
            run.whole.push(at.saturating_duration_since(*due));
        }
        (run.changes, run.told) = (
            appended.len() as f64 / seconds,
            run.delays.len() as f64 / seconds,
        );
        run.delays.sort_unstable();
        run.whole.sort_unstable();
        Ok(run)
    })
}

fn parts(subscribers: usize) -> Vec<Part> {
    let mut counts: BTreeMap<Kind, u64> = BTreeMap::new();
    let whole: usize = SHARES.iter().map(|(_, share)| share).sum();
    (0..subscribers)
        .map(|place| {
            // The last kind comes first, so that one alone is told everything.
            let mut place = (subscribers - 1 - place) % whole;
            let mut kind = Kind::Everything;
            for (next, share) in SHARES {
                if subscribers > 1 && place < share {
                    kind = next;
                    break;
                }
                place = place.wrapping_sub(share);
            }
            let number = counts.entry(kind).or_default();
            *number += 1;
            Part {
                kind,
                number: *number - 1,
            }
        })
        .collect()
}

impl Part {
    fn path(&self) -> String {
        let number = self.number;
        match self.kind {
            Kind::Key => format!("/read/orders/live-{}", number % ORDERS),
            Kind::User => format!("/read/orders?user_id=eq.live-user-{}", number % USERS),
            Kind::Symbol => {
                let (symbol, _) = SYMBOLS[number as usize % SYMBOLS.len()];
                format!("/read/orders?symbol=eq.{symbol}")
            }
            Kind::Number => "/read/orders?quantity=gte.0.5".to_owned(),
            Kind::Everything => "/read/orders".to_owned(),
        }
    }

    fn has(&self, order: u64) -> bool {
        match self.kind {
            Kind::Key => order == self.number % ORDERS,
            Kind::User => order % USERS == self.number % USERS,
            Kind::Symbol => order % SYMBOLS.len() as u64 == self.number % SYMBOLS.len() as u64,
            Kind::Number | Kind::Everything => true,
        }
    }
}

/// Everybody, with the rows to begin with.
fn open(url: &str, parts: &[Part]) -> Result<Vec<(Part, Follower)>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (parts.chunks(parts.len().div_ceil(OPENERS).max(1)))
            .map(|parts| {
                scope.spawn(move || {
                    let open = |part: &Part| Ok((*part, Follower::open(url, &part.path())?));
                    parts.iter().map(open).collect::<Result<Vec<_>>>()
                })
            })
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            let Ok(found) = thread.join() else {
                bail!("a thread that opens subscriptions panicked");
            };
            all.extend(found?);
        }
        Ok(all)
    })
}

/// Listens until it was told the last change of every order that it follows.
fn listen(
    mut follower: Follower,
    part: Part,
    total: u64,
    is_over: &AtomicBool,
) -> Result<Vec<Receipt>> {
    // Of an order, the change with the highest number: they come in turn.
    let mut left: std::collections::BTreeSet<u64> = (total.saturating_sub(ORDERS)..total)
        .filter(|change| part.has(change % ORDERS))
        .collect();
    let mut receipts = Vec::new();
    let mut over = None;
    while !left.is_empty() {
        let before = receipts.len();
        follower.read(ORDERS, &mut receipts)?;
        for receipt in &receipts[before..] {
            left.remove(&receipt.change);
        }
        if over.is_none() && is_over.load(Ordering::Acquire) {
            over = Some(Instant::now());
        }
        if over.is_some_and(|over| over.elapsed() > PATIENCE) {
            bail!("{part:?} was not told {} changes", left.len());
        }
    }
    Ok(receipts)
}

/// Makes changes at the rate. Gives when each was due and when it was answered.
fn changes(url: &str, options: &Options) -> Result<BTreeMap<u64, (Instant, Instant)>> {
    let total = options.rate * options.seconds;
    let period =
        Duration::from_secs(1) / u32::try_from(options.rate).context("the rate is too high")?;
    let next = AtomicU64::new(0);
    let begin = Instant::now() + Duration::from_millis(100);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let (client, next) = (Client::new(url), &next);
                scope.spawn(move || {
                    let mut made = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= total {
                            return Ok::<_, anyhow::Error>(made);
                        }
                        let due = begin + period * u32::try_from(number)?;
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        change(&client, number)?;
                        made.push((number, (due, Instant::now())));
                    }
                })
            })
            .collect();
        let mut all = BTreeMap::new();
        for worker in workers {
            let Ok(made) = worker.join() else {
                bail!("a worker panicked");
            };
            all.extend(made?);
        }
        Ok(all)
    })
}

/// Of several runs: the middle of each figure.
#[derive(Debug, Default)]
pub(super) struct Middle {
    /// p50, p99 and the longest.
    pub(super) delay: [f64; 3],
    pub(super) whole: [f64; 3],
    pub(super) opened: f64,
    pub(super) engine: f64,
    pub(super) postgres: f64,
    pub(super) peak_bytes: u64,
    pub(super) changes: f64,
    pub(super) told: f64,
}

impl Middle {
    fn of(runs: &[Run]) -> Self {
        let figure = |of: &dyn Fn(&Run) -> f64| {
            let mut all: Vec<f64> = runs.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or_default()
        };
        let at = |times: &[Duration], percent: usize| {
            let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
            times.get(place).copied().unwrap_or_default().as_secs_f64() * 1e3
        };
        Self {
            delay: [50, 99, 100].map(|percent| figure(&|run| at(&run.delays, percent))),
            whole: [50, 99, 100].map(|percent| figure(&|run| at(&run.whole, percent))),
            opened: figure(&|run| run.opened.as_secs_f64()),
            engine: figure(&|run| run.engine),
            postgres: figure(&|run| run.postgres),
            peak_bytes: runs
                .iter()
                .filter_map(|run| run.peak_bytes)
                .max()
                .unwrap_or(0),
            changes: figure(&|run| run.changes),
            told: figure(&|run| run.told),
        }
    }
}
