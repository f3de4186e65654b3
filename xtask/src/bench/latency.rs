//! From the answer to an append until its effect can be read, at a fixed rate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::database::{Database, Session};
use crate::demo::client::Client;
use crate::demo::market::Append;

/// Connections that append and read. Each waits for its own answers; the schedule waits for none.
const CONNECTIONS: usize = 16;

/// One append in so many is also awaited in SQL.
const LOOKED_UP: u64 = 20;

/// The times of one run, each in ascending order.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// From sending an append to its answer.
    pub(super) append: Vec<Duration>,
    /// From an append's answer to the answer of `GET ...?min_position=`.
    pub(super) read: Vec<Duration>,
    /// From the moment at which the append was due to the answer of the read: what falls behind counts as well.
    pub(super) whole: Vec<Duration>,
    /// From an append's answer to its row in an SQL session.
    pub(super) sql: Vec<Duration>,
}

/// Appends `rate` new orders per second for `seconds` and reads each of them back.
pub(super) fn measure(url: &str, database: &Database, rate: u64, seconds: u64) -> Result<Times> {
    let total = rate * seconds;
    let period = Duration::from_secs(1) / u32::try_from(rate).context("the rate is too high")?;
    let next = AtomicU64::new(0);
    let begin = Instant::now() + Duration::from_millis(100);
    let (ask, asked) = mpsc::channel::<(String, Instant)>();
    std::thread::scope(|scope| {
        let sql = scope.spawn(move || look_up(database, &asked));
        let workers: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let (client, next, ask) = (Client::new(url), &next, ask.clone());
                scope.spawn(move || {
                    let mut times = Times::default();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= total {
                            return Ok::<_, anyhow::Error>(times);
                        }
                        let due = begin + period * u32::try_from(number)?;
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        sample(&client, number, due, &ask, &mut times)?;
                    }
                })
            })
            .collect();
        drop(ask);
        let mut all = Times::default();
        for worker in workers {
            let Ok(times) = worker.join() else {
                bail!("a worker panicked");
            };
            let times = times?;
            all.append.extend(times.append);
            all.read.extend(times.read);
            all.whole.extend(times.whole);
        }
        let Ok(found) = sql.join() else {
            bail!("the SQL session panicked");
        };
        all.sql = found?;
        for times in [&mut all.append, &mut all.read, &mut all.whole, &mut all.sql] {
            times.sort_unstable();
        }
        Ok(all)
    })
}

fn sample(
    client: &Client,
    number: u64,
    due: Instant,
    ask: &mpsc::Sender<(String, Instant)>,
    times: &mut Times,
) -> Result<()> {
    let order = format!("latency-{number}");
    let data = json!({
        "order_id": order, "user_id": format!("user-{}", number % 200), "symbol": "BTC-EUR", "side": "buy",
        "price": "61420.50", "quantity": "1.25",
    });
    let append = Append {
        stream: format!("order-{order}"),
        expected: None,
        events: vec![json!({ "type": "OrderCreated", "data": data })],
    };
    let sent = Instant::now();
    let (position, _) = client.append(&append)?;
    let appended = Instant::now();
    if number.is_multiple_of(LOOKED_UP) {
        ask.send((order.clone(), appended))?;
    }
    let (row, _) = client.get(&format!("/read/orders/{order}?min_position={position}"))?;
    let read = Instant::now();
    if !row.contains(&order) {
        bail!("order {order} was not in the answer: {row}");
    }
    times.append.push(appended - sent);
    times.read.push(read - appended);
    times.whole.push(read.saturating_duration_since(due));
    Ok(())
}

/// Looks for each order until it is there, in one session.
fn look_up(
    database: &Database,
    asked: &mpsc::Receiver<(String, Instant)>,
) -> Result<Vec<Duration>> {
    let mut session = Session::open(database)?;
    let mut times = Vec::new();
    while let Ok((order, appended)) = asked.recv() {
        let sql = format!("select 1 from read.orders where order_id = '{order}'");
        while session.ask(&sql)?.is_empty() {
            if appended.elapsed() > Duration::from_secs(60) {
                bail!("order {order} did not appear");
            }
        }
        times.push(appended.elapsed());
    }
    Ok(times)
}
