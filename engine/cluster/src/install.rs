//! Installs a server from the system's packages.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::account;
use crate::binaries::{self, Binaries};

/// A server and what the package managers call it.
#[derive(Debug)]
pub struct Package {
    /// How people call it.
    pub name: &'static str,
    apt: &'static str,
    dnf: &'static str,
    brew: &'static str,
}

/// PostgreSQL's server.
pub const POSTGRESQL: Package = Package {
    name: "PostgreSQL",
    apt: "postgresql",
    dnf: "postgresql-server",
    brew: "postgresql@17",
};

#[derive(Clone, Copy, Debug)]
enum Manager {
    Apt,
    Dnf,
    Brew,
}

impl Manager {
    fn present() -> Option<Manager> {
        let all = [
            ("apt-get", Manager::Apt),
            ("dnf", Manager::Dnf),
            ("brew", Manager::Brew),
        ];
        all.into_iter()
            .find(|(program, _)| succeeds(Command::new(program).arg("--version")))
            .map(|(_, manager)| manager)
    }
}

/// Debian's package creates and starts a cluster of its own unless told not to; telling it needs its
/// configuration, which comes with postgresql-common. The administrator's own wish is put back.
/// The server of a package is kept from starting by policy-rc.d (exit code 101).
const APT: &str = r#"
set -e
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y --no-install-recommends "$@"; }
policy=/usr/sbin/policy-rc.d config=/etc/postgresql-common/createcluster.conf ours=
restore() {
    if [ -n "$ours" ]; then rm -f "$policy"; fi
    if [ -e "$config.gobo" ]; then mv "$config.gobo" "$config"; fi
}
trap restore EXIT
if [ ! -e "$policy" ]; then printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod 755 "$policy"; ours=1; fi
if [ "$1" = postgresql ]; then
    install postgresql-common || { apt-get update; install postgresql-common; }
    cp -p "$config" "$config.gobo"
    echo 'create_main_cluster = false' >>"$config"
fi
install "$1" || { apt-get update; install "$1"; }
"#;

impl Package {
    /// The command that installs the package on this system.
    pub fn command_line(&self) -> String {
        match Manager::present() {
            Some(Manager::Apt) => format!("sudo apt-get install {}", self.apt),
            Some(Manager::Dnf) => format!("sudo dnf install {}", self.dnf),
            Some(Manager::Brew) => format!("brew install {}", self.brew),
            None => format!(
                "your system's package manager (the package is often called `{}`)",
                self.apt
            ),
        }
    }

    /// Installs the package when that is possible without asking anybody: as root, with a sudo that
    /// needs no password, or with Homebrew. Otherwise the error holds the command to run.
    fn install(&self) -> Result<()> {
        let Some(manager) = Manager::present() else {
            bail!(
                "{} is missing and no package manager was found (apt-get, dnf, brew); install it with {}",
                self.name,
                self.command_line()
            );
        };
        let mut command = match manager {
            Manager::Apt => self.privileged(&["sh", "-c", APT, "install", self.apt])?,
            Manager::Dnf => self.privileged(&["dnf", "install", "-y", self.dnf])?,
            Manager::Brew => {
                let mut command = Command::new("brew");
                command.args(["install", self.brew]);
                command
            }
        };
        let status = command
            .stdin(Stdio::null())
            .status()
            .context("could not run the package manager")?;
        if !status.success() {
            bail!(
                "installing {} failed ({status}); its output is above. To try by hand:  {}",
                self.name,
                self.command_line()
            );
        }
        Ok(())
    }

    fn privileged(&self, arguments: &[&str]) -> Result<Command> {
        if account::is_root() {
            let mut command = Command::new(arguments[0]);
            command.args(&arguments[1..]);
            return Ok(command);
        }
        if !succeeds(Command::new("sudo").args(["-n", "true"])) {
            bail!(
                "{} is missing and installing it needs root; run:  {}",
                self.name,
                self.command_line()
            );
        }
        let mut command = Command::new("sudo");
        command.arg("-n").args(arguments);
        Ok(command)
    }
}

/// The installed PostgreSQL, installing the system's package first when there is none. The package's
/// own cluster is neither created nor started.
pub fn install_postgresql() -> Result<Binaries> {
    if let Ok(found) = binaries::find_binaries() {
        return Ok(found);
    }
    POSTGRESQL.install()?;
    binaries::find_binaries().context(
        "the package was installed, but its server programs are not where they usually are",
    )
}

fn succeeds(command: &mut Command) -> bool {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
