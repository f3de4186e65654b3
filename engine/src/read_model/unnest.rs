//! Rows as array parameters: fields that came from a guest or a socket become `unnest`'s arguments without being
//! re-encoded, because a field in a tuple and an element in an array have the same bytes.

use crate::db::RawParam;
use crate::frame::{FrameError, Reader, write_field};

/// Dimensions, flags, element type, length, lower bound.
const HEADER: usize = 20;

/// One array parameter in the making.
pub struct ArrayParam {
    bytes: Vec<u8>,
    element: u32,
    length: i32,
    has_null: bool,
}

impl ArrayParam {
    /// An array of elements with the type oid `element`.
    pub fn new(element: u32) -> Self {
        Self {
            bytes: vec![0; HEADER],
            element,
            length: 0,
            has_null: false,
        }
    }

    /// Appends an element.
    pub fn push(&mut self, value: Option<&[u8]>) {
        write_field(&mut self.bytes, value);
        self.has_null |= value.is_none();
        self.length += 1;
    }

    /// The array as a parameter.
    pub fn finish(mut self) -> RawParam {
        let dimensions = i32::from(self.length > 0);
        let header = [
            dimensions,
            i32::from(self.has_null),
            self.element.cast_signed(),
            self.length,
            1,
        ];
        for (place, word) in self.bytes.chunks_exact_mut(4).zip(header) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        if self.length == 0 {
            self.bytes.truncate(12);
        }
        RawParam(self.bytes)
    }
}

/// Appends the fields of `region` (fields with their lengths, without a count) to one array each.
pub fn push_fields(arrays: &mut [ArrayParam], region: &[u8]) -> Result<(), FrameError> {
    let mut reader = Reader::new(region);
    for array in arrays {
        array.push(reader.field()?);
    }
    Ok(())
}
