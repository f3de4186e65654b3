//! The engine and the plugins, built once per test process. Cargo's own lock keeps several
//! processes from building at the same time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// The workspace's root folder.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests' crate is in the workspace")
}

/// The path of the built `gobo`.
pub fn gobo_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let messages = cargo(&[
            "build",
            "--package",
            "gobo",
            "--bin",
            "gobo",
            "--message-format=json",
        ]);
        let built = messages
            .iter()
            .filter_map(|message| message["executable"].as_str())
            .next_back();
        PathBuf::from(built.expect("cargo names the built engine"))
    })
}

/// The path of the WebAssembly module of a plugin, an example or a test guest, by its package's name.
pub fn wasm(package: &str) -> PathBuf {
    static MODULES: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let modules = MODULES.get_or_init(build_guests);
    let found = modules.get(&package.replace('-', "_"));
    found
        .unwrap_or_else(|| {
            panic!(
                "there is no guest {package}; there are {:?}",
                modules.keys()
            )
        })
        .clone()
}

/// The bytes of the same.
pub fn wasm_bytes(package: &str) -> Vec<u8> {
    let path = wasm(package);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn build_guests() -> BTreeMap<String, PathBuf> {
    let guests = guest_packages();
    let mut arguments = vec![
        "build",
        "--target",
        "wasm32-unknown-unknown",
        "--profile",
        "plugin",
        "--message-format=json",
    ];
    for guest in &guests {
        arguments.extend(["--package", guest]);
    }
    let mut modules = BTreeMap::new();
    for message in cargo(&arguments) {
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
    modules
}

/// Every package of the workspace that is built as a module and is neither engine nor SDK.
fn guest_packages() -> Vec<String> {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let packages = metadata[0]["packages"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let is_module = |package: &Value| {
        let targets = package["targets"].as_array().into_iter().flatten();
        targets
            .flat_map(|target| target["crate_types"].as_array())
            .flatten()
            .any(|kind| kind == "cdylib")
    };
    let guests = packages.iter().filter(|package| is_module(package));
    guests
        .filter_map(|package| package["name"].as_str())
        .map(str::to_owned)
        .collect()
}

/// Runs cargo in the workspace and returns the JSON lines that it prints.
fn cargo(arguments: &[&str]) -> Vec<Value> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program)
        .args(arguments)
        .current_dir(workspace())
        .stdin(Stdio::null())
        .output()
        .expect("cargo can be run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "cargo {} failed:\n{errors}",
        arguments.join(" ")
    );
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}
