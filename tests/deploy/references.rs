//! References to read models: refused where they cannot fit, no obstacle where the other side is not there.

use gobo_tests::{Database, Gobo};
use serde_json::json;

use super::module::Module;
use super::{deploy, everything, go_on};

/// A projection whose rows refer to a read model by these columns.
fn referring(name: &str, columns: &[&str], to: &str) -> Module {
    Module::new(name).describing(|descriptor| {
        let reference = json!({ "columns": columns, "read_model": to });
        descriptor["read_models"][0]["references"] = json!([reference]);
    })
}

#[tokio::test]
async fn a_reference_waits_for_a_read_model_that_is_not_deployed_yet() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "");
    let parts = referring("parts", &["id"], "things");
    deploy(&gobo, &parts).expect(201);
    deploy(&gobo, &Module::new("things")).expect(201);
    // Now it is there, and fits.
    go_on(&gobo, &parts.build(2)).expect(200);
}

#[tokio::test]
async fn a_reference_that_does_not_fit_another_projection_is_refused_and_changes_nothing() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "");
    deploy(&gobo, &Module::new("things")).expect(201);
    let parts = Module::new("parts");
    deploy(&gobo, &parts).expect(201);
    let before = everything(&database).await;
    for (columns, expected) in [
        (
            &["number"][..],
            "read model \"parts\": its reference \"parts_number_fkey\" does not fit: \
             column \"number\" has type int8, but column \"id\" of \"things\" has type text",
        ),
        (
            &["id", "number"],
            "it has 2 column(s), which do not name one row: \"things\" has the key (id)",
        ),
    ] {
        let wrong = referring("parts", columns, "things").build(2);
        for answer in [deploy(&gobo, &wrong), go_on(&gobo, &wrong)] {
            let problem = answer.expect(422).json();
            assert_eq!(problem["code"], "reference_refused");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(expected), "{detail}");
        }
    }
    assert_eq!(everything(&database).await, before);
}

#[tokio::test]
async fn a_changed_reference_changes_no_table() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "");
    let continuing = |module: Module| {
        module.describing(|descriptor| descriptor["on_change"] = json!("continue"))
    };
    let first = deploy(&gobo, &continuing(Module::new("things")))
        .expect(201)
        .json();
    let second = deploy(&gobo, &continuing(referring("things", &["id"], "things"))).expect(200);
    let second = second.json();
    assert_eq!(second["outcome"], "swapped");
    assert_eq!(second["generation"], first["generation"]);
}

#[tokio::test]
async fn a_key_may_change_under_a_reference_of_another_projection() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "");
    deploy(&gobo, &Module::new("things")).expect(201);
    deploy(&gobo, &referring("parts", &["id"], "things")).expect(201);
    let other_key = Module::new("things")
        .build(2)
        .describing(|descriptor| descriptor["read_models"][0]["key"] = json!(["number"]));
    deploy(&gobo, &other_key).expect(202);
}
