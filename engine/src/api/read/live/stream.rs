//! The stream of server-sent events.

use std::convert::Infallible;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::unfold;
use tokio::time::timeout;

use super::{Begun, Last, Live, last};
use crate::feed::{End, Event, Subscription};
use crate::shutdown::Shutdown;

/// A comment.
const SIGN_OF_LIFE: Bytes = Bytes::from_static(b":\n\n");

pub(super) fn response(live: &Live, begun: Begun) -> Response {
    let stream = Stream {
        live: live.clone(),
        shutdown: live.hub.shutdown(),
        first: begun.first,
        told: begun.subscription.id(),
        subscription: begun.subscription,
        is_over: false,
    };
    let chunks = Box::pin(unfold(stream, |mut stream| async move {
        let chunk = stream.chunk().await?;
        Some((chunk, stream))
    }));
    // Signs of life while it catches up, which is not begun anew for them. Afterwards they come with ids, and earlier.
    let patience = live.heartbeat + live.heartbeat / 2;
    let alive = unfold(chunks, move |mut chunks| async move {
        let chunk = match timeout(patience, chunks.next()).await {
            Ok(chunk) => chunk?,
            Err(_) => SIGN_OF_LIFE,
        };
        Some((Ok::<_, Infallible>(chunk), chunks))
    });
    events(Body::from_stream(alive))
}

/// A stream that only says how it ends.
pub(super) fn ended(last: Option<Last>) -> Response {
    events(last.map_or_else(Body::empty, |last| Body::from(end(&last))))
}

fn events(body: Body) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream; charset=utf-8"),
        ),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store, no-transform"),
        ),
        (header::VARY, super::super::headers::VARY),
        // nginx would collect events otherwise.
        (
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    (headers, body).into_response()
}

/// The last event. A `refetch` takes the id away, so that a browser that comes back by itself begins with the rows.
fn end(Last { kind, data }: &Last) -> String {
    let id = if *kind == "refetch" { "id\n" } else { "" };
    format!("{id}event: {kind}\ndata: {data}\n\n")
}

struct Stream {
    live: Live,
    shutdown: Shutdown,
    first: Option<Event>,
    /// The last id that the subscriber was told.
    told: String,
    subscription: Subscription,
    is_over: bool,
}

impl Stream {
    /// What is sent next; nothing after the end.
    async fn chunk(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        if let Some(first) = self.first.take() {
            self.live.hub.stats().events.add(1);
            return Some(first.frame);
        }
        let mut shutdown = self.shutdown.clone();
        let next = tokio::select! {
            () = shutdown.requested() => return None,
            next = self.next() => next,
        };
        match next {
            Ok(chunk) => {
                self.told = self.subscription.id();
                Some(chunk)
            }
            Err(stop) => {
                self.is_over = true;
                Some(end(&last(&self.live, stop)?).into())
            }
        }
    }

    async fn next(&mut self) -> Result<Bytes, End> {
        let deadline = Instant::now() + self.live.heartbeat;
        let events = self.subscription.events(deadline).await?;
        self.live.hub.stats().events.add(events.len() as u64);
        Ok(match &events[..] {
            [] => self.sign_of_life(),
            [event] => event.frame.clone(),
            events => {
                let frames: Vec<&[u8]> = events.iter().map(|event| &*event.frame).collect();
                frames.concat().into()
            }
        })
    }

    /// The id, if it has moved on although nothing concerned this subscriber: it has less to catch up with if it comes back.
    fn sign_of_life(&self) -> Bytes {
        let id = self.subscription.id();
        match id == self.told {
            true => SIGN_OF_LIFE,
            false => format!("id: {id}\n\n").into(),
        }
    }
}
