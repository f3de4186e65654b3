//! Messages for the projection's author: kept when the event's effects are kept.

use std::cell::RefCell;
use std::fmt;

/// How important a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the usual four")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How important it is.
    pub level: Level,
    /// What it says.
    pub message: String,
}

/// What one batch may say; the rest is counted.
const MOST_LINES: usize = 1000;
const LONGEST_LINE: usize = 4096;

#[derive(Default)]
struct Lines {
    kept: Vec<LogLine>,
    dropped: usize,
}

thread_local! {
    static LINES: RefCell<Lines> = RefCell::default();
}

/// Notes a message; the macros [`debug!`](crate::debug), [`info!`](crate::info), [`warn!`](crate::warn) and
/// [`error!`](crate::error) format it.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    LINES.with_borrow_mut(|lines| {
        if lines.kept.len() >= MOST_LINES {
            lines.dropped += 1;
            return;
        }
        let mut message = message.to_string();
        if message.len() > LONGEST_LINE {
            message.truncate(message.floor_char_boundary(LONGEST_LINE));
            message.push_str(" ...");
        }
        lines.kept.push(LogLine { level, message });
    });
}

/// Forgets every message since the last call of [`take`].
pub(crate) fn clear() {
    LINES.take();
}

/// The messages since the last call, the number of dropped ones at their end.
pub(crate) fn take() -> Vec<LogLine> {
    let Lines { mut kept, dropped } = LINES.take();
    if dropped > 0 {
        let message = format!("{dropped} more messages of this batch were dropped");
        kept.push(LogLine {
            level: Level::Warn,
            message,
        });
    }
    kept
}

/// Writes a message at a level: `log!(Level::Info, "order {id}")`.
#[macro_export]
macro_rules! log {
    ($level:expr, $($format:tt)+) => {
        $crate::log::write($level, ::core::format_args!($($format)+))
    };
}

/// Writes a message for whoever looks closely.
#[macro_export]
macro_rules! debug {
    ($($format:tt)+) => {
        $crate::log!($crate::log::Level::Debug, $($format)+)
    };
}

/// Writes a message about the normal course.
#[macro_export]
macro_rules! info {
    ($($format:tt)+) => {
        $crate::log!($crate::log::Level::Info, $($format)+)
    };
}

/// Writes a message about something odd.
#[macro_export]
macro_rules! warn {
    ($($format:tt)+) => {
        $crate::log!($crate::log::Level::Warn, $($format)+)
    };
}

/// Writes a message about something wrong.
#[macro_export]
macro_rules! error {
    ($($format:tt)+) => {
        $crate::log!($crate::log::Level::Error, $($format)+)
    };
}
