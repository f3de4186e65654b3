//! A connection whose client must go on reading.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// What a client must take of an answer within its patience, if there is so much.
const LEAST: usize = 64 << 10;

/// Fails when a client has not taken [`LEAST`] bytes of what waits for it within `patience`, nor all of it: else one that
/// stops reading in the middle of an answer, or nearly so, would keep the answer's memory and its place among the
/// connections for as long as it likes.
///
/// The clock runs only while something waits to be written. An answer that has nothing to say for a while is not
/// affected, so streams of server-sent events stay open as long as their heartbeats are taken.
pub(super) struct Patient {
    stream: TcpStream,
    patience: Duration,
    waiting: Option<Waiting>,
}

/// There is more to write than the client takes.
struct Waiting {
    /// When the patience ends.
    until: Pin<Box<Sleep>>,
    /// What the client has taken meanwhile.
    taken: usize,
}

impl Patient {
    pub(super) fn new(stream: TcpStream, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            waiting: None,
        }
    }

    /// What becomes of a write: its outcome, or the end when it has waited for too long.
    fn outcome(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            if let (Some(waiting), Ok(bytes)) = (&mut self.waiting, &written) {
                waiting.taken += bytes;
            }
            self.waiting.take_if(|waiting| waiting.taken >= LEAST);
            return Poll::Ready(written);
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Waiting {
            until: Box::pin(tokio::time::sleep_until(Instant::now() + patience)),
            taken: 0,
        });
        ready!(waiting.until.as_mut().poll(context));
        // What the system has buffered would wait for the client as well: it is thrown away.
        let _ = self.stream.set_zero_linger();
        Poll::Ready(Err(io::Error::new(
            ErrorKind::TimedOut,
            "the client does not read its answer",
        )))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.outcome(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.outcome(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing waits any more: it is asked for when all has been written.
        self.waiting = None;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
