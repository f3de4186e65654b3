//! Packages of other languages for tests, each set installed once, in a folder of its own below the target folder.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::workspace;
use crate::wait::try_thrice;

/// The interpreter of a virtual environment that has the packages of a requirements file, a path from the workspace's root.
/// It is made when it is not there yet, and again when the file changes.
pub fn python_venv(requirements: &str) -> PathBuf {
    let requirements = workspace().join(requirements);
    let venv = installed("python", &[requirements.as_path()], |venv| {
        let python3 = gobo_cluster::install_python().expect("Python for the tests");
        try_thrice(|| {
            run(Command::new(python3.program)
                .args(["-m", "venv"])
                .arg(venv))
        });
        try_thrice(|| {
            run(Command::new(venv.join("bin/python"))
                .args(["-m", "pip", "install", "--quiet"])
                .args(["--disable-pip-version-check", "-r"])
                .arg(&requirements))
        });
    });
    venv.join("bin/python")
}

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
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    installed("node", &files, |folder| {
        for file in &files {
            let name = file.file_name().expect("a file's name");
            fs::write(folder.join(name), read(file)).expect("copy a file");
        }
        gobo_cluster::install_node().expect("Node.js with npm for the tests");
        try_thrice(|| {
            run(Command::new("npm")
                .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                .current_dir(folder))
        });
    })
}

/// The folder for what `files` ask for, below `target/{language}`. `install` fills it, once for all test processes.
fn installed(language: &str, files: &[&Path], install: impl FnOnce(&Path)) -> PathBuf {
    let mut hash = DefaultHasher::new();
    for file in files {
        file.file_name().hash(&mut hash);
        read(file).hash(&mut hash);
    }
    let name = format!("{:016x}", hash.finish());
    let all = workspace().join("target").join(language);
    fs::create_dir_all(&all).expect("a folder for packages");
    // Several test processes may come here at the same time.
    let lock = File::create(all.join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("the lock of a folder of packages");
    let folder = all.join(name);
    let complete = folder.join("complete");
    if !complete.exists() {
        // Half of one, of a process that was ended.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for packages");
        install(&folder);
        fs::write(&complete, "").expect("mark the folder of packages");
    }
    folder
}

fn read(file: &Path) -> Vec<u8> {
    fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{command:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}
