//! `gobo dev`: everything for trying things out, in one command.

mod cargo;
mod crates;
mod sources;
mod workshop;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use gobo_cluster::{Cluster, Options};
use tokio::sync::watch;

use self::crates::Crates;
use self::workshop::Workshop;
use super::serve::{block_on, start_log, until_signal};
use crate::config::{Config, mask_password};
use crate::runtime;

/// The database of the private server.
const DATABASE: &str = "gobo";

/// Run an engine with a database of its own, and deploy plugins as they are saved.
///
/// In the folder of a plugin's crate, or of a workspace with plugins, it builds them, and does so again whenever a source
/// changes: saving a file is enough. What does not compile is shown, and what ran goes on.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  gobo dev
  gobo dev --crate plugins/orders --crate plugins/parts
  gobo dev --plugins target/wasm32-unknown-unknown/plugin
  gobo dev --database-url postgresql://localhost/try")]
pub struct DevArgs {
    /// A crate, or a workspace, whose plugins are built and deployed as their sources change; may be given several times
    /// [default: the current folder, if it is one and --plugins is not given].
    #[arg(long = "crate", value_name = "FOLDER")]
    pub crates: Vec<PathBuf>,
    /// The cargo profile to build with [default: dev, made quick: opt-level 1, incremental, no debugging information].
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// The folder whose .wasm files are deployed as they change [default, without a crate: ./plugins if it exists, else .].
    #[arg(long, value_name = "FOLDER")]
    pub plugins: Option<PathBuf>,
    /// Use this database instead of a private one.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<String>,
    /// Where the private database keeps its data.
    #[arg(long, default_value = ".gobo/dev", value_name = "FOLDER")]
    pub data_dir: PathBuf,
    /// Where HTTP is served.
    #[arg(
        long,
        env = "GOBO_LISTEN",
        default_value = "127.0.0.1:7171",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,
    /// What is logged, as in gobo.toml.
    #[arg(long, env = "GOBO_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

/// Starts the private server if there is to be one, then the engine; ends them in the opposite order.
pub fn run(args: DevArgs) -> Result<()> {
    let crates = crates(&args)?;
    let mut cluster = match &args.database_url {
        Some(_) => None,
        None => Some(start_database(&args.data_dir)?),
    };
    let url = match (&args.database_url, &cluster) {
        (Some(url), _) => url.clone(),
        (None, Some(cluster)) => cluster.url(DATABASE),
        (None, None) => String::new(),
    };
    let ran = engine(&args, url, cluster.as_ref(), crates);
    if let Some(cluster) = &mut cluster {
        cluster
            .stop()
            .context("the private database did not stop in good order")?;
    }
    ran
}

/// The plugins that are to be built here. What is missing for it is said before anything is started.
fn crates(args: &DevArgs) -> Result<Vec<Crates>> {
    let here = Path::new(".");
    let is_implied = args.crates.is_empty();
    let folders = match is_implied {
        true if args.plugins.is_none() && here.join("Cargo.toml").is_file() => vec![here.into()],
        _ => args.crates.clone(),
    };
    let mut all: Vec<Crates> = Vec::new();
    for folder in folders {
        if !folder.join("Cargo.toml").is_file() {
            bail!(
                "{} has no Cargo.toml: --crate takes a crate's folder",
                folder.display()
            );
        }
        match Crates::find(&folder)? {
            Some(found) if all.iter_mut().any(|one| one.absorb(&found)) => {}
            Some(found) => {
                cargo::need_target(&found.folder)?;
                all.push(found);
            }
            None if is_implied => {}
            None => bail!(
                "{} holds no plugin: a library crate with gobo-sdk among its dependencies and crate-type = [\"cdylib\"]",
                folder.display()
            ),
        }
    }
    Ok(all)
}

fn engine(
    args: &DevArgs,
    url: String,
    cluster: Option<&Cluster>,
    crates: Vec<Crates>,
) -> Result<()> {
    let mut config = Config {
        listen: args.listen,
        log: args.log.clone(),
        ..Config::default()
    };
    config.database.url = url;
    config.engine.failures_dir = Some(".gobo/failures".into());
    config.plugins.watch = match &args.plugins {
        None if crates.is_empty() => Some(usual_plugins()),
        named => named.clone(),
    };
    config.check()?;
    start_log(&config);
    block_on(async {
        let listener = runtime::bind(config.listen).await?;
        // Port 0 stands for any free one: the one that it became is shown.
        print_banner(listener.local_addr()?, &config, cluster, &crates);
        let shutdown = until_signal()?;
        let (tools, opened) = watch::channel(None);
        let workshop = Workshop::new(crates, args.profile.clone(), opened);
        let mut building = tokio::spawn(workshop.run(shutdown.clone()));
        let serving = runtime::serve(config, listener, shutdown, |opened| {
            tools.send_replace(Some(Arc::new(opened)));
        });
        tokio::pin!(serving);
        let served = tokio::select! {
            served = &mut serving => served,
            // It ends with the engine, or because nothing can be watched.
            built = &mut building => {
                built??;
                return Ok(serving.await?);
            }
        };
        // Ends cargo, if it runs.
        building.abort();
        let _ = building.await;
        Ok(served?)
    })
}

fn usual_plugins() -> PathBuf {
    let usual = Path::new("plugins");
    if usual.is_dir() {
        usual
    } else {
        Path::new(".")
    }
    .to_owned()
}

fn start_database(data: &Path) -> Result<Cluster> {
    eprintln!("starting a private PostgreSQL ...");
    Cluster::start(Options::durable(data)).context(
        "no private database could be started; name one of your own with --database-url or DATABASE_URL",
    )
}

fn print_banner(
    address: SocketAddr,
    config: &Config,
    cluster: Option<&Cluster>,
    crates: &[Crates],
) {
    let web = format!("http://{address}");
    eprintln!();
    match cluster {
        Some(cluster) => {
            eprintln!(
                "  data       {} (kept between runs)",
                cluster.data().display()
            );
            if let Some(wanted) = cluster.instead_of() {
                eprintln!(
                    "             not in {}: the database's account cannot enter it",
                    wanted.display()
                );
            }
            eprintln!(
                "             to drop it: stop gobo, then rm -r {}",
                cluster.data().display()
            );
            eprintln!("  sql        {}", cluster.psql(DATABASE));
            eprintln!(
                "  import     gobo import EVENTS.jsonl --database-url '{}'",
                cluster.url(DATABASE)
            );
        }
        None => eprintln!("  database   {}", mask_password(&config.database.url)),
    }
    for one in crates {
        eprintln!(
            "  building   {}, in {}: whenever a source is saved",
            one.names(),
            one.folder.display()
        );
    }
    if let Some(folder) = &config.plugins.watch {
        eprintln!(
            "  plugins    {}: every .wasm file in it is deployed when it is saved",
            folder.display()
        );
    }
    eprintln!(
        "  append     gobo append my-stream SomethingHappened '{{\"amount\": 1}}' --url {web}"
    );
    eprintln!("  read       curl {web}/read/READ_MODEL");
    eprintln!("  status     curl {web}/admin/projections");
    eprintln!("  console    {web}/console");
    eprintln!("  Ctrl-C stops everything");
    eprintln!();
}
