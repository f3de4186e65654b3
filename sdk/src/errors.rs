//! What can go wrong in a handler, and the one outcome that is not an error: a row that is not loaded yet.

use std::fmt;

/// The result of a handler and of everything it calls.
pub type Result<T = (), E = Error> = core::result::Result<T, E>;

/// Why an event could not be processed.
///
/// Any error type converts through `?`. Like `anyhow::Error`, and for the same
/// reason, this type does not itself implement [`std::error::Error`].
pub struct Error(Kind);

enum Kind {
    /// The row that was asked for is on its way; the session runs the event again.
    Pending,
    Message(Box<str>),
}

impl Error {
    /// An error with this message. [`bail!`](crate::bail) formats and returns one.
    pub fn new(message: impl fmt::Display) -> Self {
        Self(Kind::Message(message.to_string().into_boxed_str()))
    }

    pub(crate) const fn pending() -> Self {
        Self(Kind::Pending)
    }

    /// The same error with a word about what was being done.
    #[must_use]
    pub fn context(self, what: impl fmt::Display) -> Self {
        match self.0 {
            Kind::Pending => self,
            Kind::Message(message) => Self::new(format_args!("{what}: {message}")),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Pending => f.write_str("the row is not loaded yet"),
            Kind::Message(message) => f.write_str(message),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::new(message)
    }
}

/// Returns from the handler with an error: `bail!("no price for {symbol}")`.
#[macro_export]
macro_rules! bail {
    ($($format:tt)+) => {
        return ::core::result::Result::Err($crate::Error::new(::core::format_args!($($format)+)))
    };
}

/// Returns an error unless the condition holds: `ensure!(quantity.is_positive(), "quantity is {quantity}")`.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($format:tt)+) => {
        if !$condition {
            $crate::bail!($($format)+);
        }
    };
}
