//! Where PostgreSQL's programs are.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::install;
use crate::machine::Machine;

/// The oldest PostgreSQL that is started: older ones are refused by the engine.
pub const OLDEST_MAJOR: u32 = 14;

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

    fn at(machine: &Machine, folder: &Path) -> Option<Binaries> {
        // A link such as /usr/local/bin/postgres is followed, because the programs look for each
        // other, and for their share files, beside themselves.
        let program = std::fs::canonicalize(folder.join("postgres")).ok()?;
        let folder = program.parent()?.to_path_buf();
        if !folder.join("initdb").is_file() {
            return None;
        }
        let major = major_of(&machine.answer(&program, "--version")?)?;
        Some(Binaries { folder, major })
    }
}

/// The PostgreSQL to use: the first on PATH, else the newest in the distributions' usual folders,
/// else the one that `pg_config` names. The error says how to install one.
pub fn find_binaries() -> Result<Binaries> {
    find_on(&Machine::this())
}

/// Every installed PostgreSQL server that is not too old, in the order of preference.
pub fn installed() -> Vec<Binaries> {
    let mut found = all_on(&Machine::this());
    found.retain(|binaries| binaries.major >= OLDEST_MAJOR);
    found
}

/// The PostgreSQL of `machine` to use.
pub(crate) fn find_on(machine: &Machine) -> Result<Binaries> {
    let found = all_on(machine);
    if let Some(binaries) = found.iter().find(|found| found.major >= OLDEST_MAJOR) {
        return Ok(binaries.clone());
    }
    match found.first() {
        Some(old) => bail!(
            "PostgreSQL {} in {} is too old: version {OLDEST_MAJOR} or newer is needed; {}",
            old.major,
            old.folder.display(),
            install::newer(machine)
        ),
        None => bail!(
            "PostgreSQL's server programs (`postgres`, `initdb`, version {OLDEST_MAJOR} or newer) were found neither on PATH, \
             nor in the usual folders, nor through pg_config.\nInstall them with:  {}",
            install::POSTGRESQL.command_line(machine)
        ),
    }
}

/// Every installed PostgreSQL server of `machine`, old ones included.
pub(crate) fn all_on(machine: &Machine) -> Vec<Binaries> {
    let mut folders: Vec<PathBuf> = machine.search_path().collect();
    folders.extend(usual_folders(machine));
    if let Some(folder) = machine.answer("pg_config", "--bindir") {
        folders.push(PathBuf::from(folder));
    }
    let mut found: Vec<Binaries> = Vec::new();
    for folder in &folders {
        let binaries = Binaries::at(machine, folder);
        found.extend(binaries.filter(|binaries| !found.contains(binaries)));
    }
    found
}

/// The folders into which packages put the programs without adding them to PATH, newest version first.
fn usual_folders(machine: &Machine) -> Vec<PathBuf> {
    let mut parents = vec![
        (machine.at("/usr/lib/postgresql"), ""),
        (machine.at("/usr"), "pgsql-"),
    ];
    // Homebrew's versioned formulas are linked below its `opt` only.
    let mut homebrew = vec![
        machine.at("/opt/homebrew"),
        machine.at("/usr/local"),
        machine.at("/home/linuxbrew/.linuxbrew"),
    ];
    if let Some(elsewhere) = machine.answer("brew", "--prefix").map(PathBuf::from)
        && !homebrew.contains(&elsewhere)
    {
        homebrew.push(elsewhere);
    }
    parents.extend(
        homebrew
            .iter()
            .map(|prefix| (prefix.join("opt"), "postgresql@")),
    );

    let mut versioned: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, prefix) in parents {
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
    let plain = homebrew
        .iter()
        .map(|prefix| prefix.join("opt/postgresql/bin"))
        .chain([
            machine.at("/usr/local/pgsql/bin"),
            machine.at("/Applications/Postgres.app/Contents/Versions/latest/bin"),
        ]);
    let newest_first = versioned.into_iter().map(|(_, folder)| folder);
    newest_first.chain(plain).collect()
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
