//! Tables that are not the same apart from their rows, and which columns count.

use gobo::generations::diff::{self, Columns, Options, RowDiff, ShapeDifference, Side};

use super::{PAIR, Tables, counts, keys, matched, model};

#[tokio::test]
async fn the_engine_s_own_columns_count_only_when_everything_must_be_equal() {
    let mut models = [model("orders", "id int4, v text", &["id"])];
    models[0].per_stream = true;
    let mut tables = Tables::new(&models, &models).await;
    for (generation, row) in [
        (1, "1, 'x', 's', 1, 1, '2026-01-01'"),
        (1, "2, 'x', 's', 1, 1, '2026-01-01'"),
        (1, "3, 'x', 's', 1, 1, '2026-01-01'"),
        (1, "4, 'x', 's', 1, 1, '2026-01-01'"),
        (2, "1, 'x', 's', 2, 1, '2026-01-01'"),
        (2, "2, 'x', 's', 1, 9, '2026-01-01'"),
        (2, "3, 'x', 's', 1, 1, '2026-01-02'"),
        (2, "4, 'x', 't', 1, 1, '2026-01-01'"),
    ] {
        tables
            .sql(&format!(
                "insert into gobo_g{generation}.orders values ({row})"
            ))
            .await;
    }
    assert!(tables.compare().await.is_empty());

    let options = Options {
        columns: Columns::All,
        ..Options::default()
    };
    let diff = tables.try_compare(&options).await.unwrap();
    let rows = matched(&diff, 0);
    let columns: Vec<_> = rows
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.changed))
        .collect();
    assert_eq!(
        columns,
        [
            ("v", 0),
            ("_stream_id", 1),
            ("_position", 1),
            ("_updated_at", 1)
        ]
    );
    assert_eq!(
        keys(&rows.samples.changed),
        [["1"], ["3"], ["4"]],
        "a revision counts commits"
    );
}

#[tokio::test]
async fn differences_of_shape_are_listed_and_the_rest_is_compared() {
    let mut a = [model(
        "orders",
        "id int4, gone text, kind int4, loose text, v text",
        &["id"],
    )];
    let mut b = [model(
        "orders",
        "id int4, v text, kind int8, loose text?, note text?",
        &["id"],
    )];
    a[0].indexes = vec![vec![1], vec![4, 0]];
    b[0].indexes = vec![vec![1, 0], vec![1]];
    b[0].per_stream = true;
    let mut tables = Tables::new(&a, &b).await;
    tables
        .rows(
            1,
            "orders",
            &[
                "1, 'g', 1, 'l', 'v'",
                "2, 'g', 2, 'l', 'v'",
                "3, 'g', 2, 'l', 'v'",
            ],
        )
        .await;
    for row in [
        "1, 'v', 7, 'l', 'n'",
        "2, 'w', 7, null, 'n'",
        "4, 'w', 7, null, 'n'",
    ] {
        tables
            .sql(&format!(
                "insert into gobo_g2.orders values ({row}, 's', 1, 1, now())"
            ))
            .await;
    }
    let column_only_in = |side, column: &str, nullable| ShapeDifference::ColumnOnlyIn {
        side,
        column: column.to_owned(),
        r#type: "text".to_owned(),
        nullable,
    };
    let index_only_in = |side, column: &str| ShapeDifference::IndexOnlyIn {
        side,
        columns: vec![column.to_owned()],
    };
    let mut expected = vec![
        column_only_in(Side::A, "gone", false),
        ShapeDifference::ColumnType {
            column: "kind".to_owned(),
            a: "int4".to_owned(),
            b: "int8".to_owned(),
        },
        ShapeDifference::ColumnNullable {
            column: "loose".to_owned(),
            nullable_in: Side::B,
        },
        column_only_in(Side::B, "note", true),
        index_only_in(Side::A, "gone"),
        index_only_in(Side::B, "v"),
    ];
    let diff = tables.compare().await;
    assert_eq!(diff.read_models[0].shape, expected);
    let rows = matched(&diff, 0);
    assert_eq!(counts(rows), (1, 1, 1));
    let columns: Vec<_> = rows
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.changed))
        .collect();
    assert_eq!(columns, [("loose", 1), ("v", 1)]);
    let shown = |row: &diff::Sample| -> Vec<String> {
        row.values.iter().map(|v| v.column.clone()).collect()
    };
    assert_eq!(
        shown(&rows.samples.added[0]),
        ["v", "kind", "loose", "note"]
    );
    assert_eq!(
        shown(&rows.samples.removed[0]),
        ["gone", "kind", "loose", "v"]
    );

    let options = Options {
        columns: Columns::All,
        ..Options::default()
    };
    let diff = tables.try_compare(&options).await.unwrap();
    expected.push(ShapeDifference::PerStreamOnlyIn { side: Side::B });
    assert_eq!(diff.read_models[0].shape, expected);
}

#[tokio::test]
async fn a_difference_of_shape_alone_is_a_difference() {
    let a = [model("orders", "id int4, v text", &["id"])];
    let mut b = a.clone();
    b[0].indexes = vec![vec![1]];
    let mut tables = Tables::new(&a, &b).await;
    tables.rows(1, "orders", &["1, 'v'"]).await;
    tables.rows(2, "orders", &["1, 'v'"]).await;
    let diff = tables.compare().await;
    assert_eq!(counts(matched(&diff, 0)), (0, 0, 0));
    assert!(!diff.is_empty());
}

#[tokio::test]
async fn rows_with_other_keys_are_counted_since_they_cannot_be_matched() {
    let columns = "id int4, day date, v text";
    let a = [
        model("columns", columns, &["id"]),
        model("reordered", columns, &["id", "day"]),
        model("types", columns, &["id"]),
    ];
    let b = [
        model("columns", columns, &["id", "day"]),
        model("reordered", columns, &["day", "id"]),
        model("types", "id int8, day date, v text", &["id"]),
    ];
    let mut tables = Tables::new(&a, &b).await;
    for table in ["columns", "reordered", "types"] {
        tables.rows(1, table, &["1, '2026-01-01', 'x'"]).await;
        tables
            .rows(2, table, &["1, '2026-01-01', 'y'", "2, '2026-01-01', 'x'"])
            .await;
    }
    let diff = tables.compare().await;
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let key = |a: &[&str], b: &[&str]| {
        vec![ShapeDifference::Key {
            a: names(a),
            b: names(b),
        }]
    };
    let [columns, reordered, types] = &diff.read_models[..] else {
        panic!("{diff:?}");
    };
    assert_eq!(columns.shape, key(&["id"], &["id", "day"]));
    assert_eq!(columns.rows, RowDiff::Unmatched { a: 1, b: 2 });
    assert_eq!(types.rows, RowDiff::Unmatched { a: 1, b: 2 });
    assert_eq!(reordered.shape, key(&["id", "day"], &["day", "id"]));
    assert_eq!(
        counts(matched(&diff, 1)),
        (1, 0, 1),
        "the same columns in another order match rows as well"
    );
}

#[tokio::test]
async fn read_models_of_one_generation_are_counted_and_progress_names_each() {
    let one = |name: &str| model(name, "id int4, v text", &["id"]);
    let mut tables = Tables::new(&[one("both"), one("old")], &[one("both"), one("another")]).await;
    tables.rows(1, "old", &["1, 'x'", "2, 'x'"]).await;
    tables.rows(2, "another", &["1, 'x'"]).await;
    let transaction = tables.snapshot().await;
    let mut steps = Vec::new();
    let diff = diff::compare(&transaction, PAIR, &Options::default(), |step| {
        steps.push((step.read_model.to_owned(), step.done, step.of));
    })
    .await
    .unwrap();
    let step = |name: &str, done| (name.to_owned(), done, 3);
    assert_eq!(steps, [step("another", 0), step("both", 1), step("old", 2)]);
    assert_eq!(diff.read_models[0].rows, RowDiff::OnlyInB { count: 1 });
    assert!(diff.read_models[1].is_empty());
    assert_eq!(diff.read_models[2].rows, RowDiff::OnlyInA { count: 2 });
    assert!(!diff.is_empty());
}
