//! The architecture's rules that can be read off the sources.

use std::path::{Path, PathBuf};

use gobo_tests::workspace;

/// Every file below `folder` with this extension, in order, as paths from the workspace's root.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(&workspace().join(folder), extension, &mut found);
    found.sort();
    assert!(!found.is_empty(), "no .{extension} below {folder}");
    found
}

fn collect(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, extension, found);
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path.strip_prefix(workspace()).unwrap().to_owned());
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(workspace().join(path)).unwrap()
}

/// What is compiled into the product: no comments, and nothing from the unit tests on, which end a file.
fn code(path: &Path) -> String {
    let text = read(path);
    let product = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let lines = product
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The engine's own sources and SQL, migrations excepted.
fn engine() -> Vec<(String, String)> {
    let sources = files("engine/src", "rs")
        .into_iter()
        .chain(files("engine/src", "sql"));
    sources
        .map(|path| (path.display().to_string(), code(&path)))
        .collect()
}

/// Fails for each file that contains `word` although it is not one of `allowed` (or below one that ends with a slash).
fn only(word: &str, allowed: &[&str]) {
    let mut seen = false;
    for (path, code) in engine() {
        let inner = path.strip_prefix("engine/src/").unwrap();
        let is_allowed = allowed.iter().any(|place| match place.ends_with('/') {
            true => inner.starts_with(place),
            false => inner == *place,
        });
        let has_it = code.contains(word);
        assert!(
            is_allowed || !has_it,
            "{path} contains {word:?}; only {allowed:?} may"
        );
        seen |= has_it;
    }
    assert!(
        seen,
        "nothing contains {word:?}: the rule looks for the wrong thing"
    );
}

/// Modules of the flow, in its order, as `lib.rs` has them.
const FLOW: [&str; 15] = [
    "event",
    "store",
    "import",
    "ingest",
    "source",
    "host",
    "descriptor",
    "frame",
    "change",
    "failure",
    "projection",
    "read_model",
    "progress",
    "query",
    "feed",
];

#[test]
fn only_the_host_knows_wasmtime_and_it_knows_neither_postgresql_nor_http() {
    only("wasmtime::", &["host.rs", "host/"]);
    for (path, code) in engine() {
        if path.starts_with("engine/src/host") {
            for foreign in [
                "tokio_postgres",
                "deadpool",
                "axum",
                "hyper",
                "crate::db",
                "crate::api",
                "crate::read_model",
            ] {
                assert!(!code.contains(foreign), "{path} knows {foreign}");
            }
        }
    }
}

#[test]
fn the_flow_never_calls_the_control_plane() {
    let control = [
        "runtime",
        "sources",
        "registry",
        "deploy",
        "generations",
        "ownership",
        "access",
        "api",
        "config",
        "cli",
        "migrate",
    ];
    for (path, code) in engine() {
        let inner = path.strip_prefix("engine/src/").unwrap();
        let room = inner.split(['/', '.']).next().unwrap();
        if !FLOW.contains(&room) {
            continue;
        }
        for module in control {
            for end in ["::", ";", ","] {
                let call = format!("crate::{module}{end}");
                assert!(!code.contains(&call), "{path} calls {module}");
            }
        }
    }
}

#[test]
fn events_are_read_through_the_source_alone() {
    // The store appends to its own table and reads streams back for clients, the import copies into it and looks for
    // what is there already; the source names it as its default. Nobody else knows where events are, so whatever is
    // projected, counted or waited for went through the source.
    only(
        "gobo.events",
        &[
            "store.rs",
            "store/",
            "import.rs",
            "import/",
            "source/config.rs",
        ],
    );
    // Only loops read batches.
    only(".next_batch(", &["projection/"]);
    only("copy_out", &["source/"]);
}

#[test]
fn only_the_writer_moves_a_checkpoint() {
    only(
        "gobo.advance(",
        &["read_model/writer.rs", "read_model/writer/statements.rs"],
    );
    for (path, code) in engine() {
        for update in code.to_lowercase().split("update gobo.checkpoints").skip(1) {
            let set = update.split(" where ").next().unwrap_or_default();
            let set: String = set.chars().take(300).collect();
            // A copy of a generation begins where that one is: rows and checkpoint in one transaction, and no loop yet.
            let copies = path.ends_with("read_model/sql/copy_state.sql");
            assert!(
                copies || !set.contains("position"),
                "{path} sets position: update gobo.checkpoints{set}"
            );
            // A change of shape and a promotion take a revision, under the checkpoint's lock.
            let decides = copies || path.contains("/deploy/") || path.contains("/generations/");
            assert!(
                decides || !set.contains("revision"),
                "{path} sets revision: update gobo.checkpoints{set}"
            );
        }
        for insert in code
            .to_lowercase()
            .split("insert into gobo.checkpoints")
            .skip(1)
        {
            let columns = insert.split(')').next().unwrap_or_default();
            assert!(
                !columns.contains("position"),
                "{path}: insert into gobo.checkpoints{columns})"
            );
        }
        assert!(
            !code.to_lowercase().contains("delete from gobo.checkpoints"),
            "{path}"
        );
    }
    // In the database itself, the fence is the only function that does; a later migration may have replaced it.
    for path in files("engine/migrations", "sql") {
        let sql = read(&path).to_lowercase();
        let functions = sql.matches("function gobo.advance(").count();
        assert_eq!(
            sql.matches("update gobo.checkpoints").count(),
            functions,
            "{path:?}"
        );
    }
}

#[test]
fn every_change_of_a_generation_s_rows_is_the_writer_s() {
    // Tables of generations are named by their schema, which only these make statements with.
    only(
        "generation_schema(",
        &[
            "read_model/schema.rs",
            "ownership.rs",
            "deploy.rs",
            "deploy/",
            "query/",
            "registry.rs",
            "runtime/readable.rs",
        ],
    );
    only(
        "on conflict ({key}) do update",
        &["read_model/writer.rs", "read_model/writer/statements.rs"],
    );
    only(
        "delete from {table} t using",
        &["read_model/writer.rs", "read_model/writer/statements.rs"],
    );
}

#[test]
fn nothing_unwraps_outside_tests() {
    for folder in ["engine", "sdk", "plugins", "examples", "xtask"] {
        for path in files(folder, "rs") {
            let is_test = path.components().any(|part| part.as_os_str() == "tests")
                || path.ends_with("tests.rs");
            if !is_test {
                assert!(
                    !code(&path).contains(".unwrap()"),
                    "{} unwraps",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn no_file_is_longer_than_600_lines() {
    for extension in ["rs", "sql"] {
        for path in files("", extension) {
            let lines = read(&path).lines().count();
            assert!(
                lines <= 600,
                "{} has {lines} lines: split it by question",
                path.display()
            );
        }
    }
}

#[test]
fn modules_are_called_by_their_names() {
    let banned = [
        "mod.rs",
        "utils.rs",
        "util.rs",
        "common.rs",
        "helpers.rs",
        "misc.rs",
    ];
    for path in files("", "rs") {
        let name = path.file_name().unwrap().to_string_lossy();
        assert!(!banned.contains(&name.as_ref()), "{}", path.display());
    }
}
