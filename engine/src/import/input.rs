//! What is imported: a file or standard input, decompressed, cut into whole lines and hashed on the way.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::ImportError;
use super::chunk::Mark;

const BUFFER: usize = 1 << 20;
/// No line is longer: its event could hardly be stored.
const MAX_LINE: usize = 64 << 20;

/// Where lines come from.
pub struct Input {
    reader: Box<dyn Read + Send>,
    /// How many bytes there are, compressed as they may be, if that is known.
    size: Option<u64>,
    consumed: Arc<AtomicU64>,
}

impl Input {
    /// A file.
    pub fn file(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let size = metadata.is_file().then_some(metadata.len());
        Ok(Self::new(Box::new(file), size))
    }

    /// Standard input.
    pub fn stdin() -> Self {
        Self::new(Box::new(io::stdin()), None)
    }

    /// Anything else; `size` is only for reporting progress.
    pub fn new(reader: Box<dyn Read + Send>, size: Option<u64>) -> Self {
        let consumed = Arc::new(AtomicU64::new(0));
        Self {
            reader: Box::new(Counted {
                inner: reader,
                consumed: consumed.clone(),
            }),
            size,
            consumed,
        }
    }

    /// How many bytes there are, if that is known.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    pub(super) fn consumed(&self) -> Arc<AtomicU64> {
        self.consumed.clone()
    }
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// The name of an import that was given none: the hash of its file's bytes.
pub fn content_name(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut reader = BufReader::with_capacity(BUFFER, File::open(path)?);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        hash.update(bytes);
        let length = bytes.len();
        reader.consume(length);
    }
    let hex: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok(format!("sha256:{hex}"))
}

/// The decompressed lines, and how far they have been read.
pub(super) struct Lines {
    reader: Box<dyn BufRead>,
    hash: Sha256,
    bytes: u64,
    lines: u64,
}

impl Lines {
    /// Recognises zstd and gzip by their first bytes, so that it works for standard input as well.
    pub(super) fn new(input: Input) -> io::Result<Self> {
        let mut raw = BufReader::with_capacity(BUFFER, input.reader);
        let reader: Box<dyn BufRead> = match raw.fill_buf()? {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(BufReader::with_capacity(
                BUFFER,
                zstd::stream::read::Decoder::with_buffer(raw)?,
            )),
            [0x1f, 0x8b, ..] => Box::new(BufReader::with_capacity(
                BUFFER,
                flate2::bufread::MultiGzDecoder::new(raw),
            )),
            _ => Box::new(raw),
        };
        Ok(Self {
            reader,
            hash: Sha256::new(),
            bytes: 0,
            lines: 0,
        })
    }

    /// Where the next line begins.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            bytes: self.bytes,
            lines: self.lines,
            prefix: self.hash.clone().finalize().into(),
        }
    }

    /// How many lines were read.
    pub(super) fn passed(&self) -> u64 {
        self.lines
    }

    /// Passes over what an earlier run has imported, and refuses when it is not the same text.
    pub(super) fn skip(&mut self, done: &Mark) -> Result<(), ImportError> {
        let changed = |what: &str| ImportError::Changed {
            what: what.to_owned(),
            lines: done.lines,
        };
        let mut left = done.bytes;
        while left > 0 {
            let bytes = self.reader.fill_buf()?;
            if bytes.is_empty() {
                return Err(changed("is shorter than that"));
            }
            let length = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.hash.update(&bytes[..length]);
            self.reader.consume(length);
            left -= length as u64;
        }
        self.bytes = done.bytes;
        self.lines = done.lines;
        if self.mark().prefix != done.prefix {
            return Err(changed("begins with other text"));
        }
        Ok(())
    }

    /// Reads whole lines into `text`, which is cleared first: `count` of them, fewer when they have `size` bytes by then or
    /// the input ends. Returns whether there were any.
    pub(super) fn read(
        &mut self,
        text: &mut Vec<u8>,
        count: usize,
        size: usize,
    ) -> Result<bool, ImportError> {
        text.clear();
        for _ in 0..count {
            if text.len() >= size || !self.line(text)? {
                break;
            }
            self.lines += 1;
        }
        self.hash.update(&text);
        self.bytes += text.len() as u64;
        Ok(!text.is_empty())
    }

    fn line(&mut self, text: &mut Vec<u8>) -> Result<bool, ImportError> {
        let start = text.len();
        let read = (&mut self.reader)
            .take(MAX_LINE as u64)
            .read_until(b'\n', text)?;
        if read == MAX_LINE && text.last() != Some(&b'\n') {
            return Err(ImportError::Line {
                line: self.lines + 1,
                reason: format!("it is longer than {MAX_LINE} bytes"),
            });
        }
        Ok(text.len() > start)
    }
}

struct Counted {
    inner: Box<dyn Read + Send>,
    consumed: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.consumed.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}
