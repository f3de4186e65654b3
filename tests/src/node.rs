//! npm packages for tests, installed below the target folder.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::workspace;
use crate::wait::try_thrice;

/// A copy of a folder, a path from the workspace's root, with the packages that its `package-lock.json` names. They are
/// installed when they are not there yet, and again when the folder changes.
pub fn node_folder(source: &str) -> PathBuf {
    let source = workspace().join(source);
    let mut files: Vec<PathBuf> = fs::read_dir(&source)
        .unwrap_or_else(|error| panic!("{}: {error}", source.display()))
        .map(|entry| entry.expect("a folder's entry").path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    let mut hash = DefaultHasher::new();
    for file in &files {
        file.file_name().hash(&mut hash);
        read(file).hash(&mut hash);
    }
    let all = workspace().join("target/node");
    fs::create_dir_all(&all).expect("a folder for npm packages");
    let name = format!("{:016x}", hash.finish());
    // Several test processes may come here at the same time.
    let lock = File::create(all.join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("the lock of a folder of npm packages");
    let folder = all.join(name);
    let complete = folder.join("complete");
    if !complete.exists() {
        // Half of one, of a process that was ended.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for npm packages");
        for file in &files {
            let name = file.file_name().expect("a file's name");
            fs::write(folder.join(name), read(file)).expect("copy a file");
        }
        gobo_cluster::install_node().expect("Node.js with npm for the tests");
        try_thrice(|| install(&folder));
        fs::write(&complete, "").expect("mark the folder of npm packages");
    }
    folder
}

fn read(file: &Path) -> Vec<u8> {
    fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn install(folder: &Path) -> Result<(), String> {
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    let output = npm.current_dir(folder).output().expect("npm can be run");
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "npm ci in {}: {}{}",
            folder.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}
