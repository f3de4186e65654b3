//! The command line: one file per command.

pub mod append;
pub mod dead_letters;
pub mod deploy;
pub mod dev;
pub mod diff;
pub mod engine;
pub mod events;
pub mod generations;
pub mod import;
pub mod logs;
pub mod replay;
pub mod restart;
pub mod serve;
pub mod status;

use std::io;
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
    Dev(dev::DevArgs),
    Serve(serve::ServeArgs),
    Deploy(deploy::DeployArgs),
    Status(status::StatusArgs),
    Generations(generations::GenerationsArgs),
    Rebuild(generations::RebuildArgs),
    Promote(generations::PromoteArgs),
    Rollback(generations::RollbackArgs),
    Cancel(generations::CancelArgs),
    /// Stop a projection after the batch in flight; its rows stay readable.
    Pause(generations::PauseArgs),
    /// Let a projection go on that was paused.
    Resume(generations::PauseArgs),
    Replay(replay::ReplayArgs),
    Logs(logs::LogsArgs),
    DeadLetters(dead_letters::DeadLettersArgs),
    Restart(restart::RestartArgs),
    Append(append::AppendArgs),
    Events(events::EventsArgs),
    Import(import::ImportArgs),
}

/// Reads the command line and does what it says. Exit codes: 0 done, 1 failed, 2 the command or the configuration is wrong.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Dev(args) => dev::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Deploy(args) => deploy::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Generations(args) => generations::list(&args),
        Command::Rebuild(args) => generations::rebuild(&args),
        Command::Promote(args) => generations::promote(&args),
        Command::Rollback(args) => generations::rollback(&args),
        Command::Cancel(args) => generations::cancel(&args),
        Command::Pause(args) => generations::pause(&args),
        Command::Resume(args) => generations::resume(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Logs(args) => logs::run(&args),
        Command::DeadLetters(args) => dead_letters::run(&args),
        Command::Restart(args) => restart::run(&args),
        Command::Append(args) => append::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Import(args) => serve::block_on(import::run(args)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            let is_usage = error.is::<ConfigError>()
                || error.is::<replay::Unusable>()
                || matches!(
                    error.downcast_ref(),
                    Some(ServeError::Bind { .. } | ServeError::Database(_))
                );
            ExitCode::from(if is_usage { 2 } else { 1 })
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
