//! Redis, and Valkey where that has taken its place.

use super::*;

impl StandIn {
    fn install_redis(&self) -> Result<Program, String> {
        let machine = Machine::standing_in(self.folder.path());
        install_redis_on(&machine).map_err(|error| format!("{error:#}"))
    }

    #[track_caller]
    fn expect_redis(&self, path: &str, version: &str, calls: &str) {
        let path = Machine::standing_in(self.folder.path()).at(path);
        let version = version.to_owned();
        assert_eq!(self.install_redis(), Ok(Program { path, version }));
        assert_eq!(self.calls(), calls);
        // The second time it is there.
        assert!(self.install_redis().is_ok());
        assert_eq!(self.calls(), calls);
    }

    #[track_caller]
    fn expect_no_redis(&self, parts: &[&str], calls: &str) {
        let error = self.install_redis().unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
        assert_eq!(self.calls(), calls);
    }
}

const REDIS_7: &str =
    "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=e08dbad3e06f3fb";
const VALKEY_8: &str = "Valkey server v=8.0.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1";

#[test]
fn root_installs_redis_with_dnf_and_no_service_is_started() {
    let machine = StandIn::new(0);
    machine.dnf(&format!("server /bin/redis-server '{REDIS_7}'"));
    machine.expect_redis("/bin/redis-server", "7.0.15", "dnf install -y redis\n");
}

#[test]
fn where_there_is_no_redis_its_successor_is_installed() {
    let machine = StandIn::new(0);
    machine.dnf(&format!(
        "[ \"$3\" = valkey ] || exit 1; server /usr/bin/valkey-server '{VALKEY_8}'"
    ));
    machine.expect_redis(
        "/usr/bin/valkey-server",
        "8.0.1",
        "dnf install -y redis\ndnf install -y valkey\n",
    );
}

#[test]
fn a_user_without_sudo_is_told_how_to_install_redis() {
    let machine = StandIn::new(1000);
    machine.dnf("exit 0");
    machine.expect_no_redis(
        &["Redis is missing and installing it needs root; run:  sudo dnf install redis || sudo dnf install valkey"],
        "",
    );
}

#[test]
fn homebrew_installs_redis_without_sudo_and_its_keg_is_found() {
    for prefix in ["/opt/homebrew", "/Users/me/brew"] {
        let machine = StandIn::new(501);
        machine.sudo();
        machine.brew(
            prefix,
            &format!("server {prefix}/opt/redis/bin/redis-server '{REDIS_7}'"),
        );
        let path = format!("{prefix}/opt/redis/bin/redis-server");
        machine.expect_redis(&path, "7.0.15", "brew install redis\n");
    }
}

#[test]
fn an_installation_of_redis_that_fails_or_brings_no_server_says_so() {
    let machine = StandIn::new(0);
    machine.dnf("exit 3");
    machine.expect_no_redis(
        &[
            "installing Redis failed (exit status: 3)",
            "dnf install redis || dnf install valkey",
        ],
        "dnf install -y redis\ndnf install -y valkey\n",
    );
    let machine = StandIn::new(0);
    machine.dnf(":");
    machine.expect_no_redis(
        &["neither `redis-server` nor `valkey-server`"],
        "dnf install -y redis\n",
    );
}

#[test]
fn an_old_redis_is_named_with_its_version() {
    let machine = StandIn::new(0);
    machine.dnf("server /usr/bin/redis-server 'Redis server v=5.0.3 sha=00000000:0'");
    machine.expect_no_redis(
        &["redis-server is version 5.0.3, which is too old: 6.2 or newer is needed"],
        "dnf install -y redis\n",
    );
}
