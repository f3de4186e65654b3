//! Connections: accepted in bounded number, ended in bounded time.

mod patience;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower_service::Service;

use super::drain;
use crate::shutdown::Shutdown;
use patience::Patient;

/// How long a client may take to send a request's head.
const HEAD: Duration = Duration::from_secs(15);
/// Bytes of a request's head: its line with the address, and its headers. A query string alone may have 32 KiB.
const HEAD_BYTES: usize = 64 << 10;
/// Headers of a request.
const HEADERS: usize = 100;
/// How long a client may leave an answer lying that it could read.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long requests that are being answered may take once the end was asked for.
const GRACE: Duration = Duration::from_secs(10);

/// Serves `router` until shutdown; then no connection is accepted any more, and requests that are being answered are
/// finished, within bounds.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    max_connections: usize,
    shutdown: Shutdown,
) {
    serve_within(listener, router, max_connections, PATIENCE, shutdown).await;
}

async fn serve_within(
    listener: TcpListener,
    router: Router,
    max_connections: usize,
    patience: Duration,
    mut shutdown: Shutdown,
) {
    let connections = Arc::new(Semaphore::new(max_connections));
    loop {
        // Taken before accepting: further clients wait in the listener's own queue.
        let permit = tokio::select! {
            () = shutdown.requested() => break,
            Ok(permit) = connections.clone().acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            () = shutdown.requested() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Small answers would otherwise wait for the client's acknowledgement.
                let _ = stream.set_nodelay(true);
                let stream = Patient::new(stream, patience);
                let connection = connection(stream, peer, router.clone(), shutdown.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Most likely out of file descriptors: others may end soon.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let all = u32::try_from(max_connections).unwrap_or(u32::MAX);
    if tokio::time::timeout(GRACE, connections.acquire_many(all))
        .await
        .is_err()
    {
        tracing::warn!("some requests were cut off at the end");
    }
}

async fn connection(stream: Patient, peer: SocketAddr, router: Router, mut shutdown: Shutdown) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().call(request)
    });
    let mut serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_header_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = &mut serving => Some(ended),
        () = shutdown.requested() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut serving).graceful_shutdown();
            (&mut serving).await
        }
    };
    // What goes wrong here is the client's: it went away, or does not speak HTTP. Or its request's head is too large: it
    // has been told so, and looks at that when it has sent everything.
    if ended.is_err_and(|error| error.is_parse_too_large()) {
        let rest = serving.into_parts().io.into_inner();
        tokio::select! {
            () = drain::throw_away(rest) => {}
            () = shutdown.requested() => {}
        }
    }
}

#[cfg(test)]
mod tests;
