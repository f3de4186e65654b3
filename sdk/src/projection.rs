//! The one trait that an author implements.

use crate::{Events, JsonObject, Meta, ReadModels, Result, Rows};

/// A projection: a pure function from events and rows to changed rows.
///
/// All state is in the rows. The same event may be handled more than once before
/// its effects are kept, see [`Rows`]; nobody can tell, because the discarded
/// runs leave nothing behind.
pub trait Projection: Sized + 'static {
    /// The events, an enum with `#[derive(Events)]`.
    type Event<'e>: Events<'e>;

    /// The tables that the projection owns: one read model, or a tuple of them.
    type ReadModels: ReadModels;

    /// What a deploy of changed code does with the rows that are there.
    const ON_CHANGE: OnChange = OnChange::Rebuild;

    /// Steps that bring older events to their newest shape, see [`upcast`].
    const UPCASTS: &'static [Upcast] = &[];

    /// Handles one event.
    ///
    /// # Errors
    /// Any error stops at this event: the projection's policy decides what happens then.
    fn handle(event: &Self::Event<'_>, at: &Meta<'_>, rows: &mut Rows) -> Result;

    /// Names the rows that [`Projection::handle`] will need, with [`Rows::want`], as far as the event
    /// alone tells. It saves running the handlers twice, and changes no result.
    fn want(event: &Self::Event<'_>, at: &Meta<'_>, rows: &mut Rows) {
        let _ = (event, at, rows);
    }
}

/// What a deploy of changed code does with the rows that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnChange {
    /// The new code starts from the first event, beside the old one, and takes over when it has caught up.
    Rebuild,
    /// The new code goes on where the old one stopped, with its rows, when the tables are compatible.
    Continue,
}

/// One step from an older shape of an event's data to the next.
#[derive(Clone, Copy, Debug)]
pub struct Upcast {
    pub(crate) event_type: &'static str,
    pub(crate) from: u32,
    pub(crate) step: fn(&mut JsonObject) -> Result,
}

/// Registers a step: events of this type whose `metadata.schema_version` (1 when absent) is `from` are
/// changed by `step` and are then of version `from + 1`. Steps follow one another, so that the handler
/// sees only the newest shape.
///
/// ```
/// # use gobo_sdk::{Upcast, upcast};
/// const UPCASTS: &[Upcast] = &[
///     upcast("OrderCreated", 1, |data| { data.rename("qty", "quantity"); Ok(()) }),
///     upcast("OrderCreated", 2, |data| data.set_default("currency", "EUR")),
/// ];
/// ```
#[must_use]
pub const fn upcast(
    event_type: &'static str,
    from: u32,
    step: fn(&mut JsonObject) -> Result,
) -> Upcast {
    Upcast {
        event_type,
        from,
        step,
    }
}

/// A projection with its name and version, which [`export!`](crate::export) takes from the crate.
pub trait Exported: Projection {
    /// The projection's name.
    const NAME: &'static str;
    /// The author's version, shown to operators.
    const VERSION: &'static str;
}
