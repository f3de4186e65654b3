//! The system that programs are looked for on and installed on.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where programs are: in production the process's own PATH and the folders below `/`; in tests
/// stand-ins, so that every package manager can be tried on any system.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    path: OsString,
    root: PathBuf,
}

impl Machine {
    /// The one that this process runs on.
    pub(crate) fn this() -> Machine {
        Machine {
            path: std::env::var_os("PATH").unwrap_or_default(),
            root: PathBuf::from("/"),
        }
    }

    /// One whose PATH is the folder `bin` in `root`, and whose usual folders are below `root`.
    #[cfg(test)]
    pub(crate) fn standing_in(root: &Path) -> Machine {
        Machine {
            path: root.join("bin").into_os_string(),
            root: root.to_path_buf(),
        }
    }

    /// The folders of its PATH.
    pub(crate) fn search_path(&self) -> impl Iterator<Item = PathBuf> {
        std::env::split_paths(&self.path)
    }

    /// An absolute path on it.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A command that is looked up on its PATH.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env("PATH", &self.path).stdin(Stdio::null());
        command
    }

    /// Whether a program is there, runs and succeeds.
    pub(crate) fn succeeds(&self, program: &str, arguments: &[&str]) -> bool {
        let mut command = self.command(program);
        let status = command
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    }

    /// What a program that succeeds prints, without the line's end.
    pub(crate) fn answer(&self, program: impl AsRef<Path>, argument: &str) -> Option<String> {
        let mut command = self.command(program);
        let output = command.arg(argument).stderr(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        output.status.success().then(|| text.trim().to_owned())
    }

    /// Whether commands run as root.
    pub(crate) fn is_root(&self) -> bool {
        self.answer("id", "-u").is_some_and(|uid| uid == "0")
    }
}
