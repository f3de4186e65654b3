//! Pages of other origins.

use gobo_tests::{Answer, Database, Gobo};

use super::{Guarded, bearer};

const APP: &str = "https://app.example.org";

fn varies(answer: &Answer, by: &str) -> bool {
    let names = (answer.headers.iter()).filter(|(name, _)| name == "vary");
    let mut names = names.flat_map(|(_, value)| value.split(','));
    names.any(|name| name.trim().eq_ignore_ascii_case(by))
}

fn preflight(gobo: &Gobo, origin: &str) -> Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "GET"),
        (
            "access-control-request-headers",
            "authorization,prefer,gobo-min-position",
        ),
    ];
    gobo.request("OPTIONS", "/read/orders", &headers, b"")
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_configured_origins_may_ask_and_see_the_headers_that_matter() {
    let guarded = Guarded::new("", &format!("[access.cors]\norigins = [{APP:?}]")).await;
    guarded.deploy("orders");
    // Before anybody says who they are.
    let allowed = preflight(&guarded.gobo, APP).expect(200);
    assert_eq!(allowed.header("access-control-allow-origin"), Some(APP));
    assert!(
        allowed
            .header("access-control-allow-headers")
            .unwrap()
            .contains("gobo-min-position")
    );
    assert!(allowed.header("access-control-allow-credentials").is_none());
    assert!(allowed.header("access-control-max-age").is_some());

    let ask = |origin: &str, token: Option<&str>| {
        let token = token.map(bearer).unwrap_or_default();
        let headers = [("origin", origin), ("authorization", token.as_str())];
        let sent = if token.is_empty() {
            &headers[..1]
        } else {
            &headers[..]
        };
        guarded.gobo.request("GET", "/read/orders", sent, b"")
    };
    let answer = ask(APP, Some(&guarded.read)).expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    let shown = answer
        .header("access-control-expose-headers")
        .unwrap()
        .to_lowercase();
    for name in answer
        .headers
        .iter()
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("gobo-"))
    {
        assert!(
            shown.contains(name.as_str()),
            "{name} is not exposed: {shown}"
        );
    }
    for name in [
        "etag",
        "content-range",
        "link",
        "gobo-next-cursor",
        "retry-after",
    ] {
        assert!(shown.contains(name), "{name} is not exposed: {shown}");
    }
    assert!(varies(&answer, "origin"), "{answer:?}");
    // Who only asks for OPTIONS, and not for permission, is answered like everybody.
    for headers in [
        &[][..],
        &[("origin", APP)],
        &[("access-control-request-method", "GET")],
    ] {
        let answer = guarded
            .gobo
            .request("OPTIONS", "/nothing/at/all", headers, b"");
        assert_eq!(answer.status, 401, "{headers:?}: {answer:?}");
    }
    // The page learns why it is refused.
    let refused = ask(APP, None).expect(401);
    assert_eq!(refused.header("access-control-allow-origin"), Some(APP));

    for other in [
        "https://app.example.org.evil.example",
        "http://app.example.org",
        "https://example.org",
        "null",
    ] {
        let answer = preflight(&guarded.gobo, other);
        assert!([401, 403].contains(&answer.status), "{other}: {answer:?}");
        assert!(
            answer.header("access-control-allow-origin").is_none(),
            "{other}: {answer:?}"
        );
        assert_eq!(ask(other, Some(&guarded.read)).status, 403, "{other}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_configuration_no_page_may_and_with_a_star_every_page_with_a_token() {
    let guarded = Guarded::new("", "").await;
    let answer = preflight(&guarded.gobo, APP);
    assert!(
        answer.header("access-control-allow-origin").is_none(),
        "{answer:?}"
    );
    let guarded = Guarded::new("", "[access.cors]\norigins = [\"*\"]").await;
    assert_eq!(
        preflight(&guarded.gobo, APP).header("access-control-allow-origin"),
        Some("*")
    );
    let headers = [("origin", APP), ("authorization", &*bearer(&guarded.read))];
    guarded
        .gobo
        .request("GET", "/read/nothing", &headers, b"")
        .expect(404);
    guarded
        .gobo
        .request("GET", "/read/nothing", &headers[..1], b"")
        .expect(401);

    let database = Database::create().await;
    let refused = Gobo::try_start(database.url(), "[access.cors]\norigins = [\"*\"]").unwrap_err();
    assert!(
        refused.log.contains("needs access control"),
        "{}",
        refused.log
    );
    let refused = Gobo::try_start(
        database.url(),
        "[access.cors]\norigins = [\"https://a.example/x\"]",
    )
    .unwrap_err();
    assert!(refused.log.contains("is no origin"), "{}", refused.log);
}
