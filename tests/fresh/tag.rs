//! What disturbs the `ETag` of a read model, and what does not.

use gobo_tests::Answer;
use serde_json::json;

use crate::scene::{Event, Scene};

fn booked(amount: i64, fee: i64) -> Event {
    let data = json!({ "amount": amount, "fee": fee });
    ("a".to_owned(), "Booked", data)
}

fn tag(answer: &Answer) -> String {
    answer.header("etag").unwrap().to_owned()
}

fn position(answer: &Answer) -> i64 {
    answer.header("gobo-position").unwrap().parse().unwrap()
}

/// The answer, from `min` on, to a reader who has what is called `tag`.
fn again(scene: &Scene, path: &str, tag: &str, min: i64) -> Answer {
    let min = min.to_string();
    let joint = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{joint}wait=30s");
    let headers = [("if-none-match", tag), ("gobo-min-position", &min)];
    scene.gobo.request("GET", &path, &headers, b"")
}

const PATHS: [&str; 3] = [
    "/read/accounts?order=account",
    "/read/accounts/a",
    "/read/accounts?select=balance&balance=gte.0",
];

#[tokio::test]
async fn events_that_do_not_touch_a_read_model_move_its_position_and_leave_its_tag() {
    let scene = Scene::new("", &["ledger", "library"]).await;
    let author = json!({ "id": 1, "name": "Lem", "country": "PL" });
    let author: Event = ("author-1".to_owned(), "AuthorAdded", author);
    let first = scene.append(&[booked(5, 0), author]).await[1];
    scene.wait_for("ledger", first);
    scene.wait_for("library", first);
    let paths: Vec<&str> = PATHS.into_iter().chain(["/read/authors/1"]).collect();
    let ask = |path: &&str| scene.gobo.get(path).expect(200);
    let before: Vec<Answer> = paths.iter().map(ask).collect();
    let book = json!({
        "id": 1, "title": "Solaris", "author_id": 1, "blurb": "", "pages": 204, "price": "9.5", "in_print": true,
        "tags": [], "editions": [], "details": null, "published": "1961-01-01", "added_at": "2024-01-01T00:00:00Z",
    });
    let look = json!({ "amount": 0, "look": true });
    for untouched in [
        // Of nobody's business here, handled without any change, and a change of another read model of the same projection.
        ("a".to_owned(), "PageViewed", json!({ "page": "/" })),
        ("a".to_owned(), "Booked", look),
        ("book-1".to_owned(), "BookAdded", book),
    ] {
        let last = scene.append(&[untouched]).await[0];
        for (path, before) in paths.iter().zip(&before) {
            let same = again(&scene, path, &tag(before), last).expect(304);
            assert_eq!(tag(&same), tag(before), "{path}");
            assert!(position(before) < last && position(&same) >= last, "{path}");
        }
    }
    let books = scene.gobo.get("/read/books?select=title").expect(200);
    assert_eq!(books.json(), json!([{ "title": "Solaris" }]));
    let last = scene.append(&[booked(1, 0)]).await[0];
    for (path, before) in PATHS.iter().zip(&before) {
        let changed = again(&scene, path, &tag(before), last).expect(200);
        assert_ne!(tag(&changed), tag(before), "{path}");
    }
}

#[tokio::test]
async fn a_dead_letter_that_is_retried_disturbs_the_tag_although_no_event_has_come() {
    for policy in ["skip", "park"] {
        let tables = format!("[projections.ledger]\npolicy = \"{policy}\"\n");
        let scene = Scene::new(&tables, &["ledger"]).await;
        let events = [booked(5, 0), booked(7, 2)];
        let last = scene.append(&events).await[1];
        scene.wait_for("ledger", last);
        scene.gobo.swap("ledger-mended").expect(200);
        let ask = |path: &&str| scene.gobo.get(path).expect(200);
        let before: Vec<Answer> = PATHS.iter().map(ask).collect();
        for (path, before) in PATHS.iter().zip(&before) {
            // Whoever has the rows is told so, until they are others.
            again(&scene, path, &tag(before), last).expect(304);
        }
        assert_eq!(scene.retry("ledger"), 1);
        scene.wait_for_letters("ledger", &[]);
        for (path, before) in PATHS.iter().zip(&before) {
            let changed = again(&scene, path, &tag(before), last).expect(200);
            assert_ne!(tag(&changed), tag(before), "{policy} {path}");
            assert_eq!(position(&changed), position(before), "{policy} {path}");
            let row = changed.json();
            let row = row.get(0).unwrap_or(&row);
            assert_eq!(row["balance"], 10, "{policy} {path}");
            again(&scene, path, &tag(&changed), last).expect(304);
        }
    }
}
