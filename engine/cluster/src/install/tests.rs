//! Every package manager, with stand-ins that record how they are called and create what the real
//! package would.

mod redis;
mod tools;

use std::os::unix::fs::PermissionsExt;

use super::*;

/// A machine in a folder, on which nothing is installed yet.
struct StandIn {
    folder: tempfile::TempDir,
}

impl StandIn {
    fn new(uid: u32) -> StandIn {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        let stand_in = StandIn { folder };
        stand_in.program("id", &format!("echo {uid}"));
        stand_in
    }

    /// A program on PATH; in its script `$root` is the machine's root, `record` notes the call, and
    /// `package FOLDER VERSION` is what installing PostgreSQL leaves behind, `server PATH WORDS` what a Redis does.
    fn program(&self, name: &str, script: &str) {
        let root = self.folder.path().display();
        let text = format!(
            r#"#!/bin/sh
PATH=/usr/bin:/bin
root='{root}'
record() {{ echo "{name} $*" >>"$root/calls"; }}
package() {{
    mkdir -p "$root$1"
    for program in postgres initdb; do
        printf '#!/bin/sh\necho "%s (PostgreSQL) %s"\n' "$program" "$2" >"$root$1/$program"
        chmod 755 "$root$1/$program"
    done
}}
server() {{
    mkdir -p "$root${{1%/*}}"
    printf '#!/bin/sh\necho "%s"\n' "$2" >"$root$1"
    chmod 755 "$root$1"
}}
{script}
"#
        );
        let path = self.folder.path().join("bin").join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// A dnf whose install runs `script`.
    fn dnf(&self, script: &str) {
        let script = format!("case $1 in install) record \"$@\"; {script};; esac");
        self.program("dnf", &script);
    }

    /// A brew in `prefix` whose install runs `script`.
    fn brew(&self, prefix: &str, script: &str) {
        let script = format!(
            "case $1 in --prefix) echo \"$root{prefix}\";; *) record \"$@\"; {script};; esac"
        );
        self.program("brew", &script);
    }

    /// A sudo that needs no password.
    fn sudo(&self) {
        let path = self.folder.path().join("bin");
        let script = format!(
            "if [ \"$*\" != '-n true' ]; then record \"$@\"; fi; shift; PATH='{}:/bin:/usr/bin' exec \"$@\"",
            path.display()
        );
        self.program("sudo", &script);
    }

    fn install(&self) -> Result<Binaries, String> {
        install_on(&Machine::standing_in(self.folder.path())).map_err(|error| format!("{error:#}"))
    }

    /// What was called, a line each.
    fn calls(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default()
    }

    #[track_caller]
    fn expect(&self, folder: &str, major: u32, calls: &str) {
        let found = self.install();
        let folder = Machine::standing_in(self.folder.path()).at(folder);
        let folder = std::fs::canonicalize(folder).unwrap_or_default();
        assert_eq!(found, Ok(Binaries { folder, major }));
        assert_eq!(self.calls(), calls);
        // The second time it is there.
        assert!(self.install().is_ok());
        assert_eq!(self.calls(), calls);
    }

    #[track_caller]
    fn expect_refusal(&self, parts: &[&str], calls: &str) {
        let error = self.install().unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
        assert_eq!(self.calls(), calls);
    }
}

#[test]
fn root_installs_with_dnf_what_fedora_puts_on_the_path() {
    let machine = StandIn::new(0);
    machine.dnf("package /bin 17.4");
    machine.expect("/bin", 17, "dnf install -y postgresql-server\n");
}

#[test]
fn a_user_installs_with_dnf_through_a_sudo_that_asks_nothing() {
    let machine = StandIn::new(1000);
    machine.sudo();
    machine.dnf("package /usr/pgsql-16/bin 16.9");
    machine.expect(
        "/usr/pgsql-16/bin",
        16,
        "sudo -n dnf install -y postgresql-server\ndnf install -y postgresql-server\n",
    );
}

#[test]
fn of_several_versions_the_newest_in_the_usual_folders_is_used() {
    let machine = StandIn::new(0);
    machine.dnf("package /usr/pgsql-9/bin 9.6.24; package /usr/pgsql-15/bin 15.2; package /usr/pgsql-17/bin 17.1");
    machine.expect(
        "/usr/pgsql-17/bin",
        17,
        "dnf install -y postgresql-server\n",
    );
}

#[test]
fn a_user_without_sudo_is_told_the_command_and_nothing_is_done() {
    let told = "needs root; run:  sudo dnf install postgresql-server";
    let machine = StandIn::new(1000);
    machine.dnf("package /bin 17.4");
    machine.expect_refusal(&[told], "");
    // Neither is it with a sudo that wants a password.
    machine.program("sudo", "exit 1");
    machine.expect_refusal(&[told], "");
}

#[test]
fn an_installation_that_fails_says_so_and_names_the_command() {
    let machine = StandIn::new(0);
    machine.dnf("exit 3");
    machine.expect_refusal(
        &[
            "installing PostgreSQL failed (exit status: 3)",
            "by hand:  dnf install postgresql-server",
        ],
        "dnf install -y postgresql-server\n",
    );
}

#[test]
fn an_installation_without_server_programs_says_so() {
    let machine = StandIn::new(0);
    machine.dnf(":");
    machine.expect_refusal(
        &[
            "was installed, but `postgres` and `initdb`",
            "put their folder on PATH",
        ],
        "dnf install -y postgresql-server\n",
    );
}

#[test]
fn the_versions_of_older_enterprise_linuxes_are_named_as_too_old_with_the_way_out() {
    for version in ["10.23", "13.20"] {
        let machine = StandIn::new(0);
        machine.dnf(&format!("package /bin {version}"));
        let (major, _) = version.split_once('.').unwrap();
        machine.expect_refusal(
            &[
                &format!("PostgreSQL {major} in "),
                "bin is too old: version 14 or newer is needed",
                "run:  dnf module reset postgresql && dnf module install postgresql:16/server",
            ],
            "dnf install -y postgresql-server\n",
        );
    }
}

#[test]
fn homebrew_installs_without_sudo_and_its_keg_is_found_wherever_homebrew_is() {
    for prefix in [
        "/opt/homebrew",
        "/usr/local",
        "/home/linuxbrew/.linuxbrew",
        "/Users/me/brew",
    ] {
        let machine = StandIn::new(501);
        machine.sudo();
        // As Homebrew does it: the programs are in the cellar, linked from `opt`, not on PATH.
        machine.brew(
            prefix,
            &format!(
                "package {prefix}/Cellar/postgresql@17/17.5/bin 17.5; mkdir -p \"$root{prefix}/opt\"; \
                 ln -s ../Cellar/postgresql@17/17.5 \"$root{prefix}/opt/postgresql@17\""
            ),
        );
        // One call: no service is started.
        let folder = format!("{prefix}/Cellar/postgresql@17/17.5/bin");
        machine.expect(&folder, 17, "brew install postgresql@17\n");
    }
}

#[test]
fn homebrew_that_refuses_root_is_to_be_run_as_an_ordinary_user() {
    let machine = StandIn::new(0);
    machine.brew(
        "/opt/homebrew",
        "echo 'Error: Running Homebrew as root is extremely dangerous and no longer supported.' >&2; exit 1",
    );
    machine.expect_refusal(
        &["by hand, as an ordinary user:  brew install postgresql@17"],
        "brew install postgresql@17\n",
    );
}

#[test]
fn without_a_package_manager_nothing_is_tried() {
    let machine = StandIn::new(0);
    machine.expect_refusal(&["no package manager was found (apt-get, dnf, brew)"], "");
}
