//! `gobo serve`: the engine.

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::Result;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};
use crate::runtime;
use crate::shutdown::{self, Shutdown, Trigger};

/// Run the engine.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  gobo serve --config gobo.toml
  gobo serve --config gobo.toml --check
  GOBO_DATABASE_URL=postgresql://gobo@localhost/gobo gobo serve

Every key of the configuration file is explained in engine/gobo.example.toml.")]
pub struct ServeArgs {
    /// The configuration file; without one, defaults and environment variables count
    #[arg(long, env = "GOBO_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration, print what is in force, and end
    #[arg(long)]
    check: bool,
}

/// Checks the configuration, or serves with it.
pub fn run(args: ServeArgs) -> Result<()> {
    let config = Config::read(args.config.as_deref(), environment())?;
    if args.check {
        print!("{}", config.shown());
        return Ok(());
    }
    start_log(&config);
    block_on(async {
        let listener = runtime::bind(config.listen).await?;
        serve(config, listener).await
    })
}

/// The variables of the environment. Not every one is text; ours are.
pub(super) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Serves until a signal ends it.
pub(super) async fn serve(config: Config, listener: TcpListener) -> Result<()> {
    let shutdown = until_signal()?;
    runtime::serve(config, listener, shutdown, drop).await?;
    Ok(())
}

/// The end that the first SIGTERM or SIGINT asks for.
pub(super) fn until_signal() -> Result<Shutdown> {
    let (trigger, shutdown) = shutdown::channel();
    end_on_signals(trigger)?;
    Ok(shutdown)
}

pub(super) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// Logs go to standard error; standard output is for what was asked for.
pub(super) fn start_log(config: &Config) {
    let filter = EnvFilter::new(&config.log);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// The first SIGTERM or SIGINT ends the engine in good order, the second at once.
fn end_on_signals(trigger: Trigger) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for already_asked in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if already_asked {
                // Nothing is lost: rows and checkpoints are in the database together, or not at all.
                std::process::exit(130);
            }
            trigger.shut_down();
        }
    });
    Ok(())
}
