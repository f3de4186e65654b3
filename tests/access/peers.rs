//! Who is counted together, and how often somebody may fail to say who they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gobo_tests::{Answer, Database, Gobo, PATIENCE, wait_until};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Guarded, SECRET, bearer, get, jwt_for, now};

const JWT: &str =
    "[access.jwt]\nsecret = \"a secret of thirty-two bytes or more\"\naudience = \"gobo\"";

/// `GET path` through a proxy that says that it comes from `address`.
fn from(gobo: &Gobo, address: &str, path: &str, token: Option<&str>) -> Answer {
    let bearer = token.map(bearer).unwrap_or_default();
    let headers = [
        ("x-forwarded-for", address),
        ("authorization", bearer.as_str()),
    ];
    let count = if token.is_some() { 2 } else { 1 };
    gobo.request("GET", path, &headers[..count], b"")
}

fn forged(n: usize) -> String {
    let jwt = jwt_for(json!({"role": "read", "sub": format!("guess {n}")}));
    let end = jwt.rfind('.').unwrap();
    format!("{}.{}", &jwt[..end], "A".repeat(43))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_name_is_counted_by_the_address_that_the_trusted_proxy_tells() {
    assert!(JWT.contains(SECRET));
    let limits = "anonymous = \"read\"\nrequests_per_second = 1\nburst = 20";
    let behind = Guarded::new(
        &format!("{limits}\naddress_header = \"X-Forwarded-For\""),
        JWT,
    )
    .await;
    let somebody = jwt_for(json!({"role": "read"}));
    let named = jwt_for(json!({"role": "read", "sub": "alice"}));
    let until_refused = |gobo: &Gobo, address: &str, token: Option<&str>| {
        let mut asked = 0;
        while from(gobo, address, "/read/nothing", token).status != 429 {
            asked += 1;
            assert!(asked < 200, "{address} may ask for ever");
        }
        asked
    };
    assert!(until_refused(&behind.gobo, "192.0.2.1", None) >= 20);
    // What stands before the last address came with the request.
    let lied = until_refused(&behind.gobo, "198.51.100.7, 192.0.2.1", None);
    assert!(lied < 20, "{lied} more");
    // Others, and whoever has a name, are counted apart.
    from(&behind.gobo, "192.0.2.2", "/read/nothing", None).expect(404);
    from(&behind.gobo, "192.0.2.1", "/read/nothing", Some(&named)).expect(404);
    from(&behind.gobo, "[2001:db8::1]:4711", "/read/nothing", None).expect(404);
    // A JWT that does not say whom it is about is as anonymous.
    until_refused(&behind.gobo, "192.0.2.3", Some(&somebody));
    from(&behind.gobo, "192.0.2.4", "/read/nothing", Some(&somebody)).expect(404);

    // Without a proxy that is trusted, the header is anybody's word.
    let open = Guarded::new(limits, JWT).await;
    let others = (0..200).map(|n| format!("192.0.2.{n}"));
    let mut statuses = others.map(|other| from(&open.gobo, &other, "/read/nothing", None).status);
    assert!(statuses.any(|status| status == 429));
}

/// `GET path` from another address of this machine.
#[cfg(target_os = "linux")]
async fn from_address(gobo: &Gobo, address: &str, path: &str) -> String {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket
        .bind(format!("{address}:0").parse().unwrap())
        .unwrap();
    let to = gobo.url().strip_prefix("http://").unwrap().parse().unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn one_anonymous_address_does_not_use_up_what_another_may_ask() {
    let limits = "anonymous = \"read\"\nrequests_per_second = 1\nburst = 3";
    let guarded = Guarded::new(limits, "").await;
    let mut asked = 0;
    while from_address(&guarded.gobo, "127.0.0.2", "/read/nothing").await != "429" {
        asked += 1;
        assert!(asked < 200, "it may ask for ever");
    }
    assert_eq!(
        from_address(&guarded.gobo, "127.0.0.3", "/read/nothing").await,
        "404"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_guesses_has_to_wait_and_those_who_were_let_in_go_on() {
    let access = "refused_per_minute = 5\naddress_header = \"x-forwarded-for\"";
    let guarded = Guarded::new(access, JWT).await;
    let (gobo, here) = (&guarded.gobo, "192.0.2.1");
    let seen = jwt_for(json!({"role": "read", "sub": "seen before"}));
    let unseen = jwt_for(json!({"role": "read", "sub": "not seen before"}));
    from(gobo, here, "/read/nothing", Some(&seen)).expect(404);
    let wrong = [
        "gobo_000000000000_x".to_owned(),
        forged(0),
        "nonsense".to_owned(),
        forged(1),
    ];
    for wrong in &wrong {
        from(gobo, here, "/read/nothing", Some(wrong)).expect(401);
    }
    // Also where no credential is asked for.
    from(gobo, here, "/health/ready", Some("gobo_000000000000_x")).expect(200);
    let slowed = from(gobo, here, "/read/nothing", Some(&forged(2))).expect(429);
    let wait: u64 = slowed.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(slowed.json()["reason"], "too_many_requests");
    for token in [&forged(3), "gobo_000000000000_y"] {
        from(gobo, here, "/read/nothing", Some(token)).expect(429);
    }
    // Nobody who shares the address is locked out: some signatures are checked in every second.
    for token in [&seen, &guarded.read, &unseen] {
        from(gobo, here, "/read/nothing", Some(token)).expect(404);
    }
    from(gobo, here, "/read/nothing", None).expect(401);
    from(gobo, here, "/health/ready", Some(&forged(4))).expect(200);
    // Nobody else waits.
    from(gobo, "192.0.2.2", "/read/nothing", Some(&unseen)).expect(404);
    from(gobo, "192.0.2.2", "/read/nothing", Some(&forged(5))).expect(401);
}

/// Follows from another address through a proxy; what has come of the answer once it has begun.
async fn follow(gobo: &Gobo, address: &str) -> (tokio::net::TcpStream, String) {
    let to = gobo.url().strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(to).await.unwrap();
    let head = format!(
        "GET /read/orders?live=changes HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: {address}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
    }
    (stream, String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_name_and_follows_leaves_places_to_other_addresses() {
    let access = "anonymous = \"read\"\naddress_header = \"x-forwarded-for\"";
    let guarded = Guarded::new(access, "[live]\nmax_subscribers_each = 1").await;
    guarded.deploy("orders");
    let (_first, answer) = follow(&guarded.gobo, "192.0.2.1").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // A proxy that changes a stream holds it back.
    let stays = "cache-control: no-store, no-transform\r\n";
    assert!(answer.contains(stays), "{answer}");
    let (_refused, answer) = follow(&guarded.gobo, "192.0.2.1").await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    let (_other, answer) = follow(&guarded.gobo, "192.0.2.2").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_jwt_has_expired_does_not_guess() {
    let guarded = Guarded::new("refused_per_minute = 2", JWT).await;
    for sub in ["a", "b", "c", "d", "e"] {
        let expired = jwt_for(json!({"role": "read", "sub": sub, "exp": now() - 3_600}));
        let early = jwt_for(json!({"role": "read", "sub": sub, "nbf": now() + 3_600}));
        for token in [&expired, &early] {
            get(&guarded.gobo, "/read/nothing", token).expect(401);
        }
    }
    // Everybody comes from one address here, which the log says.
    let log = guarded.gobo.log();
    assert!(log.contains("access.address_header"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_without_a_free_place_looks_at_no_signature() {
    let guarded = Guarded::new("", &format!("{JWT}\n[api]\nmax_requests = 1")).await;
    guarded.deploy("orders");
    let waiting = {
        let url = format!(
            "{}/read/orders?min_position=999999&wait=20s",
            guarded.gobo.url()
        );
        let bearer = bearer(&guarded.read);
        let (is_taken, stop) = (Arc::new(AtomicBool::new(false)), Instant::now() + PATIENCE);
        let is_over = is_taken.clone();
        let asking = std::thread::spawn(move || {
            // Whoever looks has the place for a moment, too.
            while !is_over.load(Ordering::SeqCst) && Instant::now() < stop {
                drop(ureq::get(&url).header("authorization", &bearer).call());
            }
        });
        (is_taken, asking)
    };
    wait_until("the only place to be taken", || {
        match get(&guarded.gobo, "/read/nothing", &forged(0)).status {
            503 => Ok(()),
            status => Err(status),
        }
    });
    guarded.gobo.get("/health/live").expect(200);
    let (is_taken, asking) = waiting;
    is_taken.store(true, Ordering::SeqCst);
    drop(guarded);
    asking.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_header_that_is_none_keeps_the_engine_from_starting() {
    let database = Database::create().await;
    let tables = "[access]\ntokens = true\naddress_header = \"x forwarded\"";
    let refused = Gobo::try_start(database.url(), tables).unwrap_err();
    assert!(
        refused.log.contains("access.address_header"),
        "{}",
        refused.log
    );
}
