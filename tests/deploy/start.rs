//! Starting: what is wrong is said at once, with the fix.

use std::net::{SocketAddr, TcpListener};

use gobo_tests::{Cluster, Database, Gobo, Options, wait_until};

#[tokio::test]
async fn a_port_in_use_is_named_with_the_fix() {
    let database = Database::create().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = format!(
        "listen = \"127.0.0.1:{port}\"\n[database]\nurl = {:?}\n",
        database.url()
    );
    let refusal = Gobo::try_serve(&config).unwrap_err();
    assert_eq!(refusal.code, 2, "{}", refusal.log);
    for words in [format!("uses port {port}"), "choose another port".into()] {
        assert!(
            refusal.log.contains(&words),
            "{words:?} is missing in {}",
            refusal.log
        );
    }
}

#[tokio::test]
async fn a_typing_error_in_the_configuration_is_named_with_its_line() {
    let database = Database::create().await;
    let config = format!(
        "[database]\nurl = {:?}\n\n[limits]\nbatch_tme_ms = 1\n",
        database.url()
    );
    let refusal = Gobo::try_serve(&config).unwrap_err();
    assert_eq!(refusal.code, 2, "{}", refusal.log);
    for words in [
        "gobo.toml",
        "line 5",
        "batch_tme_ms",
        "Did you mean `batch_time_ms`?",
    ] {
        assert!(
            refusal.log.contains(words),
            "{words:?} is missing in {}",
            refusal.log
        );
    }
}

#[tokio::test]
async fn an_address_that_others_can_reach_is_refused() {
    let config = "listen = \"0.0.0.0:0\"\n[database]\nurl = \"postgresql:///nowhere\"\n";
    let refusal = Gobo::try_serve(config).unwrap_err();
    assert_eq!(refusal.code, 2);
    assert!(refusal.log.contains("access control"), "{}", refusal.log);
}

#[tokio::test]
async fn a_foreign_host_or_origin_is_refused() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "");
    for (header, value, status) in [
        ("host", "example.org", 421),
        ("host", "localhost:80", 200),
        ("origin", "https://example.org", 403),
        ("origin", "http://localhost:3000", 200),
    ] {
        let answer = gobo.request("GET", "/admin/projections", &[(header, value)], &[]);
        assert_eq!(
            answer.status,
            status,
            "{header}: {value}: {}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "");
    for (method, path, status, code) in [
        ("GET", "/nowhere", 404, "no_such_path"),
        ("DELETE", "/admin/projections", 405, "method_not_allowed"),
        ("GET", "/admin/projections/none", 404, "no_such_projection"),
        (
            "GET",
            "/admin/projections/none/logs",
            404,
            "no_such_projection",
        ),
        (
            "POST",
            "/admin/projections/none/restart",
            404,
            "no_such_projection",
        ),
        ("GET", "/admin/projections/%ff", 400, "bad_request"),
    ] {
        let answer = gobo.request(method, path, &[], &[]).expect(status);
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(answer.json()["code"], code, "{method} {path}");
    }
}

#[tokio::test]
async fn the_engine_ends_in_good_order_when_it_is_asked_to() {
    let database = Database::create().await;
    let mut gobo = Gobo::start(database.url(), "");
    gobo.wait_until_ready();
    assert_eq!(gobo.terminate(), 0, "{}", gobo.log());
}

#[tokio::test]
async fn an_engine_waits_for_a_database_that_is_not_there_yet_and_says_so() {
    let mut cluster = Cluster::start(Options::ephemeral()).unwrap();
    let database = Database::create_in(&cluster).await;
    cluster.stop().unwrap();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let status_at = |address: SocketAddr, path: &str| {
        let answer = agent.get(format!("http://{address}{path}")).call();
        answer
            .map(|answer| answer.status().as_u16())
            .map_err(|error| error.to_string())
    };
    let (address, starting) = loop {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let config = format!(
            "listen = \"{address}\"\n[database]\nurl = {:?}\n",
            database.url()
        );
        let starting = std::thread::spawn(move || Gobo::try_serve(&config));
        let is_live = wait_until("the engine to be live", || {
            match status_at(address, "/health/live") {
                _ if starting.is_finished() => Ok(false),
                Ok(200) => Ok(true),
                other => Err(other),
            }
        });
        if is_live {
            break (address, starting);
        }
        // Somebody else has taken the port meanwhile.
        let refusal = starting.join().unwrap().unwrap_err();
        assert!(refusal.log.contains("uses port"), "{}", refusal.log);
    };
    let status = |path: &str| status_at(address, path);
    assert_eq!(status("/health/ready"), Ok(503));
    assert_eq!(status("/admin/projections"), Ok(503));
    cluster.restart().unwrap();
    let gobo = starting.join().unwrap().unwrap();
    wait_until("the engine to be ready", || {
        match gobo.get("/health/ready") {
            ready if ready.status == 200 => Ok(()),
            other => Err(other.text()),
        }
    });
}
