//! `cargo xtask demo`: from a checkout to filling read models in one command.

mod check;
pub(crate) mod client;
pub(crate) mod clock;
mod decimal;
mod feed;
mod ledger;
pub(crate) mod market;
pub(crate) mod random;
mod view;

use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use gobo_cluster::Cluster;
use serde_json::json;

use crate::serve::{self, Outcome, Served};
use crate::{build, setup};
use client::Client;
use feed::{Feed, Volume};
use market::Append;
use view::View;

/// The shipped plugins.
const PLUGINS: [&str; 2] = ["orders", "trading-stats"];

/// The address of the demo that people look at; `--once` takes any free port.
const PORT: u16 = 7171;

/// Events per second of a demo that runs until Ctrl-C.
const CALM: u64 = 500;

/// The first simulated day of a new database: 2026-01-05T08:00:00Z.
const FIRST_DAY: i64 = 1_767_600_000_000_000;

/// How long a projection may stand still before it counts as stuck.
const STANDSTILL: Duration = Duration::from_secs(60);

/// How the demo runs.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Run to the end without a terminal, then compare the read models with the simulator's own figures.
    #[arg(long)]
    once: bool,
    /// End after about this many events [default: 20000 with --once, else never].
    #[arg(long)]
    events: Option<u64>,
    /// The seed of the simulation: the same seed trades the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Remove the data of earlier runs first.
    #[arg(long)]
    reset: bool,
    /// The port to serve on [default: 7171, with --once any free one].
    #[arg(long)]
    port: Option<u16>,
}

/// Runs the demo until its end or Ctrl-C.
pub fn run(options: &Options) -> Result<()> {
    setup::run()?;
    let binary = build::engine()?;
    let modules = build::guests(&PLUGINS.map(str::to_owned))?;

    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // Asked twice, it ends at once; the server and the engine end with this process.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupted))?;
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }

    let folder = build::workspace().join(".gobo/demo");
    if options.reset {
        gobo_cluster::remove_data(&folder.join("postgres"))?;
    }
    fs::create_dir_all(&folder)
        .with_context(|| format!("could not create {}", folder.display()))?;
    let cluster = start_cluster(&folder)?;
    let demo = Demo::start(options, &folder, &binary, &modules, cluster, interrupted)?;
    demo.play(options)
}

fn start_cluster(folder: &Path) -> Result<Cluster> {
    let cluster = Cluster::start(gobo_cluster::Options::durable(folder.join("postgres")))?;
    if let Some(wanted) = cluster.instead_of() {
        println!(
            "The data is in {}, since the server may not enter {}",
            cluster.data().display(),
            wanted.display()
        );
    }
    Ok(cluster)
}

/// Everything that runs. Fields are dropped in this order: the engine ends before its database.
struct Demo {
    served: Served,
    cluster: Cluster,
    client: Client,
    log: PathBuf,
    interrupted: Arc<AtomicBool>,
}

impl Demo {
    fn start(
        options: &Options,
        folder: &Path,
        binary: &Path,
        modules: &std::collections::BTreeMap<String, PathBuf>,
        cluster: Cluster,
        interrupted: Arc<AtomicBool>,
    ) -> Result<Demo> {
        let plugins = folder.join("plugins");
        fs::create_dir_all(&plugins)?;
        let port = options.port.unwrap_or(if options.once { 0 } else { PORT });
        let config = folder.join("gobo.toml");
        let text = format!(
            "listen = \"127.0.0.1:{port}\"\n\n[database]\nurl = {:?}\n\n[plugins]\nwatch = {plugins:?}\n",
            cluster.url("gobo")
        );
        fs::write(&config, text)
            .with_context(|| format!("could not write {}", config.display()))?;
        let log = folder.join("gobo.log");
        // Each run has its own log; the last one stays to be looked at.
        let _ = fs::rename(&log, folder.join("gobo.log.old"));
        let served = match serve::serve(binary, &config, &log, serve::plain_environment())? {
            Outcome::Served(served) => served,
            Outcome::Ended { code, log } => bail!("the engine ended with code {code}:\n{log}"),
        };
        let client = Client::new(&served.url);
        let demo = Demo {
            served,
            cluster,
            client,
            log,
            interrupted,
        };
        for name in PLUGINS {
            let module = modules
                .get(&name.replace('-', "_"))
                .with_context(|| format!("{name} was not built"))?;
            demo.deploy(name, module, &plugins)?;
        }
        Ok(demo)
    }

    /// Deploys over HTTP, so that a refusal is seen here, and leaves a copy in the watched folder,
    /// where a newly built one replaces it.
    fn deploy(&self, name: &str, module: &Path, watched: &Path) -> Result<()> {
        let bytes =
            fs::read(module).with_context(|| format!("could not read {}", module.display()))?;
        let answer = self.client.deploy(name, &bytes);
        let answer = answer.with_context(|| {
            format!("{name} was refused (`cargo xtask demo --reset` begins anew)")
        })?;
        println!(
            "deployed {name}: {}",
            answer["outcome"].as_str().unwrap_or("?")
        );
        let unfinished = watched.join(format!(".{name}.new"));
        fs::write(&unfinished, bytes)?;
        fs::rename(&unfinished, watched.join(format!("{name}.wasm")))?;
        Ok(())
    }

    fn play(mut self, options: &Options) -> Result<()> {
        let head = self
            .client
            .projections()?
            .iter()
            .map(|status| status.head_position)
            .max();
        self.wait_for(head.unwrap_or(0))?;
        let start = self.next_day()?;
        let run = self.begin_run(options.seed)?;
        let volume = if options.once {
            Volume {
                events: Some(options.events.unwrap_or(20_000)),
                rate: None,
            }
        } else {
            Volume {
                events: options.events,
                rate: options.events.is_none().then_some(CALM),
            }
        };
        let feed = Feed::start(&self.client, options.seed, run, start, volume);
        let progress = Arc::clone(&feed.progress);
        let shown = self.watch(&feed, options.once);
        let is_interrupted = self.interrupted.load(Ordering::Relaxed);
        let ledgers = feed
            .finish(is_interrupted || shown.is_err())
            .with_context(|| self.log_end());
        shown?;
        let ledgers = ledgers?;
        if options.once {
            if is_interrupted {
                bail!("interrupted");
            }
            self.wait_for(progress.position())?;
            for line in
                check::check(&self.client, &ledgers, run, start).with_context(|| self.log_end())?
            {
                println!("{line}");
            }
        }
        self.end()
    }

    /// Shows the progress until the feed is done, Ctrl-C, or the engine's end.
    fn watch(&mut self, feed: &Feed, once: bool) -> Result<()> {
        let url = self.served.url.clone();
        let data = self.cluster.data().display().to_string();
        let mut view = View::new(
            url,
            self.cluster.psql("gobo"),
            data,
            self.log.display().to_string(),
        );
        let live = !once && std::io::stdout().is_terminal();
        if live {
            print!("\x1b[2J");
        }
        let pause = Duration::from_millis(if live { 500 } else { 2_000 });
        let mut next = Instant::now();
        while !feed.is_done() && !self.interrupted.load(Ordering::Relaxed) {
            if let Some(code) = self.served.process.ended()? {
                bail!("the engine ended with code {code}\n{}", self.log_end());
            }
            if Instant::now() >= next {
                let appended = feed.progress.appended();
                if live {
                    view.draw(&self.client, appended)
                } else {
                    view.print(&self.client, appended)
                }
                next = Instant::now() + pause;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until every projection has reached `position`.
    fn wait_for(&mut self, position: i64) -> Result<()> {
        let mut moved = (Instant::now(), 0);
        loop {
            let all = self.client.projections().with_context(|| self.log_end())?;
            let here: Vec<_> = all
                .iter()
                .filter(|status| PLUGINS.contains(&status.name.as_str()))
                .collect();
            if here.len() == PLUGINS.len() && here.iter().all(|status| status.position >= position)
            {
                return Ok(());
            }
            let sum = here.iter().map(|status| status.position).sum();
            if sum != moved.1 {
                moved = (Instant::now(), sum);
            }
            let failed = here
                .iter()
                .any(|status| status.state == "failed" || status.state == "stopped");
            if failed || moved.0.elapsed() > STANDSTILL {
                bail!(
                    "the projections did not reach position {position}: {all:#?}\n{}",
                    self.log_end()
                );
            }
            if self.interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The simulated time goes on a day after the last bar, so that no two runs share a minute.
    fn next_day(&self) -> Result<i64> {
        let (rows, _) = self
            .client
            .page("/read/symbol_bars?order=minute.desc&limit=1")?;
        let Some(minute) = rows.first().and_then(|row| row.get("minute")) else {
            return Ok(FIRST_DAY);
        };
        let text: String = serde_json::from_str(minute.get())?;
        let last = clock::parse(&text).with_context(|| format!("{text} is no instant"))?;
        Ok(FIRST_DAY + ((last - FIRST_DAY).div_euclid(clock::DAY) + 1) * clock::DAY)
    }

    /// The store itself numbers the runs on this database: a run's number is a version in a stream.
    fn begin_run(&self, seed: u64) -> Result<u64> {
        let event = json!({ "type": "DemoStarted", "data": { "seed": seed } });
        let append = Append {
            stream: "demo-runs".to_owned(),
            expected: None,
            events: vec![event],
        };
        let (_, version) = self.client.append(&append)?;
        Ok(version.unsigned_abs() + 1)
    }

    /// Ends the engine, then its database.
    fn end(mut self) -> Result<()> {
        println!("\nstopping");
        let code = self.served.process.stop()?;
        self.cluster.stop()?;
        if code != 0 {
            bail!("the engine ended with code {code}\n{}", self.log_end());
        }
        println!(
            "The data stays in {} (`cargo xtask demo --reset` begins anew)",
            self.cluster.data().display()
        );
        Ok(())
    }

    fn log_end(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!(
            "the end of {}:\n{}",
            self.log.display(),
            lines[lines.len().saturating_sub(20)..].join("\n")
        )
    }
}
