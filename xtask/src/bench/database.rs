//! PostgreSQL through `psql`, so that measuring needs no driver of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// One database of the cluster.
#[derive(Clone, Debug)]
pub(super) struct Database {
    pub(super) url: String,
}

impl Database {
    /// Runs statements, each in its own transaction, and returns what the last one answers.
    pub(super) fn run(&self, statements: &str) -> Result<String> {
        let mut session = Session::open(self)?;
        session.ask(statements)
    }

    /// Runs one statement in a session that is open already, and returns the time that it took.
    pub(super) fn time(&self, statement: &str) -> Result<Duration> {
        let mut session = Session::open(self)?;
        session.ask("select 1")?;
        let began = Instant::now();
        session.ask(statement)?;
        Ok(began.elapsed())
    }

    /// Sends the answer of `copy ... to stdout` through a pipe and throws it away. Returns the time.
    pub(super) fn time_copy_out(&self, copy: &str) -> Result<Duration> {
        let began = Instant::now();
        let mut psql = command(self)?
            .args(["-c", copy])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("could not run psql")?;
        let mut output = psql.stdout.take().context("psql has no output")?;
        std::io::copy(&mut output, &mut std::io::sink())?;
        if !psql.wait()?.success() {
            bail!("psql failed; its message is above");
        }
        Ok(began.elapsed())
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    psql: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// Printed after every answer.
const END: &str = "-- end of the answer --";

impl Session {
    pub(super) fn open(database: &Database) -> Result<Session> {
        let mut psql = command(database)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("could not run psql")?;
        let (input, output) = (psql.stdin.take(), psql.stdout.take());
        Ok(Session {
            psql,
            input,
            output: BufReader::new(output.context("psql has no output")?),
        })
    }

    /// Sends statements and waits for their answers: rows as lines, columns parted by `|`.
    pub(super) fn ask(&mut self, statements: &str) -> Result<String> {
        let input = self.input.as_mut().context("psql has no input")?;
        write!(input, "{statements};\n\\echo {END}\n")?;
        input.flush()?;
        let mut answer = String::new();
        loop {
            let start = answer.len();
            if self.output.read_line(&mut answer)? == 0 {
                bail!("psql failed at {statements:?}; its message is above");
            }
            if answer[start..].trim_end() == END {
                answer.truncate(start);
                return Ok(answer.trim_end().to_owned());
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.psql.wait();
    }
}

fn command(database: &Database) -> Result<Command> {
    let psql = gobo_cluster::find_binaries()?.program("psql");
    let mut command = Command::new(psql);
    command.args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-d", &database.url]);
    command.env("PGOPTIONS", "-c client_min_messages=warning");
    Ok(command)
}
