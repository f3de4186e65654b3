//! What the README says is true: its projection is the guest `page-views`, and it does what is said of it.

use gobo_tests::{Database, Gobo, workspace};
use serde_json::json;

#[test]
fn the_readme_shows_the_projection_that_is_tested() {
    let readme = std::fs::read_to_string(workspace().join("README.md")).unwrap();
    let guest = workspace().join("tests/guests/page-views/src/lib.rs");
    let code = std::fs::read_to_string(guest).unwrap();
    assert!(
        readme.contains(&format!("```rust\n{code}```")),
        "the README's projection and tests/guests/page-views differ"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_projection_counts_and_a_client_reads_its_own_write() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "");
    gobo.deploy("page-views").expect(201);
    for (stream, page) in [("visit-1", "/"), ("visit-2", "/"), ("visit-2", "/about")] {
        let data = json!({ "page": page }).to_string();
        let appended = gobo.command(&["append", stream, "PageViewed", &data]);
        assert!(appended.status.success(), "{appended:?}");
    }
    let answer = gobo
        .get("/read/page_views?select=page,views&order=views.desc&min_position=3&wait=30s")
        .expect(200);
    assert_eq!(
        answer.json(),
        json!([{"page": "/", "views": 2}, {"page": "/about", "views": 1}])
    );
    assert_eq!(answer.header("gobo-position"), Some("3"));
    assert_eq!(answer.header("gobo-head-position"), Some("3"));
    let status = gobo.command(&["status"]);
    let shown = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        shown.contains("page-views") && shown.contains("running"),
        "{shown}"
    );
}
