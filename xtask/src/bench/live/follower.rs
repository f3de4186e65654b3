//! One who follows, on a connection of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// A change, and when it came.
#[derive(Debug)]
pub(super) struct Receipt {
    pub(super) change: u64,
    pub(super) at: Instant,
}

/// An open stream of events.
#[derive(Debug)]
pub(super) struct Follower {
    reader: BufReader<TcpStream>,
    /// What has come of a line that is not complete.
    rest: Vec<u8>,
}

impl Follower {
    /// Asks for `path`, and reads the rows to begin with.
    pub(super) fn open(url: &str, path: &str) -> Result<Self> {
        let address = url.strip_prefix("http://").context("no http:// URL")?;
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(
            &stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n"
        )?;
        let mut reader = BufReader::with_capacity(16 << 10, stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                bail!("{path}: the connection was closed after {head:?}");
            }
        }
        if !head.starts_with("HTTP/1.1 200") {
            bail!("{path}: {head}");
        }
        let mut follower = Self {
            reader,
            rest: Vec::new(),
        };
        loop {
            let lines = follower.lines()?;
            if lines.iter().any(|line| line == "event: rows") {
                return Ok(follower);
            }
        }
    }

    /// Reads what comes next. An order's changes are `orders` apart.
    pub(super) fn read(&mut self, orders: u64, receipts: &mut Vec<Receipt>) -> Result<()> {
        let lines = self.lines()?;
        let at = Instant::now();
        for line in lines {
            if line.starts_with("event: ") && line != "event: changes" {
                bail!("{line} instead of changes");
            }
            let Some(data) = line.strip_prefix("data: ") else {
                continue;
            };
            // A thousand of these have to take next to nothing from what is measured: no JSON is read.
            for row in data.split("\"order_id\":\"live-").skip(1) {
                let order: u64 = number(row)?;
                let (_, filled) = row.split_once("\"filled\":").context("no sum")?;
                let change = (number(filled)? - 1) * orders + order;
                receipts.push(Receipt { change, at });
            }
        }
        Ok(())
    }

    /// The lines that the next chunk completes.
    fn lines(&mut self) -> Result<Vec<String>> {
        let mut size = String::new();
        if self.reader.read_line(&mut size)? == 0 {
            bail!("the stream has ended");
        }
        let size = usize::from_str_radix(size.trim_end(), 16).context("no size of a chunk")?;
        if size == 0 {
            bail!("the stream has ended");
        }
        let start = self.rest.len();
        self.rest.resize(start + size, 0);
        self.reader.read_exact(&mut self.rest[start..])?;
        self.reader.read_exact(&mut [0; 2])?;
        let end = (self.rest.iter().rposition(|&byte| byte == b'\n')).map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.rest.drain(..end).collect();
        let lines = String::from_utf8(lines)?;
        Ok(lines.lines().map(str::to_owned).collect())
    }
}

/// The whole number that a text begins with.
fn number(text: &str) -> Result<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let digits = &text[..end.unwrap_or(text.len())];
    digits
        .parse()
        .with_context(|| format!("no number: {digits:?}"))
}
