//! Events over HTTP.

use std::sync::Arc;
use std::time::Duration;

use gobo::api::streams::{Projections, Streams, router};
use gobo::db::Database as Engine;
use gobo::migrate::migrate;
use gobo::progress::Progress;
use gobo::query::Limits;
use gobo::query::board::{Board, Looks};
use gobo::query::catalog::{Catalog, Models};
use gobo::store::Store;
use gobo_tests::Database;
use serde_json::{Value, json};
use tokio::sync::watch;

struct Server {
    url: String,
    safe: watch::Sender<i64>,
    database: Database,
}

struct Answer {
    status: u16,
    content_type: String,
    position: Option<String>,
    body: Value,
}

impl Server {
    async fn start() -> Server {
        let database = Database::create().await;
        migrate(&mut database.connect().await).await.unwrap();
        let (safe, receiver) = watch::channel(i64::MAX);
        let url = serve(database.url(), receiver).await;
        Server {
            url,
            safe,
            database,
        }
    }

    async fn post(&self, path: &str, body: impl Into<String>) -> Answer {
        call("POST", format!("{}{path}", self.url), Some(body.into())).await
    }

    async fn get(&self, path: &str) -> Answer {
        call("GET", format!("{}{path}", self.url), None).await
    }
}

async fn serve(database: &str, safe: watch::Receiver<i64>) -> String {
    let database = Engine::new(database).unwrap();
    let (_, models) = watch::channel(Models::default());
    let limits = Limits::default();
    let looks = Looks {
        max_age: Duration::ZERO,
        waiters: limits.waiters,
    };
    let app = router(Streams {
        store: Store::new(database.pool("test", 4, &[])),
        safe,
        projections: Projections {
            board: Board::new(database.sessions("test", 4, &[]), Progress::new(), looks),
            catalog: Catalog::new(models, Arc::default()),
            limits,
            rules: Default::default(),
        },
        body_limit: 1 << 20,
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

async fn call(method: &'static str, url: String, body: Option<String>) -> Answer {
    let ask = move || {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let request = ureq::http::Request::builder().method(method).uri(url);
        let mut response = match body {
            Some(body) => agent.run(request.body(body).unwrap()),
            None => agent.run(request.body(()).unwrap()),
        }
        .unwrap();
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let (content_type, position) = (header("content-type"), header("gobo-position"));
        let text = response.body_mut().read_to_string().unwrap();
        Answer {
            status: response.status().as_u16(),
            content_type: content_type.unwrap_or_default(),
            position,
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
        }
    };
    tokio::task::spawn_blocking(ask).await.unwrap()
}

fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (status, &json!(code)),
        "{}",
        answer.body
    );
    assert_eq!(answer.content_type, "application/problem+json");
}

#[tokio::test]
async fn events_come_back_as_they_were_sent() {
    let server = Server::start().await;
    let sent = r#"{"expected_version":"none","events":[
        {"type":"T","data":{"b":1.50,"a":12345678901234567890.1},"metadata":{"by":"me"},"occurred_at":"2020-01-01T00:00:00.5Z"},
        {"type":"U","data":[]}]}"#;
    let appended = server.post("/streams/a%2Fb%20%C3%A9/events", sent).await;
    assert_eq!(appended.status, 200, "{}", appended.body);
    assert_eq!(appended.body["stream_id"], "a/b é");
    assert_eq!(appended.body["version"], 1);
    assert_eq!(
        appended.position,
        Some(appended.body["position"].to_string())
    );

    let read = server.get("/streams/a%2Fb%20%C3%A9/events").await;
    assert_eq!((read.status, &read.body["version"]), (200, &json!(1)));
    let first = &read.body["events"][0];
    assert_eq!(first["occurred_at"], "2020-01-01T00:00:00.500000Z");
    assert_eq!(first["metadata"], json!({"by": "me"}));
    let text = "select data::text from gobo.events where version = 0";
    let stored = &server.database.query_json(text).await[0]["data"];
    assert_eq!(stored, r#"{"b":1.50,"a":12345678901234567890.1}"#);
    let after = server
        .get("/streams/a%2Fb%20%C3%A9/events?after=0&limit=1")
        .await;
    assert_eq!(after.body["events"][0]["type"], "U");
    assert_eq!(after.body["next"], Value::Null);
}

#[tokio::test]
async fn conflicts_are_409_with_the_actual_version() {
    let server = Server::start().await;
    let event =
        json!({"type": "T", "data": {}, "event_id": "00000000-0000-0000-0000-000000000001"});
    let body = json!({"expected_version": 3, "events": [event]}).to_string();
    let missing = server.post("/streams/s/events", body.clone()).await;
    assert_problem(&missing, 409, "version_conflict");
    assert_eq!(missing.body["details"], json!({"actual_version": null}));
    let first = server
        .post("/streams/s/events", body.replace('3', "\"any\""))
        .await;
    assert_eq!(first.status, 200);
    let plain = json!({"expected_version": "none", "events": [{"type": "T", "data": {}}]});
    let there = server.post("/streams/s/events", plain.to_string()).await;
    assert_problem(&there, 409, "version_conflict");
    assert_eq!(there.body["details"], json!({"actual_version": 0}));
    let elsewhere = server
        .post("/streams/t/events", body.replace('3', "\"any\""))
        .await;
    assert_problem(&elsewhere, 409, "event_id_conflict");
}

#[tokio::test]
async fn bad_requests_are_problems_that_name_the_cause() {
    let server = Server::start().await;
    let event = r#"{"type":"T","data":{}}"#;
    for (body, code) in [
        ("{\"events\": [\n{]}".to_owned(), "bad_json"),
        (String::new(), "bad_json"),
        (format!("[\"any\",[{event}]]"), "bad_json"),
        (
            format!(r#"{{"events":[{event}],"expected":1}}"#),
            "bad_json",
        ),
        (r#"{"expected_version":"any"}"#.to_owned(), "bad_json"),
        (
            format!(r#"{{"events":[{event}],"expected_version":-1}}"#),
            "bad_json",
        ),
        (
            format!(r#"{{"events":[{event}],"expected_version":"some"}}"#),
            "bad_json",
        ),
        (r#"{"events":[]}"#.to_owned(), "event_refused"),
        (r#"{"events":[{"type":"T"}]}"#.to_owned(), "event_refused"),
        (
            r#"{"events":[{"type":"T","data":"\u0000"}]}"#.to_owned(),
            "event_refused",
        ),
    ] {
        assert_problem(&server.post("/streams/s/events", body).await, 400, code);
    }
    let broken = server
        .post("/streams/s/events", "{\"events\": [\n{]}")
        .await;
    assert_eq!(
        broken.body["details"],
        json!({"path": "events", "line": 2, "column": 2})
    );
    let vague = format!(r#"{{"events":[{event}],"expected_version":"some"}}"#);
    let vague = server.post("/streams/s/events", vague).await;
    assert_eq!(vague.body["details"]["path"], "expected_version");
    let large = format!(
        r#"{{"events":[{{"type":"T","data":"{}"}}]}}"#,
        "x".repeat(1 << 20)
    );
    assert_problem(
        &server.post("/streams/s/events", large).await,
        413,
        "body_too_large",
    );
    assert_problem(
        &server.get("/streams/unknown/events").await,
        404,
        "unknown_stream",
    );
    assert_problem(
        &server.get("/streams/%00/events").await,
        404,
        "unknown_stream",
    );
    assert_problem(&server.get("/streams/%FF/events").await, 400, "bad_path");
    for query in ["limit=0", "limit=1001", "limit=x", "after=x", "page=2"] {
        assert_problem(
            &server.get(&format!("/events?{query}")).await,
            400,
            "bad_query",
        );
    }
    let deleted = call("DELETE", format!("{}/events", server.url), None).await;
    assert_problem(&deleted, 405, "method_not_allowed");
    assert_eq!(
        server
            .database
            .query_i64("select count(*) from gobo.events")
            .await,
        0
    );
}

#[tokio::test]
async fn the_list_of_all_events_ends_at_the_safe_position() {
    let server = Server::start().await;
    let events = json!({"events": [{"type": "A", "data": 0}, {"type": "B", "data": 1}, {"type": "A", "data": 2}]});
    let appended = server.post("/streams/s/events", events.to_string()).await;
    let second = appended.body["events"][1]["position"].as_i64().unwrap();
    server.safe.send(second).unwrap();
    let listed = server.get("/events").await.body;
    assert_eq!(listed["events"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&listed["safe_position"], &listed["head_position"]),
        (&json!(second), &json!(second + 1))
    );
    server.safe.send(second + 1).unwrap();
    let only_a = server.get("/events?types=A,C&limit=1").await.body;
    assert_eq!(
        (&only_a["events"][0]["data"], &only_a["next"]),
        (&json!(0), &json!(second - 1))
    );
    let rest = server
        .get(&format!("/events?types=A&after={second}"))
        .await
        .body;
    assert_eq!(
        (&rest["events"][0]["data"], &rest["next"]),
        (&json!(2), &Value::Null)
    );
}

#[tokio::test]
async fn a_database_that_is_away_is_503() {
    let (_safe, receiver) = watch::channel(0);
    let url = serve("postgresql://nobody@127.0.0.1:1/nothing", receiver).await;
    let body = json!({"events": [{"type": "T", "data": {}}]}).to_string();
    assert_problem(
        &call("POST", format!("{url}/streams/s/events"), Some(body)).await,
        503,
        "unavailable",
    );
    assert_problem(
        &call("GET", format!("{url}/events"), None).await,
        503,
        "unavailable",
    );
}
