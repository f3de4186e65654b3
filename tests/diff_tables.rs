//! Comparing the tables of two generations.

mod rows;
mod shape;
mod values;

use gobo::db;
use gobo::generations::diff::{self, ChangedRow, Diff, DiffError, Matched, Options, Pair, RowDiff};
use gobo::read_model::{Column, ReadModel, schema};
use gobo_tests::Database;
use tokio_postgres::{Client, IsolationLevel, Transaction};

const PAIR: Pair = Pair {
    a: 1,
    b: 2,
    position: 77,
};

/// A database in which generations 1 and 2 are compared.
struct Tables {
    database: Database,
    client: Client,
}

impl Tables {
    /// Creates the read models of both generations.
    async fn new(a: &[ReadModel], b: &[ReadModel]) -> Self {
        let database = Database::create().await;
        let sessions = db::Database::new(database.url()).unwrap();
        let mut client = sessions.connect("test", &[]).await.unwrap();
        let transaction = client.transaction().await.unwrap();
        for (generation, models) in [(1, a), (2, b)] {
            schema::create_tables(&transaction, generation, models, false)
                .await
                .unwrap();
            schema::create_indexes(&transaction, generation, models)
                .await
                .unwrap();
        }
        transaction.commit().await.unwrap();
        Self { database, client }
    }

    /// The same read model in both.
    async fn same(name: &str, columns: &str, key: &[&str]) -> Self {
        let models = [model(name, columns, key)];
        Self::new(&models, &models).await
    }

    async fn sql(&self, sql: &str) {
        self.client
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Inserts rows of declared columns, which are given as SQL, into a table with three columns of the engine's own.
    async fn rows(&self, generation: i64, table: &str, rows: &[&str]) {
        for row in rows {
            self.sql(&format!(
                "insert into gobo_g{generation}.{table} values ({row}, 1, 1, '2026-01-01')"
            ))
            .await;
        }
    }

    /// A transaction whose snapshot is taken.
    async fn snapshot(&mut self) -> Transaction<'_> {
        let transaction = self
            .client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await
            .unwrap();
        transaction.batch_execute("select 1").await.unwrap();
        transaction
    }

    async fn try_compare(&mut self, options: &Options) -> Result<Diff, DiffError> {
        let transaction = self.snapshot().await;
        diff::compare(&transaction, PAIR, options, |_| {}).await
    }

    async fn compare(&mut self) -> Diff {
        self.try_compare(&Options::default()).await.unwrap()
    }

    /// The rows of the only read model.
    async fn matched(&mut self) -> Matched {
        matched(&self.compare().await, 0).clone()
    }
}

/// A read model from `name type` pairs; a `?` after the type makes a column nullable.
fn model(name: &str, columns: &str, key: &[&str]) -> ReadModel {
    let column = |column: &str| {
        let (name, kind) = column.trim().rsplit_once(' ').unwrap();
        Column {
            name: name.to_owned(),
            kind: kind.trim_end_matches('?').parse().unwrap(),
            nullable: kind.ends_with('?'),
            comment: None,
        }
    };
    let columns: Vec<Column> = columns.split(',').map(column).collect();
    let place = |name: &&str| columns.iter().position(|c| c.name == **name).unwrap();
    ReadModel {
        name: name.to_owned(),
        comment: None,
        per_stream: false,
        key: key.iter().map(place).collect(),
        columns,
        indexes: Vec::new(),
        references: Vec::new(),
    }
}

fn matched(diff: &Diff, place: usize) -> &Matched {
    match &diff.read_models[place].rows {
        RowDiff::Matched(rows) => rows,
        other => panic!("{other:?}"),
    }
}

fn counts(rows: &Matched) -> (i64, i64, i64) {
    (rows.added, rows.removed, rows.changed)
}

fn keys(rows: &[ChangedRow]) -> Vec<Vec<&str>> {
    let keys = rows
        .iter()
        .map(|row| row.key.iter().map(String::as_str).collect());
    keys.collect()
}
