//! What goes wrong, in PostgREST's codes.

use serde_json::Value;

use super::bench::{Answer, Bench, model};

async fn orders() -> Bench {
    let bench = Bench::new().await;
    bench
        .deploy(
            1,
            &model("orders", "id int4, day date?, name text?", &["id"]),
        )
        .await;
    bench
        .sql("insert into gobo_g1.orders values (1, null, 'a'), (2, null, 'b')")
        .await;
    bench
}

/// What every client may rely on.
pub(super) fn assert_shape(answer: &Answer, what: &str) {
    let problem = answer.json();
    assert_eq!(
        answer.header("content-type"),
        "application/problem+json",
        "{what}"
    );
    assert_eq!(problem["status"], answer.status.as_u16(), "{what}");
    for text in ["code", "message", "detail", "title", "type", "reason"] {
        assert!(problem[text].is_string(), "{what}: {text} in {problem}");
    }
    for text in ["details", "hint"] {
        let value = problem.get(text);
        assert!(
            value.is_some_and(|value| value.is_string() || value.is_null()),
            "{what}: {text} in {problem}"
        );
    }
    assert_eq!(problem["message"], problem["detail"]);
    // A mistake in the query: where it is, and how to mend it.
    if answer.status == 400 {
        for text in ["details", "hint"] {
            let told = problem[text].as_str();
            assert!(told.is_some_and(|told| !told.is_empty()), "{what}: {text}");
        }
        assert!(problem["context"].is_object(), "{what}: context");
    }
}

#[tokio::test]
async fn codes_and_statuses_are_postgrest_s() {
    let bench = orders().await;
    let object = "application/vnd.pgrst.object+json";
    for (uri, accept, status, code, reason) in [
        ("orders?idd=eq.1", "*/*", 400, "42703", "unknown_column"),
        ("orders?select=nam", "*/*", 400, "42703", "unknown_column"),
        ("orders?order=nam", "*/*", 400, "42703", "unknown_column"),
        ("ordres", "*/*", 404, "PGRST205", "unknown_read_model"),
        ("orders?id=1", "*/*", 400, "PGRST100", "unknown_operator"),
        (
            "orders?or=(id.eq.1",
            "*/*",
            400,
            "PGRST100",
            "invalid_filter",
        ),
        (
            "orders?order=id.up",
            "*/*",
            400,
            "PGRST100",
            "invalid_order",
        ),
        ("orders?id=eq.x", "*/*", 400, "22P02", "invalid_value"),
        // Only PostgreSQL knows.
        (
            "orders?day=eq.2026-02-30",
            "*/*",
            400,
            "22008",
            "invalid_value",
        ),
        (
            "orders?limit=-1",
            "*/*",
            416,
            "PGRST103",
            "range_not_satisfiable",
        ),
        ("orders", object, 406, "PGRST116", "not_one_row"),
        ("orders?id=eq.9", object, 406, "PGRST116", "not_one_row"),
        ("orders/9", "*/*", 404, "PGRST116", "row_not_found"),
        ("orders", "image/png", 406, "PGRST107", "not_acceptable"),
        (
            "orders?name=eq.%FF",
            "*/*",
            400,
            "PGRST100",
            "invalid_encoding",
        ),
        ("orders?cursor=x", "*/*", 400, "PGRST100", "invalid_cursor"),
        (
            "orders?min_position=11&wait=0ms",
            "*/*",
            503,
            "not_yet",
            "not_yet",
        ),
    ] {
        let uri = format!("/read/{uri}");
        let answer = bench.send("GET", &uri, &[("accept", accept)]).await;
        let what = format!("{uri} {accept}: {}", answer.body);
        assert_eq!(answer.status, status, "{what}");
        assert_eq!(
            (answer.code().as_str(), answer.reason().as_str()),
            (code, reason),
            "{what}"
        );
        assert_shape(&answer, &what);
    }
}

#[tokio::test]
async fn clients_that_look_for_the_number_of_rows_find_it_in_the_details() {
    let bench = orders().await;
    let object = [("accept", "application/vnd.pgrst.object+json")];
    for (query, details) in [
        ("id=eq.9", "The result contains 0 rows"),
        ("id=gt.0", "The result contains 2 rows"),
    ] {
        let uri = format!("/read/orders?{query}");
        let problem = bench.send("GET", &uri, &object).await.json();
        assert_eq!(problem["details"], details);
        assert_eq!(
            problem["message"],
            "Cannot coerce the result to a single JSON object"
        );
    }
}

#[tokio::test]
async fn the_place_of_a_mistake_is_told_to_people_and_to_programs() {
    let bench = orders().await;
    let problem = bench.get("/read/orders?or=(id.eq.1,nam.eq.x)").await.json();
    assert_eq!(problem["hint"], "did you mean \"name\"?");
    assert_eq!(problem["context"]["parameter"], "or");
    assert_eq!(problem["context"]["at"], 10);
    assert_eq!(problem["details"], Value::from("at 10, parameter or"));
}

/// The literals that directly follow `call` in the query module's sources.
fn words(call: &str, found: &mut std::collections::BTreeSet<String>, folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            words(call, found, &path);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for after in text.split(call).skip(1) {
            let literal = after.trim_start().strip_prefix('"');
            let word = literal.and_then(|rest| rest.split('"').next());
            found.extend(word.map(str::to_owned));
        }
    }
}

#[test]
fn every_refusal_of_a_query_has_a_code_of_postgrest_s() {
    let sources = gobo_tests::workspace().join("engine/src");
    let mut refusals = std::collections::BTreeSet::new();
    for call in ["Refusal::new(", "Form {\n    code: "] {
        words(call, &mut refusals, &sources.join("query"));
    }
    assert!(refusals.len() > 15, "{refusals:?}");
    assert!(refusals.contains("invalid_filter"), "{refusals:?}");
    let table = std::fs::read_to_string(sources.join("api/read/errors.rs")).unwrap();
    for word in refusals {
        assert!(table.contains(&format!("(\"{word}\", \"")), "{word}");
    }
}
