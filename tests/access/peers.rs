//! Who is counted together, and how often somebody may fail to say who they are.

use gobo_tests::{Answer, Database, Gobo, wait_until};
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
    let limits = "anonymous = \"read\"\nrequests_per_second = 1\nburst = 3";
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
            assert!(asked < 50, "{address} may ask for ever");
        }
        asked
    };
    assert!(until_refused(&behind.gobo, "192.0.2.1", None) >= 3);
    // What stands before the last address came with the request.
    let lied = until_refused(&behind.gobo, "198.51.100.7, 192.0.2.1", None);
    assert!(lied < 3, "{lied} more");
    // Others, and whoever has a name, are counted apart.
    from(&behind.gobo, "192.0.2.2", "/read/nothing", None).expect(404);
    from(&behind.gobo, "192.0.2.1", "/read/nothing", Some(&named)).expect(404);
    from(&behind.gobo, "[2001:db8::1]:4711", "/read/nothing", None).expect(404);
    // A JWT that does not say whom it is about is as anonymous.
    until_refused(&behind.gobo, "192.0.2.3", Some(&somebody));
    from(&behind.gobo, "192.0.2.4", "/read/nothing", Some(&somebody)).expect(404);

    // Without a proxy that is trusted, the header is anybody's word.
    let open = Guarded::new(limits, JWT).await;
    let mut statuses = Vec::new();
    for n in 0..8 {
        statuses.push(from(&open.gobo, &format!("192.0.2.{n}"), "/read/nothing", None).status);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
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
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(from_address(&guarded.gobo, "127.0.0.2", "/read/nothing").await);
    }
    assert!(statuses.contains(&"429".to_owned()), "{statuses:?}");
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
        std::thread::spawn(move || {
            let answer = ureq::get(&url).header("authorization", &bearer).call();
            drop(answer);
        })
    };
    wait_until("the only place to be taken", || {
        match get(&guarded.gobo, "/read/nothing", &forged(0)).status {
            503 => Ok(()),
            status => Err(status),
        }
    });
    guarded.gobo.get("/health/live").expect(200);
    drop(guarded);
    waiting.join().unwrap();
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
