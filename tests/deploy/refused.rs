//! Bytes that are refused: each with the cause and the fix, and nothing changed.

use gobo_tests::{Database, Gobo};
use serde_json::{Value, json};

use super::module::Module;
use super::{deploy, everything};

/// What a refused deploy has to say.
struct Refusal {
    name: &'static str,
    bytes: Vec<u8>,
    /// Words that name the cause and the fix.
    says: &'static [&'static str],
}

fn refusal(name: &'static str, bytes: Vec<u8>, says: &'static [&'static str]) -> Refusal {
    Refusal { name, bytes, says }
}

fn described(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    Module::new("things").describing(change).bytes()
}

fn importing(import: &str) -> Vec<u8> {
    let mut module = Module::new("things");
    module.imports = import.to_owned();
    module.bytes()
}

/// Modules that cannot be plugins at all.
fn bad_modules() -> Vec<Refusal> {
    let sound = Module::new("things").bytes();
    let mut without_begin = Module::new("things");
    without_begin.begin = "start";
    let mut newer_contract = Module::new("things");
    newer_contract.contract = newer_contract.contract.replace("@0.1.0", "@9.9.0");
    vec![
        refusal(
            "no wasm",
            b"#!/bin/sh".to_vec(),
            &["not a WebAssembly file", "cargo build"],
        ),
        refusal("empty", Vec::new(), &["not a WebAssembly file"]),
        refusal(
            "cut off",
            sound[..sound.len() / 2].to_vec(),
            &["not a valid WebAssembly file", "cut off"],
        ),
        refusal(
            "wasi",
            importing(
                r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))"#,
            ),
            &[
                "wasi_snapshot_preview1::fd_write",
                "built for WASI",
                "wasm32-unknown-unknown",
            ],
        ),
        refusal(
            "javascript",
            importing(r#"(import "wbg" "__wbg_random" (func))"#),
            &["wbg::__wbg_random", "getrandom", "at.occurred_at"],
        ),
        refusal(
            "no begin",
            without_begin.bytes(),
            &["does not export `begin`", "gobo_sdk::export!"],
        ),
        refusal(
            "no contract",
            Module::new("things").core(),
            &["does not implement the projection contract", "gobo-sdk"],
        ),
        refusal(
            "newer contract",
            newer_contract.bytes(),
            &["gobo:projection@9.9.0", "runs gobo:projection@0.1.0"],
        ),
    ]
}

/// Modules that describe what cannot be.
fn bad_descriptors() -> Vec<Refusal> {
    vec![
        refusal(
            "table twice",
            described(|d| {
                let again = d["read_models"][0].clone();
                d["read_models"].as_array_mut().unwrap().push(again);
            }),
            &["read model \"things\" is declared twice"],
        ),
        refusal(
            "key is no column",
            described(|d| d["read_models"][0]["key"] = json!(["order_id"])),
            &[
                "read model \"things\"",
                "key names \"order_id\", which is no column",
            ],
        ),
        refusal(
            "unknown type",
            described(|d| d["read_models"][0]["columns"][1]["type"] = json!("money")),
            &[
                "column \"number\"",
                "no column type \"money\"",
                "the types are bool, int2",
            ],
        ),
        refusal(
            "quotes",
            described(|d| {
                d["read_models"][0]["name"] = json!("things\"; drop table gobo.events; --")
            }),
            &["must begin with a lower-case letter"],
        ),
        refusal(
            "quotes in a column",
            described(|d| d["read_models"][0]["columns"][3]["name"] = json!("price\"")),
            &["column", "price", "lower-case letters"],
        ),
        refusal(
            "200 characters",
            described(|d| d["read_models"][0]["name"] = json!("x".repeat(200))),
            &["has 200 characters; at most 63"],
        ),
        refusal(
            "200 characters as the projection's name",
            described(|d| d["name"] = json!("x".repeat(200))),
            &["projection's name", "has 200 characters; at most 63"],
        ),
        refusal(
            "unknown member",
            described(|d| d["tables"] = json!([])),
            &["unknown field `tables`"],
        ),
        refusal(
            "a reference by what is no column",
            described(|d| {
                d["read_models"][0]["references"] =
                    json!([{ "columns": ["user_id"], "read_model": "users" }])
            }),
            &["reference to \"users\" names \"user_id\", which is no column"],
        ),
        refusal(
            "a reference by an array",
            described(|d| {
                d["read_models"][0]["references"] =
                    json!([{ "columns": ["tags"], "read_model": "users" }])
            }),
            &["column \"tags\" of type text[], which no key can have"],
        ),
        refusal(
            "a reference to a part of a key",
            described(|d| {
                d["read_models"][0]["key"] = json!(["id", "number"]);
                d["read_models"][0]["references"] =
                    json!([{ "columns": ["id"], "read_model": "things" }]);
            }),
            &[
                "its reference \"things_id_fkey\" does not fit",
                "has the key (id, number)",
            ],
        ),
        refusal(
            "a reference of another type",
            described(|d| {
                d["read_models"][0]["references"] =
                    json!([{ "columns": ["number"], "read_model": "things" }]);
            }),
            &["column \"number\" has type int8, but column \"id\" of \"things\" has type text"],
        ),
        refusal(
            "a reference to a column that is not of the key",
            described(|d| {
                d["read_models"][0]["references"] = json!([{ "columns": ["id"], "read_model": "things", "target_columns": ["number"] }]);
            }),
            &["\"number\" is no column of its target's key"],
        ),
        refusal(
            "two references of one name",
            described(|d| {
                let one = json!({ "columns": ["id"], "read_model": "users", "name": "owner" });
                d["read_models"][0]["references"] = json!([one, one]);
            }),
            &["two of its references are called \"owner\""],
        ),
        refusal(
            "later format",
            described(|d| d["descriptor"] = json!(2)),
            &["format version 2", "reads version 1"],
        ),
    ]
}

async fn check(refusals: Vec<Refusal>) {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "");
    deploy(&gobo, &Module::new("things")).expect(201);
    let before = everything(&database).await;
    for Refusal { name, bytes, says } in refusals {
        let answer = gobo.put_bytes("/admin/projections/things", &bytes);
        assert_eq!(answer.status, 422, "{name}: {}", answer.text());
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{name}"
        );
        let problem = answer.json();
        let detail = problem["detail"].as_str().unwrap();
        for words in says {
            assert!(
                detail.contains(words),
                "{name}: {words:?} is missing in {detail}"
            );
        }
        assert_eq!(everything(&database).await, before, "{name}");
    }
    let status = gobo.get("/admin/projections/things").expect(200).json();
    assert_eq!(status["error"], Value::Null);
}

#[tokio::test]
async fn files_that_are_no_plugins_are_refused_with_cause_and_fix_and_change_nothing() {
    check(bad_modules()).await;
}

#[tokio::test]
async fn descriptors_that_break_a_rule_are_refused_with_the_place_and_change_nothing() {
    check(bad_descriptors()).await;
}

#[tokio::test]
async fn the_name_in_the_path_must_be_the_plugins_own() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "");
    let before = everything(&database).await;
    let answer = gobo.put_bytes("/admin/projections/orders", &Module::new("things").bytes());
    let problem = answer.expect(422).json();
    assert_eq!(problem["code"], "name_mismatch");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("\"things\"") && detail.contains("\"orders\""),
        "{detail}"
    );
    assert_eq!(everything(&database).await, before);
}

#[tokio::test]
async fn a_read_model_of_another_projection_is_refused_naming_it() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "");
    deploy(&gobo, &Module::new("things")).expect(201);
    let before = everything(&database).await;
    let thief = Module::new("things").describing(|descriptor| descriptor["name"] = json!("thief"));
    let problem = deploy(&gobo, &thief).expect(409).json();
    assert_eq!(problem["code"], "read_model_taken");
    assert_eq!(
        problem["details"],
        json!({ "read_model": "things", "projection": "things" })
    );
    assert_eq!(everything(&database).await, before);
}

#[tokio::test]
async fn a_view_never_replaces_what_a_user_has_made() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "");
    database
        .execute("CREATE SCHEMA read; CREATE TABLE read.things (mine int); INSERT INTO read.things VALUES (1)")
        .await;
    let before = everything(&database).await;
    let problem = deploy(&gobo, &Module::new("things")).expect(409).json();
    assert_eq!(problem["code"], "relation_exists");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("\"read\".\"things\"")
    );
    assert_eq!(everything(&database).await, before);
    assert_eq!(database.query_i64("SELECT mine FROM read.things").await, 1);
}

#[tokio::test]
async fn a_module_beyond_the_limit_is_too_large() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "[limits]\nmodule_bytes = 2048");
    for bytes in [2_049, 200_000] {
        let answer = gobo.put_bytes("/admin/projections/things", &vec![0; bytes]);
        let problem = answer.expect(413).json();
        assert_eq!(problem["code"], "module_too_large");
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains("limits.module_bytes")
        );
    }
}
