//! `/openapi.json`: it is valid, it is about what is deployed right now, and the engine answers as it says.

mod examples;

use std::process::Command;

use gobo_tests::{Gobo, python_venv, wait_until, workspace};
use serde_json::{Value, json};

use crate::deploy::module::Module;
use crate::scene::{Scene, matched, order, raw};

const REQUIREMENTS: &str = "tests/openapi/requirements.txt";

fn document(gobo: &Gobo) -> Value {
    gobo.get("/openapi.json").expect(200).json()
}

/// The paths of read models.
fn read_paths(document: &Value) -> Vec<&str> {
    let paths = document["paths"].as_object().unwrap().keys();
    paths
        .map(String::as_str)
        .filter(|path| path.starts_with("/read/"))
        .collect()
}

/// An engine with rows of every type.
async fn scene() -> Scene {
    let scene = Scene::new("", &["orders", "trading-stats", "raw-guest"]).await;
    let put = |id: &str| raw("a", json!({"do": "put", "id": id}));
    let nulls = raw("a", json!({"do": "put", "id": "nulls", "nulls": true}));
    let events = [
        order("1"),
        matched("1", "3"),
        order("2"),
        put("sample"),
        nulls,
    ];
    let positions = scene.append(&events).await;
    for projection in ["orders", "trading-stats", "raw"] {
        scene.wait_for(projection, positions[events.len() - 1]);
    }
    scene
}

/// Runs a Python program that must succeed.
fn python(program: &mut Command) -> String {
    let output = program.output().expect("Python can be run");
    let printed = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{printed}");
    printed
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_valid_and_rows_are_as_it_says() {
    let scene = scene().await;
    let printed = python(
        Command::new(python_venv(REQUIREMENTS))
            .arg(workspace().join("tests/openapi/check.py"))
            .arg(scene.gobo.url()),
    );
    assert!(printed.contains(" 0 errors"), "{printed}");
    assert!(!printed.contains(" 0 rows"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_follows_what_is_deployed() {
    let scene = Scene::new("", &[]).await;
    let gobo = &scene.gobo;
    let before = gobo.get("/openapi.json").expect(200);
    assert_eq!(read_paths(&before.json()), Vec::<&str>::new());
    let tag = before.header("etag").unwrap();
    let same = gobo.request("GET", "/openapi.json", &[("if-none-match", tag)], b"");
    assert_eq!((same.status, same.body.len()), (304, 0));

    let things = Module::new("things");
    gobo.request("POST", "/admin/projections", &[], &things.bytes())
        .expect(201);
    let after = wait_until("another description", || {
        let answer = gobo.request("GET", "/openapi.json", &[("if-none-match", tag)], b"");
        match answer.status {
            200 => Ok(answer.json()),
            status => Err(status),
        }
    });
    assert_eq!(read_paths(&after), ["/read/things", "/read/things/{id}"]);

    // A column's comment is another document, and so is another shape.
    let commented = Module::new("things").describing(|descriptor| {
        descriptor["read_models"][0]["columns"][1]["comment"] = json!("How many there are.");
        descriptor["read_models"][0]["columns"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "name": "note", "type": "text", "nullable": true }));
    });
    gobo.request(
        "POST",
        "/admin/projections?mode=continue",
        &[],
        &commented.bytes(),
    )
    .expect(200);
    let properties = wait_until("the new column", || {
        let properties = document(gobo)["components"]["schemas"]["things"]["properties"].clone();
        match properties["note"].is_object() {
            true => Ok(properties),
            false => Err(properties),
        }
    });
    let number = &properties["number"];
    assert_eq!(
        number["description"],
        "How many there are.\n\nPostgreSQL: int8."
    );
    assert_eq!(number["type"], "integer");
    assert_eq!(properties["note"]["type"], json!(["string", "null"]));

    let path = "/admin/projections/things?confirm=things";
    gobo.request("DELETE", path, &[], b"").expect(200);
    wait_until("no read models", || {
        let document = document(gobo);
        match read_paths(&document).as_slice() {
            [] => Ok(()),
            _ => Err(document["paths"].clone()),
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn comments_of_the_source_stand_in_the_description_and_in_sql() {
    let scene = Scene::new("", &["orders", "trading-stats"]).await;
    let document = document(&scene.gobo);
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["orders"]["description"], "One row per order.");
    let symbol = &schemas["orders"]["properties"]["symbol"];
    assert_eq!(
        symbol["description"],
        "What is traded.\n\nPostgreSQL: text."
    );
    let rows = &document["paths"]["/read/orders"]["get"];
    assert_eq!(rows["summary"], "Rows of `orders`: One row per order.");
    let key = &document["paths"]["/read/user_symbol_stats/{user_id},{symbol}"];
    assert_eq!(key["parameters"][1]["name"], "symbol");

    let comments = |table: &str| {
        format!(
            "select obj_description('{table}'::regclass) as table, \
                    col_description('{table}'::regclass, 3) as column"
        )
    };
    let generation = scene.status("orders")["generation"].clone();
    let expected = json!([{ "table": "One row per order.", "column": "What is traded." }]);
    for table in [
        "read.orders".to_owned(),
        format!("gobo_g{generation}.orders"),
    ] {
        assert_eq!(scene.database.query_json(&comments(&table)).await, expected);
    }
}

/// Asks everything that is described, with values that fit and values that do not, and judges the answers.
fn ask_everything(gobo: &Gobo, wanted: &[&str]) {
    ask_everything_as(gobo, "", wanted);
}

/// The same with this `Authorization`, if it is not empty.
pub(crate) fn ask_everything_as(gobo: &Gobo, authorization: &str, wanted: &[&str]) {
    let header = format!("Authorization: {authorization}");
    let shown = match authorization.is_empty() {
        true => &[][..],
        false => &["--header", header.as_str()],
    };
    let output = python(
        Command::new(python_venv(REQUIREMENTS))
            .args(["-m", "schemathesis.cli", "--config-file"])
            .arg(workspace().join("tests/openapi/schemathesis.toml"))
            .arg("run")
            .arg(format!("{}/openapi.json", gobo.url()))
            .args(wanted)
            .args(shown)
            .args([
                "--phases",
                "examples,coverage,fuzzing",
                "--max-examples",
                "10",
                "--seed",
                "1",
            ])
            .args([
                "--checks",
                CHECKS,
                "--generation-database",
                "none",
                "--no-color",
            ])
            .args(["--continue-on-failure", "--request-timeout", "60"])
            .env(
                "SCHEMATHESIS_HOOKS",
                workspace().join("tests/openapi/hooks.py"),
            )
            .current_dir(gobo.folder()),
    );
    println!("{output}");
}

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,unsupported_method";

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_answers_as_it_describes() {
    let scene = scene().await;
    ask_everything(&scene.gobo, &["--exclude-tag", "admin"]);
    // At last, since it removes and redacts as well.
    ask_everything(&scene.gobo, &["--include-tag", "admin"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_described_is_there_with_no_other_methods() {
    let scene = Scene::new("", &["orders"]).await;
    let document = document(&scene.gobo);
    for (path, methods) in document["paths"].as_object().unwrap() {
        let real = path
            .replace("{name}", "orders")
            .replace("{generation}", "1")
            .replace("{stream_id}", "order-1")
            .replace("{order_id}", "1");
        let answer = scene.gobo.request("TRACE", &real, &[], b"");
        assert_eq!(answer.status, 405, "{path}");
        let allowed = answer.header("allow").unwrap_or_default().to_lowercase();
        let mut allowed: Vec<&str> = allowed.split(',').map(str::trim).collect();
        allowed.sort_unstable();
        let mut described: Vec<&str> = methods
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        described.retain(|name| *name != "parameters");
        // Of what has no read model, HEAD is not worth a description.
        if !path.starts_with("/read/") {
            allowed.retain(|name| *name != "head");
        }
        described.sort_unstable();
        assert_eq!(described, allowed, "{path}");
    }
}
