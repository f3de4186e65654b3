//! Builds the engine and the guests with cargo, and says where the results are. Cargo's own lock
//! keeps several callers from building at the same time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The target of every plugin.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// The workspace's root folder.
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The cargo that runs this, else the one on PATH, to be run in the workspace.
///
/// Cargo describes the package that it runs in variables, and some build scripts (ring's) run again
/// when those change: with them, every change between `cargo xtask` and plain cargo would build the
/// engine's dependencies anew.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let described = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_",
        "CARGO_PRIMARY_",
    ];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if described.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    cargo.current_dir(workspace());
    cargo
}

/// Builds `gobo` for development and returns its path.
pub fn engine() -> Result<PathBuf> {
    engine_with("dev")
}

/// Builds `gobo` with one of cargo's profiles and returns its path.
pub fn engine_with(profile: &str) -> Result<PathBuf> {
    binary("gobo", profile)
}

/// Builds the binary of a package that has the same name, and returns its path.
pub fn binary(package: &str, profile: &str) -> Result<PathBuf> {
    let messages = messages(&[
        "build",
        "--package",
        package,
        "--bin",
        package,
        "--profile",
        profile,
        "--message-format=json-render-diagnostics",
    ])?;
    let built = messages
        .iter()
        .filter_map(|message| message["executable"].as_str())
        .next_back();
    built
        .map(PathBuf::from)
        .with_context(|| format!("cargo did not say where it put `{package}`"))
}

/// Builds these packages as WebAssembly modules and returns their paths by package name, with
/// underscores for hyphens.
pub fn guests(packages: &[String]) -> Result<BTreeMap<String, PathBuf>> {
    let mut arguments = vec![
        "build",
        "--target",
        TARGET,
        "--profile",
        "plugin",
        "--message-format=json-render-diagnostics",
    ];
    for package in packages {
        arguments.extend(["--package", package]);
    }
    let mut modules = BTreeMap::new();
    if packages.is_empty() {
        return Ok(modules);
    }
    for message in messages(&arguments)? {
        let files = message["filenames"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        for module in files.filter(|file| file.ends_with(".wasm")) {
            let name = message["target"]["name"]
                .as_str()
                .unwrap_or_default()
                .replace('-', "_");
            modules.insert(name, PathBuf::from(module));
        }
    }
    Ok(modules)
}

/// Every package of the workspace that is built as a module: plugins, examples, the tests' guests.
pub fn guest_packages() -> Result<Vec<String>> {
    let metadata = messages(&["metadata", "--no-deps", "--format-version", "1"])?;
    let packages = metadata
        .first()
        .and_then(|all| all["packages"].as_array())
        .context("cargo metadata is empty")?;
    let is_module = |package: &Value| {
        let targets = package["targets"].as_array().into_iter().flatten();
        targets
            .flat_map(|target| target["crate_types"].as_array())
            .flatten()
            .any(|kind| kind == "cdylib")
    };
    let guests = packages.iter().filter(|package| is_module(package));
    Ok(guests
        .filter_map(|package| package["name"].as_str())
        .map(str::to_owned)
        .collect())
}

/// Runs cargo in the workspace, its progress and errors shown, and returns the JSON lines that it prints.
fn messages(arguments: &[&str]) -> Result<Vec<Value>> {
    let output = cargo()
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("could not run cargo")?;
    if !output.status.success() {
        bail!(
            "`cargo {}` failed ({}); its messages are above",
            arguments.join(" "),
            output.status
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}
