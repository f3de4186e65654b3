//! Tuples as FRAMES.md describes them: read and written by hand.

/// A tuple's fields, `None` for NULL.
pub type Tuple = Vec<Option<Vec<u8>>>;

/// Splits a frame into its tuples.
///
/// # Errors
/// When the frame ends within a tuple, or a length makes no sense.
pub fn read(mut frame: &[u8]) -> Result<Vec<Tuple>, String> {
    let mut tuples = Vec::new();
    while !frame.is_empty() {
        let count = i16::from_be_bytes(take(&mut frame)?);
        let mut tuple = Tuple::new();
        for _ in 0..count {
            let length = i32::from_be_bytes(take(&mut frame)?);
            tuple.push(match usize::try_from(length) {
                Ok(length) => {
                    let (field, rest) = frame
                        .split_at_checked(length)
                        .ok_or("a field beyond the frame's end")?;
                    frame = rest;
                    Some(field.to_vec())
                }
                Err(_) if length == -1 => None,
                Err(_) => return Err(format!("a field of length {length}")),
            });
        }
        tuples.push(tuple);
    }
    Ok(tuples)
}

fn take<const N: usize>(frame: &mut &[u8]) -> Result<[u8; N], String> {
    let (bytes, rest) = frame
        .split_first_chunk()
        .ok_or("the frame ends within a tuple")?;
    *frame = rest;
    Ok(*bytes)
}

/// Appends a tuple to a frame.
pub fn write(frame: &mut Vec<u8>, tuple: &[Option<Vec<u8>>]) {
    frame.extend_from_slice(&(tuple.len() as i16).to_be_bytes());
    for field in tuple {
        match field {
            Some(bytes) => {
                frame.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
                frame.extend_from_slice(bytes);
            }
            None => frame.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }
}

/// Reads hexadecimal, spaces allowed.
///
/// # Errors
/// When the text is something else.
pub fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect();
    let digits = digits
        .filter(|digits| digits.len() % 2 == 0)
        .ok_or_else(|| format!("{text:?} is not hexadecimal"))?;
    Ok(digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect())
}

/// An `int8`, 0 for NULL or a field of another width.
#[must_use]
pub fn int8(field: &Option<Vec<u8>>) -> i64 {
    let bytes = field.as_deref().and_then(|bytes| bytes.try_into().ok());
    i64::from_be_bytes(bytes.unwrap_or_default())
}
