//! Core module -> component, and refusals that name the cause and the fix.

use wasmparser::{Encoding, Parser, Payload, Validator};
use wit_component::ComponentEncoder;

use super::CONTRACTS;

/// Turns a deployed module into a component. A component is taken as it is.
pub(super) fn from_module(wasm: &[u8]) -> Result<Vec<u8>, String> {
    if !wasm.starts_with(b"\0asm") {
        return Err(
            "this is not a WebAssembly file: build the plugin with `cargo build --release --target wasm32-unknown-unknown` \
             and deploy the .wasm file from target/wasm32-unknown-unknown/release/"
                .to_owned(),
        );
    }
    Validator::new().validate_all(wasm).map_err(|error| {
        format!("this is not a valid WebAssembly file (cut off while it was copied?): {error}")
    })?;
    let outline = Outline::read(wasm)?;
    if outline.is_component {
        return Ok(wasm.to_vec());
    }
    if let Some(import) = outline.imports.iter().find(|(module, _)| !is_ours(module)) {
        return Err(refuse_import(&import.0, &import.1));
    }
    if !outline.has_contract {
        return Err(
            "this module does not implement the projection contract (it has no component-type section): \
             use the gobo-sdk crate, end the crate with `gobo_sdk::export!(YourProjection);`, and build it as a cdylib"
                .to_owned(),
        );
    }
    check_contract(wasm)?;
    ComponentEncoder::default()
        .validate(true)
        .module(wasm)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| explain(&format!("{error:#}")))
}

/// Makes an author's message of wasmtime's or wit-component's.
pub(super) fn explain(error: &str) -> String {
    let missing = ["describe", "begin", "resume", "cabi_realloc"]
        .iter()
        .find(|name| error.contains(&format!("`{name}`")) && error.contains("export"));
    match missing {
        Some(name) => format!(
            "the module does not export `{name}`: end the crate with `gobo_sdk::export!(YourProjection);` and set crate-type = [\"cdylib\"] ({error})"
        ),
        None => format!("the module does not fit the projection contract: {error}"),
    }
}

struct Outline {
    is_component: bool,
    has_contract: bool,
    imports: Vec<(String, String)>,
}

impl Outline {
    fn read(wasm: &[u8]) -> Result<Self, String> {
        let mut outline = Outline {
            is_component: false,
            has_contract: false,
            imports: Vec::new(),
        };
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.map_err(|error| error.to_string())? {
                Payload::Version { encoding, .. } => {
                    outline.is_component = encoding == Encoding::Component;
                    if outline.is_component {
                        return Ok(outline);
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import.map_err(|error| error.to_string())?;
                        outline
                            .imports
                            .push((import.module.to_owned(), import.name.to_owned()));
                    }
                }
                Payload::CustomSection(section) => {
                    outline.has_contract |= section.name().starts_with("component-type");
                }
                _ => {}
            }
        }
        Ok(outline)
    }
}

fn is_ours(module: &str) -> bool {
    module == "log" || module.starts_with("gobo:projection/") || module.starts_with("cm32p2|")
}

fn refuse_import(module: &str, name: &str) -> String {
    let likely = match module {
        "wasi_snapshot_preview1" | "wasi_unstable" => {
            "it was built for WASI: build it with --target wasm32-unknown-unknown"
        }
        "wbg" | "__wbindgen_placeholder__" | "__wbindgen_externref_xform__" => {
            "wasm-bindgen brings it in; the likely crates are getrandom or uuid (feature `js`), chrono (feature `wasmbind`, \
             `Local::now`) and web-time: switch these features off"
        }
        "env" => "an `extern \"C\"` function or a C library is not linked in",
        _ if module.starts_with("wasi:random") => {
            "the likely crate is getrandom (rand, uuid v4, ahash)"
        }
        _ if module.starts_with("wasi:clocks") => "the likely cause is std::time or chrono::Local",
        _ if module.starts_with("wasi:") => {
            "it was built for WASI: build it with --target wasm32-unknown-unknown"
        }
        _ => "only the interfaces of gobo:projection can be imported",
    };
    format!(
        "the module imports `{module}::{name}`, which a projection cannot have (no clock, no randomness, no I/O): {likely}. \
         Take times from the event (`at.occurred_at`) and ids from its data"
    )
}

/// Refuses modules that were built for another version of the contract, before anything of them runs.
fn check_contract(wasm: &[u8]) -> Result<(), String> {
    let (_, bindgen) = wit_component::metadata::decode(wasm)
        .map_err(|error| format!("its component-type section cannot be read: {error:#}"))?;
    // The sections are merged into a world of their own, so the package is what tells.
    let packages = || {
        bindgen
            .resolve
            .packages
            .iter()
            .map(|(_, package)| &package.name)
    };
    let fits = packages().any(|name| {
        let version = name.version.as_ref().map(ToString::to_string);
        name.namespace == "gobo"
            && name.name == "projection"
            && version.is_some_and(|version| CONTRACTS.contains(&version.as_str()))
    });
    if fits {
        return Ok(());
    }
    let found: Vec<_> = packages()
        .map(ToString::to_string)
        .filter(|name| name != "root:root")
        .collect();
    Err(format!(
        "the module implements {}; this engine runs gobo:projection@{}: use a matching gobo-sdk or engine",
        found.join(", "),
        CONTRACTS.join(", ")
    ))
}
