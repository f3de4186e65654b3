//! Changes: what a plugin wants done to rows, decoded from its frames and checked byte by byte.

use std::fmt;
use std::sync::Arc;

use crate::frame::{Field, FrameError, Reader, write_count, write_field};
use crate::read_model::{ReadModel, value};

/// An upsert or a delete of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Index of the event that made it, in its batch.
    pub event: u32,
    /// Index of the read model.
    pub model: usize,
    /// The key's fields, each with its length.
    pub key: Arc<[u8]>,
    /// The row's fields, each with its length, as PostgreSQL would return them; `None` deletes the row.
    pub row: Option<Arc<[u8]>>,
}

/// The key of a row that a plugin asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Index of the read model.
    pub model: usize,
    /// The key's fields, each with its length.
    pub key: Arc<[u8]>,
}

/// A frame that breaks a rule of FRAMES.md.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the plugin returned an invalid frame: {what}")]
pub struct Invalid {
    /// The event to blame, if the frame says so.
    pub event: Option<u32>,
    /// The broken rule, with the change or key, the read model and the column.
    pub what: String,
}

impl Invalid {
    fn new(event: Option<u32>, what: impl Into<String>) -> Self {
        Self {
            event,
            what: what.into(),
        }
    }
}

impl From<FrameError> for Invalid {
    fn from(error: FrameError) -> Self {
        Self::new(None, error.to_string())
    }
}

/// Decodes the changes of a batch of `events` events.
pub fn decode_changes(
    frame: &[u8],
    models: &[ReadModel],
    events: usize,
) -> Result<Vec<Change>, Invalid> {
    let mut reader = Reader::new(frame);
    let mut fields = Vec::new();
    let mut changes: Vec<Change> = Vec::new();
    while !reader.is_at_end() {
        let tuple = reader.tuple(&mut fields)?;
        let place = Place(changes.len());
        let change = decode_change(tuple, &fields, models, events, place)?;
        if changes.last().is_some_and(|last| last.event > change.event) {
            return Err(Invalid::new(
                Some(change.event),
                format!("{place}: its event index is lower than that of the change before"),
            ));
        }
        changes.push(change);
    }
    Ok(changes)
}

/// Which change it is, for messages; made into text only when there is one.
#[derive(Clone, Copy)]
struct Place(usize);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "change {}", self.0)
    }
}

fn decode_change(
    tuple: &[u8],
    fields: &[Field<'_>],
    models: &[ReadModel],
    events: usize,
    place: Place,
) -> Result<Change, Invalid> {
    let [event, model, operation, values @ ..] = fields else {
        return Err(Invalid::new(
            None,
            format!("{place}: fewer than three fields"),
        ));
    };
    let event = int(*event)
        .map(i32::from_be_bytes)
        .and_then(|event| u32::try_from(event).ok())
        .filter(|&event| (event as usize) < events)
        .ok_or_else(|| {
            Invalid::new(
                None,
                format!("{place}: its event index is not one of the {events} events"),
            )
        })?;
    let invalid = |what: String| Invalid::new(Some(event), format!("{place}: {what}"));
    let (index, model) = find_model(*model, models).map_err(invalid)?;
    // The values follow three fields of fixed width: 2 bytes count, then 4+4, 4+2 and 4+2 bytes.
    let region = &tuple[2 + 8 + 6 + operation.map_or(4, |bytes| 4 + bytes.len())..];
    match int(*operation).map(i16::from_be_bytes) {
        Some(0) => {
            let row = check_row(values, region, model).map_err(invalid)?;
            Ok(Change {
                event,
                model: index,
                key: key_of(values, model),
                row: Some(row),
            })
        }
        Some(1) => {
            check_key(values, model).map_err(invalid)?;
            Ok(Change {
                event,
                model: index,
                key: region.into(),
                row: None,
            })
        }
        _ => Err(invalid(
            "its operation is neither 0 (upsert) nor 1 (delete)".to_owned(),
        )),
    }
}

/// Decodes the keys that a plugin asks for.
pub fn decode_needs(frame: &[u8], models: &[ReadModel]) -> Result<Vec<Need>, Invalid> {
    let mut reader = Reader::new(frame);
    let mut fields = Vec::new();
    let mut needs = Vec::new();
    while !reader.is_at_end() {
        let tuple = reader.tuple(&mut fields)?;
        let invalid = |what| Invalid::new(None, format!("key {}: {what}", needs.len()));
        let [model, values @ ..] = fields.as_slice() else {
            return Err(invalid("no field".to_owned()));
        };
        let (index, model) = find_model(*model, models).map_err(invalid)?;
        check_key(values, model).map_err(invalid)?;
        needs.push(Need {
            model: index,
            // After the count and the read model's index: 2 + 4 + 2 bytes.
            key: tuple[8..].into(),
        });
    }
    Ok(needs)
}

/// Appends the answer to one key: the row, or the empty tuple for an absent one.
pub fn write_row(frame: &mut Vec<u8>, model: &ReadModel, row: Option<&[u8]>) {
    match row {
        None => write_count(frame, 0),
        Some(row) => {
            // At most 200 columns (descriptor.rs).
            write_count(frame, model.columns.len() as i16);
            frame.extend_from_slice(row);
        }
    }
}

/// The key of a row that is given as fields.
pub fn key_of(fields: &[Field<'_>], model: &ReadModel) -> Arc<[u8]> {
    let mut key = Vec::with_capacity(48);
    for &index in &model.key {
        write_field(&mut key, fields[index]);
    }
    key.into()
}

fn find_model<'m>(
    field: Field<'_>,
    models: &'m [ReadModel],
) -> Result<(usize, &'m ReadModel), String> {
    int(field)
        .map(i16::from_be_bytes)
        .and_then(|index| usize::try_from(index).ok())
        .and_then(|index| Some((index, models.get(index)?)))
        .ok_or_else(|| {
            format!(
                "its read model is not one of the {} of the descriptor",
                models.len()
            )
        })
}

fn check_row(values: &[Field<'_>], region: &[u8], model: &ReadModel) -> Result<Arc<[u8]>, String> {
    if values.len() != model.columns.len() {
        return Err(format!(
            "a row of read model \"{}\" has {} fields, the descriptor declares {} columns",
            model.name,
            values.len(),
            model.columns.len()
        ));
    }
    let mut rewritten = None;
    for (index, (value, column)) in values.iter().zip(&model.columns).enumerate() {
        let normal = value::check(*value, column).map_err(|what| {
            format!(
                "read model \"{}\", column \"{}\": {what}",
                model.name, column.name
            )
        })?;
        if let Some(normal) = normal {
            rewritten.get_or_insert_with(|| {
                values
                    .iter()
                    .map(|v| v.map(<[u8]>::to_vec))
                    .collect::<Vec<_>>()
            })[index] = Some(normal);
        }
    }
    let Some(values) = rewritten else {
        return Ok(region.into());
    };
    let mut row = Vec::with_capacity(region.len());
    for value in &values {
        write_field(&mut row, value.as_deref());
    }
    Ok(row.into())
}

fn check_key(values: &[Field<'_>], model: &ReadModel) -> Result<(), String> {
    if values.len() != model.key.len() {
        return Err(format!(
            "a key of read model \"{}\" has {} fields, the descriptor declares {}",
            model.name,
            values.len(),
            model.key.len()
        ));
    }
    for (value, column) in values.iter().zip(model.key_columns()) {
        value::check(*value, column).map_err(|what| {
            format!(
                "read model \"{}\", key column \"{}\": {what}",
                model.name, column.name
            )
        })?;
    }
    Ok(())
}

fn int<const N: usize>(field: Field<'_>) -> Option<[u8; N]> {
    field?.try_into().ok()
}
