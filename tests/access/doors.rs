//! Which doors there are, and what they ask for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gobo_tests::{Database, Gobo, PATIENCE, wait_until};
use serde_json::json;

use super::{Guarded, basic, bearer, get, token};

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_others_can_reach_needs_access_control_and_says_how() {
    let database = Database::create().await;
    let config = |access: &str| {
        format!(
            "listen = \"0.0.0.0:0\"\n[database]\nurl = {:?}\n{access}",
            database.url()
        )
    };
    let refused = Gobo::try_serve(&config("")).unwrap_err();
    assert_eq!(refused.code, 2);
    for part in [
        "listen: 0.0.0.0:0",
        "tokens = true",
        "GOBO_ACCESS_TOKENS",
        "gobo token new",
        "[access.jwt]",
    ] {
        assert!(
            refused.log.contains(part),
            "{part} is missing in: {}",
            refused.log
        );
    }
    let anonymous = Gobo::try_serve(&config("[access]\nanonymous = \"read\"")).unwrap_err();
    assert_eq!(anonymous.code, 2);

    let reader = token(&database, "reader", &["--role", "read"]);
    let gobo = Gobo::try_serve(&config("[access]\ntokens = true")).unwrap();
    get(&gobo, "/read/nothing", &reader).expect(404);
    // There, nobody is asked which host they mean: it has a token.
    let headers = [
        ("authorization", &*bearer(&reader)),
        ("host", "gobo.example.org"),
    ];
    gobo.request("GET", "/read/nothing", &headers, b"")
        .expect(404);
    gobo.get("/read/nothing").expect(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_asks_for_its_role() {
    let guarded = Guarded::new("", "").await;
    let append = json!({"events": [{"type": "x", "data": {}}]}).to_string();
    // Method, path, who may; others are refused with 403.
    for (method, path, allowed) in [
        ("GET", "/read/nothing", ["read", "admin"].as_slice()),
        ("GET", "/read/nothing/1", &["read", "admin"]),
        ("POST", "/streams/s/events", &["append", "admin"]),
        ("GET", "/streams/s/events", &["append", "admin"]),
        ("GET", "/events", &["admin"]),
        ("GET", "/admin/projections", &["admin"]),
        ("DELETE", "/admin/projections/x", &["admin"]),
        ("GET", "/metrics", &["admin"]),
        ("GET", "/console", &["admin"]),
        ("GET", "/%72ead/nothing", &["admin"]),
        ("GET", "//read/nothing", &["admin"]),
        ("GET", "/nothing/at/all", &["admin"]),
    ] {
        let body = if method == "POST" {
            append.as_bytes()
        } else {
            b""
        };
        let unknown = guarded.gobo.request(method, path, &[], body).expect(401);
        assert!(unknown.header("www-authenticate").is_some(), "{path}");
        for (role, token) in [
            ("read", &guarded.read),
            ("append", &guarded.append),
            ("admin", &guarded.admin),
        ] {
            let headers = [
                ("authorization", &*bearer(token)),
                ("content-type", "application/json"),
            ];
            let answer = guarded.gobo.request(method, path, &headers, body);
            let is_let_in = ![401, 403].contains(&answer.status);
            assert_eq!(
                is_let_in,
                allowed.contains(&role),
                "{method} {path} as {role}: {answer:?}"
            );
        }
    }
    for path in ["/health/live", "/health/ready"] {
        // A token that does not count is no reason to call a healthy engine ill.
        wait_until(path, || {
            let anonymous = guarded.gobo.get(path);
            let unknown = get(&guarded.gobo, path, "gobo_nonsense");
            match (anonymous.status, unknown.status) {
                (200, 200) => Ok(()),
                _ => Err((anonymous, unknown)),
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_is_missing_in_the_words_of_their_room() {
    let guarded = Guarded::new("", "").await;
    let answer = guarded.gobo.get("/read/nothing").expect(401);
    let problem = answer.json();
    assert_eq!(
        (&problem["code"], &problem["reason"]),
        (&json!("PGRST302"), &json!("credentials_missing"))
    );
    assert_eq!(
        answer.header("www-authenticate"),
        Some("Bearer realm=\"gobo\"")
    );
    let answer = guarded.gobo.get("/events").expect(401);
    assert_eq!(answer.json()["code"], "credentials_missing");
    let answer = guarded.get("/read/nothing", &guarded.append).expect(403);
    let problem = answer.json();
    assert_eq!(
        (&problem["code"], &problem["reason"]),
        (&json!("42501"), &json!("role_missing"))
    );
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(
        challenge.contains("insufficient_scope") && challenge.contains("scope=\"read\""),
        "{challenge}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_anybody_unless_it_is_configured() {
    let guarded = Guarded::new("anonymous = \"read\"\nopen_metrics = true", "").await;
    guarded.gobo.get("/read/nothing").expect(404);
    guarded.gobo.get("/metrics").expect(200);
    guarded.gobo.get("/streams/s/events").expect(403);
    guarded.gobo.get("/admin/projections").expect(403);
    // A wrong token is not taken for none.
    guarded
        .get("/read/nothing", "gobo_000000000000_x")
        .expect(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_takes_a_token_as_password_and_nothing_else_that_changes_something_does() {
    let guarded = Guarded::new("", "").await;
    let answer = guarded.gobo.get("/console").expect(401);
    assert!(
        answer
            .header("www-authenticate")
            .unwrap()
            .starts_with("Basic "),
        "{answer:?}"
    );
    for path in ["/admin/projections", "/read/nothing", "/consoles"] {
        let answer = guarded.gobo.get(path).expect(401);
        assert!(
            answer
                .header("www-authenticate")
                .unwrap()
                .starts_with("Bearer "),
            "{answer:?}"
        );
    }
    let password = basic(&guarded.admin);
    let with_password = |method: &str, path: &str, more: &[(&str, &str)]| {
        let headers = [&[("authorization", password.as_str())], more].concat();
        guarded.gobo.request(method, path, &headers, b"{}")
    };
    let page = with_password("GET", "/console", &[]).expect(200);
    assert!(page.text().contains("<html"), "{}", page.text());
    assert!(!page.text().contains(&guarded.admin));
    with_password("GET", "/admin/projections", &[]).expect(200);
    // A form of the console works; one of a page somewhere else, which the browser sends with the same password, does not.
    let own = [
        ("sec-fetch-site", "same-origin"),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    with_password("POST", "/console/projections/none/restart", &own).expect(404);
    with_password(
        "POST",
        "/console/projections/none/restart",
        &[("sec-fetch-site", "cross-site")],
    )
    .expect(403);
    let refused = with_password("POST", "/admin/projections/none/restart", &[]).expect(401);
    assert_eq!(refused.json()["code"], "password_not_allowed");
    with_password("POST", "/streams/s/events", &[]).expect(401);
    // A password without the role sees no console.
    let headers = [("authorization", basic(&guarded.read))];
    let headers = headers
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    guarded
        .gobo
        .request("GET", "/console", &headers, b"")
        .expect(403);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_administrators_learn_why_an_engine_is_not_ready() {
    let guarded = Guarded::new("", "[redis]\nurl = \"redis://127.0.0.1:1\"").await;
    let open = guarded.gobo.wait_until_ready().json();
    assert_eq!(open["status"], "degraded", "{open}");
    assert_eq!(open["components"]["redis"], json!({"status": "degraded"}));
    let told = wait_until("the engine to be ready", || {
        match guarded.get("/health/ready", &guarded.admin) {
            answer if answer.status == 200 => Ok(answer.json()),
            answer => Err(answer),
        }
    });
    assert!(told["components"]["redis"]["detail"].is_string(), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_waits_and_nobody_else_does() {
    let guarded = Guarded::new("requests_per_second = 1\nburst = 5", "").await;
    for _ in 0..5 {
        guarded.get("/read/nothing", &guarded.read).expect(404);
    }
    // Each second allows one more.
    let refused = wait_until("a request too many", || {
        match guarded.get("/read/nothing", &guarded.read) {
            answer if answer.status == 429 => Ok(answer),
            answer => Err(answer.expect(404)),
        }
    });
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.json()["reason"], "too_many_requests");
    guarded.get("/read/nothing", &guarded.admin).expect(404);
    guarded.gobo.wait_until_ready();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_for_whoever_asked_and_for_no_cache_on_the_way() {
    let guarded = Guarded::new("", "").await;
    guarded.deploy("orders");
    for path in ["/read/orders", "/read/orders/1", "/read/nothing"] {
        let answer = guarded.get(path, &guarded.read);
        let control = answer.header("cache-control").unwrap_or_default();
        assert!(control.starts_with("private"), "{path}: {answer:?}");
        let varies = |(name, value): &(String, String)| {
            name == "vary" && value.eq_ignore_ascii_case("authorization")
        };
        assert!(answer.headers.iter().any(varies), "{path}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_leave_room_for_others_and_bounds_that_meet_are_told() {
    let database = Database::create().await;
    let gobo = Gobo::start(
        database.url(),
        "[api]\nmax_requests = 2\nmax_connections = 40",
    );
    gobo.deploy("orders").expect(201);
    let said = gobo.log();
    for part in [
        "live.max_subscribers is 3000, and 30 are possible",
        "a quarter of the 40 connections (api.max_connections)",
    ] {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
    let path = "/read/orders?min_position=999999&wait=1s";
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            while !is_over.load(Ordering::SeqCst) && began.elapsed() < PATIENCE {
                gobo.get(path).expect(503);
            }
        });
        // Whoever comes second is refused; at times that is the other one.
        wait_until("one to wait", || {
            let refused = gobo.get(path);
            match refused.json()["reason"] == "too_many_waiters" {
                true => Ok(()),
                false => Err(refused),
            }
        });
        gobo.get("/read/orders").expect(200);
        is_over.store(true, Ordering::SeqCst);
    });
}
