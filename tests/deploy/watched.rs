//! The watched folder.

use std::path::{Path, PathBuf};

use gobo_tests::{Database, Gobo, wait_until};

use super::module::Module;

/// An engine that watches `plugins` in its own folder.
async fn watching() -> (Database, Gobo, PathBuf) {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "[plugins]\nwatch = \"plugins\"");
    let folder = gobo.folder().join("plugins");
    wait_until("the watched folder to be created", || {
        match folder.is_dir() {
            true => Ok(()),
            false => Err("no folder"),
        }
    });
    (database, gobo, folder)
}

/// Waits until the projection runs bytes with this hash.
fn wait_for_hash(gobo: &Gobo, name: &str, module: &Module) {
    let hash = gobo::host::PluginHash::of(&module.bytes()).to_string();
    wait_until("the file to be deployed", || {
        let answer = gobo.get(&format!("/admin/projections/{name}"));
        match answer.status == 200 && answer.json()["hash"] == hash.as_str() {
            true => Ok(()),
            false => Err(answer.text()),
        }
    });
}

fn wait_for_log(gobo: &Gobo, words: &str) {
    wait_until("the log to tell", || {
        let log = gobo.log();
        match log.contains(words) {
            true => Ok(()),
            false => Err(log),
        }
    });
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

/// The same so that nobody sees half of it.
fn replace(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("tmp");
    write(&beside, bytes);
    std::fs::rename(beside, path).unwrap();
}

#[tokio::test]
async fn a_file_is_deployed_when_it_appears_and_when_it_changes() {
    let (_database, gobo, folder) = watching().await;
    let (first, second) = (Module::new("things"), Module::new("things").build(2));
    write(&folder.join("things.wasm"), &first.bytes());
    wait_for_hash(&gobo, "things", &first);
    // As cargo and most tools write: beside it, then renamed over it.
    write(&folder.join("things.tmp"), &second.bytes());
    std::fs::rename(folder.join("things.tmp"), folder.join("things.wasm")).unwrap();
    wait_for_hash(&gobo, "things", &second);
    // Deleting undeploys nothing.
    std::fs::remove_file(folder.join("things.wasm")).unwrap();
    write(&folder.join("others.wasm"), &Module::new("others").bytes());
    wait_for_hash(&gobo, "others", &Module::new("others"));
    wait_for_hash(&gobo, "things", &second);
}

#[tokio::test]
async fn a_half_written_file_is_refused_and_deployed_once_it_is_complete() {
    let (_database, gobo, folder) = watching().await;
    let module = Module::new("things");
    let bytes = module.bytes();
    let path = folder.join("things.wasm");
    write(&path, &bytes[..bytes.len() - 40]);
    wait_for_log(&gobo, "not a valid WebAssembly file");
    write(&path, &bytes);
    wait_for_hash(&gobo, "things", &module);
}

#[tokio::test]
async fn a_broken_file_leaves_the_running_one_and_is_reported_once() {
    let (_database, gobo, folder) = watching().await;
    let module = Module::new("things");
    let path = folder.join("things.wasm");
    replace(&path, &module.bytes());
    wait_for_hash(&gobo, "things", &module);
    replace(&path, b"not wasm at all");
    wait_for_log(&gobo, "what runs stays");
    // The same content again is a change of the file, and no news.
    replace(&path, b"not wasm at all");
    let marker = Module::new("marker");
    replace(&folder.join("marker.wasm"), &marker.bytes());
    wait_for_hash(&gobo, "marker", &marker);
    wait_for_hash(&gobo, "things", &module);
    let reports = gobo.log().matches("what runs stays").count();
    assert_eq!(reports, 1, "{}", gobo.log());
    assert!(gobo.log().contains("things.wasm"));
}

#[tokio::test]
async fn an_old_file_never_replaces_a_newer_deploy() {
    let (_database, mut gobo, folder) = watching().await;
    let (old, new) = (Module::new("things"), Module::new("things").build(2));
    write(&folder.join("things.wasm"), &old.bytes());
    wait_for_hash(&gobo, "things", &old);
    gobo.put_bytes("/admin/projections/things", &new.bytes())
        .expect(202);
    wait_for_hash(&gobo, "things", &new);
    gobo.start_again();
    // A file under another name with those old bytes is as old.
    write(&folder.join("copy.wasm"), &old.bytes());
    let marker = Module::new("marker");
    write(&folder.join("marker.wasm"), &marker.bytes());
    wait_for_hash(&gobo, "marker", &marker);
    wait_for_hash(&gobo, "things", &new);
}
