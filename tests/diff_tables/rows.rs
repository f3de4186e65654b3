//! Rows: how they are matched, counted and sampled.

use gobo::generations::diff::{self, Diff, DiffError, Matched, Options};
use gobo::read_model::quote;
use gobo_tests::wait_for;
use serde_json::json;

use super::{PAIR, Tables, counts, matched, model};

#[tokio::test]
async fn rows_are_matched_by_composite_keys_of_every_key_type() {
    let columns = "n int8, tie bool?, b bool, i2 int2, i4 int4, t text, u uuid, d date, at timestamptz, bin bytea, v int4";
    let key = ["t", "n", "b", "i2", "i4", "u", "d", "at", "bin"];
    let mut tables = Tables::same("composite", columns, &key).await;
    let row = |n: i64, text: &str, v: i32| {
        format!(
            "{n}, null, true, 1, 2, '{text}', '67e55044-10b1-426f-9247-bb680e5fe0c8', '2026-01-01', '2026-01-01 00:00Z', '\\x00', {v}"
        )
    };
    for (generation, rows) in [
        (
            1,
            [
                row(1, "a", 1),
                row(1, "b", 1),
                row(2, "a", 1),
                row(3, "a", 1),
            ],
        ),
        (
            2,
            [
                row(1, "a", 1),
                row(1, "b", 2),
                row(2, "b", 1),
                row(3, "a", 2),
            ],
        ),
    ] {
        tables
            .rows(
                generation,
                "composite",
                &rows.each_ref().map(String::as_str),
            )
            .await;
    }
    let rows = tables.matched().await;
    assert_eq!(counts(&rows), (1, 1, 2));
    assert_eq!(rows.key, key);
    let first_two = |key: &[String]| (key[0].clone(), key[1].clone());
    let named = |text: &str, n: &str| (text.to_owned(), n.to_owned());
    assert_eq!(first_two(&rows.samples.added[0].key), named("b", "2"));
    assert_eq!(first_two(&rows.samples.removed[0].key), named("a", "2"));
    let changed: Vec<_> = rows
        .samples
        .changed
        .iter()
        .map(|row| first_two(&row.key))
        .collect();
    assert_eq!(changed, [named("a", "3"), named("b", "1")]);
    let values: Vec<_> = rows.samples.added[0]
        .values
        .iter()
        .map(|v| v.column.as_str())
        .collect();
    assert_eq!(values, ["tie", "v"], "the key is not repeated");
}

#[tokio::test]
async fn empty_tables_are_the_same_and_so_are_tables_of_keys_alone() {
    let models = [
        model("keys", "id int4", &["id"]),
        model("none", "id int4, v text", &["id"]),
    ];
    let mut tables = Tables::new(&models, &models).await;
    tables.rows(1, "keys", &["1", "2"]).await;
    tables.rows(2, "keys", &["2", "1"]).await;
    let diff = tables.compare().await;
    assert!(diff.is_empty());
    assert_eq!((diff.a, diff.b, diff.position), (1, 2, 77));
    assert_eq!((matched(&diff, 0).a, matched(&diff, 0).b), (2, 2));
    assert_eq!((matched(&diff, 1).a, matched(&diff, 1).b), (0, 0));
    assert_eq!(matched(&diff, 1).columns[0].changed, 0);

    tables.rows(2, "keys", &["3"]).await;
    let diff = tables.compare().await;
    assert!(!diff.is_empty());
    assert_eq!(counts(matched(&diff, 0)), (1, 0, 0));
    assert_eq!(matched(&diff, 0).samples.added[0].key, ["3"]);
}

#[tokio::test]
async fn all_rows_may_be_added_or_removed() {
    let models = [
        model("fresh", "id int4, v text?", &["id"]),
        model("old", "id int4, v text?", &["id"]),
    ];
    let mut tables = Tables::new(&models, &models).await;
    tables.rows(2, "fresh", &["2, 'x'", "1, null"]).await;
    tables.rows(1, "old", &["2, 'x'", "1, null"]).await;
    let diff = tables.compare().await;
    let shown = json!([
        { "key": ["1"], "values": [{ "column": "v", "value": null }] },
        { "key": ["2"], "values": [{ "column": "v", "value": "x" }] },
    ]);
    let json = |rows: &Matched| serde_json::to_value(rows.samples.clone()).unwrap();
    assert_eq!(counts(matched(&diff, 0)), (2, 0, 0));
    assert_eq!((matched(&diff, 0).a, matched(&diff, 0).b), (0, 2));
    assert_eq!(
        json(matched(&diff, 0)),
        json!({ "added": shown, "removed": [], "changed": [] })
    );
    assert_eq!(counts(matched(&diff, 1)), (0, 2, 0));
    assert_eq!((matched(&diff, 1).a, matched(&diff, 1).b), (2, 0));
    assert_eq!(
        json(matched(&diff, 1)),
        json!({ "added": [], "removed": shown, "changed": [] })
    );
}

#[tokio::test]
async fn samples_are_the_first_rows_of_each_kind_in_the_order_of_the_key() {
    let mut tables = Tables::same("many", "id int8, v int4", &["id"]).await;
    // In A: 1 to 3000. In B: 1001 to 4000, every one of them changed. Neither in the order of the key.
    tables
        .sql(
            "insert into gobo_g1.many select i, 1, 1, 1, now() from generate_series(1, 3000) i order by md5(i::text);
             insert into gobo_g2.many select i, 2, 1, 1, now() from generate_series(1001, 4000) i order by md5(i::text)",
        )
        .await;
    for samples in [0, 3, 50] {
        let options = Options {
            samples,
            ..Options::default()
        };
        let diff = tables.try_compare(&options).await.unwrap();
        let rows = matched(&diff, 0);
        assert_eq!(counts(rows), (1000, 1000, 2000));
        let from = |first: u32| -> Vec<String> {
            (first..first + samples).map(|n| n.to_string()).collect()
        };
        let added: Vec<_> = rows
            .samples
            .added
            .iter()
            .map(|row| row.key[0].clone())
            .collect();
        let removed: Vec<_> = rows
            .samples
            .removed
            .iter()
            .map(|row| row.key[0].clone())
            .collect();
        let changed: Vec<_> = rows
            .samples
            .changed
            .iter()
            .map(|row| row.key[0].clone())
            .collect();
        assert_eq!(added, from(3001));
        assert_eq!(removed, from(1));
        assert_eq!(changed, from(1001));
    }
    let options = Options {
        samples: u32::MAX,
        ..Options::default()
    };
    let diff = tables.try_compare(&options).await.unwrap();
    assert_eq!(
        matched(&diff, 0).samples.changed.len(),
        diff::MAX_SAMPLES as usize
    );
}

#[tokio::test]
async fn names_that_need_quotes_are_quoted() {
    let table = r#"or"d'er $1 {x}"#;
    let models = [model(
        table,
        r#"Select int4, a"b text, Ünï {c}'ode text, k0 text"#,
        &["Select"],
    )];
    let mut tables = Tables::new(&models, &models).await;
    let quoted = quote(table);
    tables.rows(1, &quoted, &["1, 'x', 'y', 'z'"]).await;
    tables.rows(2, &quoted, &["1, 'x', 'Y', 'z'"]).await;
    let diff = tables.compare().await;
    assert_eq!(diff.read_models[0].name, table);
    let rows = matched(&diff, 0);
    assert_eq!(rows.key, ["Select"]);
    assert_eq!(rows.samples.changed[0].changes[0].column, "Ünï {c}'ode");
}

#[tokio::test]
async fn two_hundred_columns_are_compared() {
    let columns: Vec<String> = (0..199).map(|n| format!("c{n} text?")).collect();
    let columns = format!("id int4, {}", columns.join(", "));
    let mut tables = Tables::same("wide", &columns, &["id"]).await;
    let nulls = vec!["null"; 198].join(", ");
    tables.rows(1, "wide", &[&format!("1, {nulls}, 'x'")]).await;
    tables.rows(2, "wide", &[&format!("1, {nulls}, 'y'")]).await;
    let rows = tables.matched().await;
    let changed: Vec<_> = rows
        .columns
        .iter()
        .filter(|c| c.changed > 0)
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!(changed, ["c198"]);
}

#[tokio::test]
async fn rows_are_those_of_the_snapshot() {
    let mut tables = Tables::same("orders", "id int4, v text", &["id"]).await;
    tables.rows(1, "orders", &["1, 'x'"]).await;
    tables.rows(2, "orders", &["1, 'x'"]).await;
    let other = tables.database.connect().await;
    let transaction = tables.snapshot().await;
    let later = "update gobo_g2.orders set v = 'y'; insert into gobo_g1.orders values (2, 'x', 1, 1, now())";
    other.batch_execute(later).await.unwrap();
    let diff = diff::compare(&transaction, PAIR, &Options::default(), |_| {})
        .await
        .unwrap();
    assert!(diff.is_empty(), "{diff:?}");
}

#[tokio::test]
async fn a_table_that_goes_away_meanwhile_is_named() {
    let mut tables = Tables::same("orders", "id int4, v text", &["id"]).await;
    let other = tables.database.connect().await;
    let transaction = tables.snapshot().await;
    let drop = "drop schema gobo_g2 cascade";
    other.batch_execute(drop).await.unwrap();
    let error = diff::compare(&transaction, PAIR, &Options::default(), |_| {})
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "read model \"orders\" was dropped while generations 1 and 2 were compared"
    );
}

#[tokio::test]
async fn a_generation_without_tables_is_refused() {
    let mut tables = Tables::same("orders", "id int4, v text", &["id"]).await;
    tables.sql("drop schema gobo_g2 cascade").await;
    let error = tables.try_compare(&Options::default()).await.unwrap_err();
    assert!(
        matches!(error, DiffError::Gone { generation: 2 }),
        "{error}"
    );
}

#[tokio::test]
async fn a_diff_reads_back_what_it_writes_as_json() {
    let a = [
        model("gone", "id int4", &["id"]),
        model("orders", "id int4, v numeric?", &["id"]),
    ];
    let b = [model("orders", "id int4, v numeric?, note text?", &["id"])];
    let mut tables = Tables::new(&a, &b).await;
    tables.rows(1, "orders", &["1, 1.0", "2, null"]).await;
    tables
        .rows(2, "orders", &["1, 1.00, 'n'", "3, 1e30, 'n'"])
        .await;
    let diff = tables.compare().await;
    let json = serde_json::to_value(&diff).unwrap();
    assert_eq!(
        json,
        json!({
            "a": 1, "b": 2, "position": 77, "columns": "declared",
            "read_models": [
                { "name": "gone", "shape": [], "rows": { "kind": "only_in_a", "count": 0 } },
                { "name": "orders",
                  "shape": [{ "kind": "column_only_in", "side": "b", "column": "note", "type": "text", "nullable": true }],
                  "rows": {
                    "kind": "matched", "a": 2, "b": 2, "added": 1, "removed": 1, "changed": 1, "key": ["id"],
                    "columns": [{ "name": "v", "type": "numeric", "changed": 1 }],
                    "samples": {
                        "added": [{ "key": ["3"], "values": [
                            { "column": "v", "value": "1000000000000000000000000000000" }, { "column": "note", "value": "n" },
                        ] }],
                        "removed": [{ "key": ["2"], "values": [{ "column": "v", "value": null }] }],
                        "changed": [{ "key": ["1"], "changes": [{ "column": "v", "a": "1.0", "b": "1.00" }] }] } } },
            ],
        })
    );
    let text = serde_json::to_string(&diff).unwrap();
    assert_eq!(serde_json::from_str::<Diff>(&text).unwrap(), diff);
    assert_eq!(serde_json::from_value::<Diff>(json).unwrap(), diff);
}

#[tokio::test]
async fn comparing_spills_to_disk_where_rows_do_not_fit_into_work_mem() {
    let mut tables = Tables::same("many", "id int8, v text", &["id"]).await;
    // Ids without order, made without sorting: filling writes no temporary file.
    let rows = "(i * 7919) % 200003, repeat('x', 100)";
    tables
        .sql(&format!(
            "set work_mem = '64MB';
             insert into gobo_g1.many select {rows} || 'a', 1, 1, now() from generate_series(1, 200000) i;
             insert into gobo_g2.many select {rows} || 'b', 1, 1, now() from generate_series(1, 200000) i;
             set work_mem = '1MB'"
        ))
        .await;
    let rows = tables.matched().await;
    assert_eq!(counts(&rows), (0, 0, 200_000));
    // A session hands in its statistics when it ends, at the latest.
    let Tables { database, client } = tables;
    drop(client);
    let client = database.connect().await;
    let sql = "select temp_bytes from pg_stat_database where datname = current_database()";
    wait_for("temporary files", async || {
        // Neither the join's hash table nor the rows that differ fit into a megabyte.
        match client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) {
            bytes if bytes > 5_000_000 => Ok(()),
            bytes => Err(bytes),
        }
    })
    .await;
}
