//! `gobo dev`: everything for trying things out, in one command.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use gobo_cluster::{Cluster, Options};

use super::serve::{block_on, serve, start_log};
use crate::config::{Config, mask_password};
use crate::runtime;

/// The database of the private server.
const DATABASE: &str = "gobo";

/// Run an engine with a database of its own, and deploy plugins as they are saved.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  gobo dev
  gobo dev --plugins target/wasm32-unknown-unknown/plugin
  gobo dev --database-url postgresql://localhost/try")]
pub struct DevArgs {
    /// The folder whose .wasm files are deployed as they change [default: ./plugins if it exists, else .].
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
    let mut cluster = match &args.database_url {
        Some(_) => None,
        None => Some(start_database(&args.data_dir)?),
    };
    let url = match (&args.database_url, &cluster) {
        (Some(url), _) => url.clone(),
        (None, Some(cluster)) => cluster.url(DATABASE),
        (None, None) => String::new(),
    };
    let ran = engine(&args, url, cluster.as_ref());
    if let Some(cluster) = &mut cluster {
        cluster
            .stop()
            .context("the private database did not stop in good order")?;
    }
    ran
}

fn engine(args: &DevArgs, url: String, cluster: Option<&Cluster>) -> Result<()> {
    let plugins = args.plugins.clone().unwrap_or_else(|| {
        let usual = Path::new("plugins");
        if usual.is_dir() {
            usual
        } else {
            Path::new(".")
        }
        .to_owned()
    });
    let mut config = Config {
        listen: args.listen,
        log: args.log.clone(),
        ..Config::default()
    };
    config.database.url = url;
    config.plugins.watch = Some(plugins.clone());
    config.engine.failures_dir = Some(".gobo/failures".into());
    config.check()?;
    start_log(&config);
    block_on(async {
        let listener = runtime::bind(config.listen).await?;
        // Port 0 stands for any free one: the one that it became is shown.
        print_banner(listener.local_addr()?, &config, cluster, &plugins);
        serve(config, listener).await
    })
}

fn start_database(data: &Path) -> Result<Cluster> {
    eprintln!("starting a private PostgreSQL ...");
    Cluster::start(Options::durable(data)).context(
        "no private database could be started; name one of your own with --database-url or DATABASE_URL",
    )
}

fn print_banner(address: SocketAddr, config: &Config, cluster: Option<&Cluster>, plugins: &Path) {
    let web = format!("http://{address}");
    let shown = plugins.display();
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
    eprintln!("  plugins    {shown}: every .wasm file in it is deployed when it is saved");
    eprintln!(
        "  append     gobo append my-stream SomethingHappened '{{\"amount\": 1}}' --url {web}"
    );
    eprintln!("  read       curl {web}/read/READ_MODEL");
    eprintln!("  status     curl {web}/admin/projections");
    eprintln!("  console    {web}/console");
    eprintln!("  Ctrl-C stops everything");
    eprintln!();
}
