//! Runs cargo: for what it knows, and for building modules.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, bail};
use gobo_cluster::Signal;
use serde_json::Value;

use super::crates::Crates;

/// The target of every plugin.
pub(super) const TARGET: &str = "wasm32-unknown-unknown";

/// A module that is small and not slow, built in little time: against a release build with link-time optimisation, four
/// times faster for a small plugin, and as quick to compile to machine code. Debugging information would make it ten times as
/// large, because the standard library brings its own; panics name file and line without it.
const QUICK: [&str; 4] = [
    "profile.dev.opt-level=1",
    "profile.dev.incremental=true",
    "profile.dev.debug=false",
    "profile.dev.strip='debuginfo'",
];

/// How a build came out.
pub(super) enum Built {
    /// The plugins' modules, with their packages' names.
    Modules(Vec<(String, PathBuf)>),
    /// Cargo has said why not.
    Failed,
}

/// Ends cargo and everything that it has started, unless it has ended by itself.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0.take() {
            // Nothing is left half-done: cargo notes what is complete, and only that.
            let _ = Signal::Kill.send_to_group(leader);
        }
    }
}

/// What cargo prints for a question. Its complaints go to standard error.
pub(super) fn answer(folder: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let mut cargo = command("cargo", folder);
    cargo.args(arguments).stderr(Stdio::inherit());
    let output = cargo.output().map_err(|error| not_started(&error))?;
    if !output.status.success() {
        bail!("`cargo {}` failed in {}", arguments[0], folder.display());
    }
    Ok(output.stdout)
}

/// Makes sure that modules can be compiled here.
pub(super) fn need_target(folder: &Path) -> Result<()> {
    let mut rustc = command("rustc", folder);
    rustc
        .args(["--print", "target-libdir", "--target", TARGET])
        .stderr(Stdio::null());
    let Ok(output) = rustc.output() else {
        // Cargo may know another one.
        return Ok(());
    };
    let libraries = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if !output.status.success() || libraries.is_dir() {
        return Ok(());
    }
    eprintln!("the target {TARGET} is missing: rustup target add {TARGET}");
    let added = command("rustup", folder)
        .args(["target", "add", TARGET])
        .status();
    match added {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => bail!("rustup could not add the target {TARGET}"),
        Err(_) => bail!(
            "plugins are compiled for {TARGET}, which this Rust lacks. With rustup: rustup target add {TARGET}; without it, \
             install your system's package of Rust's standard library for wasm32"
        ),
    }
}

/// Builds all plugins of `crates`; cargo's messages go to standard error as they come. Dropping the future ends cargo.
pub(super) async fn build(crates: &Crates, profile: Option<&str>, first: bool) -> Result<Built> {
    let mut cargo = command("cargo", &crates.folder);
    cargo.args([
        "build",
        "--lib",
        "--target",
        TARGET,
        "--message-format=json-render-diagnostics",
    ]);
    match profile {
        Some(profile) => drop(cargo.args(["--profile", profile])),
        None => drop(cargo.args(QUICK.iter().flat_map(|setting| ["--config", setting]))),
    }
    // The first build takes long enough for cargo's progress to be wanted.
    if !first {
        cargo.arg("--quiet");
    }
    for name in crates.packages.values() {
        cargo.args(["--package", name]);
    }
    cargo.stdout(Stdio::piped());
    let mut cargo = tokio::process::Command::from(cargo);
    // Ctrl-C is for this process, which then ends cargo.
    let child = cargo
        .process_group(0)
        .spawn()
        .map_err(|error| not_started(&error))?;
    let mut group = Group(child.id());
    let output = child.wait_with_output().await.context("cargo is lost")?;
    group.0 = None;
    if !output.status.success() {
        return Ok(Built::Failed);
    }
    Ok(Built::Modules(modules(crates, &output.stdout)))
}

/// The modules in cargo's report.
fn modules(crates: &Crates, report: &[u8]) -> Vec<(String, PathBuf)> {
    let lines = report.split(|byte| *byte == b'\n');
    let messages = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let mut found = Vec::new();
    for message in messages {
        let package = message["package_id"].as_str().unwrap_or_default();
        let Some(name) = crates.packages.get(package) else {
            continue;
        };
        let files = message["filenames"].as_array().into_iter().flatten();
        let modules = files
            .filter_map(Value::as_str)
            .filter(|file| file.ends_with(".wasm"));
        found.extend(modules.map(|file| (name.clone(), PathBuf::from(file))));
    }
    found
}

/// A program in the crate's folder, so that rustup takes the crate's toolchain.
///
/// An outer cargo describes the package that it runs in variables, and some build scripts run again when those change; its
/// jobserver is not ours.
fn command(program: &str, folder: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    let described = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_",
        "CARGO_PRIMARY_",
        "CARGO_MAKEFLAGS",
    ];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if described.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command.current_dir(folder).stdin(Stdio::null());
    command
}

fn not_started(error: &std::io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound => anyhow!(
            "cargo is not found: install Rust (https://rustup.rs), or let `gobo dev --plugins FOLDER` deploy modules that are \
             built elsewhere"
        ),
        _ => anyhow!("cargo cannot be started: {error}"),
    }
}
