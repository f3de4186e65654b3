//! Installs servers, and what tests run besides, from the system's packages.

mod tools;

use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, bail};

use crate::binaries::{self, Binaries};
use crate::machine::Machine;
use crate::redis::program::{self, Program};

pub use tools::{Tool, install_node, install_python};

/// A program and what the package managers call it.
#[derive(Debug)]
pub(crate) struct Package {
    /// How people call it.
    name: &'static str,
    apt: &'static str,
    /// The first of these that there is.
    dnf: &'static [&'static str],
    brew: &'static str,
}

/// PostgreSQL's server.
pub(crate) const POSTGRESQL: Package = Package {
    name: "PostgreSQL",
    apt: "postgresql",
    dnf: &["postgresql-server"],
    brew: "postgresql@17",
};

/// Redis' server. Newer Fedoras and Enterprise Linuxes have its successor Valkey instead, which speaks the same.
pub(crate) const REDIS: Package = Package {
    name: "Redis",
    apt: "redis-server",
    dnf: &["redis", "valkey"],
    brew: "redis",
};

#[derive(Clone, Copy, Debug)]
enum Manager {
    Apt,
    Dnf,
    Brew,
}

impl Manager {
    fn of(machine: &Machine) -> Option<Manager> {
        let all = [
            ("apt-get", "--version", Manager::Apt),
            ("dnf", "--version", Manager::Dnf),
            ("brew", "--prefix", Manager::Brew),
        ];
        all.into_iter()
            .find(|(program, question, _)| machine.succeeds(program, &[question]))
            .map(|(_, _, manager)| manager)
    }
}

/// Debian's package creates and starts a cluster of its own unless told not to; telling it needs its
/// configuration, which comes with postgresql-common. The administrator's own wish is put back.
/// The server of a package is kept from starting by policy-rc.d (exit code 101), and Redis' from starting with the machine
/// as well.
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
if [ "$1" = redis-server ]; then update-rc.d redis-server disable; fi
"#;

impl Package {
    /// The command that installs the package on this machine.
    pub(crate) fn command_line(&self, machine: &Machine) -> String {
        let sudo = if machine.is_root() { "" } else { "sudo " };
        match Manager::of(machine) {
            Some(Manager::Apt) => format!("{sudo}apt-get install {}", self.apt),
            Some(Manager::Dnf) => {
                let each = self
                    .dnf
                    .iter()
                    .map(|name| format!("{sudo}dnf install {name}"));
                each.collect::<Vec<_>>().join(" || ")
            }
            Some(Manager::Brew) => format!("brew install {}", self.brew),
            None => format!(
                "your system's package manager (the package is often called `{}`)",
                self.apt
            ),
        }
    }

    /// Installs the package when that is possible without asking anybody: as root, with a sudo that
    /// needs no password, or with Homebrew. Otherwise the error holds the command to run.
    fn install(&self, machine: &Machine) -> Result<()> {
        let Some(manager) = Manager::of(machine) else {
            bail!(
                "{} is missing and no package manager was found (apt-get, dnf, brew); install it with {}",
                self.name,
                self.command_line(machine)
            );
        };
        let mut attempts = match manager {
            Manager::Apt => {
                vec![self.privileged(machine, &["sh", "-c", APT, "install", self.apt])?]
            }
            Manager::Dnf => {
                let each = self.dnf.iter();
                each.map(|name| self.privileged(machine, &["dnf", "install", "-y", name]))
                    .collect::<Result<_>>()?
            }
            Manager::Brew => {
                let mut command = machine.command("brew");
                command.args(["install", self.brew]);
                vec![command]
            }
        };
        let last = attempts.len() - 1;
        for (index, command) in attempts.iter_mut().enumerate() {
            let status = command
                .status()
                .context("could not run the package manager")?;
            if status.success() {
                return Ok(());
            }
            if index == last {
                self.failed(machine, manager, status)?;
            }
        }
        Ok(())
    }

    fn failed(&self, machine: &Machine, manager: Manager, status: ExitStatus) -> Result<()> {
        // Outside of containers it refuses, because it could not drop root's rights.
        let account = match manager {
            Manager::Brew if machine.is_root() => ", as an ordinary user",
            _ => "",
        };
        bail!(
            "installing {} failed ({status}); its output is above. To try by hand{account}:  {}",
            self.name,
            self.command_line(machine)
        )
    }

    fn privileged(&self, machine: &Machine, arguments: &[&str]) -> Result<Command> {
        if machine.is_root() {
            let mut command = machine.command(arguments[0]);
            command.args(&arguments[1..]);
            return Ok(command);
        }
        if !machine.succeeds("sudo", &["-n", "true"]) {
            bail!(
                "{} is missing and installing it needs root; run:  {}",
                self.name,
                self.command_line(machine)
            );
        }
        let mut command = machine.command("sudo");
        command.arg("-n").args(arguments);
        Ok(command)
    }
}

/// The installed PostgreSQL, installing the system's package first when there is none. No server of
/// the package is started; on Debian, which would do so, its cluster is not even created.
pub fn install_postgresql() -> Result<Binaries> {
    install_on(&Machine::this())
}

fn install_on(machine: &Machine) -> Result<Binaries> {
    if let Ok(found) = binaries::find_on(machine) {
        return Ok(found);
    }
    POSTGRESQL.install(machine)?;
    if binaries::all_on(machine).is_empty() {
        bail!(
            "the package was installed, but `postgres` and `initdb` are neither on PATH nor where they usually are; \
             put their folder on PATH"
        );
    }
    binaries::find_on(machine)
}

/// The installed Redis (or Valkey), installing the system's package first when there is none. No server of the package
/// is started.
pub fn install_redis() -> Result<Program> {
    install_redis_on(&Machine::this())
}

fn install_redis_on(machine: &Machine) -> Result<Program> {
    if let Ok(found) = program::find_on(machine) {
        return Ok(found);
    }
    REDIS.install(machine)?;
    if program::all_on(machine).is_empty() {
        bail!(
            "the package was installed, but neither `redis-server` nor `valkey-server` is on PATH or where it usually is; \
             put its folder on PATH"
        );
    }
    program::find_on(machine)
}

/// How to get a newer version than the distribution's usual one.
pub(crate) fn newer(machine: &Machine) -> String {
    match Manager::of(machine) {
        // Enterprise Linux 8 installs version 10 and 9 version 13, unless told otherwise.
        Some(Manager::Dnf) => {
            let sudo = if machine.is_root() { "" } else { "sudo " };
            format!(
                "run:  {sudo}dnf module reset postgresql && {sudo}dnf module install postgresql:16/server"
            )
        }
        _ => "see https://www.postgresql.org/download/".to_owned(),
    }
}

#[cfg(test)]
mod tests;
