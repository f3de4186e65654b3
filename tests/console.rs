//! The console: pages for people, and what their forms do.

mod generations;

use gobo_tests::{Database, Gobo, PATIENCE, wait_until};
use serde_json::{Value, json};

use crate::foreign::{SHOP, shop};
use crate::scene::{Event, Scene, raw};

const PARK: &str =
    "[projections.ledger]\npolicy = \"park\"\n[projections.raw]\npolicy = \"park\"\n";
const LEDGER: &str = "/console/projections/ledger";

fn booked(stream: &str, amount: i64, fee: i64) -> Event {
    let data = json!({ "amount": amount, "fee": fee });
    (stream.to_owned(), "Booked", data)
}

/// A page with this status.
fn page(gobo: &Gobo, path: &str, status: u16) -> String {
    let answer = gobo.get(path).expect(status);
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/html"), "{path}: {kind}");
    answer.text()
}

#[track_caller]
fn assert_shows(page: &str, words: &[&str]) {
    for words in words {
        assert!(page.contains(words), "{words:?} is missing in {page}");
    }
}

/// Sends a form as a browser would, with these headers besides, and does not follow where it leads.
fn submit(gobo: &Gobo, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .build()
        .into();
    let mut request = agent
        .post(format!("{}{path}", gobo.url()))
        .content_type("application/x-www-form-urlencoded");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = request.send(body).unwrap();
    let location = answer.headers().get("location");
    let location = location.map_or("", |to| to.to_str().unwrap()).to_owned();
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), location, text)
}

/// Sends a form from the console's own page and gives the page that it leads to.
fn press(gobo: &Gobo, path: &str, body: &str) -> String {
    let own = [("origin", gobo.url()), ("sec-fetch-site", "same-origin")];
    let (status, location, text) = submit(gobo, path, &own, body);
    assert_eq!(status, 303, "{text}");
    assert!(
        location.starts_with("/console/projections/"),
        "leads to {location}"
    );
    page(gobo, &location, 200)
}

/// Sends a form that is refused, and gives the page that says why.
fn press_in_vain(gobo: &Gobo, path: &str, body: &str, expected: u16) -> String {
    let (status, _, text) = submit(gobo, path, &[("origin", gobo.url())], body);
    assert_eq!(status, expected, "{text}");
    text
}

/// The ledger with two parked streams: a (one failed, two behind it) and b (one failed).
async fn parked() -> (Scene, Vec<i64>) {
    let scene = Scene::new(PARK, &["ledger"]).await;
    let events = [
        booked("a", 1, 9),
        booked("a", 2, 0),
        booked("b", 4, 7),
        booked("a", 3, 0),
    ];
    let positions = scene.append(&events).await;
    scene.wait_for("ledger", positions[3]);
    scene.wait_for_letters("ledger", &waiting(&positions));
    (scene, positions)
}

fn waiting(positions: &[i64]) -> [(i64, &'static str, &'static str); 4] {
    [
        (positions[0], "a", "failed"),
        (positions[1], "a", "behind"),
        (positions[2], "b", "failed"),
        (positions[3], "a", "behind"),
    ]
}

async fn history(scene: &Scene, account: &str) -> Value {
    let sql = format!("select history from read.accounts where account = '{account}'");
    scene.database.query_json(&sql).await[0]["history"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_names_every_projection_and_loads_itself_again() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), PARK);
    assert_shows(
        &page(&gobo, "/console", 200),
        &["No projection is deployed"],
    );
    let scene = Scene { database, gobo };
    for guest in ["ledger", "page-views"] {
        scene.gobo.deploy(guest).expect(201);
    }
    let positions = scene.append(&[booked("a", 1, 0), booked("b", 2, 3)]).await;
    scene.wait_for("ledger", positions[1]);
    let shown = page(&scene.gobo, "/", 200);
    let status = scene.status("ledger");
    let owner = status["owner"].as_str().unwrap();
    let place = format!("{0} / {0}", positions[1]);
    assert_shows(
        &shown,
        &[
            r#"<meta http-equiv="refresh" content="5">"#,
            r#"<a href="/console/projections/ledger">ledger</a>"#,
            r#"<a href="/console/projections/page-views">page-views</a>"#,
            r##"href="/console/projections/ledger#dead-letters">1</a>"##,
            status["version"].as_str().unwrap(),
            "running",
            &place,
            owner,
        ],
    );
    let still = page(&scene.gobo, "/console?refresh=off", 200);
    assert!(!still.contains("http-equiv"), "{still}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_allow_no_script_no_frame_and_nothing_from_elsewhere() {
    let (scene, _) = parked().await;
    for (path, status) in [("/console", 200), (LEDGER, 200), ("/console/nowhere", 404)] {
        let answer = scene.gobo.get(path).expect(status);
        let policy = answer.header("content-security-policy").unwrap();
        assert_shows(
            policy,
            &[
                "default-src 'none'",
                "style-src 'sha256-",
                "form-action 'self'",
                "frame-ancestors 'none'",
            ],
        );
        assert!(
            !policy.contains("script-src") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let text = answer.text();
        for banned in [
            "<script", "<link", "<img", "@import", "url(", " style=", "http://", "onclick",
        ] {
            assert!(!text.contains(banned), "{path} contains {banned}");
        }
        assert_shows(
            &text,
            &["<!DOCTYPE html>", r#"lang="en""#, r#"name="viewport""#],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_s_page_lists_its_dead_letters_per_stream_in_order_with_their_events() {
    let (scene, positions) = parked().await;
    let shown = page(&scene.gobo, LEDGER, 200);
    assert_shows(
        &shown,
        &[
            r#"<a href="/read/accounts">accounts</a>"#,
            "a fee of 9 is not understood",
            "a fee of 7 is not understood",
            "1 attempt,",
            r#"{&quot;amount&quot;:1,&quot;fee&quot;:9}"#,
            scene.status("ledger")["hash"].as_str().unwrap(),
            "4 events could not be processed",
        ],
    );
    // Each stream's together, in order, although they were interleaved.
    let order = [0, 1, 3, 2].map(|index| format!("id=\"event-{}\"", positions[index]));
    let places = order.map(|id| shown.find(&id).unwrap_or_else(|| panic!("{id}: {shown}")));
    assert!(places.is_sorted(), "{places:?}");
    // What waits behind another cannot be discarded alone.
    for (index, is_offered) in [(0, true), (1, false), (2, true), (3, false)] {
        let action = format!("{LEDGER}/discard?position={}&amp;", positions[index]);
        assert_eq!(shown.contains(&action), is_offered, "{action}");
    }
    let of_b = page(&scene.gobo, &format!("{LEDGER}?stream_id=b"), 200);
    assert!(
        of_b.contains("a fee of 7") && !of_b.contains("a fee of 9"),
        "{of_b}"
    );
    let later = format!("{LEDGER}?after={}", positions[2]);
    let later = page(&scene.gobo, &later, 200);
    let last = format!("id=\"event-{}\"", positions[3]);
    assert!(
        later.contains(&last) && !later.contains("a fee of 7"),
        "{later}"
    );
    for path in ["/console/projections/nobody", "/console/elsewhere"] {
        assert_shows(
            &page(&scene.gobo, path, 404),
            &["<h1>Not Found</h1>", "there is no"],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_retried_in_order_by_a_button() {
    let (scene, positions) = parked().await;
    scene.gobo.swap("ledger-mended").expect(200);
    let said = press(&scene.gobo, &format!("{LEDGER}/retry?stream_id=a"), "");
    assert_shows(&said, &["3 dead letters are tried again"]);
    scene.wait_for_letters("ledger", &[(positions[2], "b", "failed")]);
    assert_eq!(history(&scene, "a").await, " 1-9 2-0 3-0");
    let said = press(&scene.gobo, &format!("{LEDGER}/retry"), "");
    assert_shows(&said, &["One dead letter is tried again"]);
    scene.wait_for_letters("ledger", &[]);
    assert_eq!(history(&scene, "b").await, " 4-7");
    let said = press(&scene.gobo, &format!("{LEDGER}/retry?stream_id=nobody"), "");
    assert_shows(&said, &["There was nothing to try again", "None waits"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_is_discarded_with_a_reason_and_its_stream_goes_on() {
    let (scene, positions) = parked().await;
    let path = format!("{LEDGER}/discard?position={}&stream_id=a", positions[0]);
    let said = press(&scene.gobo, &path, "reason=booked+by+hand+%26+checked");
    assert_shows(&said, &["2 that waited behind it are tried again"]);
    let left = [
        (positions[0], "a", "discarded"),
        (positions[2], "b", "failed"),
    ];
    scene.wait_for_letters("ledger", &left);
    assert_eq!(
        scene.letters("ledger")[0].message,
        "booked by hand & checked"
    );
    assert_eq!(history(&scene, "a").await, " 2-0 3-0");
    let shown = page(&scene.gobo, LEDGER, 200);
    assert_shows(
        &shown,
        &[
            "Discarded, the latest first",
            "booked by hand &amp; checked",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_stream_is_discarded_with_a_reason_and_what_comes_later_is_processed() {
    let (scene, positions) = parked().await;
    let path = format!("{LEDGER}/discard?stream_id=a&whole_stream=true");
    let said = press(&scene.gobo, &path, "reason=a+test+account");
    assert_shows(&said, &["3 dead letters were discarded"]);
    let discard = [
        "dead-letters",
        "discard",
        "ledger",
        "--stream",
        "b",
        "--whole-stream",
        "--reason",
        "too",
    ];
    let output = scene.gobo.command(&discard);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("discarded 1 events of stream \"b\""),
        "{output:?}"
    );
    let states = waiting(&positions).map(|(position, stream, _)| (position, stream, "discarded"));
    scene.wait_for_letters("ledger", &states);
    // The owner has looked at the streams once nothing is left to be retried.
    wait_until("the streams to go on", || {
        let path = "/admin/projections/ledger/dead-letters";
        let letters = scene.gobo.get(path).expect(200).json();
        let mut waiting = letters["dead_letters"].as_array().unwrap().iter();
        match waiting.any(|letter| letter["retry"] == true) {
            false => Ok(()),
            true => Err(letters),
        }
    });
    let later = scene.append(&[booked("a", 5, 0), booked("b", 6, 0)]).await;
    scene.wait_for("ledger", later[1]);
    scene.wait_for_letters("ledger", &states);
    assert_eq!(history(&scene, "a").await, " 5-0");
    assert_eq!(history(&scene, "b").await, " 6-0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_stopped_is_restarted_by_a_button() {
    let scene = Scene::new("", &["ledger"]).await;
    let positions = scene.append(&[booked("a", 1, 0), booked("a", 2, 5)]).await;
    scene.wait_for_stop("ledger");
    let at = format!("At event {}", positions[1]);
    assert_shows(&page(&scene.gobo, "/console", 200), &["stopped", &at]);
    let shown = page(&scene.gobo, LEDGER, 200);
    assert_shows(
        &shown,
        &[
            &at,
            "a fee of 5 is not understood",
            "deploy a mended plugin",
            ">Restart<",
        ],
    );
    // It stops there again, having tried.
    let said = press(&scene.gobo, &format!("{LEDGER}/restart"), "");
    assert_shows(&said, &["tries again from its checkpoint"]);
    scene.wait_for_stop("ledger");
    scene.gobo.swap("ledger-mended").expect(200);
    scene.wait_for("ledger", positions[1]);
    assert_eq!(history(&scene, "a").await, " 1-0 2-5");
    let said = press(&scene.gobo, &format!("{LEDGER}/restart"), "");
    assert_shows(&said, &["had not stopped"]);
    assert!(!said.contains(">Restart<"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said_on_the_page_and_changes_nothing() {
    let (scene, positions) = parked().await;
    let discard = format!("{LEDGER}/discard");
    let one = format!("{discard}?position={}", positions[0]);
    let behind = format!("{discard}?position={}", positions[1]);
    let long = format!("reason={}", "x".repeat(1_001));
    let huge = format!("reason={}", "x".repeat(100_000));
    let whole = |stream: &str| format!("{discard}?stream_id={stream}&whole_stream=true");
    for (path, body, status, words) in [
        (&one, "reason=", 400, "says why the event is given up"),
        (&one, "reason=++%0A", 400, "says why the event is given up"),
        (&one, "", 400, "says why the event is given up"),
        (&one, "reason=%00", 400, "says why the event is given up"),
        (&one, &long, 400, "says why the event is given up"),
        (&one, &huge, 400, "the form cannot be read"),
        (&behind, "reason=x", 409, "waits behind an earlier one"),
        (&discard, "reason=x", 400, "the form cannot be read"),
        (
            &format!("{discard}?position=abc"),
            "reason=x",
            400,
            "the form cannot be read",
        ),
        (
            &format!("{discard}?position=99999"),
            "reason=x",
            404,
            "there is no such dead letter",
        ),
        (
            &format!("{one}&stream_id=b"),
            "reason=x",
            404,
            "there is no such dead letter",
        ),
        (
            &whole("nobody"),
            "reason=x",
            404,
            "there is no such dead letter",
        ),
        (
            &whole("a"),
            "reason=",
            400,
            "says why the event is given up",
        ),
    ] {
        let shown = press_in_vain(&scene.gobo, path, body, status);
        assert_shows(&shown, &["Nothing was changed", words, "<h1>ledger"]);
    }
    for action in ["retry", "restart", "discard?position=1"] {
        let path = format!("/console/projections/nobody/{action}");
        let shown = press_in_vain(&scene.gobo, &path, "reason=x", 404);
        assert_shows(&shown, &["there is no projection"]);
    }
    // Asking for a form's address leads to its page.
    assert_shows(&page(&scene.gobo, &discard, 200), &["<h1>ledger"]);
    scene.wait_for_letters("ledger", &waiting(&positions));
    assert_eq!(untouched(&scene).await, 4);
}

/// How many letters nobody has decided about or asked to retry since their first attempt.
async fn untouched(scene: &Scene) -> i64 {
    let sql = "select count(*) from gobo.dead_letters where not retry and attempts = 1 and state <> 'discarded'";
    scene.database.query_i64(sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_other_pages_are_refused() {
    let (scene, positions) = parked().await;
    let own = scene.gobo.url().to_owned();
    let port = own.rsplit(':').next().unwrap();
    let neighbour = "http://127.0.0.1:1".to_owned();
    let other_name = format!("http://localhost:{port}");
    let rebound = format!("example.org:{port}");
    let discard = format!("/discard?position={}", positions[0]);
    for action in ["/retry", "/restart", &discard] {
        let path = format!("{LEDGER}{action}");
        for (headers, expected) in [
            (&[("origin", "https://example.org")][..], 403),
            (&[("origin", "null")], 403),
            (&[("origin", neighbour.as_str())], 403),
            (&[("origin", other_name.as_str())], 403),
            (&[("sec-fetch-site", "cross-site")], 403),
            (&[("sec-fetch-site", "same-site")], 403),
            (
                &[("origin", own.as_str()), ("sec-fetch-site", "cross-site")],
                403,
            ),
            (&[], 403),
            (
                &[
                    ("host", rebound.as_str()),
                    ("sec-fetch-site", "same-origin"),
                ],
                421,
            ),
        ] {
            let (status, _, text) = submit(&scene.gobo, &path, headers, "reason=x");
            assert_eq!(status, expected, "{headers:?}: {text}");
        }
    }
    assert_eq!(untouched(&scene).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_comes_from_outside_is_markup() {
    let scene = Scene::new(PARK, &["raw-guest"]).await;
    let script = "<script>alert('1')</script>\"&\r\n";
    let logged = json!({ "do": "log", "message": format!("logged {script}") });
    let failed = json!({ "do": "error", "message": format!("failed {script}") });
    let positions = scene
        .append(&[raw("fine", logged), raw(script, failed)])
        .await;
    scene.wait_for("raw", positions[1]);
    scene.wait_for_letters("raw", &[(positions[1], script, "failed")]);
    let path = "/console/projections/raw";
    let shown = page(&scene.gobo, path, 200);
    let escaped = "&lt;script&gt;alert('1')&lt;/script&gt;&quot;&amp;";
    for place in ["Stream ", "failed ", "logged "] {
        assert_shows(&shown, &[&format!("{place}{escaped}")]);
    }
    let vain = "/console/projections/%3Cscript%3E";
    let pages = [
        (page(&scene.gobo, vain, 404), "&lt;script&gt;"),
        (
            page(
                &scene.gobo,
                &format!("{path}?stream_id=%3Cscript%3E&after=0"),
                200,
            ),
            "&lt;script&gt;",
        ),
        (
            page(&scene.gobo, "/console/%3Cscript%3E", 404),
            "there is nothing at",
        ),
        (
            page(
                &scene.gobo,
                &format!("{path}?done=%3Cscript%3E&count=1"),
                200,
            ),
            "<h1>raw",
        ),
    ];
    // The form's address names the stream exactly, line break and all.
    let stream = "%3Cscript%3Ealert%28%271%27%29%3C%2Fscript%3E%22%26%0D%0A";
    assert_shows(
        &shown,
        &[&format!("action=\"{path}/retry?stream_id={stream}\"")],
    );
    let discard = format!("{path}/discard?stream_id={stream}&whole_stream=true");
    let decided = press(&scene.gobo, &discard, "reason=%3Cscript%3Ereason");
    assert_shows(
        &decided,
        &["One dead letter was discarded", "&lt;script&gt;reason"],
    );
    for text in [shown, decided] {
        assert!(!text.contains("<script"), "{text}");
    }
    for (text, words) in pages {
        assert!(text.contains(words) && !text.contains("<script"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_event_is_shown_by_its_beginning() {
    let scene = Scene::new(PARK, &["raw-guest"]).await;
    let large = json!({ "do": "error", "message": "no", "text": "é".repeat(50_000) });
    let positions = scene.append(&[raw("a", large)]).await;
    scene.wait_for("raw", positions[0]);
    let shown = page(&scene.gobo, "/console/projections/raw", 200);
    assert_shows(&shown, &["&quot;do&quot;:&quot;error&quot;", "more bytes"]);
    assert!(shown.len() < 40_000, "{} bytes", shown.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_dead_letters_are_turned_over_page_by_page() {
    let scene = Scene::new(PARK, &["ledger"]).await;
    let events: Vec<Event> = (0..103).map(|n| booked("a", n, 1)).collect();
    let positions = scene.append(&events).await;
    scene.wait_for("ledger", positions[102]);
    let count = |page: &str| page.matches("<li id=\"event-").count();
    let first = page(&scene.gobo, &format!("{LEDGER}?stream_id=a"), 200);
    assert_shows(&first, &["103 events could not be processed"]);
    assert_eq!(count(&first), 100);
    let (link, _) = first.split_once("\">Further dead letters").unwrap();
    let (_, link) = link.rsplit_once("href=\"").unwrap();
    let (link, _) = link.split_once('#').unwrap();
    let second = page(&scene.gobo, &link.replace("&amp;", "&"), 200);
    assert_eq!(count(&second), 3);
    let last = format!("<li id=\"event-{}\"", positions[102]);
    assert_shows(&second, &["those of stream", "those after event", &last]);
    assert!(!second.contains("Further dead letters"), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_foreign_table_is_shown_too_and_one_that_is_gone_is_said_to_be() {
    let database = shop().await;
    let gobo = Gobo::start(database.url(), &format!("{SHOP}policy = \"park\"\n"));
    gobo.deploy("page-views").expect(201);
    let insert = "insert into shop_events (visitor, kind, payload) values (7, 'PageViewed', '{\"oops\": 1}')";
    database.execute(insert).await;
    let path = "/console/projections/page-views";
    let shown = wait_until("the dead letter", || {
        let shown = page(&gobo, path, 200);
        match shown.contains("<li id=") {
            true => Ok(shown),
            false => Err(shown),
        }
    });
    assert_shows(&shown, &["visit-7", "{&quot;oops&quot;: 1}"]);
    database.execute("delete from shop_events").await;
    let shown = page(&gobo, path, 200);
    assert_shows(&shown, &["The event is not in the source any more"]);
}
