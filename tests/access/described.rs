//! The description with access control on: it says how refusals look, to whom it describes what, and the engine keeps to it.

use serde_json::{Value, json};

use super::rows::{order, shop};
use super::{Guarded, bearer, get, jwt_for, token};
use crate::openapi::ask_everything_as;
use crate::scene::append;

const RULE: &str = "[read_models.orders]\nrows = \"user_id = claim.sub\"";

/// How many requests were answered with what they asked for.
fn successes(shop: &Guarded) -> u64 {
    let metrics = get(&shop.gobo, "/metrics", &shop.admin).expect(200).text();
    let count = metrics
        .lines()
        .find_map(|line| line.strip_prefix("gobo_http_requests_total{status=\"2xx\"} "));
    count
        .unwrap_or_else(|| panic!("{metrics}"))
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_answers_readers_as_it_describes() {
    let shop = shop(RULE).await;
    let alice = jwt_for(json!({"role": "read", "sub": "alice"}));
    let positions = append(&shop.database, &[order("c1", "carol", "1")]).await;
    get(
        &shop.gobo,
        &format!("/read/orders?min_position={}&wait=30s", positions[0]),
        &alice,
    )
    .expect(200);
    // One from whom rows are hidden, one from whom all are, and one who may not read at all.
    ask_everything_as(&shop.gobo, &bearer(&alice), &[]);
    let answered = successes(&shop);
    assert!(answered > 100, "{answered} answers with 2xx");
    ask_everything_as(
        &shop.gobo,
        &bearer(&shop.read),
        &["--include-path-regex", "^/read"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_described() {
    let shop = shop(RULE).await;
    let document: Value = get(&shop.gobo, "/openapi.json", &shop.read)
        .expect(200)
        .json();
    for (path, item) in document["paths"].as_object().unwrap() {
        if path.starts_with("/health") {
            continue;
        }
        for (method, operation) in item.as_object().unwrap() {
            let Some(responses) = operation["responses"].as_object() else {
                continue;
            };
            for status in ["401", "403", "429"] {
                assert!(
                    responses.contains_key(status),
                    "{method} {path} has no {status}"
                );
            }
        }
    }
    let other = token(&shop.database, "outsider", &["--role", "something"]);
    gobo_tests::wait_until("the token to be known", || {
        match get(&shop.gobo, "/openapi.json", &other) {
            answer if answer.status == 403 => Ok(()),
            answer => Err(answer),
        }
    });
}
