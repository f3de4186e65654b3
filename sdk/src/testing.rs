//! Tests for projections, natively in `cargo test`: given these events, expect those rows.
//!
//! ```
//! # use gobo_sdk::prelude::*;
//! # #[derive(ReadModel, Clone)]
//! # struct Counter { #[key] name: String, count: i64 }
//! # #[payload]
//! # struct Counted<'e> { name: Cow<'e, str> }
//! # #[derive(Events)]
//! # enum CounterEvent<'e> { Counted(Counted<'e>) }
//! # struct Counters;
//! # impl Projection for Counters {
//! #     type Event<'e> = CounterEvent<'e>;
//! #     type ReadModels = Counter;
//! #     fn handle(CounterEvent::Counted(c): &CounterEvent<'_>, _: &Meta<'_>, rows: &mut Rows) -> Result {
//! #         let new = || Counter { name: c.name.to_string(), count: 0 };
//! #         rows.modify_or_insert::<Counter, _>(&c.name, new, |counter| counter.count += 1)
//! #     }
//! # }
//! use gobo_sdk::serde_json::json;
//! use gobo_sdk::testing::{event, given};
//!
//! given::<Counters>([
//!     event("Counted", json!({"name": "a"})).stream("counter-a").at("2024-02-29T12:00:00Z"),
//!     event("Counted", json!({"name": "a"})).stream("counter-a"),
//! ])
//! .expect([Counter { name: "a".into(), count: 2 }]);
//! ```
//!
//! Every test runs its events several times, cut into batches in different
//! ways, and fails when that can be seen in the rows.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;

use serde_json::Value;

use crate::log::LogLine;
use crate::{Failure, Projection, ReadModel, Timestamp};

mod diff;
mod engine;

pub use engine::Engine;

/// An event for a test. See [`event`].
#[derive(Clone, Debug)]
pub struct TestEvent {
    pub(crate) event_type: String,
    pub(crate) data: String,
    pub(crate) metadata: Option<String>,
    pub(crate) stream_id: String,
    pub(crate) occurred_at: Timestamp,
    pub(crate) position: i64,
    pub(crate) version: i64,
}

/// An event of this type with this data, in a stream called `test`, at the beginning of the year 2000.
#[must_use]
pub fn event(event_type: &str, data: Value) -> TestEvent {
    event_text(event_type, data.to_string())
}

/// An event whose data is this JSON text, digit for digit.
#[must_use]
pub fn event_text(event_type: &str, data: impl Into<String>) -> TestEvent {
    TestEvent {
        event_type: event_type.to_owned(),
        data: data.into(),
        metadata: None,
        stream_id: "test".to_owned(),
        occurred_at: Timestamp::default(),
        position: 0,
        version: 0,
    }
}

impl TestEvent {
    /// The stream that it belongs to; its version there follows from the order of the events.
    #[must_use]
    pub fn stream(mut self, stream_id: impl Into<String>) -> Self {
        self.stream_id = stream_id.into();
        self
    }

    /// When it happened, and was recorded: RFC 3339.
    ///
    /// # Panics
    /// When that is no time.
    #[must_use]
    #[track_caller]
    pub fn at(mut self, time: &str) -> Self {
        self.occurred_at = match Timestamp::parse(time) {
            Ok(time) => time,
            Err(error) => panic!("{error}"),
        };
        self
    }

    /// Its metadata.
    #[must_use]
    pub fn metadata(mut self, metadata: Value) -> Self {
        self.metadata = Some(metadata.to_string());
        self
    }

    /// Its position in the order of all events; else they are counted from 1.
    #[must_use]
    pub fn position(mut self, position: i64) -> Self {
        self.position = position;
        self
    }
}

/// Numbers events as an event store would: positions from 1, versions from 0 in every stream.
#[must_use]
pub fn number(events: impl IntoIterator<Item = TestEvent>) -> Vec<TestEvent> {
    let mut versions: BTreeMap<String, i64> = BTreeMap::new();
    let mut last = 0;
    let mut numbered: Vec<TestEvent> = events.into_iter().collect();
    for event in &mut numbered {
        let next = versions.entry(event.stream_id.clone()).or_insert(0);
        event.version = *next;
        *next += 1;
        event.position = event.position.max(last + 1);
        last = event.position;
    }
    numbered
}

/// Runs a projection over these events: in one batch, one by one, in pairs, and in batches of random sizes.
///
/// # Panics
/// When the ways do not lead to the same rows, or to the same failure.
#[must_use]
#[track_caller]
pub fn given<P: Projection>(events: impl IntoIterator<Item = TestEvent>) -> Outcome<P> {
    let events = number(events);
    let whole = Outcome::run(&events, fixed(events.len(), events.len().max(1)));
    let one_by_one = Outcome::run(&events, fixed(events.len(), 1));
    let mut others = vec![("in pairs".to_owned(), fixed(events.len(), 2))];
    others.extend((1..=3).map(|seed| {
        (
            format!("in random batches, seed {seed}"),
            random(events.len(), seed),
        )
    }));
    one_by_one.assert_like(&whole, "in one batch");
    for (way, batches) in others {
        one_by_one.assert_like(&Outcome::run(&events, batches), &way);
    }
    // A failure keeps the events before it only where they had batches of their own.
    if whole.failure.is_some() {
        one_by_one
    } else {
        whole
    }
}

/// Batches of one size.
fn fixed(events: usize, size: usize) -> Vec<Range<usize>> {
    (0..events)
        .step_by(size)
        .map(|start| start..(start + size).min(events))
        .collect()
}

/// Batches of sizes that look random and are the same every time (the generator is SplitMix64).
fn random(events: usize, seed: u64) -> Vec<Range<usize>> {
    let mut state = seed;
    let mut batches = Vec::new();
    let mut start = 0;
    while start < events {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let size = 1 + (mixed ^ (mixed >> 31)) as usize % 7;
        batches.push(start..(start + size).min(events));
        start += size;
    }
    batches
}

/// What came of a run.
pub struct Outcome<P: Projection> {
    engine: Engine<P>,
    failure: Option<(usize, String)>,
}

impl<P: Projection> Outcome<P> {
    fn run(events: &[TestEvent], batches: Vec<Range<usize>>) -> Self {
        let mut engine = Engine::new();
        for batch in batches {
            if let Err(Failure { event, message }) = engine.apply(&events[batch.clone()]) {
                return Self {
                    engine,
                    failure: Some((batch.start + event as usize, message)),
                };
            }
        }
        Self {
            engine,
            failure: None,
        }
    }

    #[track_caller]
    fn assert_like(&self, other: &Self, way: &str) {
        assert_eq!(
            self.failure, other.failure,
            "the size of a batch shows: one by one the events end with the left failure, {way} with the right one"
        );
        if self.failure.is_none() {
            let differences = diff::engines(&self.engine, &other.engine);
            assert!(
                differences.is_empty(),
                "the size of a batch shows in the rows (expected: one by one, found: {way}):\n{differences}"
            );
        }
    }

    /// Asserts that the read model holds exactly these rows. Decimals are compared as numbers.
    ///
    /// # Panics
    /// With the differences, column by column.
    #[track_caller]
    pub fn expect<R: ReadModel>(&self, rows: impl IntoIterator<Item = R>) -> &Self {
        self.assert_no_failure();
        let differences = diff::rows(
            &rows.into_iter().collect::<Vec<_>>(),
            &self.engine.rows::<R>(),
        );
        assert!(
            differences.is_empty(),
            "read model `{}` differs:\n{differences}",
            R::TABLE.name
        );
        self
    }

    /// Asserts that an event failed with a message that contains this text.
    ///
    /// # Panics
    /// When none did, or with another message.
    #[track_caller]
    pub fn expect_error(&self, text: &str) -> &Self {
        match &self.failure {
            Some((_, message)) => assert!(message.contains(text), "the error is: {message}"),
            None => panic!("every event succeeded"),
        }
        self
    }

    /// The rows of a read model, in the order of their keys' bytes.
    ///
    /// # Panics
    /// When an event failed.
    #[track_caller]
    #[must_use]
    pub fn rows<R: ReadModel>(&self) -> Vec<R> {
        self.assert_no_failure();
        self.engine.rows()
    }

    /// What the handlers logged.
    #[must_use]
    pub fn log(&self) -> &[LogLine] {
        self.engine.log()
    }

    #[track_caller]
    fn assert_no_failure(&self) {
        if let Some((event, message)) = &self.failure {
            panic!("event {event} failed: {message}");
        }
    }
}

impl<P: Projection> Debug for Outcome<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outcome")
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}
