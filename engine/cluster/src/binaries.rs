//! Where PostgreSQL's programs are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::install;

/// The oldest PostgreSQL that is started.
pub const OLDEST_MAJOR: u32 = 13;

/// One installed PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// The folder that holds `postgres` and `initdb`.
    pub folder: PathBuf,
    /// The major version.
    pub major: u32,
}

impl Binaries {
    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn at(folder: &Path) -> Option<Binaries> {
        // A link such as /usr/local/bin/postgres is followed, because the programs look for each
        // other, and for their share files, beside themselves.
        let program = std::fs::canonicalize(folder.join("postgres")).ok()?;
        let folder = program.parent()?.to_path_buf();
        if !folder.join("initdb").is_file() {
            return None;
        }
        let major = major_of(&answer(&program, "--version")?)?;
        (major >= OLDEST_MAJOR).then_some(Binaries { folder, major })
    }
}

/// The PostgreSQL to use: the first on PATH, else the newest in the distributions' usual folders,
/// else the one that `pg_config` names. The error says how to install one.
pub fn find_binaries() -> Result<Binaries> {
    installed().into_iter().next().with_context(|| {
        format!(
            "PostgreSQL's server programs (`postgres`, `initdb`, version {OLDEST_MAJOR} or newer) were found neither on PATH, \
             nor in the usual folders, nor through pg_config.\nInstall them with:  {}",
            install::POSTGRESQL.command_line()
        )
    })
}

/// Every installed PostgreSQL server, in the order of preference.
pub fn installed() -> Vec<Binaries> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(usual_folders());
    if let Some(folder) = answer(Path::new("pg_config"), "--bindir") {
        folders.push(PathBuf::from(folder.trim()));
    }
    let mut found: Vec<Binaries> = Vec::new();
    for binaries in folders.iter().filter_map(|folder| Binaries::at(folder)) {
        if !found.contains(&binaries) {
            found.push(binaries);
        }
    }
    found
}

/// The folders into which packages put the programs without adding them to PATH, newest version first.
fn usual_folders() -> Vec<PathBuf> {
    let mut versioned: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql@"),
        ("/usr/local/opt", "postgresql@"),
        ("/home/linuxbrew/.linuxbrew/opt", "postgresql@"),
    ] {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name
                .to_str()
                .and_then(|name| name.strip_prefix(prefix))
                .and_then(|rest| rest.parse().ok());
            if let Some(version) = version {
                versioned.push((version, entry.path().join("bin")));
            }
        }
    }
    versioned.sort_by(|left, right| right.cmp(left));
    let plain = [
        "/opt/homebrew/opt/postgresql/bin",
        "/usr/local/opt/postgresql/bin",
        "/usr/local/pgsql/bin",
        "/Applications/Postgres.app/Contents/Versions/latest/bin",
    ];
    versioned
        .into_iter()
        .map(|(_, folder)| folder)
        .chain(plain.iter().map(PathBuf::from))
        .collect()
}

fn answer(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The major version in text such as `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major_of(version: &str) -> Option<u32> {
    let number = version
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_every_spelling() {
        for (text, major) in [
            (
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)",
                Some(15),
            ),
            ("postgres (PostgreSQL) 18beta1", Some(18)),
            ("postgres (PostgreSQL) 9.6.24", Some(9)),
            ("something else", None),
        ] {
            assert_eq!(major_of(text), major, "{text}");
        }
    }
}
