//! Long polling, for those whom a stream does not reach. The answer's head is sent at once and its body as soon as something
//! matches, so that a poll takes no request's place while it waits.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::once;
use tokio::time::timeout_at;

use super::{Begun, Last, Live, last};
use crate::feed::{End, Event, Subscription};

/// How long it may take, at least, until a poll knows what has happened already.
const CATCHING_UP: Duration = Duration::from_secs(5);

pub(super) fn response(live: &Live, begun: Begun) -> Response {
    let live = live.clone();
    json(Body::from_stream(once(async move {
        Ok::<_, Infallible>(answer(&live, begun).await)
    })))
}

/// An answer that only says how it ends.
pub(super) fn ended(last: Option<Last>) -> Response {
    json(end(last, None).into())
}

fn json(body: Body) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=utf-8"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::VARY, super::super::headers::VARY),
    ];
    (headers, body).into_response()
}

async fn answer(live: &Live, begun: Begun) -> Bytes {
    let mut subscription = begun.subscription;
    if let Some(first) = begun.first {
        live.hub.stats().events.add(1);
        let rows = told("rows", &String::from_utf8_lossy(&first.data));
        return body(&[rows], Some(&subscription.id()));
    }
    let mut shutdown = live.hub.shutdown();
    let found = tokio::select! {
        () = shutdown.requested() => Ok(Vec::new()),
        found = events(&mut subscription, begun.wait) => found,
    };
    match found {
        Ok(events) => {
            live.hub.stats().events.add(events.len() as u64);
            let events: Vec<String> = (events.iter())
                .map(|event| told("changes", &String::from_utf8_lossy(&event.data)))
                .collect();
            body(&events, Some(&subscription.id()))
        }
        Err(stop) => end(last(live, stop), Some(&subscription.id())),
    }
}

/// The next events; none if there are none in time.
async fn events(subscription: &mut Subscription, wait: Duration) -> Result<Vec<Arc<Event>>, End> {
    let began = Instant::now();
    let deadline = began + wait;
    // Who hardly waits is given what is there all the same.
    let patience = deadline.max(began + CATCHING_UP);
    let Ok(found) = timeout_at(patience.into(), subscription.catch_up()).await else {
        return Ok(Vec::new());
    };
    match found? {
        events if events.is_empty() => subscription.events(deadline).await,
        events => Ok(events),
    }
}

/// The last event. A `refetch` takes the id away.
fn end(last: Option<Last>, id: Option<&str>) -> Bytes {
    match last {
        Some(Last { kind, data }) => {
            let id = id.filter(|_| kind != "refetch");
            body(&[told(kind, &data)], id)
        }
        None => body(&[], id),
    }
}

fn told(kind: &str, data: &str) -> String {
    format!("{{\"event\":\"{kind}\",\"data\":{data}}}")
}

fn body(events: &[String], id: Option<&str>) -> Bytes {
    let id = id.map_or("null".to_owned(), |id| format!("\"{id}\""));
    format!("{{\"events\":[{}],\"id\":{id}}}", events.join(",")).into()
}
