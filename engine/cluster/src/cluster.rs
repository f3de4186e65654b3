//! A running private PostgreSQL server.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::binaries::{self, Binaries};
use crate::create::create;
use crate::lock;
use crate::place::Place;
use crate::settings::{Options, PORT, ROLE, environment};
use crate::supervise::{Signal, Supervised, Task};
use crate::trouble::{advice, tail};

/// How long the server may take to open, crash recovery included.
const OPENING: Duration = Duration::from_secs(300);

/// How long a killed server's sessions may hold its shared memory.
const LEAVING: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(10);

/// A private PostgreSQL server. It stops when this is dropped, and when this process ends in any
/// other way, `kill -9` included.
#[derive(Debug)]
pub struct Cluster {
    place: Place,
    binaries: Binaries,
    settings: Vec<(String, String)>,
    server: Option<Supervised>,
}

impl Cluster {
    /// Starts the cluster, creating it first when it does not exist yet, and waits until it accepts
    /// connections. A new cluster has a database `gobo`. Errors name the fix and quote the server's log.
    pub fn start(options: Options) -> Result<Cluster> {
        let Options { data, settings } = options;
        let place = match &data {
            Some(wanted) => Place::durable(wanted)?,
            None => Place::temporary()?,
        };
        let binaries = binaries_for(&place.data)?;
        let mut cluster = Cluster {
            place,
            binaries,
            settings,
            server: None,
        };
        create(&cluster.place, &cluster.binaries)?;
        cluster.open()?;
        Ok(cluster)
    }

    /// The address of one of its databases, as every PostgreSQL client understands it.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgresql://{ROLE}@/{database}?host={}&port={PORT}",
            percent_encoded(&self.place.socket)
        )
    }

    /// The shell command that opens a prompt in one of its databases.
    pub fn psql(&self, database: &str) -> String {
        format!(
            "psql -h {} -p {PORT} -U {ROLE} {database}",
            self.place.socket.display()
        )
    }

    /// The folder that holds its data.
    pub fn data(&self) -> &Path {
        &self.place.data
    }

    /// The folder that was asked for, when the server's account cannot enter it and the data is elsewhere.
    pub fn instead_of(&self) -> Option<&Path> {
        self.place.instead_of.as_deref()
    }

    /// The folder of its unix socket.
    pub fn socket(&self) -> &Path {
        &self.place.socket
    }

    /// Where the server writes its log.
    pub fn log(&self) -> PathBuf {
        self.place.data.join("server.log")
    }

    /// Stops the server after ending its sessions. Its data stays until the cluster is dropped.
    pub fn stop(&mut self) -> Result<()> {
        // Taking the server first makes a second stop a no-op, also after an error.
        match self.server.take() {
            None => Ok(()),
            Some(mut server) => {
                server.signal(Signal::Int)?;
                server.signal(Signal::Continue)?;
                server.wait(Duration::from_secs(60)).map(drop)
            }
        }
    }

    /// Stops the server when it runs, and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.open()
    }

    /// Kills every process of the server without warning, as a power cut would.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        // Frozen first, so that no session starts between the listing and the end.
        server.signal(Signal::Stop)?;
        let mut processes = children_of(server.id())?;
        processes.push(server.id());
        Signal::Kill.send(&processes)?;
        server.kill()
    }

    /// Freezes every process of the server: connections stay open and nothing answers.
    pub fn pause(&self) -> Result<()> {
        let Some(server) = &self.server else {
            return Ok(());
        };
        Signal::Stop.send(&[server.id()])?;
        Signal::Stop.send(&children_of(server.id())?)
    }

    /// Lets a paused server go on.
    pub fn resume(&self) -> Result<()> {
        let Some(server) = &self.server else {
            return Ok(());
        };
        Signal::Continue.send(&children_of(server.id())?)?;
        Signal::Continue.send(&[server.id()])
    }

    /// Starts the server and waits until it accepts connections.
    fn open(&mut self) -> Result<()> {
        lock::clear(&self.place.data)?;
        // A killed server's sessions hold its shared memory for a moment longer.
        let deadline = Instant::now() + LEAVING;
        loop {
            match self.try_open() {
                Err(error)
                    if Instant::now() < deadline
                        && format!("{error}").contains("pre-existing shared memory") =>
                {
                    std::thread::sleep(PAUSE * 10);
                }
                done => return done,
            }
        }
    }

    /// The server's settings: the later of two wins, so nothing undoes what makes the server private.
    fn arguments(&self) -> Vec<OsString> {
        let usual = [("timezone", "UTC"), ("log_timezone", "UTC")];
        let fixed = [
            ("listen_addresses", ""),
            ("port", &PORT.to_string()),
            ("unix_socket_permissions", "0700"),
        ];
        let chosen = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let socket = self.place.socket.clone().into();
        let mut arguments: Vec<OsString> = vec![
            "-D".into(),
            self.place.data.clone().into(),
            "-k".into(),
            socket,
        ];
        for (name, value) in usual.into_iter().chain(chosen).chain(fixed) {
            arguments.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        arguments
    }

    fn try_open(&mut self) -> Result<()> {
        let data = &self.place.data;
        let _ = fs::rename(self.log(), data.join("server.log.old"));
        let temporary = self.place.temporary.clone();
        let task = Task {
            program: self.binaries.program("postgres"),
            arguments: self.arguments(),
            environment: environment(),
            folder: "/".into(),
            log: self.log(),
            stop: if temporary.is_some() {
                Signal::Quit
            } else {
                Signal::Int
            },
            grace: Duration::from_secs(60),
            remove: temporary,
        };
        let server = self
            .server
            .insert(Supervised::start_as(&task, self.place.account)?);
        let deadline = Instant::now() + OPENING;
        while !lock::is_ready(&self.place.data, server.id()) {
            if server.ended()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                self.server = None;
                bail!(
                    "PostgreSQL did not start{}\n{} says:\n{}",
                    advice(&log, &self.place),
                    self.log().display(),
                    tail(&log)
                );
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.server.take());
        // What cannot be removed here is only litter in the temporary folder.
        let _ = match &self.place.temporary {
            Some(folder) => fs::remove_dir_all(folder),
            None => fs::remove_dir(&self.place.socket),
        };
    }
}

/// The programs for the data that exists, or the preferred ones for a new cluster.
fn binaries_for(data: &Path) -> Result<Binaries> {
    let path = data.join("PG_VERSION");
    let major: u32 = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return binaries::find_binaries(),
        Err(error) => {
            return Err(error).with_context(|| {
                format!(
                    "could not read {}; run this as that folder's owner",
                    path.display()
                )
            });
        }
        Ok(text) => text
            .trim()
            .parse()
            .with_context(|| format!("{} does not hold a version", path.display()))?,
    };
    let preferred = binaries::find_binaries()?;
    binaries::installed()
        .into_iter()
        .find(|found| found.major == major)
        .with_context(|| {
            format!(
                "{} was created by PostgreSQL {major}, and version {} is installed; \
             install version {major} beside it, or remove that folder to begin anew",
                data.display(),
                preferred.major
            )
        })
}

/// The direct children of `process`.
fn children_of(process: u32) -> Result<Vec<u32>> {
    let listed = Command::new("ps")
        .args(["-A", "-o", "pid=,ppid="])
        .output()
        .context("could not run `ps`")?;
    let text = String::from_utf8_lossy(&listed.stdout);
    let pairs = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((
            words.next()?.parse::<u32>().ok()?,
            words.next()?.parse::<u32>().ok()?,
        ))
    });
    Ok(pairs
        .filter(|(_, parent)| *parent == process)
        .map(|(child, _)| child)
        .collect())
}

fn percent_encoded(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(*byte))
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}
