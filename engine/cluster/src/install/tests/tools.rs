//! Node.js and Python, as the tests of clients need them.

use super::*;
use crate::install::tools::{Tool, install_node_on, install_python_on};

impl StandIn {
    fn node(&self) -> Result<Tool, String> {
        let machine = Machine::standing_in(self.folder.path());
        install_node_on(&machine).map_err(|error| format!("{error:#}"))
    }

    fn python(&self) -> Result<Tool, String> {
        let machine = Machine::standing_in(self.folder.path());
        install_python_on(&machine).map_err(|error| format!("{error:#}"))
    }
}

/// Makes `node` and `npm` of this version.
fn makes_node(version: &str) -> String {
    format!("server /bin/node {version}; server /bin/npm 10.8.2")
}

#[test]
fn node_is_installed_with_npm_and_found_the_second_time() {
    let machine = StandIn::new(0);
    machine.dnf(&makes_node("v22.4.0"));
    for _ in 0..2 {
        let version = "v22.4.0".to_owned();
        let program = "node";
        assert_eq!(machine.node(), Ok(Tool { program, version }));
        assert_eq!(machine.calls(), "dnf install -y npm\n");
    }
}

#[test]
fn a_node_that_is_too_old_is_refused_with_the_one_that_is_needed() {
    let machine = StandIn::new(0);
    machine.dnf(&makes_node("v18.19.1"));
    let error = machine.node().unwrap_err();
    assert!(error.contains("18.19.1 is too old: 20 or newer"), "{error}");
}

#[test]
fn python_is_the_first_one_that_is_new_enough_and_has_venv() {
    let machine = StandIn::new(1000);
    machine.program("python3", "[ \"$1\" = --version ] && echo 'Python 3.9.2'");
    let newer = "case $1 in -c) exit 0;; *) echo 'Python 3.12.3';; esac";
    machine.program("python3.12", newer);
    let tool = machine.python().unwrap();
    assert_eq!(
        (tool.program, tool.version.as_str()),
        ("python3.12", "Python 3.12.3")
    );
}

#[test]
fn a_user_without_sudo_is_told_how_to_install_python() {
    let machine = StandIn::new(1000);
    machine.dnf("exit 0");
    let error = machine.python().unwrap_err();
    assert!(error.contains("sudo dnf install python3"), "{error}");
}
