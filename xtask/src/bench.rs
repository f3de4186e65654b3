//! `cargo xtask bench`: how fast it is here, beside what plain PostgreSQL does with the same events.
//!
//! A figure of one machine says little about another, and a shared machine is never the same twice. So every figure comes
//! with a baseline of the same run, and is the middle one of several.

mod data;
mod database;
mod latency;
mod live;
mod load;
mod reads;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use gobo_cluster::Cluster;

use crate::demo::client::{Client, Status};
use crate::serve::{self, Outcome, Served};
use crate::{build, setup};
use database::Database;
use table::Table;

/// What is measured.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Invoice lines as examples/retail takes them, to be imported instead of made-up ones: .jsonl, .jsonl.zst, .jsonl.gz
    #[arg(long, value_name = "FILE", conflicts_with = "events")]
    data: Option<PathBuf>,
    /// How many events are made up.
    #[arg(long, default_value_t = 500_000)]
    events: u64,
    /// How often everything but the latency is measured; the middle result counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Appends per second while the latency is measured.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// For how many seconds the latency is measured.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Measures reads over HTTP and nothing else.
    #[arg(long, conflicts_with = "live")]
    reads: bool,
    /// Measures live subscribers, and what it costs commits to tell their changes, and nothing else.
    #[arg(long)]
    live: bool,
    /// Live subscribers.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    subscribers: u32,
}

/// Every event as the engine reads it.
const READ: &str = "copy (select position, stream_id, version, type, data, metadata, event_id, occurred_at, recorded_at \
                    from gobo.events order by position) to stdout (format binary)";

/// The read models of examples/retail, made by SQL.
const SHOP: &str = include_str!("bench/shop.sql");

/// How long a projection may take.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// Variables with these beginnings are handed on to the engine, to measure with other settings than the defaults.
const TUNING: [&str; 2] = ["GOBO_ENGINE_", "GOBO_LIMITS_"];

/// Builds, measures, and prints a table.
pub fn run(options: &Options) -> Result<()> {
    setup::run()?;
    let binary = build::engine_with("release")?;
    let baseline = match options.live {
        true => PathBuf::new(),
        false => build::binary("gobo-baseline", "release")?,
    };
    let modules = build::guests(&["retail".to_owned(), "orders".to_owned()])?;
    let module = |name: &str| -> Result<Vec<u8>> {
        let path = (modules.get(name)).with_context(|| format!("{name} was not built"))?;
        fs::read(path).with_context(|| format!("could not read {}", path.display()))
    };
    let folder = build::workspace().join(".gobo/bench");
    fs::create_dir_all(&folder)
        .with_context(|| format!("could not create {}", folder.display()))?;
    let data = folder.join("postgres");
    gobo_cluster::remove_data(&data)?;
    let bench = Bench {
        cluster: Cluster::start(gobo_cluster::Options::durable(&data))?,
        binary,
        folder,
        repeat: options.repeat,
    };
    let mut table = Table::default();
    let (retail, orders) = (module("retail")?, module("orders")?);
    let measured = if options.reads {
        bench.only_reads(options, &orders, &baseline, &mut table)
    } else if options.live {
        bench.live(options, &orders, &mut table)
    } else {
        bench
            .measure(options, &retail, &orders, &mut table)
            .and_then(|()| bench.reads_of_market(&orders, &baseline, &mut table))
            .and_then(|()| bench.live(options, &orders, &mut table))
    };
    drop(bench);
    println!("{table}");
    gobo_cluster::remove_data(&data)?;
    measured
}

/// What is measured with.
struct Bench {
    cluster: Cluster,
    binary: PathBuf,
    folder: PathBuf,
    repeat: u32,
}

/// One rebuild.
struct Rebuilt {
    took: Duration,
    peak_bytes: Option<u64>,
}

impl Bench {
    fn measure(
        &self,
        options: &Options,
        retail: &[u8],
        orders: &[u8],
        table: &mut Table,
    ) -> Result<()> {
        let shop = match &options.data {
            Some(file) => fs::canonicalize(file)
                .with_context(|| format!("could not find {}", file.display()))?,
            None => {
                let file = self.folder.join("shop.jsonl");
                data::shop(&file, options.events)?;
                file
            }
        };
        self.import("shop", &shop, table)?;
        self.rebuild_shop(retail, table)?;
        let market = self.folder.join("market.jsonl");
        data::market(&market, options.events)?;
        self.import("market", &market, table)?;
        self.rebuild_market(orders, table)?;
        self.latency(options, orders, table)
    }

    fn only_reads(
        &self,
        options: &Options,
        orders: &[u8],
        baseline: &Path,
        table: &mut Table,
    ) -> Result<()> {
        let market = self.folder.join("market.jsonl");
        data::market(&market, options.events)?;
        let database = self.create("market", None)?;
        self.gobo_import(&database, &market)?;
        database.run("vacuum (analyze) gobo.events")?;
        self.reads_of_market(orders, baseline, table)
    }

    fn reads_of_market(&self, orders: &[u8], baseline: &Path, table: &mut Table) -> Result<()> {
        let database = self.create("rebuild", Some("market"))?;
        self.reads(&database, orders, baseline, table)
    }

    /// Imports `file`, and leaves a database called `name` with its events.
    fn import(&self, name: &str, file: &Path, table: &mut Table) -> Result<()> {
        let (mut imports, mut copies) = (Vec::new(), Vec::new());
        let mut events = 0;
        for round in 0..self.repeat {
            eprintln!("import of {name}, {} of {}", round + 1, self.repeat);
            let database = self.create(name, None)?;
            // The schema is there when the clock starts.
            self.gobo_import(&database, Path::new("/dev/null"))?;
            database.run("checkpoint")?;
            let began = Instant::now();
            self.gobo_import(&database, file)?;
            imports.push(began.elapsed());

            let rows = self.cluster.data().join("events.copy");
            let rows = rows.display();
            let prepare = format!(
                "copy gobo.events to '{rows}' (format binary); create table copied (like gobo.events including all); checkpoint"
            );
            database.run(&prepare)?;
            copies.push(database.time(&format!("copy copied from '{rows}' (format binary)"))?);
            events = number(&database.run("drop table copied; select count(*) from gobo.events")?)?;
            database.run("vacuum (analyze) gobo.events")?;
        }
        let (import, copy) = (middle(imports), middle(copies));
        table.rate(
            format!("`gobo import`, {events} {name} events"),
            events,
            import,
            &[("COPY of the same rows, encoded before", copy)],
        );
        Ok(())
    }

    fn rebuild_shop(&self, module: &[u8], table: &mut Table) -> Result<()> {
        let (mut rebuilds, mut reads, mut made) = (Vec::new(), Vec::new(), Vec::new());
        let mut beside = Vec::new();
        let mut events = 0;
        for round in 0..self.repeat {
            eprintln!("rebuild of retail, {} of {}", round + 1, self.repeat);
            let database = self.create("rebuild", Some("shop"))?;
            events = number(&database.run("select count(*) from gobo.events")?)?;
            reads.push(database.time_copy_out(READ)?);
            database.run("checkpoint")?;
            made.push(database.time(SHOP)?);
            database.run("checkpoint")?;
            let served = self.serve(&database)?;
            rebuilds.push(fill(&served, "retail", module)?);
            equal(&database)?;
            beside.push(refill(&served, "retail")?);
            stop(served)?;
            equal(&database)?;
        }
        let took = middle(rebuilds.iter().map(|rebuilt| rebuilt.took).collect());
        let baselines = [
            ("COPY out of the same events", middle(reads)),
            ("the same tables made by SQL", middle(made)),
        ];
        table.rate(
            "examples/retail from zero, 4 read models".to_owned(),
            events,
            took,
            &baselines,
        );
        table.memory("examples/retail", &rebuilds);
        let again = middle(beside.iter().map(|rebuilt| rebuilt.took).collect());
        table.rate(
            "`gobo rebuild retail`, until it is promoted".to_owned(),
            events,
            again,
            &[("its first fill, which readers see grow", took)],
        );
        table.memory("`gobo rebuild retail`", &beside);
        Ok(())
    }

    fn rebuild_market(&self, module: &[u8], table: &mut Table) -> Result<()> {
        let (mut rebuilds, mut reads, mut beside) = (Vec::new(), Vec::new(), Vec::new());
        let mut events = 0;
        for round in 0..self.repeat {
            eprintln!("rebuild of orders, {} of {}", round + 1, self.repeat);
            let database = self.create("rebuild", Some("market"))?;
            events = number(&database.run("select count(*) from gobo.events")?)?;
            reads.push(database.time_copy_out(READ)?);
            database.run("checkpoint")?;
            let served = self.serve(&database)?;
            rebuilds.push(fill(&served, "orders", module)?);
            beside.push(refill(&served, "orders")?);
            stop(served)?;
        }
        let took = middle(rebuilds.iter().map(|rebuilt| rebuilt.took).collect());
        table.rate(
            "plugins/orders from zero, 1 read model".to_owned(),
            events,
            took,
            &[("COPY out of the same events", middle(reads))],
        );
        table.memory("plugins/orders", &rebuilds);
        let again = middle(beside.iter().map(|rebuilt| rebuilt.took).collect());
        table.rate(
            "`gobo rebuild orders`, until it is promoted".to_owned(),
            events,
            again,
            &[("its first fill, which readers see grow", took)],
        );
        table.memory("`gobo rebuild orders`", &beside);
        Ok(())
    }

    fn latency(&self, options: &Options, module: &[u8], table: &mut Table) -> Result<()> {
        eprintln!("latency, {} s", options.seconds);
        let database = self.create("rebuild", Some("market"))?;
        let served = self.serve(&database)?;
        fill(&served, "orders", module)?;
        let times = latency::measure(&served.url, &database, options.rate, options.seconds)?;
        stop(served)?;
        table.latency(options.rate, &times);
        Ok(())
    }

    /// A database, made anew.
    fn create(&self, name: &str, template: Option<&str>) -> Result<Database> {
        let url = |name: &str| Database {
            url: self.cluster.url(name),
        };
        let template = template.unwrap_or("template0");
        let control = url("postgres");
        control.run(&format!("drop database if exists {name} with (force)"))?;
        control.run(&format!("create database {name} template {template}"))?;
        Ok(url(name))
    }

    fn gobo_import(&self, database: &Database, file: &Path) -> Result<()> {
        let output = Command::new(&self.binary)
            .arg("import")
            .arg(file)
            .args(["--database-url", &database.url])
            .stdin(Stdio::null())
            .output()
            .context("could not run gobo")?;
        if !output.status.success() {
            bail!(
                "the import failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    fn serve(&self, database: &Database) -> Result<Served> {
        self.serve_with(database, "")
    }

    /// With these sections in its configuration.
    fn serve_with(&self, database: &Database, sections: &str) -> Result<Served> {
        let config = self.folder.join("gobo.toml");
        let text = format!(
            "listen = \"127.0.0.1:0\"\n\n[database]\nurl = {:?}\n\n[plugins]\ncache_dir = {:?}\n\n{sections}",
            database.url,
            self.folder.join("cache")
        );
        fs::write(&config, text)
            .with_context(|| format!("could not write {}", config.display()))?;
        let mut environment = serve::plain_environment();
        environment.extend(std::env::vars_os().filter(|(name, _)| {
            let name = name.to_string_lossy();
            TUNING.iter().any(|beginning| name.starts_with(beginning))
        }));
        let log = self.folder.join("gobo.log");
        match serve::serve(&self.binary, &config, &log, environment)? {
            Outcome::Served(served) => Ok(served),
            Outcome::Ended { code, log } => bail!("the engine ended with code {code}:\n{log}"),
        }
    }
}

/// Deploys a projection and waits until it has read everything.
fn fill(served: &Served, name: &str, module: &[u8]) -> Result<Rebuilt> {
    let client = Client::new(&served.url);
    // Compiling is not what is measured.
    client.deploy(name, module)?;
    wait(served, &client, name, has_read_all)
}

fn has_read_all(status: &Status) -> bool {
    status.head_position > 0 && status.position >= status.head_position
}

/// Fills a new generation beside the live one, until it is the live one.
fn refill(served: &Served, name: &str) -> Result<Rebuilt> {
    let client = Client::new(&served.url);
    let generation = client.rebuild(name)?;
    wait(served, &client, name, |status| {
        status.generation == generation
    })
}

fn wait(
    served: &Served,
    client: &Client,
    name: &str,
    is_there: impl Fn(&Status) -> bool,
) -> Result<Rebuilt> {
    let began = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(5));
        let all = client.projections()?;
        let status = (all.iter().find(|status| status.name == name))
            .with_context(|| format!("{name} is not there"))?;
        if is_there(status) {
            break;
        }
        if status.state == "failed" || status.state == "stopped" || began.elapsed() > PATIENCE {
            bail!("{name} did not reach the last event: {status:?}");
        }
    }
    Ok(Rebuilt {
        took: began.elapsed(),
        peak_bytes: peak_memory(served.process.id()),
    })
}

fn stop(mut served: Served) -> Result<()> {
    match served.process.stop()? {
        0 => Ok(()),
        code => bail!("the engine ended with code {code}"),
    }
}

/// Compares what the projection made with what SQL made.
fn equal(database: &Database) -> Result<()> {
    for table in ["invoices", "customers", "stock_codes", "country_day"] {
        let columns = database.run(&format!(
            "select string_agg(quote_ident(column_name), ', ' order by ordinal_position) \
             from information_schema.columns where table_schema = 'made' and table_name = '{table}'"
        ))?;
        let (made, read) = (
            format!("select {columns} from made.{table}"),
            format!("select {columns} from read.{table}"),
        );
        let differ = database.run(&format!(
            "select count(*) from (({made} except {read}) union all ({read} except {made})) as differing"
        ))?;
        if differ != "0" {
            bail!("{differ} rows of {table} differ between the projection and SQL");
        }
    }
    Ok(())
}

/// The most memory that a process has had, where the system tells.
fn peak_memory(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

fn number(text: &str) -> Result<u64> {
    text.parse()
        .with_context(|| format!("{text:?} is no number"))
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
