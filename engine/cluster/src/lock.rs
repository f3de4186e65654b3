//! Who uses a data folder: a lock of our own, which ends with its owner, and the server's lock file,
//! `postmaster.pid`, which may be left by one that was killed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, anyhow};

/// How long a server that is stopping is waited for.
const LEAVING: Duration = Duration::from_secs(30);

/// How long a server may be found running until its data counts as in use.
const IN_USE: Duration = Duration::from_secs(1);

/// Takes the data folder for this process. The lock ends with the returned file, or the process.
pub(crate) fn take(data: &Path) -> Result<File> {
    let path = data.with_extension("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.with_context(|| format!("could not open {}", path.display()))?;
    let begin = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("could not lock {}", path.display()));
            }
            Err(TryLockError::WouldBlock) if begin.elapsed() > IN_USE => {
                let lock = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
                return Err(in_use(
                    data,
                    lock.lines().next().unwrap_or("not started yet"),
                ));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Removes the lock file of a server that is no more, and waits for one that is stopping. PostgreSQL
/// removes it itself, except when its process id belongs to another process by now, as it often does
/// in containers.
pub(crate) fn clear(data: &Path) -> Result<()> {
    let path = data.join("postmaster.pid");
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
        let Some(process) = process.filter(|process| serves(*process, data)) else {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("could not remove {}", path.display()))
                }
                _ => Ok(()),
            };
        };
        // One whose owner has ended is `stopping`, or will be in a moment.
        let stopping = status(&text) == Some("stopping");
        if begin.elapsed() > if stopping { LEAVING } else { IN_USE } {
            return Err(in_use(data, &process.to_string()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether `process` serves `data` and accepts connections.
pub(crate) fn is_ready(data: &Path, process: u32) -> bool {
    let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let owner = text.lines().next().map(str::trim);
    owner == Some(&process.to_string()) && status(&text) == Some("ready")
}

/// The eighth line says what the server is doing.
fn status(text: &str) -> Option<&str> {
    text.lines().nth(7).map(str::trim)
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

fn in_use(data: &Path, process: &str) -> Error {
    anyhow!(
        "{} is in use by another run (its PostgreSQL is process {process}); end that run first, \
         or, when only its server is left, stop that with:  kill -INT {process}",
        data.display()
    )
}
