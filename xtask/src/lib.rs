//! The repository's tasks: set-up, the demo, the tests.
//!
//! [`setup`] brings what building needs and cargo does not; [`build`] builds the engine and the
//! guests; [`serve`] runs the built engine; [`demo`] shows all of it at work; [`bench`] measures it. The system tests use
//! [`build`] and [`serve`] as well.

pub mod bench;
pub mod build;
pub mod demo;
pub mod serve;
pub mod setup;

use anyhow::{Context as _, Result, bail};

/// What `cargo xtask` does.
#[derive(clap::Parser, Debug)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "The tasks of this repository"
)]
pub enum Task {
    /// Install what the build needs: the WebAssembly target, PostgreSQL; check for a C compiler.
    Setup,
    /// Show Gobo at work: a private database, the shipped plugins and simulated trading.
    Demo(demo::Options),
    /// Measure imports, rebuilds, latency and memory, each beside a baseline on the same machine.
    Bench(bench::Options),
    /// Set up, build the engine and the guests, and run every test.
    Test {
        /// Passed on to `cargo test`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// Runs one task to its end.
pub fn run(task: Task) -> Result<()> {
    match task {
        Task::Setup => setup::run(),
        Task::Demo(options) => demo::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Test { arguments } => test(&arguments),
    }
}

fn test(arguments: &[String]) -> Result<()> {
    setup::run()?;
    build::engine()?;
    build::guests(&build::guest_packages()?)?;
    let mut cargo = build::cargo();
    cargo.args(["test", "--workspace"]).args(arguments);
    let status = cargo.status().context("could not run cargo")?;
    if !status.success() {
        bail!("cargo test ended with {status}");
    }
    Ok(())
}
