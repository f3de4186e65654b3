//! Frames: PostgreSQL binary tuples, one directly after the other (`wit/FRAMES.md`).

use crate::{Error, Result};

/// The fields of a frame, read from its start to its end.
#[derive(Clone, Debug)]
pub struct FrameReader<'f> {
    bytes: &'f [u8],
    read: usize,
}

impl<'f> FrameReader<'f> {
    /// Reads a frame from its first tuple on.
    #[must_use]
    pub fn new(bytes: &'f [u8]) -> Self {
        Self { bytes, read: 0 }
    }

    /// Where the next tuple or field begins.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.read
    }

    /// Whether every tuple has been read.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.read == self.bytes.len()
    }

    /// The number of fields of the next tuple.
    #[inline]
    pub fn tuple(&mut self) -> Result<usize> {
        let count = i16::from_be_bytes(self.array()?);
        usize::try_from(count).map_err(|_| Error::new(format_args!("a tuple of {count} fields")))
    }

    /// The next field, `None` for NULL.
    #[inline]
    pub fn field(&mut self) -> Result<Option<&'f [u8]>> {
        let length = i32::from_be_bytes(self.array()?);
        match usize::try_from(length) {
            Ok(length) => self.take(length).map(Some),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(Error::new(format_args!("a field of length {length}"))),
        }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &'f [u8] {
        &self.bytes[self.read..]
    }

    /// Passes over the next tuple and returns its bytes.
    pub fn skip_tuple(&mut self) -> Result<&'f [u8]> {
        let start = self.read;
        for _ in 0..self.tuple()? {
            self.field()?;
        }
        Ok(&self.bytes[start..self.read])
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'f [u8]> {
        let rest = &self.bytes[self.read..];
        let Some(taken) = rest.get(..length) else {
            return Err(Error::new("the frame ends within a tuple"));
        };
        self.read += length;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        fixed(self.take(N)?)
    }
}

/// The bytes of a type with a fixed width.
pub(crate) fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| {
        Error::new(format_args!(
            "{} bytes where {N} were expected",
            bytes.len()
        ))
    })
}

/// Begins a tuple of so many fields.
pub(crate) fn begin_tuple(out: &mut Vec<u8>, fields: usize) {
    // A read model has at most 200 columns, a key fewer; both are checked when they are declared.
    out.extend_from_slice(&(fields as i16).to_be_bytes());
}

/// Writes a field that is not NULL; `write` appends its bytes.
#[inline]
pub(crate) fn field(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    // A field of 2 GiB does not fit into a guest's memory.
    let length = (out.len() - start - 4) as i32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Writes a NULL.
pub(crate) fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(&(-1_i32).to_be_bytes());
}
