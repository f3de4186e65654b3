//! HTTP at its edges, byte by byte: what a client sees that does not behave like the usual ones.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use gobo_tests::{Database, Gobo, PATIENCE};
use serde_json::Value;

/// An engine that takes small bodies only.
async fn engine() -> Gobo {
    let database = Database::create().await;
    Gobo::start(
        database.url(),
        "[api]\nmax_body_bytes = 2048\n\n[limits]\nmodule_bytes = 2048",
    )
}

/// A connection on which these lines and an empty one have been sent.
fn begin(gobo: &Gobo, head: &str) -> TcpStream {
    let address = gobo.url().strip_prefix("http://").unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    let head = head.replace('\n', "\r\n");
    client
        .write_all(format!("{head}\r\n\r\n").as_bytes())
        .unwrap();
    client
}

/// The whole answer: status, body.
fn end(mut client: TcpStream) -> (u16, Value) {
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, serde_json::from_str(body).unwrap())
}

#[track_caller]
fn assert_problem((status, body): (u16, Value), expected: u16, code: &str) {
    assert_eq!((status, &body["code"]), (expected, &code.into()), "{body}");
}

#[tokio::test]
async fn a_client_that_sends_everything_first_sees_that_it_was_too_much() {
    let gobo = engine().await;
    // More than the buffers of both ends hold.
    let body = vec![b' '; 8 << 20];
    for (request, status, code) in [
        ("POST /streams/s/events", 413, "body_too_large"),
        (
            "POST /admin/projections/p/dead-letters/retry",
            413,
            "body_too_large",
        ),
        ("PUT /admin/projections/p", 413, "module_too_large"),
        ("POST /nothing/here", 404, "no_such_path"),
        ("DELETE /events", 405, "method_not_allowed"),
    ] {
        let length = body.len();
        let head = format!(
            "{request} HTTP/1.1\nhost: localhost\nconnection: close\ncontent-length: {length}"
        );
        let mut client = begin(&gobo, &head);
        client
            .write_all(&body)
            .unwrap_or_else(|error| panic!("{request}: {error}"));
        assert_problem(end(client), status, code);

        // Without saying how much it will be.
        let head = format!(
            "{request} HTTP/1.1\nhost: localhost\nconnection: close\ntransfer-encoding: chunked"
        );
        let mut client = begin(&gobo, &head);
        for part in body.chunks(1 << 20) {
            write!(client, "{:x}\r\n", part.len()).unwrap();
            client.write_all(part).unwrap();
            client.write_all(b"\r\n").unwrap();
        }
        client.write_all(b"0\r\n\r\n").unwrap();
        assert_problem(end(client), status, code);
    }
}

#[tokio::test]
async fn who_is_refused_at_the_door_sees_why_whatever_it_sends() {
    let gobo = engine().await;
    let body = vec![b' '; 8 << 20];
    let head = format!(
        "POST /streams/s/events HTTP/1.1\nhost: example.org\nconnection: close\ncontent-length: {}",
        body.len()
    );
    let mut client = begin(&gobo, &head);
    client.write_all(&body).unwrap();
    assert_problem(end(client), 421, "foreign_host");
}

#[tokio::test]
async fn nothing_is_waited_for_that_nobody_would_read() {
    let gobo = engine().await;
    // More than is thrown away for anybody.
    let endless = "POST /nothing/here HTTP/1.1\nhost: localhost\nconnection: close\ncontent-length: 1000000000000";
    assert_problem(end(begin(&gobo, endless)), 404, "no_such_path");
    // Who asks first is refused before it sends anything, and not told to go on.
    let asking = "POST /nothing/here HTTP/1.1\nhost: localhost\nconnection: close\nexpect: 100-continue\ncontent-length: 5000";
    assert_problem(end(begin(&gobo, asking)), 404, "no_such_path");
}

/// Kibibytes of memory that the engine has.
fn memory(gobo: &Gobo) -> u64 {
    let id = gobo.id().to_string();
    let told = Command::new("ps").args(["-o", "rss=", "-p", &id]).output();
    let told = String::from_utf8(told.unwrap().stdout).unwrap();
    told.trim().parse().unwrap()
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_and_nothing_of_it_is_kept() {
    const MANY: usize = 10 << 20;
    let gobo = engine().await;
    let long = "x".repeat(MANY);
    let heads = [
        format!("GET /health/live HTTP/1.1\nhost: localhost\nx-long: {long}"),
        format!("GET /health/live?{long} HTTP/1.1\nhost: localhost"),
        format!(
            "GET /health/live HTTP/1.1\nhost: localhost{}",
            "\nx-one-of-many: 0123456789".repeat(MANY / 26)
        ),
        // Few bytes, and more headers than anybody has.
        format!(
            "GET /health/live HTTP/1.1\nhost: localhost{}",
            "\na: b".repeat(100)
        ),
    ];
    let ask_all = || {
        for head in &heads {
            let mut answer = String::new();
            let mut client = begin(&gobo, head);
            client.read_to_string(&mut answer).unwrap();
            let shown: String = head.chars().take(60).collect();
            assert!(answer.starts_with("HTTP/1.1 431 "), "{shown}: {answer}");
            // From the HTTP library, before anything is looked at.
            assert!(answer.ends_with("\r\n\r\n"), "{shown}: {answer}");
        }
    };
    ask_all();
    let before = memory(&gobo);
    for _ in 0..10 {
        ask_all();
    }
    let after = memory(&gobo);
    assert!(
        after < before + (10 << 10),
        "{before} KiB, then {after} KiB"
    );
    gobo.get("/health/live").expect(200);
}

#[tokio::test]
async fn a_head_as_large_as_is_promised_is_read() {
    let gobo = engine().await;
    // A query string as long as may be, a token of 16 KiB, and what a proxy adds.
    let (query, token) = ("x".repeat(32 << 10), "t".repeat(16 << 10));
    let more = "\nx-forwarded: 192.0.2.1".repeat(90);
    let head = format!(
        "GET /nothing/here?{query} HTTP/1.1\nhost: localhost\nconnection: close\nauthorization: Bearer {token}{more}"
    );
    assert_problem(end(begin(&gobo, &head)), 404, "no_such_path");
}
