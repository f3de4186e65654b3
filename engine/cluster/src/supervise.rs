//! A process that cannot outlive its owner, not even when the owner is killed.
//!
//! The owner holds one end of a pipe and a small shell the other. The end of the pipe, which the
//! kernel brings about whatever happens to the owner, makes the shell stop the process. Shell and
//! process are in a process group of their own, so that Ctrl-C reaches only the owner, who stops
//! things in the order that is right.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::account::Account;

/// Arguments: stop signal, seconds until it becomes KILL, log, folder to remove (or empty), program,
/// its arguments. Background commands of a script lose their standard input, hence descriptor 3.
/// The marker tells an end that the owner's end caused from any other: only then is the folder removed.
const SUPERVISOR: &str = r#"
stop=$1 grace=$2 log=$3 remove=$4; shift 4
exec 3<&0 </dev/null
"$@" 3<&- >>"$log" 2>&1 &
server=$!
(
    while read -r _ <&3; do :; done
    if [ -n "$remove" ]; then : >"$remove/.ended"; fi
    kill -s "$stop" "$server"; kill -s CONT "$server"
    while [ "$grace" -gt 0 ] && kill -s 0 "$server"; do sleep 1; grace=$((grace - 1)); done
    kill -s KILL "$server"
) >/dev/null 2>&1 &
watcher=$!
exec 3<&-
echo "$server"
exec >/dev/null 2>&1
wait "$server"
status=$?
kill -s TERM "$watcher"
if [ -n "$remove" ] && [ -e "$remove/.ended" ]; then rm -rf -- "$remove"; fi
exit "$status"
"#;

/// What to run, and how it ends.
#[derive(Debug)]
pub struct Task {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its whole environment: nothing is inherited.
    pub environment: Vec<(OsString, OsString)>,
    /// The folder it runs in.
    pub folder: PathBuf,
    /// The file to which its output is appended.
    pub log: PathBuf,
    /// The signal that asks it to end.
    pub stop: Signal,
    /// How long it may take to end before it is killed.
    pub grace: Duration,
    /// A folder that is removed when the process ends because its owner has gone.
    pub remove: Option<PathBuf>,
}

/// The signals in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// PostgreSQL: stop fast.
    Int,
    /// Please end.
    Term,
    /// PostgreSQL: stop at once, without a checkpoint.
    Quit,
    /// End without being asked.
    Kill,
    /// Freeze.
    Stop,
    /// Go on after [`Signal::Stop`].
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Signal::Int => "INT",
            Signal::Term => "TERM",
            Signal::Quit => "QUIT",
            Signal::Kill => "KILL",
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
        }
    }

    /// Sends the signal to `processes`; one that has ended already is no error.
    pub fn send(self, processes: &[u32]) -> Result<()> {
        if processes.is_empty() {
            return Ok(());
        }
        self.send_to(processes.iter().map(u32::to_string))
    }

    /// Sends the signal to every process of a group, named by its leader; one that has ended already is no error.
    pub fn send_to_group(self, leader: u32) -> Result<()> {
        self.send_to(["--".to_owned(), format!("-{leader}")].into_iter())
    }

    fn send_to(self, whom: impl Iterator<Item = String>) -> Result<()> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "kill -s \"$@\" 2>/dev/null", "kill", self.name()]);
        command.args(whom);
        command
            .stdin(Stdio::null())
            .status()
            .context("could not run /bin/sh to send a signal")?;
        Ok(())
    }
}

/// A running (or ended) process under supervision. Dropping it stops the process and waits for it.
#[derive(Debug)]
pub struct Supervised {
    supervisor: Child,
    owner: Option<ChildStdin>,
    process: u32,
    patience: Duration,
}

impl Supervised {
    /// Starts `task` as this process's own user.
    pub fn start(task: &Task) -> Result<Supervised> {
        Self::spawn(task, None)
    }

    pub(crate) fn start_as(task: &Task, account: Account) -> Result<Supervised> {
        Self::spawn(task, Some(account))
    }

    fn spawn(task: &Task, account: Option<Account>) -> Result<Supervised> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SUPERVISOR, "gobo-supervisor", task.stop.name()]);
        command.arg(task.grace.as_secs().to_string()).arg(&task.log);
        command.arg(task.remove.as_deref().unwrap_or("".as_ref()));
        command.arg(&task.program).args(&task.arguments);
        command
            .env_clear()
            .envs(task.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(&task.folder).process_group(0);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(account) = account {
            account.apply(&mut command);
        }
        let mut supervisor = command
            .spawn()
            .with_context(|| format!("could not start {}", task.program.display()))?;
        let owner = supervisor.stdin.take();
        let mut line = String::new();
        if let Some(output) = supervisor.stdout.take() {
            BufReader::new(output)
                .read_line(&mut line)
                .context("could not read the process id")?;
        }
        let Ok(process) = line.trim().parse() else {
            let status = supervisor.wait()?;
            bail!(
                "could not start {} (its shell ended with {status})",
                task.program.display()
            );
        };
        Ok(Supervised {
            supervisor,
            owner,
            process,
            patience: task.grace + Duration::from_secs(10),
        })
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.process
    }

    /// How the process ended, as a shell says it (128 + signal), or `None` while it runs.
    pub fn ended(&mut self) -> Result<Option<i32>> {
        Ok(self
            .supervisor
            .try_wait()?
            .map(|status| status.code().unwrap_or(-1)))
    }

    /// Sends `signal` to the process; does nothing when it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_none() {
            signal.send(&[self.process])
        } else {
            Ok(())
        }
    }

    /// Kills the process without warning and waits for its end.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::Kill)?;
        self.wait(Duration::from_secs(30)).map(drop)
    }

    /// Asks the process to end, waits for it, and returns how it ended.
    pub fn stop(&mut self) -> Result<i32> {
        // The supervisor sends the stop signal, and KILL after the grace period.
        drop(self.owner.take());
        self.wait(self.patience)
    }

    /// Waits for the process to end by itself; an error when it does not within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<i32> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(code) = self.ended()? {
                return Ok(code);
            }
            if Instant::now() > deadline {
                bail!("process {} has not ended within {limit:?}", self.process);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // The supervisor does its work even when waiting for it fails here.
        let _ = self.stop();
    }
}
