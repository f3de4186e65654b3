//! What the tests of clients run: Node.js with npm, and Python with virtual environments.

use anyhow::{Result, bail};

use super::Package;
use crate::machine::Machine;

/// Node.js, with npm, which some distributions have in a package of its own that brings Node.js along.
const NODE: Package = Package {
    name: "Node.js with npm",
    apt: "npm",
    dnf: &["npm"],
    brew: "node",
};

/// Python with what makes virtual environments, which Debian has in a package of its own.
const PYTHON: Package = Package {
    name: "Python with venv",
    apt: "python3-venv",
    dnf: &["python3"],
    brew: "python",
};

/// The oldest that the tested clients run with.
const OLDEST_NODE: u32 = 20;
const OLDEST_PYTHON: (u32, u32) = (3, 11);

/// A program and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// What it is called on PATH.
    pub program: &'static str,
    /// Its version as it says it.
    pub version: String,
}

/// Node.js with npm, installing the system's package first when there is none.
pub fn install_node() -> Result<Tool> {
    install_node_on(&Machine::this())
}

/// Python with venv, installing the system's package first when there is none.
pub fn install_python() -> Result<Tool> {
    install_python_on(&Machine::this())
}

pub(super) fn install_node_on(machine: &Machine) -> Result<Tool> {
    let mut found = node(machine);
    if found.is_none() {
        NODE.install(machine)?;
        found = node(machine);
    }
    let Some(tool) = found else {
        bail!("the package was installed, but `node` and `npm` are not on PATH");
    };
    let version = tool.version.trim_start_matches('v');
    let major = version.split('.').next().unwrap_or_default();
    if major.parse::<u32>().is_ok_and(|major| major < OLDEST_NODE) {
        bail!(
            "Node.js {version} is too old: {OLDEST_NODE} or newer is needed; see https://nodejs.org/en/download"
        );
    }
    Ok(tool)
}

fn node(machine: &Machine) -> Option<Tool> {
    machine.answer("npm", "--version")?;
    Some(Tool {
        program: "node",
        version: machine.answer("node", "--version")?,
    })
}

pub(super) fn install_python_on(machine: &Machine) -> Result<Tool> {
    if let Some(tool) = python(machine) {
        return Ok(tool);
    }
    PYTHON.install(machine)?;
    let (major, minor) = OLDEST_PYTHON;
    match (python(machine), machine.answer("python3", "--version")) {
        (Some(tool), _) => Ok(tool),
        (None, Some(version)) => bail!(
            "{version} is too old or has no venv module: Python {major}.{minor} or newer is needed, as python3 or \
             python{major}.{minor} on PATH; see https://www.python.org/downloads"
        ),
        (None, None) => bail!("the package was installed, but `python3` is not on PATH"),
    }
}

/// The first one on PATH that is new enough and can make virtual environments.
fn python(machine: &Machine) -> Option<Tool> {
    let names = [
        "python3",
        "python3.14",
        "python3.13",
        "python3.12",
        "python3.11",
    ];
    let (major, minor) = OLDEST_PYTHON;
    let question =
        format!("import ensurepip, sys, venv; sys.exit(sys.version_info < ({major}, {minor}))");
    let program = names
        .into_iter()
        .find(|name| machine.succeeds(name, &["-c", &question]))?;
    Some(Tool {
        program,
        version: machine.answer(program, "--version")?,
    })
}
