//! Loading many events from lines of JSON, at COPY's speed: chunk by chunk, each stored together with how far the import
//! has come, so that it can be stopped at any moment and continued.
//!
//! One thread reads, checks and encodes ahead, while the database stores the chunk before.

mod chunk;
mod input;
mod json_text;
mod present;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_postgres::Client;

use crate::db::describe;
use crate::event::{Micros, Position};
use chunk::Mark;
pub(crate) use chunk::{Chunk, Known, Parser};
use input::Lines;
pub use input::{Input, content_name};
pub(crate) use writer::Writer;

/// How many lines are stored together, unless told otherwise.
pub const DEFAULT_CHUNK: usize = 10_000;
/// A chunk ends with the line that reaches this many bytes.
const CHUNK_BYTES: usize = 16 << 20;
/// Encoded chunks that wait for the database.
const AHEAD: usize = 2;

/// What to import, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Under this name the import's progress is kept, and made event ids depend on it.
    pub name: String,
    /// Lines that are stored together.
    pub chunk: usize,
}

/// How far an import has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Lines that an earlier run had imported.
    pub resumed_at: u64,
    /// Lines that are stored, those of earlier runs included.
    pub lines: u64,
    /// Bytes of decompressed text that are stored, those of earlier runs included.
    pub bytes: u64,
    /// Bytes of the input, compressed as it may be, that were read ahead.
    pub consumed: u64,
}

/// What an import did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Lines that an earlier run had imported.
    pub resumed_at: u64,
    /// Lines that are stored now.
    pub lines: u64,
    /// Events that this run stored.
    pub stored: u64,
    /// Events that were stored before, under the same event_id and with the same content.
    pub present: u64,
    /// The last event's position; 0 when there is none.
    pub last_position: Position,
    /// False when it was told to stop before the end of the input.
    pub complete: bool,
    /// How long it took.
    pub took: Timing,
}

/// Where an import's time went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// From beginning to end.
    pub total: Duration,
    /// Reading, decompressing, hashing, checking and encoding, in its own thread.
    pub parsing: Duration,
    /// COPY, in the database.
    pub copying: Duration,
    /// The rest of the transactions: versions, progress, commit.
    pub committing: Duration,
}

/// Why an import ended early. Whole chunks that were stored before stay, and it can be continued.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A line that cannot be stored.
    #[error("line {line} cannot be imported: {reason}")]
    Line {
        /// From 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The input is not the one that was begun under this name.
    #[error(
        "{lines} lines were imported under this name, and this input {what}: continue with the same text, or choose another --name"
    )]
    Changed {
        /// How it differs.
        what: String,
        /// How many lines there should be.
        lines: u64,
    },
    /// Somebody else imports under this name now.
    #[error("an import named {0:?} is running already")]
    Busy(String),
    /// Others write to the same streams faster than a chunk can be stored.
    #[error(
        "the streams of lines {first} to {last} are written to by others all the time: import them with a smaller --chunk"
    )]
    Crowded {
        /// The chunk's first line.
        first: u64,
        /// Its last one.
        last: u64,
    },
    /// The input cannot be read.
    #[error("the input cannot be read: {0}")]
    Input(#[from] io::Error),
    /// The database did not answer, or refused.
    #[error("the database: {}", describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// The reading thread ended without a word.
    #[error("the reading thread ended unexpectedly")]
    Reader,
}

/// Imports `input` over a session of its own; `stop` ends it after the chunk that is being stored.
pub async fn import(
    client: &mut Client,
    input: Input,
    options: &Options,
    mut stop: watch::Receiver<bool>,
    mut progress: impl FnMut(Progress),
) -> Result<Summary, ImportError> {
    let began = Instant::now();
    let consumed = input.consumed();
    let (mut writer, done) = Writer::begin(client, &options.name).await?;
    let mut summary = Summary {
        resumed_at: done.lines,
        lines: done.lines,
        stored: 0,
        present: 0,
        last_position: writer.last_position(),
        complete: false,
        took: Timing::default(),
    };
    let (parsing, mut chunks) = read_ahead(input, done, options, writer.now());
    loop {
        let chunk = tokio::select! {
            biased;
            Ok(_) = stop.wait_for(|stop| *stop) => break,
            chunk = chunks.recv() => chunk.ok_or(ImportError::Reader)??,
        };
        let Some(chunk) = chunk else {
            summary.complete = true;
            break;
        };
        let stored = writer.store(chunk).await?;
        summary.lines = stored.end.lines;
        summary.stored += stored.stored;
        summary.present += stored.present;
        progress(Progress {
            resumed_at: summary.resumed_at,
            lines: stored.end.lines,
            bytes: stored.end.bytes,
            consumed: consumed.load(Ordering::Relaxed),
        });
    }
    summary.last_position = writer.last_position();
    summary.took = Timing {
        total: began.elapsed(),
        parsing: Duration::from_micros(parsing.load(Ordering::Relaxed)),
        ..writer.timing()
    };
    writer.end(summary.complete).await?;
    Ok(summary)
}

/// What the reading thread sends: chunks, then `None`, or an error.
type Chunks = mpsc::Receiver<Result<Option<Chunk>, ImportError>>;

/// Reads and encodes chunks in a thread of its own, which ends with the input, with an error, or when nobody takes its
/// chunks any more. Also returns the microseconds it was busy. It is not one of the runtime's threads, because those are
/// waited for, and a read from a terminal may never end.
fn read_ahead(
    input: Input,
    done: Mark,
    options: &Options,
    now: Micros,
) -> (Arc<AtomicU64>, Chunks) {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let busy = Arc::new(AtomicU64::new(0));
    let parser = Parser::new(&options.name, now);
    let lines_per_chunk = options.chunk.max(1);
    let spent = busy.clone();
    std::thread::spawn(move || {
        let mut lines = match begin_reading(input, &done) {
            Ok(lines) => lines,
            Err(error) => {
                // Nobody waits any more: then the error does not matter either.
                let _ = sender.blocking_send(Err(error));
                return;
            }
        };
        let mut text = Vec::new();
        loop {
            let began = Instant::now();
            let chunk = next_chunk(&mut lines, &parser, &mut text, lines_per_chunk);
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            spent.fetch_add(micros, Ordering::Relaxed);
            let last = !matches!(chunk, Ok(Some(_)));
            if sender.blocking_send(chunk).is_err() || last {
                return;
            }
        }
    });
    (busy, receiver)
}

fn begin_reading(input: Input, done: &Mark) -> Result<Lines, ImportError> {
    let mut lines = Lines::new(input)?;
    lines.skip(done)?;
    Ok(lines)
}

fn next_chunk(
    lines: &mut Lines,
    parser: &Parser,
    text: &mut Vec<u8>,
    count: usize,
) -> Result<Option<Chunk>, ImportError> {
    let first = lines.passed() + 1;
    if !lines.read(text, count, CHUNK_BYTES)? {
        return Ok(None);
    }
    let mut chunk = parser.chunk(text, first)?;
    chunk.end = lines.mark();
    Ok(Some(chunk))
}
