//! Events: the batch as the engine hands it over, and the author's typed enum.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::column::{Scalar, text};
use crate::frame::FrameReader;
use crate::{Error, JsonObject, Result, Timestamp, Upcast, Uuid};

/// The events that a projection handles. `#[derive(Events)]` implements it for an enum.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which events it stands for",
    label = "add `#[derive(Events)]` to this enum"
)]
pub trait Events<'e>: Sized {
    /// The types to be handed over; `None` for every type there is.
    const TYPES: Option<&'static [&'static str]>;

    /// Reads an event's data; `None` for an event that does not matter.
    fn decode(event_type: &str, data: &'e str) -> Result<Option<Self>>;
}

/// What the engine knows about an event besides its data.
#[derive(Clone, Copy, Debug)]
pub struct Meta<'e> {
    /// The place in the order of all events; strictly increasing, may have holes.
    pub position: i64,
    /// The stream that the event belongs to.
    pub stream_id: &'e str,
    /// The place in its stream, from 0.
    pub version: i64,
    /// The type, as it was appended.
    pub event_type: &'e str,
    /// The event's own identifier.
    pub event_id: Uuid,
    /// When it happened, as its producer says.
    pub occurred_at: Timestamp,
    /// When it was stored.
    pub recorded_at: Timestamp,
    metadata: Option<&'e str>,
}

impl<'e> Meta<'e> {
    /// The metadata as a Rust type; `None` for an event without.
    pub fn metadata<T: Deserialize<'e>>(&self) -> Result<Option<T>> {
        let metadata = self.metadata.map(serde_json::from_str).transpose();
        metadata.map_err(|error| Error::new(format_args!("metadata: {error}")))
    }

    /// The metadata's JSON text.
    #[must_use]
    pub fn metadata_text(&self) -> Option<&'e str> {
        self.metadata
    }

    /// `metadata.schema_version`, 1 when it is not given.
    fn schema_version(&self) -> Result<u32> {
        #[derive(Deserialize)]
        struct Versioned {
            schema_version: Option<u32>,
        }
        Ok(self
            .metadata::<Versioned>()?
            .and_then(|metadata| metadata.schema_version)
            .unwrap_or(1))
    }

    /// Names the event in a failure.
    pub(crate) fn failure(&self, error: &Error) -> String {
        format!(
            "{} at position {} (stream {}, version {}): {error}",
            self.event_type, self.position, self.stream_id, self.version
        )
    }
}

/// A batch of events: the engine's bytes, and the data of those events that had to be brought to a newer shape.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    upcast: BTreeMap<usize, Result<String>>,
}

/// An event that is not decoded yet.
pub(crate) struct RawEvent<'b> {
    pub(crate) meta: Meta<'b>,
    pub(crate) data: Result<&'b str>,
}

impl Batch {
    /// Takes the frame that `begin` gets, and applies the upcasts.
    ///
    /// # Errors
    /// When the frame is not as `wit/FRAMES.md` says.
    pub fn new(bytes: Vec<u8>, upcasts: &[Upcast]) -> Result<Self> {
        let mut batch = Self {
            bytes,
            upcast: BTreeMap::new(),
        };
        if upcasts.is_empty() {
            return Ok(batch);
        }
        let mut newer = BTreeMap::new();
        for (index, event) in batch.events().enumerate() {
            let event = event?;
            if let Some(data) = Upcast::apply(upcasts, &event.meta, event.data?).transpose() {
                newer.insert(index, data);
            }
        }
        batch.upcast = newer;
        Ok(batch)
    }

    /// How many events there are, or how many up to the first tuple that cannot be read.
    pub(crate) fn count(&self) -> usize {
        let mut frame = FrameReader::new(&self.bytes);
        std::iter::from_fn(|| frame.skip_tuple().ok().filter(|tuple| !tuple.is_empty())).count()
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = Result<RawEvent<'_>>> {
        let mut frame = FrameReader::new(&self.bytes);
        let mut index = 0;
        std::iter::from_fn(move || {
            if frame.is_at_end() {
                return None;
            }
            let mut event = read_event(&mut frame);
            if let (Ok(event), Some(newer)) = (&mut event, self.upcast.get(&index)) {
                event.data = match newer {
                    Ok(data) => Ok(data.as_str()),
                    Err(error) => Err(Error::new(error)),
                };
            }
            index += 1;
            Some(
                event.map_err(|error| {
                    error.context(format_args!("event {} of the batch", index - 1))
                }),
            )
        })
    }
}

fn read_event<'b>(frame: &mut FrameReader<'b>) -> Result<RawEvent<'b>> {
    let fields = frame.tuple()?;
    if fields != 9 {
        return Err(Error::new(format_args!(
            "an event of {fields} fields instead of 9"
        )));
    }
    let mut next = || {
        frame
            .field()?
            .ok_or_else(|| Error::new("NULL where an event has a value"))
    };
    let (position, stream_id) = (i64::decode(next()?)?, text(next()?)?);
    let (version, event_type) = (i64::decode(next()?)?, text(next()?)?);
    let data = text(next()?)?;
    let metadata = frame.field()?.map(text).transpose()?;
    let mut next = || {
        frame
            .field()?
            .ok_or_else(|| Error::new("NULL where an event has a value"))
    };
    let event_id = Uuid::decode(next()?)?;
    let (occurred_at, recorded_at) = (Timestamp::decode(next()?)?, Timestamp::decode(next()?)?);
    let meta = Meta {
        position,
        stream_id,
        version,
        event_type,
        event_id,
        occurred_at,
        recorded_at,
        metadata,
    };
    Ok(RawEvent {
        meta,
        data: Ok(data),
    })
}

impl Upcast {
    /// The data in its newest shape, `None` when it has it already.
    fn apply(upcasts: &[Self], meta: &Meta<'_>, data: &str) -> Result<Option<String>> {
        if !upcasts
            .iter()
            .any(|upcast| upcast.event_type == meta.event_type)
        {
            return Ok(None);
        }
        let mut version = meta.schema_version()?;
        let mut object = None;
        while let Some(upcast) = upcasts
            .iter()
            .find(|upcast| upcast.event_type == meta.event_type && upcast.from == version)
        {
            let object = match &mut object {
                Some(object) => object,
                None => object.insert(JsonObject::parse(data)?),
            };
            (upcast.step)(object).map_err(|error| {
                error.context(format_args!("upcast from schema version {version}"))
            })?;
            version += 1;
        }
        object.map(|object| object.to_text()).transpose()
    }
}
