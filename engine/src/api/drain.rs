//! What a client still sends when its request has been answered already.
//!
//! Most clients look at the answer only when they have sent everything, and a connection that is closed with bytes unread
//! is reset, which takes the answer away from them. So the rest of a body is read and thrown away, within bounds, before
//! its answer is sent.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::oneshot;

/// Bytes that are read and thrown away.
const MOST: u64 = 256 << 20;
/// Bytes that are read at once.
const PART: usize = 64 << 10;
/// How long that may take.
const LONGEST: Duration = Duration::from_secs(10);

/// The way back of a request's body from whoever answers the request.
pub(super) struct Rest {
    back: Option<oneshot::Receiver<Unread>>,
    asks_first: bool,
}

struct Unread {
    body: Body,
    touched: bool,
}

impl Rest {
    /// Lends the request's body to whoever answers the request.
    pub(super) fn lend(request: Request) -> (Request, Rest) {
        let asks_first = asks_first(request.headers());
        if request.body().is_end_stream() {
            let back = None;
            return (request, Rest { back, asks_first });
        }
        let (give_back, back) = oneshot::channel();
        let request = request.map(|body| {
            Body::new(Lent {
                body,
                touched: false,
                give_back: Some(give_back),
            })
        });
        let back = Some(back);
        (request, Rest { back, asks_first })
    }

    /// Reads what was left of the body.
    pub(super) async fn drain(self) {
        // Nothing comes back from an answerer that still reads: a task that outlives the request.
        let unread = self.back.and_then(|mut back| back.try_recv().ok());
        let Some(Unread { body, touched }) = unread else {
            return;
        };
        // A client that asks before it sends has not been told to send. Reading would tell it to.
        let is_waiting = self.asks_first && !touched;
        if is_waiting || body.is_end_stream() || body.size_hint().lower() > MOST {
            return;
        }
        let mut chunks = body.into_data_stream();
        let reading = async {
            let mut length = 0;
            while let Some(Ok(chunk)) = chunks.next().await
                && length <= MOST
            {
                length += chunk.len() as u64;
            }
        };
        // Too late is as good as too much: the client had its chance.
        let _ = tokio::time::timeout(LONGEST, reading).await;
    }
}

/// Reads what a client still sends on a connection that says nothing more.
pub(super) async fn throw_away(mut connection: impl AsyncRead + Unpin) {
    let mut part = vec![0; PART];
    let reading = async {
        let mut length = 0;
        while let Ok(read @ 1..) = connection.read(&mut part).await
            && length <= MOST
        {
            length += read as u64;
        }
    };
    let _ = tokio::time::timeout(LONGEST, reading).await;
}

fn asks_first(headers: &HeaderMap) -> bool {
    let expect = headers.get(header::EXPECT);
    expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// A body that goes back when nobody wants to read it any more.
struct Lent {
    body: Body,
    touched: bool,
    give_back: Option<oneshot::Sender<Unread>>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.touched = true;
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(give_back) = self.give_back.take() {
            let unread = Unread {
                body: std::mem::take(&mut self.body),
                touched: self.touched,
            };
            // Nobody waits for it when the connection has ended.
            let _ = give_back.send(unread);
        }
    }
}
