//! What building and running need beyond cargo.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::build::TARGET;

/// Checks for a C compiler, adds the WebAssembly target, and finds or installs PostgreSQL, Redis, and what the tests of
/// clients run with.
pub fn run() -> Result<()> {
    c_compiler()?;
    wasm_target()?;
    let postgresql = gobo_cluster::install_postgresql()?;
    eprintln!(
        "PostgreSQL {} from {}",
        postgresql.major,
        postgresql.folder.display()
    );
    let redis = gobo_cluster::install_redis()?;
    eprintln!("Redis {} at {}", redis.version, redis.path.display());
    let node = gobo_cluster::install_node()?;
    eprintln!("Node.js {}", node.version);
    let python = gobo_cluster::install_python()?;
    eprintln!("{} as {}", python.version, python.program);
    Ok(())
}

/// The engine compiles C code (zstd, wasmtime's trap handling).
fn c_compiler() -> Result<()> {
    let compiler = std::env::var("CC")
        .ok()
        .filter(|name| !name.trim().is_empty());
    let candidates: Vec<&str> = compiler
        .as_deref()
        .map_or_else(|| vec!["cc", "gcc", "clang"], |name| vec![name]);
    if candidates.iter().any(|name| {
        answers(
            name.split_whitespace().next().unwrap_or(name),
            &["--version"],
        )
    }) {
        return Ok(());
    }
    bail!(
        "no C compiler was found (looked for {}). The engine needs one to build. Install it with:\n  \
         Debian, Ubuntu:  sudo apt-get install build-essential\n  \
         Fedora:          sudo dnf install gcc\n  \
         macOS:           xcode-select --install",
        candidates.join(", ")
    )
}

fn wasm_target() -> Result<()> {
    if has_wasm_target() {
        return Ok(());
    }
    if !answers("rustup", &["--version"]) {
        bail!(
            "Rust's standard library for {TARGET} is missing, and rustup, which would add it, was not found. \
             Install Rust with rustup (https://rustup.rs), or install the target with the package manager that \
             Rust came from (Fedora: `dnf install rust-std-static-{TARGET}`, Debian: `apt-get install libstd-rust-dev-wasm32`)"
        );
    }
    eprintln!("adding the target {TARGET}");
    let status = Command::new("rustup")
        .args(["target", "add", TARGET])
        .status()
        .context("could not run rustup")?;
    if !status.success() || !has_wasm_target() {
        bail!("`rustup target add {TARGET}` failed ({status}); is the network reachable?");
    }
    Ok(())
}

fn has_wasm_target() -> bool {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let Ok(output) = rustc
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
    else {
        return false;
    };
    let folder = String::from_utf8_lossy(&output.stdout);
    let mut files = std::fs::read_dir(Path::new(folder.trim()))
        .into_iter()
        .flatten()
        .flatten();
    output.status.success()
        && files.any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
}

fn answers(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    let status = command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
