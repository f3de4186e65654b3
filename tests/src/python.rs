//! Python packages for tests, in virtual environments of their own below the target folder.

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
    let text = fs::read_to_string(&requirements)
        .unwrap_or_else(|error| panic!("{}: {error}", requirements.display()));
    let mut hash = DefaultHasher::new();
    text.hash(&mut hash);
    let folder = workspace().join("target/python");
    fs::create_dir_all(&folder).expect("a folder for virtual environments");
    let name = format!("{:016x}", hash.finish());
    let lock = File::create(folder.join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("the lock of a virtual environment");
    let venv = folder.join(name);
    let (python, complete) = (venv.join("bin/python"), venv.join("complete"));
    if !complete.exists() {
        // Half of one, of a process that was ended.
        let _ = fs::remove_dir_all(&venv);
        let python3 = gobo_cluster::install_python().expect("Python for the tests");
        run(Command::new(python3.program)
            .args(["-m", "venv"])
            .arg(&venv))
        .unwrap_or_else(|wrong| panic!("{wrong}"));
        try_thrice(|| run(pip(&python).arg("-r").arg(&requirements)));
        fs::write(&complete, "").expect("mark the virtual environment");
    }
    python
}

fn pip(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    command
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
