//! The filters and examples of the description: what can be asked of a column's type, and that it is answered.

use std::collections::BTreeSet;

use gobo_tests::{Answer, Gobo};
use serde_json::{Value, json};

use super::{document, read_paths, scene};

/// The operators of a column, by its type's name in PostgreSQL.
fn operators(kind: &str) -> BTreeSet<&'static str> {
    let compared = "eq neq gt gte lt lte in isdistinct";
    let searched = "like ilike match imatch fts plfts phfts wfts";
    let names = match kind {
        "json" => "is fts plfts phfts wfts".to_owned(),
        "text" => format!("is {compared} {searched}"),
        "jsonb" => format!("is {compared} fts plfts phfts wfts cs cd"),
        array if array.ends_with("[]") => format!("is {compared} cs cd ov"),
        _ => format!("is {compared}"),
    };
    let names: Vec<&'static str> = names.leak().split(' ').collect();
    names.into_iter().collect()
}

/// A parameter, wherever the document has it.
fn resolved<'d>(document: &'d Value, parameter: &'d Value) -> &'d Value {
    match parameter["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap(),
        None => parameter,
    }
}

fn parameters<'d>(document: &'d Value, path: &str) -> Vec<&'d Value> {
    let all = document["paths"][path]["parameters"].as_array().unwrap();
    all.iter().map(|one| resolved(document, one)).collect()
}

fn examples(parameter: &Value) -> impl Iterator<Item = (&String, String)> {
    let examples = parameter["examples"].as_object();
    examples
        .into_iter()
        .flatten()
        .map(|(name, example)| match &example["value"] {
            Value::String(text) => (name, text.clone()),
            other => (name, other.to_string()),
        })
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Asks `path` for what a parameter's example says.
fn ask(gobo: &Gobo, path: &str, parameter: &Value, value: &str) -> Answer {
    let name = parameter["name"].as_str().unwrap();
    match parameter["in"].as_str() {
        Some("query") => gobo.get(&format!("{path}?{name}={}", encoded(value))),
        Some("header") => gobo.request("GET", path, &[(name, value)], b""),
        other => panic!("{other:?}: {parameter}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_column_lists_the_operators_of_its_type() {
    let scene = scene().await;
    let document = document(&scene.gobo);
    let mut kinds = BTreeSet::new();
    for path in read_paths(&document) {
        let Some(model) = path.strip_prefix("/read/").filter(|m| !m.contains('/')) else {
            continue;
        };
        let columns = &document["components"]["schemas"][model]["properties"];
        let columns = columns.as_object().unwrap();
        assert!(!columns.is_empty());
        for (column, schema) in columns {
            let about = schema["description"].as_str().unwrap();
            let (_, kind) = about.rsplit_once("PostgreSQL: ").unwrap();
            let kind = kind.trim_end_matches('.');
            let all = parameters(&document, path);
            let named = |parameter: &&&Value| parameter["name"] == json!(column);
            let filter = all.iter().find(named).unwrap();
            let found: BTreeSet<&str> = examples(filter)
                .map(|(name, _)| name.as_str())
                .filter(|name| !name.starts_with("not_"))
                .collect();
            assert_eq!(found, operators(kind), "{model}.{column}: {kind}");
            kinds.insert(kind.to_owned());
        }
    }
    for kind in [
        "bool", "int8", "numeric", "text", "uuid", "json", "jsonb", "text[]",
    ] {
        assert!(kinds.contains(kind), "{kind} is not in {kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_example_of_a_read_is_answered_as_it_stands() {
    let scene = scene().await;
    let document = document(&scene.gobo);
    let mut asked = 0;
    for path in read_paths(&document) {
        let place = match path[6..].split_once('/') {
            None => path.to_owned(),
            Some((model, key)) => {
                // The key of a row that there is.
                let columns: Vec<&str> = key.split(',').map(|c| &c[1..c.len() - 1]).collect();
                let select = columns.join(",");
                let rows = format!("/read/{model}?select={select}&limit=1");
                let row = scene.gobo.get(&rows).expect(200).json()[0].clone();
                if row.is_null() {
                    continue;
                }
                let value = |column: &&str| match &row[*column] {
                    Value::String(text) => encoded(text),
                    other => other.to_string(),
                };
                let values: Vec<String> = columns.iter().map(value).collect();
                format!("/read/{model}/{}", values.join(","))
            }
        };
        for parameter in parameters(&document, path) {
            for (name, value) in examples(parameter) {
                let answer = ask(&scene.gobo, &place, parameter, &value);
                let what = format!("{place} {}: {name}: {value}", parameter["name"]);
                assert_eq!(answer.status, 200, "{what}: {}", answer.text());
                asked += 1;
            }
        }
    }
    assert!(asked > 300, "{asked}");
}
