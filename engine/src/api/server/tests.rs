//! Clients that misbehave, and one that only looks as if it did.

use axum::body::{Body, Bytes};
use axum::routing::get;
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::api::guard::{self, Guard};
use crate::api::problem::Problem;
use crate::shutdown::{self, Trigger};

/// Short, so that the tests are, of clients that stop for good or never do.
const PATIENCE: Duration = Duration::from_millis(500);
const BIG: usize = 64 << 20;

struct Running {
    address: std::net::SocketAddr,
    trigger: Trigger,
    serving: JoinHandle<()>,
}

impl Running {
    async fn start(router: Router, max_connections: usize) -> Running {
        Self::patient(router, max_connections, PATIENCE).await
    }

    async fn patient(router: Router, max_connections: usize, patience: Duration) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (trigger, shutdown) = shutdown::channel();
        let serving = serve_within(listener, router, max_connections, patience, shutdown);
        Running {
            address,
            trigger,
            serving: tokio::spawn(serving),
        }
    }

    /// Asks, and leaves reading to the caller.
    async fn ask(&self, path: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        client
    }

    async fn end(self) {
        self.trigger.shut_down();
        self.serving.await.unwrap();
    }
}

fn router() -> Router {
    // Longer silent than the patience lasts, between two beats.
    let beats = || {
        stream::unfold(0, |beat| async move {
            tokio::time::sleep(PATIENCE * 2).await;
            (beat < 3).then(|| (Ok::<_, std::io::Error>(": beat\n\n"), beat + 1))
        })
    };
    Router::new()
        .route("/big", get(async || Bytes::from(vec![b'x'; BIG])))
        .route("/small", get(async || "small"))
        .route("/beats", get(async move || Body::from_stream(beats())))
}

async fn text(mut client: TcpStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_client_that_stops_reading_loses_its_connection_and_its_place() {
    let running = Running::start(router(), 1).await;
    let mut stuck = running.ask("/big").await;
    let mut begin = [0; 1000];
    stuck.read_exact(&mut begin).await.unwrap();
    assert!(begin.starts_with(b"HTTP/1.1 200 OK"));
    // There is one place, and this client waits for it.
    let answer = text(running.ask("/small").await).await;
    assert!(answer.ends_with("\r\n\r\nsmall"), "{answer}");
    let mut rest = Vec::new();
    let end = stuck.read_to_end(&mut rest).await;
    assert!(
        end.is_err(),
        "the connection was reset, not ended in good order"
    );
    assert!(rest.len() < BIG / 2, "{} bytes arrived", rest.len());
    running.end().await;
}

#[tokio::test]
async fn a_client_that_takes_next_to_nothing_at_a_time_loses_its_connection() {
    let running = Running::start(router(), 1).await;
    let socket = TcpSocket::new_v4().unwrap();
    // Else the system takes more than the client does.
    socket.set_recv_buffer_size(2_048).unwrap();
    let mut client = socket.connect(running.address).await.unwrap();
    client
        .write_all(b"GET /big HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut pace = tokio::time::interval(PATIENCE / 8);
    let mut part = [0; 512];
    let mut length = 0;
    let end = loop {
        pace.tick().await;
        match client.read(&mut part).await {
            Ok(read) => length += read,
            Err(error) => break error,
        }
        assert!(length < BIG / 1_024, "it goes on");
    };
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    running.end().await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_but_steadily_gets_everything() {
    // No single wait comes near it, whatever the machine; all of them take twice as long.
    let patience = Duration::from_secs(4);
    let running = Running::patient(router(), 1, patience).await;
    let mut client = running.ask("/big").await;
    let mut pace = tokio::time::interval(patience / 8);
    let mut length = 0;
    loop {
        pace.tick().await;
        let mut part = Vec::new();
        let mut limited = (&mut client).take(BIG as u64 / 16);
        match limited.read_to_end(&mut part).await.unwrap() {
            0 => break,
            read => length += read,
        }
    }
    assert!(length > BIG, "{length}");
    running.end().await;
}

#[tokio::test]
async fn a_handler_that_panics_is_answered_with_a_problem_and_harms_nobody_else() {
    async fn broken() -> &'static str {
        panic!("on purpose")
    }
    let guard = Guard::new(
        crate::access::Access::open(),
        true,
        1,
        Duration::from_secs(60),
    );
    let router = router().route("/broken", get(broken));
    let running = Running::start(guard::guarded(router, Arc::new(guard)), 1).await;
    // Twice: neither the one place among the connections nor that among the requests is lost.
    for _ in 0..2 {
        let answer = text(running.ask("/broken").await).await;
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        assert!(
            answer.contains("content-type: application/problem+json"),
            "{answer}"
        );
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&problem["status"], &problem["code"]),
            (&500.into(), &"internal".into())
        );
        assert!(
            !body.contains("on purpose"),
            "what went wrong inside is for the log"
        );
    }
    let answer = text(running.ask("/small").await).await;
    assert!(answer.ends_with("\r\n\r\nsmall"), "{answer}");
    running.end().await;
}

#[tokio::test]
async fn what_stops_a_request_before_its_room_answers_is_told_to_readers_as_postgrest_tells_it() {
    async fn broken() -> &'static str {
        panic!("on purpose")
    }
    let minute = Duration::from_secs(60);
    for (requests, timeout, path, status, code, reason) in [
        (0, minute, "small", 503, "PGRST000", "unavailable"),
        (1, PATIENCE, "never", 503, "PGRST000", "unavailable"),
        (1, minute, "broken", 500, "XX000", "internal"),
        (1, minute, "%00", 400, "bad_request", "bad_request"),
        (
            1,
            minute,
            "none/at/all",
            404,
            "no_such_path",
            "no_such_path",
        ),
    ] {
        let guard = Guard::new(crate::access::Access::open(), true, requests, timeout);
        let room = Router::new()
            .route("/small", get(async || "small"))
            .route("/never", get(std::future::pending::<&str>))
            .route("/broken", get(broken))
            .fallback(async || Problem::not_found("no_such_path", "there is nothing"));
        let router = Router::new().nest("/read", room.clone()).nest("/x", room);
        let running = Running::start(guard::guarded(router, Arc::new(guard)), 1).await;
        let problem = async |room: &str| {
            let answer = text(running.ask(&format!("/{room}/{path}")).await).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            serde_json::from_str::<serde_json::Value>(body).unwrap()
        };
        let told = problem("read").await;
        assert_eq!(
            (&told["code"], &told["reason"]),
            (&code.into(), &reason.into())
        );
        for member in ["message", "details", "hint"] {
            let value = told.get(member);
            assert!(
                value.is_some_and(|value| value.is_string() || value.is_null()),
                "{member} in {told}"
            );
        }
        // Others know no such words.
        let other = problem("x").await;
        assert_eq!(
            (&other["code"], other.get("reason")),
            (&reason.into(), None)
        );
        running.end().await;
    }
}

#[tokio::test]
async fn a_stream_that_is_silent_for_long_stays_open_while_its_heartbeats_are_read() {
    let running = Running::start(router(), 1).await;
    let answer = text(running.ask("/beats").await).await;
    assert_eq!(answer.matches(": beat").count(), 3, "{answer}");
    running.end().await;
}
