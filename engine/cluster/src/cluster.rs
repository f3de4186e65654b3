//! A running private PostgreSQL server.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::binaries::{self, Binaries};
use crate::place::Place;
use crate::settings::{Options, PORT, ROLE};
use crate::supervise::{Signal, Supervised, Task};

/// How long the server may take to open, crash recovery included.
const OPENING: Duration = Duration::from_secs(300);

/// How long a server that is stopping is waited for, and a killed one's sessions.
const LEAVING: Duration = Duration::from_secs(30);

/// How long a server may be found running until its data counts as in use.
const IN_USE: Duration = Duration::from_secs(1);

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
        if !cluster.place.data.join("PG_VERSION").is_file() {
            cluster.create()?;
        }
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

    /// Creates the data folder under another name first, so that an interrupted attempt leaves
    /// nothing that looks like a cluster.
    fn create(&self) -> Result<()> {
        let data = &self.place.data;
        if fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!(
                "{} holds files but no PostgreSQL cluster; move them away or name another folder",
                data.display()
            );
        }
        let fresh = data.with_extension("new");
        match fs::remove_dir_all(&fresh) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("could not remove {}", fresh.display()));
            }
            _ => {}
        }
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&fresh)
            .with_context(|| {
                format!(
                    "could not create {}; check its permissions and free space",
                    fresh.display()
                )
            })?;
        self.place.account.own(&fresh)?;
        let mut initdb = self.command("initdb");
        initdb.args([
            "--username",
            ROLE,
            "--auth=trust",
            "--encoding=UTF8",
            "--no-instructions",
        ]);
        initdb.args(["--locale", locale(), "--pgdata"]).arg(&fresh);
        if self.place.temporary.is_some() {
            initdb.arg("--no-sync");
        }
        let output = initdb.output().context("could not run initdb")?;
        self.expect(&output, "PostgreSQL could not create a cluster")?;
        self.create_database(&fresh)?;
        fs::rename(&fresh, data).with_context(|| format!("could not create {}", data.display()))
    }

    /// Creates the database `gobo` in single-user mode, which needs neither a client nor a socket.
    fn create_database(&self, data: &Path) -> Result<()> {
        let mut single = self.command("postgres");
        single
            .args(["--single", "-c", "fsync=off", "-D"])
            .arg(data)
            .arg("postgres");
        let mut child = single
            .stdin(Stdio::piped())
            .spawn()
            .context("could not run postgres")?;
        if let Some(mut input) = child.stdin.take() {
            use std::io::Write as _;
            writeln!(input, "CREATE DATABASE {ROLE};").context("could not talk to postgres")?;
        }
        let output = child
            .wait_with_output()
            .context("could not wait for postgres")?;
        self.expect(&output, "PostgreSQL could not create the database")
    }

    fn expect(&self, output: &Output, failure: &str) -> Result<()> {
        if output.status.success() {
            return Ok(());
        }
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        bail!("{failure}{}\n{}", self.advice(&text), tail(&text))
    }

    /// One of PostgreSQL's programs, to be run as the server's account and without the caller's
    /// settings (`PGDATA`, `PGPORT` and their like).
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.program(program));
        command.env_clear().envs(environment()).current_dir("/");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.place.account.apply(&mut command);
        command
    }

    /// Starts the server and waits until it accepts connections.
    fn open(&mut self) -> Result<()> {
        self.clear_lock()?;
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

    fn try_open(&mut self) -> Result<()> {
        let data = &self.place.data;
        let _ = fs::rename(self.log(), data.join("server.log.old"));
        let mut arguments: Vec<OsString> = vec![
            "-D".into(),
            data.into(),
            "-k".into(),
            self.place.socket.clone().into(),
        ];
        let fixed = [
            ("listen_addresses", ""),
            ("port", &PORT.to_string()),
            ("unix_socket_permissions", "0700"),
        ];
        let chosen = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in [("timezone", "UTC"), ("log_timezone", "UTC")]
            .into_iter()
            .chain(chosen)
            .chain(fixed)
        {
            arguments.push("-c".into());
            arguments.push(format!("{name}={value}").into());
        }
        let temporary = self.place.temporary.clone();
        let task = Task {
            program: self.binaries.program("postgres"),
            arguments,
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
        while !is_ready(&self.place.data, server.id()) {
            if server.ended()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                self.server = None;
                bail!(
                    "PostgreSQL did not start{}\n{} says:\n{}",
                    self.advice(&log),
                    self.log().display(),
                    tail(&log)
                );
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Removes the lock file of a server that is no more. PostgreSQL does so itself, except when its
    /// process id belongs to another process by now, as it often does in containers.
    fn clear_lock(&self) -> Result<()> {
        let path = self.place.data.join("postmaster.pid");
        let begin = Instant::now();
        loop {
            let text = match fs::read_to_string(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                other => other.with_context(|| format!("could not read {}", path.display()))?,
            };
            let process: Option<u32> = text
                .lines()
                .next()
                .and_then(|line| line.trim().parse().ok());
            let Some(process) = process.filter(|process| serves(*process, &self.place.data)) else {
                return fs::remove_file(&path)
                    .with_context(|| format!("could not remove {}", path.display()));
            };
            // Line 8 says what the server is doing. One whose owner has ended is `stopping`, or
            // will be in a moment.
            let stopping = text
                .lines()
                .nth(7)
                .is_some_and(|line| line.trim() == "stopping");
            if begin.elapsed() > if stopping { LEAVING } else { IN_USE } {
                bail!(
                    "{} is in use by another run (PostgreSQL is process {process}); \
                     end that run, or stop its server with:  kill -INT {process}",
                    self.place.data.display()
                );
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// What to do about a failure that the server describes in `log`.
    fn advice(&self, log: &str) -> String {
        let data = self.place.data.display();
        if log.contains("No space left on device") || log.contains("Disk quota exceeded") {
            format!(": the disk is full; free some space for {data}")
        } else if log.contains("Cannot allocate memory")
            || log.contains("could not create shared memory segment")
        {
            ": there is not enough memory; end other programs or start it with a smaller `shared_buffers`".to_owned()
        } else if log.contains("Permission denied") || log.contains("wrong ownership") {
            let owner = fs::metadata(&self.place.data)
                .map(|found| format!(" (it belongs to user id {})", found.uid()));
            let (uid, owner) = (self.place.account.uid, owner.unwrap_or_default());
            format!(
                ": it runs as user id {uid}, which must own {data}{owner} and be able to enter the folders above it"
            )
        } else {
            String::new()
        }
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

fn environment() -> Vec<(OsString, OsString)> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    vec![("PATH".into(), path), ("LC_MESSAGES".into(), "C".into())]
}

/// Whether `postmaster.pid` is that of `process` and says that it accepts connections (line 8).
fn is_ready(data: &Path, process: u32) -> bool {
    let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines
        .first()
        .is_some_and(|line| *line == process.to_string())
        && lines.get(7).is_some_and(|line| *line == "ready")
}

/// Whether `process` is a running server of `data`, judged by its command line.
fn serves(process: u32, data: &Path) -> bool {
    let command = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_else(|_| {
        let listed = Command::new("ps")
            .args(["-o", "command=", "-p"])
            .arg(process.to_string())
            .output();
        listed.map(|output| output.stdout).unwrap_or_default()
    });
    let command = String::from_utf8_lossy(&command);
    command.contains("postgres") && command.contains(&*data.to_string_lossy())
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

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
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
