//! The engine and the guests, built once per test process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The workspace's root folder.
pub fn workspace() -> &'static Path {
    xtask::build::workspace()
}

/// The path of the built `gobo`.
pub fn gobo_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| xtask::build::engine().expect("the engine is built"))
}

/// The path of the WebAssembly module of a plugin, an example or a test guest, by its package's name.
pub fn wasm(package: &str) -> PathBuf {
    static MODULES: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let modules = MODULES.get_or_init(|| {
        let packages = xtask::build::guest_packages().expect("cargo lists the guests");
        xtask::build::guests(&packages).expect("the guests are built")
    });
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
