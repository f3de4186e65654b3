//! Requests over connections that stay open, each sent when the one before was answered.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Connections, each with a thread.
const CONNECTIONS: usize = 16;

/// What is asked, and what has to be answered.
#[derive(Debug)]
pub(super) struct Load<'a> {
    /// `http://ADDRESS`
    pub(super) url: &'a str,
    /// Each connection asks for all of them in turn, from another one on.
    pub(super) paths: &'a [String],
    /// Headers besides, each with its line end.
    pub(super) headers: String,
    /// The status of every answer.
    pub(super) status: u16,
}

/// How it went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// Answers per second.
    pub(super) per_second: f64,
    /// Half of the answers took no longer.
    pub(super) p50: Duration,
    /// 99 of 100 took no longer.
    pub(super) p99: Duration,
}

impl Load<'_> {
    /// Asks for as long as that.
    pub(super) fn run(&self, duration: Duration) -> Result<Rate> {
        let began = Instant::now();
        let times = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..CONNECTIONS)
                .map(|number| scope.spawn(move || self.connection(number, began + duration)))
                .collect();
            let mut all = Vec::new();
            for worker in workers {
                let Ok(times) = worker.join() else {
                    bail!("a connection's thread panicked");
                };
                all.extend(times?);
            }
            Ok(all)
        });
        let (mut times, took) = (times?, began.elapsed());
        times.sort_unstable();
        let at = |percent: usize| times.get(times.len() * percent / 100).copied();
        Ok(Rate {
            per_second: times.len() as f64 / took.as_secs_f64(),
            p50: at(50).unwrap_or_default(),
            p99: at(99).unwrap_or_default(),
        })
    }

    fn connection(&self, number: usize, until: Instant) -> Result<Vec<Duration>> {
        let address = self.url.strip_prefix("http://").context("no http:// URL")?;
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut answers = BufReader::new(stream.try_clone()?);
        let requests: Vec<String> = (self.paths.iter())
            .map(|path| {
                format!(
                    "GET {path} HTTP/1.1\r\nHost: {address}\r\n{}\r\n",
                    self.headers
                )
            })
            .collect();
        let mut times = Vec::new();
        let mut body = Vec::new();
        let first = number * requests.len() / CONNECTIONS;
        for request in requests.iter().cycle().skip(first) {
            let sent = Instant::now();
            if sent >= until {
                break;
            }
            (&stream).write_all(request.as_bytes())?;
            let status = read(&mut answers, &mut body)?;
            times.push(sent.elapsed());
            if status != self.status {
                bail!("{request}: {status} {}", String::from_utf8_lossy(&body));
            }
        }
        Ok(times)
    }
}

/// Reads one answer, and gives its status.
fn read(answers: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> Result<u16> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no answer: {line:?}"))?;
    let mut length = 0;
    loop {
        line.clear();
        answers.read_line(&mut line)?;
        let header = line.trim_end();
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    body.resize(length, 0);
    answers.read_exact(body)?;
    Ok(status)
}
