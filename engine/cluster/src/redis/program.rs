//! Where Redis' server is.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::install;
use crate::machine::Machine;

/// The oldest Redis that is started: older ones do not know XAUTOCLAIM.
const OLDEST: (u32, u32) = (6, 2);

/// One installed server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The server's path.
    pub path: PathBuf,
    /// Its version as it says it.
    pub version: String,
}

impl Program {
    fn at(machine: &Machine, path: &Path) -> Option<Program> {
        if !path.is_file() {
            return None;
        }
        // Not canonicalised: Debian's is a link to a program that looks at the name it is called by.
        let answer = machine.answer(path, "--version")?;
        let version = answer
            .split_whitespace()
            .find_map(|word| word.strip_prefix("v="))?;
        Some(Program {
            path: path.to_path_buf(),
            version: version.to_owned(),
        })
    }

    fn is_new_enough(&self) -> bool {
        let mut numbers = self.version.split('.').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= OLDEST,
            _ => false,
        }
    }
}

/// The server to use: the first on PATH, else in the usual folders; Redis before Valkey.
pub(crate) fn find_on(machine: &Machine) -> Result<Program> {
    let found = all_on(machine);
    if let Some(program) = found.iter().find(|found| found.is_new_enough()) {
        return Ok(program.clone());
    }
    let (major, minor) = OLDEST;
    match found.first() {
        Some(old) => bail!(
            "{} is version {}, which is too old: {major}.{minor} or newer is needed; see https://redis.io/docs/latest/operate/oss_and_stack/install/",
            old.path.display(),
            old.version
        ),
        None => bail!(
            "Redis' server (`redis-server` or `valkey-server`, version {major}.{minor} or newer) was found neither on PATH \
             nor in the usual folders.\nInstall it with:  {}",
            install::REDIS.command_line(machine)
        ),
    }
}

/// Every installed server of `machine`, old ones included.
pub(crate) fn all_on(machine: &Machine) -> Vec<Program> {
    let mut folders: Vec<PathBuf> = machine.search_path().collect();
    let usual = ["/usr/bin", "/usr/sbin", "/usr/local/bin"];
    folders.extend(usual.map(|folder| machine.at(folder)));
    // Homebrew's are linked into its `bin` unless somebody unlinked them.
    let mut homebrew = vec![
        machine.at("/opt/homebrew"),
        machine.at("/usr/local"),
        machine.at("/home/linuxbrew/.linuxbrew"),
    ];
    homebrew.extend(machine.answer("brew", "--prefix").map(PathBuf::from));
    folders.extend(homebrew.iter().map(|prefix| prefix.join("opt/redis/bin")));
    let mut found: Vec<Program> = Vec::new();
    for name in ["redis-server", "valkey-server"] {
        for folder in &folders {
            let program = Program::at(machine, &folder.join(name));
            found.extend(program.filter(|program| !found.contains(program)));
        }
    }
    found
}
