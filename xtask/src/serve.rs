//! Runs the built engine as a process that ends with its owner.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use gobo_cluster::supervise::Task;
use gobo_cluster::{Signal, Supervised};

/// What the engine prints when it accepts requests.
const LISTENING: &str = "listening on http://";

/// How long the engine may take until then.
const OPENING: Duration = Duration::from_secs(120);

/// A running engine.
#[derive(Debug)]
pub struct Served {
    /// Its process; dropping it ends the engine with SIGTERM.
    pub process: Supervised,
    /// `http://ADDRESS:PORT`
    pub url: String,
}

/// How an attempt to serve came out.
#[derive(Debug)]
pub enum Outcome {
    /// The engine accepts requests.
    Served(Served),
    /// The engine ended by itself.
    Ended {
        /// Its exit code.
        code: i32,
        /// Everything it printed.
        log: String,
    },
}

/// Starts `gobo serve --config config` and waits until it accepts requests or ends. Its output is
/// appended to `log`. Nothing of the caller's environment but `environment` reaches the engine.
pub fn serve(
    binary: &Path,
    config: &Path,
    log: &Path,
    environment: Vec<(OsString, OsString)>,
) -> Result<Outcome> {
    let earlier = std::fs::metadata(log).map_or(0, |found| {
        usize::try_from(found.len()).unwrap_or(usize::MAX)
    });
    let task = Task {
        program: binary.to_owned(),
        arguments: vec!["serve".into(), "--config".into(), config.into()],
        environment,
        folder: config.parent().unwrap_or(Path::new("/")).to_owned(),
        log: log.to_owned(),
        stop: Signal::Term,
        grace: Duration::from_secs(30),
        remove: None,
    };
    let mut process = Supervised::start(&task)?;
    let deadline = Instant::now() + OPENING;
    loop {
        let ended = process.ended()?;
        let bytes = std::fs::read(log).unwrap_or_default();
        let printed = String::from_utf8_lossy(&bytes[bytes.len().min(earlier)..]).into_owned();
        if let Some(code) = ended {
            return Ok(Outcome::Ended { code, log: printed });
        }
        if let Some(address) = address(&printed) {
            return Ok(Outcome::Served(Served {
                process,
                url: format!("http://{address}"),
            }));
        }
        if Instant::now() > deadline {
            bail!("the engine did not listen within {OPENING:?}; it printed:\n{printed}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The variables that the engine needs from its caller.
pub fn plain_environment() -> Vec<(OsString, OsString)> {
    let kept = ["PATH", "HOME", "TMPDIR"].into_iter();
    kept.filter_map(|name| Some((name.into(), std::env::var_os(name)?)))
        .collect()
}

/// The address in the first complete line that names one.
fn address(printed: &str) -> Option<&str> {
    let mut lines = printed
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    let (_, rest) = lines.find_map(|line| line.split_once(LISTENING))?;
    rest.split(|c: char| c.is_whitespace() || c == '"' || c == '\u{1b}')
        .next()
}
