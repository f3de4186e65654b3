//! The command line: one file per command.

mod client;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ConfigError;
use crate::runtime::ServeError;

/// A projection engine for PostgreSQL: events in, WebAssembly projections, read models out.
#[derive(Debug, Parser)]
#[command(name = "gobo", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
}

/// Reads the command line and does what it says. Exit codes: 0 done, 1 failed, 2 the command or the configuration is wrong.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            let is_usage = error.is::<ConfigError>()
                || matches!(
                    error.downcast_ref(),
                    Some(ServeError::Bind { .. } | ServeError::Database(_))
                );
            ExitCode::from(if is_usage { 2 } else { 1 })
        }
    }
}
