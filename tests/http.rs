//! HTTP at its edges, byte by byte: what a client sees that does not behave like the usual ones.

use std::io::{Read, Write};
use std::net::TcpStream;

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
