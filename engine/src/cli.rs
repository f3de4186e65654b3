//! The command line: one file per command.

pub mod append;
pub mod backup_plan;
pub mod dead_letters;
pub mod deploy;
pub mod dev;
pub mod diff;
pub mod engine;
pub mod events;
pub mod generations;
pub mod import;
pub mod ingest;
pub mod logs;
pub mod past;
pub mod redact;
pub mod remove;
pub mod replay;
pub mod restart;
pub mod serve;
pub mod settings;
pub mod status;
pub mod token;
pub mod verify;

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
    Snapshot(past::SnapshotArgs),
    Diff(diff::DiffArgs),
    Verify(verify::VerifyArgs),
    /// Let readers see a generation: the one that is being filled, or the one that is named.
    Promote(generations::OneArgs),
    Rollback(generations::RollbackArgs),
    /// Give up a generation that is not live: the one that is being filled, or the one that is named. Its tables are dropped.
    Cancel(generations::OneArgs),
    /// Stop a projection after the batch in flight; its rows stay readable.
    Pause(generations::OneArgs),
    /// Let a projection go on that was paused.
    Resume(generations::OneArgs),
    Settings(settings::SettingsArgs),
    Remove(remove::RemoveArgs),
    Replay(replay::ReplayArgs),
    Logs(logs::LogsArgs),
    DeadLetters(dead_letters::DeadLettersArgs),
    Restart(restart::RestartArgs),
    Append(append::AppendArgs),
    Events(events::EventsArgs),
    Redact(redact::RedactArgs),
    BackupPlan(backup_plan::BackupPlanArgs),
    Import(import::ImportArgs),
    Ingest(ingest::IngestArgs),
    Token(token::TokenArgs),
}

/// Reads the command line and does what it says. Exit codes: 0 done, 1 failed, 2 the command or the configuration is wrong;
/// of comparisons: 1 the rows differ, 3 they could not be compared; of appends: 3 they were not passed in time.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Dev(args) => dev::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Deploy(args) => deploy::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Generations(args) => generations::list(&args),
        Command::Rebuild(args) => generations::rebuild(&args),
        Command::Snapshot(args) => past::snapshot(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Promote(args) => generations::promote(&args),
        Command::Rollback(args) => generations::rollback(&args),
        Command::Cancel(args) => generations::cancel(&args),
        Command::Pause(args) => generations::pause(&args),
        Command::Resume(args) => generations::resume(&args),
        Command::Settings(args) => settings::run(&args),
        Command::Remove(args) => remove::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Logs(args) => logs::run(&args),
        Command::DeadLetters(args) => dead_letters::run(&args),
        Command::Restart(args) => restart::run(&args),
        Command::Append(args) => append::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Redact(args) => redact::run(&args),
        Command::BackupPlan(args) => serve::block_on(backup_plan::run(args)),
        Command::Import(args) => serve::block_on(import::run(args)),
        Command::Ingest(args) => serve::block_on(ingest::run(args)),
        Command::Token(args) => serve::block_on(token::run(args)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<diff::Differ>() => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            let is_usage = error.is::<ConfigError>()
                || error.is::<replay::Unusable>()
                || matches!(
                    error.downcast_ref(),
                    Some(
                        ServeError::Bind { .. }
                            | ServeError::Database(_)
                            | ServeError::Redis(_)
                            | ServeError::Access(_)
                    )
                );
            ExitCode::from(match is_usage {
                true => 2,
                false if error.is::<diff::Incomparable>() || error.is::<append::NotPassed>() => 3,
                false => 1,
            })
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
