//! Random queries from the grammar: each is refused, or finds the rows that the same query in SQL finds.

use gobo_tests::Random;

use super::operators::{encoded, ids, things};

/// A column or path in the grammar and in SQL, its type, and texts that are values of it.
struct Left {
    name: &'static str,
    sql: &'static str,
    kind: &'static str,
    values: &'static [&'static str],
}

const LEFTS: [Left; 17] = [
    Left {
        name: "id",
        sql: "id",
        kind: "int4",
        values: &["1", "3", "6", "-1"],
    },
    Left {
        name: "n",
        sql: "n",
        kind: "int4",
        values: &["1", "7", "-5", "100"],
    },
    Left {
        name: "num",
        sql: "num",
        kind: "numeric",
        values: &["1.5", "2.5", "-3", "1e30", "NaN"],
    },
    Left {
        name: "f8",
        sql: "f8",
        kind: "float8",
        values: &["0.5", "NaN", "-Infinity", "1e300"],
    },
    Left {
        name: "flag",
        sql: "flag",
        kind: "bool",
        values: &["true", "f"],
    },
    Left {
        name: "txt",
        sql: "txt",
        kind: "text",
        values: &[
            "apple pie",
            "",
            "a%",
            "%o%",
            "a,b)",
            "x\"y\\",
            "NULL",
            "ü(",
            "{a}",
            "a.b",
            "*",
        ],
    },
    Left {
        name: "bin",
        sql: "bin",
        kind: "bytea",
        values: &["\\x", "\\x00", "\\xffee"],
    },
    Left {
        name: "uid",
        sql: "uid",
        kind: "uuid",
        values: &["00000000-0000-0000-0000-000000000002"],
    },
    Left {
        name: "day",
        sql: "day",
        kind: "date",
        values: &["2026-01-01", "infinity", "1999-12-31"],
    },
    Left {
        name: "at",
        sql: "at",
        kind: "timestamptz",
        values: &["2026-01-02 12:00:00.5+00", "-infinity"],
    },
    Left {
        name: "doc",
        sql: "doc",
        kind: "jsonb",
        values: &[
            "1",
            "null",
            "\"dogs\"",
            "{\"a\": 1}",
            "[10]",
            "{\"n\":{\"k\":[2]}}",
        ],
    },
    Left {
        name: "tags",
        sql: "tags",
        kind: "text[]",
        values: &["{}", "{a}", "{a,b}", "{b,\"c,d\"}", "{NULL}"],
    },
    Left {
        name: "nums",
        sql: "nums",
        kind: "int8[]",
        values: &["{}", "{1,2}", "{2}", "{5}"],
    },
    Left {
        name: "doc->a",
        sql: "(doc->'a')",
        kind: "jsonb",
        values: &["1", "2", "null"],
    },
    Left {
        name: "doc->>t",
        sql: "(doc->>'t')",
        kind: "text",
        values: &["a dog", "%dog%", "x"],
    },
    Left {
        name: "raw->>a",
        sql: "(raw->>'a')",
        kind: "text",
        values: &["1", "\"", ""],
    },
    Left {
        name: "nums->0",
        sql: "(to_jsonb(nums)->0)",
        kind: "jsonb",
        values: &["1", "2"],
    },
];

/// An operator in the grammar and in SQL, and whether it takes `any` and `all`.
const OPERATORS: [(&str, &str, bool); 14] = [
    ("eq", "=", true),
    ("neq", "<>", false),
    ("gt", ">", true),
    ("gte", ">=", true),
    ("lt", "<", true),
    ("lte", "<=", true),
    ("like", "like", true),
    ("ilike", "ilike", true),
    ("match", "~", true),
    ("imatch", "~*", true),
    ("isdistinct", "is distinct from", false),
    ("cs", "@>", false),
    ("cd", "<@", false),
    ("ov", "&&", false),
];

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A test in the grammar (its value quoted within a group) and in SQL.
fn test(random: &mut Random, left: &Left, is_nested: bool) -> (String, String) {
    let value = random.one_of(left.values);
    let nested = |text: &str| {
        if is_nested {
            quoted(text)
        } else {
            text.to_owned()
        }
    };
    let (kind, sql) = (left.kind, left.sql);
    let (text, condition) = match random.below(6) {
        0 => {
            let word = random.one_of(&["null", "not_null"]);
            (
                format!("is.{word}"),
                format!("{sql} is {}", word.replace('_', " ")),
            )
        }
        1 => {
            let count = random.below(4);
            let values: Vec<&str> = (0..count).map(|_| random.one_of(left.values)).collect();
            let list: Vec<String> = values.iter().map(|v| quoted(v)).collect();
            let each: Vec<String> = values
                .iter()
                .map(|v| format!("{sql} = {}::{kind}", literal(v)))
                .collect();
            let condition = if each.is_empty() {
                "false".to_owned()
            } else {
                each.join(" or ")
            };
            (format!("in.({})", list.join(",")), format!("({condition})"))
        }
        2 => {
            let word = random.one_of(&["any", "all"]);
            // PostgreSQL finds dates even in braces, so that no array is taken for one here.
            let is_moment = ["date", "timestamptz"].contains(&kind);
            let choices = if is_moment {
                &OPERATORS[2..6]
            } else {
                &OPERATORS[..]
            };
            let (name, operator, quantified) = random.one_of(choices);
            let values: Vec<&str> = (0..random.below(3))
                .map(|_| random.one_of(left.values))
                .collect();
            let array: Vec<String> = values.iter().map(|v| quoted(v)).collect();
            let starred = |v: &str| {
                if name.ends_with("like") {
                    v.replace('*', "%")
                } else {
                    v.to_owned()
                }
            };
            let each: Vec<String> = values.iter().map(|v| literal(&starred(v))).collect();
            let suffix = if quantified {
                format!("({word})")
            } else {
                String::new()
            };
            let right = format!("{word}(array[{}]::{kind}[])", each.join(", "));
            let text = nested(&format!("{{{}}}", array.join(",")));
            if quantified {
                (
                    format!("{name}{suffix}.{text}"),
                    format!("{sql} {operator} {right}"),
                )
            } else {
                // Without any and all it is an array like another.
                let literal = literal(&format!("{{{}}}", array.join(",")));
                (
                    format!("{name}.{text}"),
                    format!("{sql} {operator} {literal}::{kind}"),
                )
            }
        }
        3 => {
            let (name, function) = random.one_of(&[
                ("plfts", "plainto_tsquery"),
                ("phfts", "phraseto_tsquery"),
                ("wfts", "websearch_to_tsquery"),
            ]);
            let condition = format!(
                "to_tsvector('english', {sql}) @@ {function}('english', {})",
                literal(value)
            );
            (format!("{name}(english).{}", nested(value)), condition)
        }
        _ => {
            let (name, operator, _) = random.one_of(&OPERATORS);
            let right = if name.ends_with("like") {
                value.replace('*', "%")
            } else {
                value.to_owned()
            };
            let condition = format!("{sql} {operator} {}::{kind}", literal(&right));
            (format!("{name}.{}", nested(value)), condition)
        }
    };
    match random.below(4) {
        0 => (format!("not.{text}"), format!("(not ({condition}))")),
        _ => (text, format!("({condition})")),
    }
}

fn group(random: &mut Random, depth: u64) -> (String, String) {
    let (mut texts, mut conditions) = (Vec::new(), Vec::new());
    for _ in 0..=random.below(3) {
        let (text, condition) = match random.below(4) {
            0 if depth < 3 => {
                let (word, joined) = group(random, depth + 1);
                (word, joined)
            }
            _ => {
                let left = &LEFTS[random.below(LEFTS.len() as u64) as usize];
                let (text, condition) = test(random, left, true);
                (format!("{}.{text}", left.name), condition)
            }
        };
        texts.push(text);
        conditions.push(condition);
    }
    let (word, joint) = random.one_of(&[("and", " and "), ("or", " or ")]);
    let separator = random.one_of(&[",", ", ", " , "]);
    let (text, condition) = (
        format!("{word}({})", texts.join(separator)),
        format!("({})", conditions.join(joint)),
    );
    match random.below(4) {
        0 => (format!("not.{text}"), format!("(not {condition})")),
        _ => (text, condition),
    }
}

#[tokio::test]
async fn a_random_query_finds_what_its_sql_finds_or_both_refuse_it() {
    let bench = things().await;
    let mut random = Random::new(0x51ce_5eed);
    let (mut found, mut refused) = (0, 0);
    for _ in 0..1_500 {
        let (mut parameters, mut conditions) = (Vec::new(), vec!["true".to_owned()]);
        for _ in 0..=random.below(2) {
            let (name, value, condition) = match random.below(3) {
                0 => {
                    let (text, condition) = group(&mut random, 1);
                    let (word, rest) = text.split_once('(').unwrap();
                    (word.to_owned(), format!("({rest}"), condition)
                }
                _ => {
                    let left = &LEFTS[random.below(LEFTS.len() as u64) as usize];
                    let (text, condition) = test(&mut random, left, false);
                    (left.name.to_owned(), text, condition)
                }
            };
            parameters.push(format!("{}={}", encoded(&name), encoded(&value)));
            conditions.push(condition);
        }
        let query = parameters.join("&");
        let answer = bench
            .get(&format!("/read/things?select=id&order=id&{query}"))
            .await;
        let sql = conditions.join(" and ");
        let is_valid = bench
            .admin
            .query(&format!("select id from gobo_g1.things t where {sql}"), &[])
            .await;
        match answer.status.as_u16() {
            200 => {
                let rows = answer.json();
                let shown: Vec<i32> = rows
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|row| row["id"].as_i64().unwrap() as i32)
                    .collect();
                // PostgreSQL does not run into what it does not evaluate, in whichever order.
                if is_valid.is_ok() {
                    assert_eq!(shown, ids(&bench, &sql).await, "{query}\n{sql}");
                    found += 1;
                }
            }
            400 => {
                let error = is_valid.err();
                // What PostgreSQL could compute and Gobo refuses is no text compared as bytea.
                assert!(
                    error.is_some() || query.contains("bin=") || query.contains("bin."),
                    "{query}\n{sql}\n{}",
                    answer.body
                );
                refused += 1;
            }
            status => panic!("{query}: {status} {}", answer.body),
        }
    }
    assert!(
        found > 300 && refused > 100,
        "{found} found, {refused} refused"
    );
}

#[tokio::test]
async fn random_pieces_of_grammar_are_never_an_error_of_the_engine() {
    let bench = things().await;
    let pieces = [
        "id",
        "n",
        "txt",
        "doc",
        "raw",
        "tags",
        "nums",
        "flag",
        "day",
        "->",
        "->>",
        "a",
        "0",
        "-1",
        "eq",
        "like",
        "in",
        "is",
        "fts",
        "cs",
        "ov",
        "isdistinct",
        "not",
        "(any)",
        "(all)",
        "(english)",
        ".",
        ",",
        "(",
        ")",
        "{",
        "}",
        "\"",
        "\\",
        ":",
        "::",
        "text",
        "int4",
        "jsonb",
        "date",
        "count()",
        ".sum()",
        ".max()",
        "*",
        "!inner",
        "...",
        "null",
        "true",
        "1",
        "x",
        " ",
        "é",
        "%",
        "'",
        "asc",
        "desc",
        "nullslast",
        "and",
        "or",
    ];
    let names = [
        "select",
        "order",
        "or",
        "and",
        "not.or",
        "limit",
        "offset",
        "txt",
        "doc",
        "doc->a",
        "n",
        "tags",
        "raw",
        "raw->>a",
        "rel.a",
        "rel.order",
        "day",
        "cursor",
    ];
    let mut random = Random::new(0xfeed_beef);
    for _ in 0..4_000 {
        let mut parameters = Vec::new();
        for _ in 0..=random.below(3) {
            let value: String = (0..=random.below(12))
                .map(|_| random.one_of(&pieces))
                .collect();
            parameters.push(format!(
                "{}={}",
                encoded(random.one_of(&names)),
                encoded(&value)
            ));
        }
        let query = parameters.join("&");
        let answer = bench.get(&format!("/read/things?{query}")).await;
        let status = answer.status.as_u16();
        assert!(
            [200, 400, 416].contains(&status),
            "{query}: {status} {}",
            answer.body
        );
    }
}
