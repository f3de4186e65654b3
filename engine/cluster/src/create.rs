//! Creates a new cluster.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::binaries::Binaries;
use crate::place::Place;
use crate::settings::{ROLE, environment};
use crate::trouble::{advice, tail};

/// Creates the cluster of `place`, with a database `gobo`, when it does not exist yet. It gets its name at the very end, so that
/// an interrupted attempt leaves nothing that looks like a cluster.
pub(crate) fn create(place: &Place, binaries: &Binaries) -> Result<()> {
    let data = &place.data;
    if data.join("PG_VERSION").is_file() {
        return Ok(());
    }
    if fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!(
            "{} holds files but no PostgreSQL cluster; move them away or name another folder",
            data.display()
        );
    }
    let fresh = fresh_folder(place)?;
    let mut initdb = command("initdb", place, binaries);
    initdb.args([
        "--username",
        ROLE,
        "--auth=trust",
        "--encoding=UTF8",
        "--no-sync",
    ]);
    initdb.args(["--locale", locale(), "--pgdata"]).arg(&fresh);
    let output = initdb.output().context("could not run initdb")?;
    expect(&output, place, "PostgreSQL could not create a cluster")?;
    create_database(&fresh, place, binaries)?;
    if place.temporary.is_none() {
        let mut sync = command("initdb", place, binaries);
        let output = sync.arg("--sync-only").arg("--pgdata").arg(&fresh).output();
        let output = output.context("could not run initdb")?;
        expect(
            &output,
            place,
            "PostgreSQL could not write the new cluster to disk",
        )?;
    }
    fs::rename(&fresh, data).with_context(|| format!("could not create {}", data.display()))
}

fn fresh_folder(place: &Place) -> Result<std::path::PathBuf> {
    let fresh = place.data.with_extension("new");
    if let Err(error) = fs::remove_dir_all(&fresh)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("could not remove {}", fresh.display()));
    }
    let created = fs::DirBuilder::new().mode(0o700).create(&fresh);
    created.with_context(|| {
        format!(
            "could not create {}; check its permissions and free space",
            fresh.display()
        )
    })?;
    place.account.own(&fresh)?;
    Ok(fresh)
}

/// Creates the database in single-user mode, which needs neither a client nor a socket.
fn create_database(data: &Path, place: &Place, binaries: &Binaries) -> Result<()> {
    let mut single = command("postgres", place, binaries);
    single
        .args([
            "--single",
            "-c",
            "fsync=off",
            "-c",
            "exit_on_error=on",
            "-D",
        ])
        .arg(data)
        .arg("postgres");
    let mut child = single
        .stdin(Stdio::piped())
        .spawn()
        .context("could not run postgres")?;
    if let Some(mut input) = child.stdin.take() {
        // When this fails the server has ended, and its own words say why.
        let _ = writeln!(input, "CREATE DATABASE {ROLE};");
    }
    let output = child
        .wait_with_output()
        .context("could not wait for postgres")?;
    expect(&output, place, "PostgreSQL could not create the database")
}

fn expect(output: &Output, place: &Place, failure: &str) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    bail!("{failure}{}\n{}", advice(&text, place), tail(&text))
}

/// One of PostgreSQL's programs, to be run as the server's account and without the caller's
/// settings (`PGDATA`, `PGPORT` and their like).
fn command(program: &str, place: &Place, binaries: &Binaries) -> Command {
    let mut command = Command::new(binaries.program(program));
    command.env_clear().envs(environment()).current_dir("/");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    place.account.apply(&mut command);
    command
}

/// C.UTF-8 where the system has it: the same order everywhere, and case mapping beyond ASCII.
fn locale() -> &'static str {
    let listed = Command::new("locale")
        .arg("-a")
        .stderr(Stdio::null())
        .output();
    let listed = listed
        .map(|output| String::from_utf8_lossy(&output.stdout).to_lowercase())
        .unwrap_or_default();
    if listed
        .lines()
        .any(|name| name == "c.utf8" || name == "c.utf-8")
    {
        "C.UTF-8"
    } else {
        "C"
    }
}
