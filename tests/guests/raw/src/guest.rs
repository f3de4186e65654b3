//! The exports.

use std::cell::RefCell;

use crate::model;
use crate::run::{self, Run};

#[allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated: the canonical ABI passes lists as pointer and length"
)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../sdk/wit", world: "projection" });

    struct Raw;
    export!(Raw with_types_in self);

    impl Guest for Raw {
        fn describe() -> String {
            super::model::descriptor()
        }

        fn begin(batch: Vec<u8>) -> Result<Step, Failure> {
            super::begin(&batch)
        }

        fn resume(rows: Vec<u8>) -> Result<Step, Failure> {
            super::resume(&rows)
        }
    }
}

use bindings::{Failure, Step, log};

thread_local! {
    static RUN: RefCell<Option<Run>> = const { RefCell::new(None) };
}

fn begin(batch: &[u8]) -> Result<Step, Failure> {
    let (run, step) = Run::begin(batch).map_err(failure)?;
    Ok(finish(run, step))
}

fn resume(rows: &[u8]) -> Result<Step, Failure> {
    let mut run = RUN
        .take()
        .ok_or_else(|| failure((0, "resume without begin".to_owned())))?;
    let step = run.resume(rows).map_err(failure)?;
    Ok(finish(run, step))
}

fn finish(run: Run, step: run::Step) -> Step {
    match step {
        run::Step::Need(keys) => {
            RUN.set(Some(run));
            Step::Need(keys)
        }
        run::Step::Done(changes) => {
            for (level, message) in &run.log {
                let level = match level.as_str() {
                    "debug" => log::Level::Debug,
                    "warn" => log::Level::Warn,
                    "error" => log::Level::Error,
                    _ => log::Level::Info,
                };
                log::write(level, message);
            }
            Step::Done(changes)
        }
    }
}

fn failure((event, message): run::Failure) -> Failure {
    Failure { event, message }
}
