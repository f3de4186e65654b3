//! Events and batches of events, as they come from a source and go to a plugin.

pub(crate) mod moment;

use std::ops::Range;

use uuid::Uuid;

use crate::frame::{Field, FrameError, Reader};

/// The global order of events: strictly increasing, may have holes, 0 is before the first event.
pub type Position = i64;

/// Microseconds since 2000-01-01 00:00:00 UTC, PostgreSQL's own count.
pub type Micros = i64;

/// Microseconds from the Unix epoch to PostgreSQL's.
pub const UNIX_TO_POSTGRES_MICROS: i64 = 946_684_800_000_000;

/// The present moment by this host's clock. Only for measuring and reporting: no result depends on it.
pub fn now_micros() -> Micros {
    let since_unix = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| {
            i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
        });
    since_unix - UNIX_TO_POSTGRES_MICROS
}

/// What the engine itself needs to know of an event; the rest stays in the tuple.
#[derive(Debug, Clone)]
pub struct EventHead {
    /// Its place in the global order.
    pub position: Position,
    /// Its identity.
    pub event_id: Uuid,
    /// When it was stored.
    pub recorded_at: Micros,
    tuple: Range<usize>,
    stream_id: Range<usize>,
    kind: Range<usize>,
}

/// Consecutive events of a source (those of unwanted types left out), in ascending order of position.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    frame: Vec<u8>,
    events: Vec<EventHead>,
    /// Every event at or below this position is in this batch, or before it, or not wanted.
    pub through: Position,
}

/// How many fields an event's tuple has (FRAMES.md, "begin").
pub const EVENT_FIELDS: usize = 9;

/// Their names, for messages.
const FIELD_NAMES: [&str; EVENT_FIELDS] = [
    "position",
    "stream_id",
    "version",
    "type",
    "data",
    "metadata",
    "event_id",
    "occurred_at",
    "recorded_at",
];

/// The fields of a tuple that is an event, without allocating: this runs once per event that is read.
fn fields(tuple: &[u8]) -> Result<[Field<'_>; EVENT_FIELDS], FrameError> {
    let malformed = |what: &str| FrameError {
        at: 0,
        what: format!("an event's tuple {what}"),
    };
    let mut reader = Reader::new(tuple);
    if reader.count()? != EVENT_FIELDS {
        return Err(malformed("has not nine fields"));
    }
    let mut fields = [None; EVENT_FIELDS];
    for field in &mut fields {
        *field = reader.field()?;
    }
    if !reader.is_at_end() {
        return Err(malformed("is followed by more bytes"));
    }
    Ok(fields)
}

impl Batch {
    /// An empty batch which says that nothing is wanted up to `through`.
    pub fn empty(through: Position) -> Self {
        Self {
            through,
            ..Self::default()
        }
    }

    /// Appends one event, given as a tuple of nine fields.
    ///
    /// Everything that a later reader relies on is checked: the widths, UTF-8, finite times, NULL only as metadata. The
    /// error names the field.
    pub fn push(&mut self, tuple: &[u8]) -> Result<(), FrameError> {
        let start = self.frame.len();
        let malformed = |field: usize, what: &str| FrameError {
            at: start,
            what: format!("the event's {} {what}", FIELD_NAMES[field]),
        };
        let fields = fields(tuple)?;
        let given = |index: usize| fields[index].ok_or_else(|| malformed(index, "is NULL"));
        let int8 = |index: usize| {
            let bytes = given(index)?;
            let bytes = bytes.try_into().map_err(|_| malformed(index, "is no int8"));
            bytes.map(i64::from_be_bytes)
        };
        let time = |index: usize| match int8(index)? {
            i64::MIN | i64::MAX => Err(malformed(index, "is infinite")),
            micros => Ok(micros),
        };
        let text = |index: usize| {
            let bytes = given(index)?;
            std::str::from_utf8(bytes).map_err(|_| malformed(index, "is not UTF-8"))?;
            let offset = bytes.as_ptr().addr() - tuple.as_ptr().addr();
            Ok(start + offset..start + offset + bytes.len())
        };
        let head = EventHead {
            position: int8(0)?,
            stream_id: text(1)?,
            kind: text(3)?,
            event_id: Uuid::from_slice(given(6)?).map_err(|_| malformed(6, "is no uuid"))?,
            recorded_at: time(8)?,
            tuple: start..start + tuple.len(),
        };
        int8(2)?;
        text(4)?;
        if fields[5].is_some() {
            text(5)?;
        }
        time(7)?;
        self.frame.extend_from_slice(tuple);
        self.events.push(head);
        Ok(())
    }

    /// Appends event `index` of `other`.
    pub fn push_from(&mut self, other: &Batch, index: usize) {
        let head = &other.events[index];
        let start = self.frame.len();
        let moved = |range: &Range<usize>| {
            range.start - head.tuple.start + start..range.end - head.tuple.start + start
        };
        self.frame
            .extend_from_slice(&other.frame[head.tuple.clone()]);
        self.events.push(EventHead {
            tuple: moved(&head.tuple),
            stream_id: moved(&head.stream_id),
            kind: moved(&head.kind),
            ..head.clone()
        });
    }

    /// All tuples, one after the other: the frame that `begin` takes.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// The events' heads, in order.
    pub fn events(&self) -> &[EventHead] {
        &self.events
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The stream of event `index`.
    pub fn stream_id(&self, index: usize) -> &str {
        self.text(&self.events[index].stream_id)
    }

    /// The type of event `index`.
    pub fn kind(&self, index: usize) -> &str {
        self.text(&self.events[index].kind)
    }

    /// What happened in event `index`: the text of a JSON value.
    pub fn data(&self, index: usize) -> &str {
        self.json(index, 4).unwrap_or_default()
    }

    /// What the producer of event `index` noted beside it: the text of a JSON value.
    pub fn metadata(&self, index: usize) -> Option<&str> {
        self.json(index, 5)
    }

    /// The tuple of event `index`.
    pub fn tuple(&self, index: usize) -> &[u8] {
        &self.frame[self.events[index].tuple.clone()]
    }

    fn json(&self, index: usize, field: usize) -> Option<&str> {
        // Both were checked when the event was pushed.
        let fields = fields(self.tuple(index)).ok()?;
        std::str::from_utf8(fields[field]?).ok()
    }

    fn text(&self, range: &Range<usize>) -> &str {
        // Checked when the event was pushed.
        std::str::from_utf8(&self.frame[range.clone()]).unwrap_or_default()
    }
}
