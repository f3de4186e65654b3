//! Reads: from memory, from Redis, from PostgreSQL, not at all; beside handlers written by hand and an answer that never
//! changes.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use gobo_cluster::RedisServer;
use gobo_cluster::redis::Persistence;

use super::load::{Load, Rate};
use super::table::Table;
use super::{Bench, database::Database, fill, stop};

/// Different rows that are asked for.
const ROWS: usize = 1_000;
/// For how long each load runs, after as long again to warm up.
const TIME: Duration = Duration::from_secs(3);

/// The order in which they are shown; the first three are what the others are held against.
const WAYS: [&str; 7] = [
    "static",
    "by hand",
    "by hand, sqlx",
    "memory",
    "Redis",
    "PostgreSQL",
    "304",
];

/// The handlers written by hand; they end when this is dropped.
struct Baseline {
    process: Child,
    url: String,
}

impl Baseline {
    fn start(binary: &Path, database: &Database) -> Result<Self> {
        let mut process = Command::new(binary)
            .arg(&database.url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("could not run gobo-baseline")?;
        let output = process.stdout.take().context("it has no output")?;
        let mut url = String::new();
        BufReader::new(output).read_line(&mut url)?;
        Ok(Self {
            process,
            url: url.trim().to_owned(),
        })
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One way to answer.
struct Way {
    name: &'static str,
    rates: Vec<Rate>,
}

impl Bench {
    /// Measures in `database`, which has the market's events.
    pub(super) fn reads(
        &self,
        database: &Database,
        module: &[u8],
        baseline: &Path,
        table: &mut Table,
    ) -> Result<()> {
        let redis = RedisServer::start(Persistence::Nothing)?;
        let none = "[cache]\nbytes = 0\n";
        let far = format!("{none}\n[redis]\nurl = {:?}\n", redis.url());
        let served = self.serve_with(database, "")?;
        fill(&served, "orders", module)?;
        stop(served)?;
        let by_hand = Baseline::start(baseline, database)?;
        let keys = database.run(&format!(
            "select order_id from read.orders order by md5(order_id) limit {ROWS}"
        ))?;
        let symbol = database
            .run("select symbol from read.orders group by 1 order by count(*) desc, 1 limit 1")?;
        let rows: Vec<String> = keys.lines().map(str::to_owned).collect();
        let kinds = [
            (
                "row",
                rows.iter()
                    .map(|key| format!("orders/{key}"))
                    .collect::<Vec<_>>(),
                rows.iter()
                    .map(|key| format!("/read/orders/{key}"))
                    .collect::<Vec<_>>(),
            ),
            (
                "page of 50",
                vec![format!("symbols/{symbol}")],
                vec![format!(
                    "/read/orders?symbol=eq.{symbol}&order=order_id&limit=50"
                )],
            ),
        ];
        let fixed = vec!["/static".to_owned()];
        for (kind, hand, ours) in &kinds {
            let mut ways = WAYS.map(|name| Way {
                name,
                rates: Vec::new(),
            });
            for round in 0..self.repeat {
                eprintln!("reads of a {kind}, {} of {}", round + 1, self.repeat);
                ways[0].run(&by_hand.url, &fixed, None)?;
                for (way, library) in [(1, "tokio-postgres"), (2, "sqlx")] {
                    let paths = hand.iter().map(|path| format!("/{library}/{path}"));
                    ways[way].run(&by_hand.url, &paths.collect::<Vec<_>>(), None)?;
                }
                for (way, config) in [(3, ""), (4, far.as_str()), (5, none)] {
                    let served = self.serve_with(database, config)?;
                    ways[way].run(&served.url, ours, None)?;
                    if way == 3 {
                        let tag = tag(&served.url, &ours[0])?;
                        ways[6].run(&served.url, &ours[..1], Some(&tag))?;
                    }
                    stop(served)?;
                }
            }
            table.reads(kind, &ways.map(|way| (way.name, way.middle())));
        }
        Ok(())
    }
}

impl Way {
    fn run(&mut self, url: &str, paths: &[String], tag: Option<&str>) -> Result<()> {
        let load = Load {
            url,
            paths,
            headers: tag.map_or(String::new(), |tag| format!("If-None-Match: {tag}\r\n")),
            status: if tag.is_some() { 304 } else { 200 },
        };
        load.run(TIME)?;
        self.rates.push(load.run(TIME)?);
        Ok(())
    }

    fn middle(mut self) -> Rate {
        self.rates
            .sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        self.rates[self.rates.len() / 2]
    }
}

fn tag(url: &str, path: &str) -> Result<String> {
    let answer = ureq::get(format!("{url}{path}")).call()?;
    let tag = answer.headers().get("etag").context("no ETag")?;
    Ok(tag.to_str()?.to_owned())
}
