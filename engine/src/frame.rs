//! PostgreSQL binary tuples: reading and writing the frames that pass between socket, guest and database.
//!
//! `sdk/wit/FRAMES.md` fixes the bytes. Reading never trusts its input: every length is checked, and errors say
//! where in the frame the rule was broken.

use std::fmt;

/// A frame that does not follow FRAMES.md.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} (byte {at} of the frame)")]
pub struct FrameError {
    /// Offset of the byte at which the rule was broken.
    pub at: usize,
    /// The broken rule.
    pub what: String,
}

impl FrameError {
    fn new(at: usize, what: impl fmt::Display) -> Self {
        Self {
            at,
            what: what.to_string(),
        }
    }
}

/// One field of a tuple; `None` is NULL.
pub type Field<'a> = Option<&'a [u8]>;

/// Reads the tuples of a frame one after the other.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    frame: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first tuple of `frame`.
    pub fn new(frame: &'a [u8]) -> Self {
        Self { frame, at: 0 }
    }

    /// Whether the whole frame has been read.
    pub fn is_at_end(&self) -> bool {
        self.at == self.frame.len()
    }

    /// Offset of the next unread byte.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// Reads one tuple into `fields`, which is cleared first, and returns the tuple's own bytes.
    pub fn tuple(&mut self, fields: &mut Vec<Field<'a>>) -> Result<&'a [u8], FrameError> {
        let start = self.at;
        fields.clear();
        for _ in 0..self.count()? {
            fields.push(self.field()?);
        }
        Ok(&self.frame[start..self.at])
    }

    /// Reads a tuple's header: how many fields follow.
    pub fn count(&mut self) -> Result<usize, FrameError> {
        let start = self.at;
        let count = i16::from_be_bytes(self.array("a tuple's field count")?);
        usize::try_from(count).map_err(|_| FrameError::new(start, "a negative field count"))
    }

    /// Reads one field: its length and its bytes.
    pub fn field(&mut self) -> Result<Field<'a>, FrameError> {
        let start = self.at;
        let length = i32::from_be_bytes(self.array("a field's length")?);
        match usize::try_from(length) {
            Ok(length) => Ok(Some(self.take(length, "a field's bytes")?)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(FrameError::new(start, "a negative field length")),
        }
    }

    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], FrameError> {
        let rest = &self.frame[self.at..];
        if rest.len() < length {
            return Err(FrameError::new(
                self.at,
                format_args!("the frame ends inside {what}"),
            ));
        }
        self.at += length;
        Ok(&rest[..length])
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], FrameError> {
        let bytes = self.take(N, what)?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        Ok(array)
    }
}

/// Appends a tuple's header to `frame`.
pub fn write_count(frame: &mut Vec<u8>, fields: i16) {
    frame.extend_from_slice(&fields.to_be_bytes());
}

/// Appends one field to `frame`.
///
/// # Panics
/// When the field is longer than PostgreSQL's limit of 2 GiB; every producer bounds its bytes far below.
pub fn write_field(frame: &mut Vec<u8>, field: Field<'_>) {
    match field {
        None => frame.extend_from_slice(&(-1i32).to_be_bytes()),
        Some(bytes) => {
            let length = i32::try_from(bytes.len()).expect("a field is shorter than 2 GiB");
            frame.extend_from_slice(&length.to_be_bytes());
            frame.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_wrote() {
        let mut frame = Vec::new();
        write_count(&mut frame, 3);
        write_field(&mut frame, Some(b"abc"));
        write_field(&mut frame, None);
        write_field(&mut frame, Some(b""));
        write_count(&mut frame, 0);
        let mut reader = Reader::new(&frame);
        let mut fields = Vec::new();
        let tuple = reader.tuple(&mut fields).unwrap();
        assert_eq!(fields, [Some(&b"abc"[..]), None, Some(&b""[..])]);
        assert_eq!(tuple.len(), frame.len() - 2);
        reader.tuple(&mut fields).unwrap();
        assert!(fields.is_empty() && reader.is_at_end());
    }

    #[test]
    fn refuses_every_truncation_and_negative_length() {
        let mut frame = Vec::new();
        write_count(&mut frame, 1);
        write_field(&mut frame, Some(b"abc"));
        for end in 0..frame.len() {
            assert!(
                Reader::new(&frame[..end]).tuple(&mut Vec::new()).is_err(),
                "{end}"
            );
        }
        assert!(Reader::new(&[0xff, 0xff]).tuple(&mut Vec::new()).is_err());
        let negative = [0, 1, 0xff, 0xff, 0xff, 0xfe];
        assert!(Reader::new(&negative).tuple(&mut Vec::new()).is_err());
    }
}
