//! The plugin's side of the contract: the exports of a WebAssembly module.
//!
//! An instance serves one batch: the engine takes a fresh one for the next, which
//! costs nothing measurable. So the batch is leaked, and the events borrow from it
//! for the rest of the instance's life without a single unsafe line here.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::Once;

use crate::log::{Level, LogLine};
use crate::{Batch, Error, Exported, Failure, Session, Step};

#[allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated: the canonical ABI passes lists as pointer and length"
)]
#[doc(hidden)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "projection",
        pub_export_macro: true,
        export_macro_name: "__export_component",
        default_bindings_module: "gobo_sdk::guest::bindings",
    });
}

use bindings::log as host;

thread_local! {
    static SESSION: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
    static HANDLING: Cell<Option<i64>> = const { Cell::new(None) };
}

/// Notes the event that is being handled, for the message of a panic.
pub(crate) fn handling(position: i64) {
    HANDLING.set(Some(position));
}

/// A projection as the component's exports.
pub struct Component<P>(PhantomData<P>);

impl<P: Exported> bindings::Guest for Component<P> {
    fn describe() -> String {
        crate::describe::<P>()
    }

    fn begin(batch: Vec<u8>) -> Result<bindings::Step, bindings::Failure> {
        log_panics();
        let begun = Batch::new(batch, P::UPCASTS).map_err(Failure::from);
        let begun = begun.and_then(|batch| Session::<P>::new(Box::leak(Box::new(batch))));
        let mut session = begun.map_err(into_guest_failure)?;
        let outcome = session.begin();
        finish(session, outcome)
    }

    fn resume(rows: Vec<u8>) -> Result<bindings::Step, bindings::Failure> {
        let session = SESSION
            .take()
            .and_then(|session| session.downcast::<Session<'static, P>>().ok());
        let Some(mut session) = session else {
            return Err(into_guest_failure(
                Error::new("`resume` without `begin`").into(),
            ));
        };
        let outcome = session.resume(rows);
        finish(*session, outcome)
    }
}

/// Hands the outcome over, and keeps the session while rows are outstanding.
fn finish<P: Exported>(
    mut session: Session<'static, P>,
    outcome: Result<Step, Failure>,
) -> Result<bindings::Step, bindings::Failure> {
    HANDLING.set(None);
    for LogLine { level, message } in session.take_log() {
        host::write(into_guest_level(level), &message);
    }
    match outcome.map_err(into_guest_failure)? {
        Step::Need(keys) => {
            SESSION.set(Some(Box::new(session)));
            Ok(bindings::Step::Need(keys))
        }
        Step::Done(changes) => {
            // The instance ends with the batch: there is nobody to give the memory back to.
            std::mem::forget(session);
            Ok(bindings::Step::Done(changes))
        }
    }
}

fn into_guest_failure(failure: Failure) -> bindings::Failure {
    bindings::Failure {
        event: failure.event,
        message: failure.message,
    }
}

fn into_guest_level(level: Level) -> host::Level {
    match level {
        Level::Debug => host::Level::Debug,
        Level::Info => host::Level::Info,
        Level::Warn => host::Level::Warn,
        Level::Error => host::Level::Error,
    }
}

/// A panic ends the instance as a trap, which has no message: so it is logged before.
fn log_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let event = HANDLING.get().map_or_else(String::new, |position| {
                format!(", while handling the event at position {position}")
            });
            host::write(host::Level::Error, &format!("{panic}{event}"));
        }));
    });
}

/// Emits the exports into the author's crate.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_guest {
    ($projection:ident) => {
        const _: () = {
            type Component = $crate::guest::Component<$projection>;
            $crate::guest::bindings::__export_component!(Component with_types_in $crate::guest::bindings);
        };
    };
}
