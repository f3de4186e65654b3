//! The contract against a real PostgreSQL: what a guest writes is what it reads back, byte for byte, and what the engine
//! normalises or refuses is what PostgreSQL would have changed or refused.

use gobo::read_model::value::check;
use gobo::read_model::{Column, ColumnType, Scalar, jsonb};
use gobo_tests::{Database, Random, wasm_bytes};
use raw_guest::model::{COLUMNS, SAMPLE_TEXT};
use serde_json::{Value, json};

use crate::scene::{Scene, raw};

/// A row's columns as text, in the order of `COLUMNS`; `bytes` as PostgreSQL sends them.
async fn columns(scene: &Scene, id: &str) -> (Vec<Option<String>>, Vec<Option<Vec<u8>>>) {
    let client = scene.database.connect().await;
    client.batch_execute("set timezone to 'UTC'").await.unwrap();
    let texts: Vec<_> = COLUMNS
        .iter()
        .map(|(name, _, _)| format!("{name}::text"))
        .collect();
    let sql = format!("select {} from read.raw where id = $1", texts.join(", "));
    let row = client.query_one(&sql, &[&id]).await.unwrap();
    let texts = (0..COLUMNS.len()).map(|index| row.get(index)).collect();
    let names: Vec<_> = COLUMNS.iter().map(|(name, _, _)| *name).collect();
    let sql = format!("select {} from read.raw where id = $1", names.join(", "));
    let row = client.query_one(&sql, &[&id]).await.unwrap();
    let bytes = |index| row.get::<_, gobo::db::Raw<'_>>(index).0.map(<[u8]>::to_vec);
    (texts, (0..COLUMNS.len()).map(bytes).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_column_type_comes_back_as_it_was_written() {
    let scene = Scene::new("", &["raw-guest"]).await;
    let put = |id: &str| raw("a", json!({"do": "put", "id": id}));
    let positions = scene.append(&[put("kept"), put("touched")]).await;
    scene.wait_for("raw", positions[1]);
    let (texts, bytes) = columns(&scene, "kept").await;
    for ((found, expected), (name, ..)) in texts.iter().zip(SAMPLE_TEXT).zip(COLUMNS) {
        assert_eq!(found.as_deref(), Some(expected), "{name}");
    }
    for (found, (name, _, sample)) in bytes.iter().zip(COLUMNS) {
        let written = raw_guest::frame::hex(sample).unwrap();
        assert_eq!(found.as_ref(), Some(&written), "{name}");
    }
    // The guest asks for the row: it comes from the cache here, and after a restart from the table.
    let mut scene = scene;
    for expected in ["1", "2"] {
        let add = raw("a", json!({"do": "add", "id": "touched", "n": 1}));
        let position = scene.append(&[add]).await[0];
        scene.wait_for("raw", position);
        let (texts, touched) = columns(&scene, "touched").await;
        for ((found, kept), (name, ..)) in touched.iter().zip(&bytes).zip(COLUMNS) {
            if name != "c_int8" {
                assert_eq!(found, kept, "{name} went through the guest");
            }
        }
        assert_eq!(texts[3].as_deref(), Some(expected));
        scene.restart_with("");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nulls_deletes_and_composite_keys_are_what_they_were_meant_to_be() {
    let scene = Scene::new("", &["raw-guest"]).await;
    let pair = |b: i64, n: i64| raw("p", json!({"do": "pair", "a": "x", "b": b, "n": n}));
    let events = [
        raw("a", json!({"do": "put", "id": "nulls", "nulls": true})),
        raw("a", json!({"do": "put", "id": "gone"})),
        raw("a", json!({"do": "put", "id": "back", "n": 1})),
        pair(1, 5),
        pair(-1, 7),
        pair(2, 9),
    ];
    let positions = scene.append(&events).await;
    scene.wait_for("raw", positions[5]);
    let events = [
        raw("a", json!({"do": "delete", "id": "gone"})),
        raw("a", json!({"do": "delete", "id": "never there"})),
        raw("a", json!({"do": "delete", "id": "back"})),
        raw("a", json!({"do": "add", "id": "back", "n": 3})),
        pair(1, 1),
        raw("p", json!({"do": "unpair", "a": "x", "b": 2})),
    ];
    let positions = scene.append(&events).await;
    scene.wait_for("raw", positions[5]);
    let (texts, _) = columns(&scene, "nulls").await;
    assert!(texts.iter().all(Option::is_none), "{texts:?}");
    let rows = "select id, c_int8, c_text from read.raw order by id";
    assert_eq!(
        scene.database.query_json(rows).await,
        json!([
            {"id": "back", "c_int8": 3, "c_text": null},
            {"id": "nulls", "c_int8": null, "c_text": null},
        ])
    );
    let pairs = "select a, b, n from read.raw_pairs order by b";
    assert_eq!(
        scene.database.query_json(pairs).await,
        json!([{"a": "x", "b": -1, "n": 7}, {"a": "x", "b": 1, "n": 6}])
    );
}

/// The text of a JSON document: odd white space, escapes, duplicate keys, all spellings of numbers.
fn document(random: &mut Random, depth: usize) -> String {
    let space = random.one_of(&["", "", " ", "\n\t", "\r "]);
    let value = match random.below(if depth == 0 { 6 } else { 9 }) {
        0 => random.one_of(&["null", "true", "false"]).to_owned(),
        1 | 2 => number(random),
        3..=5 => string(random),
        6 => {
            let count = random.below(4);
            let elements: Vec<_> = (0..count).map(|_| document(random, depth - 1)).collect();
            format!("[{space}{}]", elements.join(","))
        }
        _ => {
            // Few names, so that some are there twice.
            let count = random.below(6);
            let members: Vec<_> = (0..count)
                .map(|_| {
                    let name = match random.below(3) {
                        0 => string(random),
                        _ => random
                            .one_of(&["\"a\"", "\"b\"", "\"\\u0061\"", "\"aa\"", "\"é\"", "\"\""])
                            .to_owned(),
                    };
                    format!("{name}{space}:{}", document(random, depth - 1))
                })
                .collect();
            format!("{{{}{space}}}", members.join(","))
        }
    };
    format!("{space}{value}{space}")
}

fn number(random: &mut Random) -> String {
    let digits = |random: &mut Random, most: u64| -> String {
        let count = 1 + random.below(most);
        (0..count)
            .map(|_| char::from(b'0' + random.below(10) as u8))
            .collect()
    };
    let integer = match random.below(3) {
        0 => "0".to_owned(),
        _ => format!("{}{}", 1 + random.below(9), digits(random, 20)),
    };
    let fraction = match random.below(2) {
        0 => String::new(),
        _ => format!(".{}", digits(random, 12)),
    };
    let exponent = match random.below(3) {
        0 => format!(
            "{}{}{}",
            random.one_of(&["e", "E"]),
            random.one_of(&["", "+", "-", "-0"]),
            random.below(60)
        ),
        _ => String::new(),
    };
    format!("{}{integer}{fraction}{exponent}", random.one_of(&["", "-"]))
}

fn string(random: &mut Random) -> String {
    let pieces = [
        "a",
        "B",
        " ",
        "é",
        "漢",
        "😀",
        "\\n",
        "\\t",
        "\\\\",
        "\\\"",
        "\\/",
        "/",
        "\\u0041",
        "\\u001f",
        "\\b",
        "\\f",
        "\\r",
        "\\ud83d\\ude00",
        "\\u00e9",
        "\\uFFFF",
        "\\u2028",
        "\u{2028}",
        "\u{7f}",
        "\\u007F",
        "0",
        "'",
        "{",
        "]",
    ];
    let count = random.below(7);
    let text: String = (0..count).map(|_| random.one_of(&pieces)).collect();
    format!("\"{text}\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn jsonb_is_normalised_as_postgresql_normalises_it() {
    let database = Database::create().await;
    let client = database.connect().await;
    let mut random = Random::new(0x5eed_0001);
    let documents: Vec<String> = (0..800).map(|_| document(&mut random, 4)).collect();
    let sql =
        "select (d::jsonb)::text from unnest($1::text[]) with ordinality as u (d, n) order by n";
    let rows = client.query(sql, &[&documents]).await.unwrap();
    assert_eq!(rows.len(), documents.len());
    for (document, row) in documents.iter().zip(&rows) {
        let mut normal = Vec::new();
        jsonb::normalize(document, &mut normal)
            .unwrap_or_else(|error| panic!("{document}: {error}"));
        assert_eq!(
            String::from_utf8(normal).unwrap(),
            row.get::<_, String>(0),
            "{document}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_jsonb_for_postgresql_is_none_for_the_engine() {
    let database = Database::create().await;
    let client = database.connect().await;
    for text in [
        "",
        " ",
        "{",
        "[1,]",
        "{\"a\":}",
        "{'a':1}",
        "01",
        "1.",
        ".5",
        "+1",
        "-",
        "1e",
        "NaN",
        "nul",
        "\"",
        "\"\\x\"",
        "\"\\u00\"",
        "\"\\ud800\"",
        "\"\\udc00\\ud800\"",
        "\"a\nb\"",
        "1 2",
        "[1}",
        "\"\\u0000\"",
        "1e400000",
        "\u{a0}1",
        "[\"\\ud83d\"]",
        "{\"\\u0000\":1}",
    ] {
        let accepted = client
            .query_one("select $1::text::jsonb is not null", &[&text])
            .await;
        assert!(accepted.is_err(), "PostgreSQL accepts {text:?}");
        assert!(
            jsonb::normalize(text, &mut Vec::new()).is_err(),
            "the engine accepts {text:?}"
        );
    }
}

fn numeric() -> Column {
    Column {
        name: "n".to_owned(),
        kind: ColumnType::Scalar(Scalar::Numeric),
        nullable: false,
        comment: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_numeric_that_postgresql_sends_is_canonical_and_no_other_spelling_of_it_is() {
    let database = Database::create().await;
    let client = database.connect().await;
    let mut random = Random::new(0x5eed_0002);
    let mut numbers: Vec<String> = (0..500).map(|_| number(&mut random)).collect();
    numbers.extend(
        [
            "0", "-0", "0.000", "1e-16383", "9e131071", "10000", "99999999", "0.0001", "0.00010",
        ]
        .map(str::to_owned),
    );
    let sql = "select numeric_send(t::numeric) from unnest($1::text[]) with ordinality as u (t, n) order by n";
    let rows = client.query(sql, &[&numbers]).await.unwrap();
    let column = numeric();
    let (mut refused, mut changed) = (0, 0);
    for (number, row) in numbers.iter().zip(&rows) {
        let sent: Vec<u8> = row.get(0);
        assert_eq!(check(Some(&sent), &column), Ok(None), "{number}");
        // Any other bytes either are a canonical number, which PostgreSQL gives back as it got it, or are refused.
        for _ in 0..6 {
            let mut other = sent.clone();
            match random.below(3) {
                0 => other.extend([0, 0]),
                1 => drop(other.pop()),
                _ => {
                    let at = random.below(other.len() as u64) as usize;
                    other[at] ^= 1 << random.below(8);
                }
            }
            if random.below(2) == 0 && other.len() >= 8 {
                let digits = i16::try_from((other.len() - 8) / 2).unwrap();
                other[..2].copy_from_slice(&digits.to_be_bytes());
            }
            if check(Some(&other), &column).is_err() {
                refused += 1;
                continue;
            }
            changed += 1;
            let returned = round_trip(&client, &other).await;
            assert_eq!(returned.as_ref(), Ok(&other), "{number}: {other:02x?}");
        }
    }
    assert!(
        refused > 500 && changed > 500,
        "{refused} refused, {changed} accepted"
    );
}

/// What PostgreSQL makes of a numeric's bytes.
async fn round_trip(client: &tokio_postgres::Client, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let parameter = gobo::db::RawParam(bytes.to_vec());
    let row = client.query_one("select $1::numeric", &[&parameter]).await;
    let row = row.map_err(|error| format!("{error:?}"))?;
    Ok(row.get::<_, gobo::db::Raw<'_>>(0).0.unwrap().to_vec())
}

#[test]
fn the_built_guests_import_nothing_but_the_log() {
    let packages = xtask::build::guest_packages().unwrap();
    assert!(packages.len() >= 5, "{packages:?}");
    for package in packages {
        let module = wasm_bytes(&package);
        let mut imports: Vec<(String, String)> = Vec::new();
        for payload in wasmparser::Parser::new(0).parse_all(&module) {
            if let wasmparser::Payload::ImportSection(section) = payload.unwrap() {
                for import in section.into_imports() {
                    let import = import.unwrap();
                    imports.push((import.module.to_owned(), import.name.to_owned()));
                }
            }
        }
        for import in imports {
            assert_eq!(import, ("log".to_owned(), "write".to_owned()), "{package}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jsonb_that_was_not_normal_is_read_back_by_the_guest_as_postgresql_has_it() {
    let scene = Scene::new("", &["raw-guest"]).await;
    let text = r#"{"bb":1e2,"a":[ ],"a":"\u00e9"}"#;
    let bytes: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let fields: Value = json!({"c_jsonb": format!("01{bytes}")});
    // Both in one batch: the second event sees what the guest itself wrote; then once more through the cache.
    let put = raw("a", json!({"do": "put", "id": "j", "fields": fields}));
    let add = raw("a", json!({"do": "add", "id": "j", "n": 1}));
    let first = scene.append(&[put, add.clone()]).await[1];
    scene.wait_for("raw", first);
    let second = scene.append(&[add]).await[0];
    scene.wait_for("raw", second);
    let row = scene
        .database
        .query_json("select c_jsonb::text as j, c_int8 from read.raw")
        .await;
    assert_eq!(row, json!([{"j": r#"{"a": "é", "bb": 100}"#, "c_int8": 2}]));
}
