//! A reader over a real database: tables as a projection would leave them, and the router that serves them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::{Extension, Router};
use gobo::access::Identity;
use gobo::api::read::Reader;
use gobo::cache::{self, Cache};
use gobo::db::Database;
use gobo::progress::Progress;
use gobo::query::Limits;
use gobo::query::board::{Board, Looks, Slot};
use gobo::query::catalog::{Catalog, Head, Models, Published, Readable, Standing, Upstream};
use gobo::read_model::{Column, ReadModel, quote};
use tokio::sync::{Notify, watch};
use tokio_postgres::Client;
use tower::ServiceExt;

/// A statement timeout for everything that is not about it, also on a machine that is slow.
pub(crate) const PATIENT: &str = "60s";

/// What the engine's migrations create, as far as readers look at it.
const SCHEMA: &str = "
    create schema gobo;
    create table gobo.checkpoints (generation bigint primary key, position bigint not null);
    create table gobo.projections (name text not null, live bigint primary key);
    create table gobo.incarnation (token uuid not null default gen_random_uuid());
    insert into gobo.incarnation default values;
    create table gobo.read_models (name text primary key, projection text not null, revision bigint not null);
    create table gobo.dead_letters (generation bigint, position bigint, stream_id text, state text not null default 'failed', primary key (generation, position));
    insert into gobo.checkpoints values (1000, 77), (1001, 78);
    insert into gobo.read_models values ('of_another_projection', 'another', 99);
    insert into gobo.dead_letters values (1000, 5, 'a');
";

pub(crate) struct Bench {
    pub(crate) admin: Client,
    pub(crate) router: Router,
    pub(crate) progress: Progress,
    pub(crate) head: watch::Sender<Head>,
    pub(crate) models: watch::Sender<Models>,
    pub(crate) refresh: Arc<Notify>,
    pub(crate) pokes: Arc<AtomicUsize>,
    /// The age of the oldest event that is not applied.
    pub(crate) age: watch::Sender<Option<Duration>>,
    pub(crate) reader: Reader,
    upstream: Upstream,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// PostgREST's code for what went wrong.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Our own word for it.
    pub(crate) fn reason(&self) -> String {
        self.json()["reason"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(Limits::default(), PATIENT).await
    }

    pub(crate) async fn with(limits: Limits, statement_timeout: &str) -> Self {
        let database = gobo_tests::Database::create().await;
        Self::over(database.url(), limits, statement_timeout).await
    }

    /// On a server that the test stops.
    pub(crate) async fn on(cluster: &gobo_tests::Cluster) -> Self {
        let database = gobo_tests::Database::create_in(cluster).await;
        Self::over(database.url(), Limits::default(), PATIENT).await
    }

    async fn over(url: &str, limits: Limits, statement_timeout: &str) -> Self {
        let database = Database::new(url).unwrap();
        let admin = database.connect("test", &[]).await.unwrap();
        admin.batch_execute(SCHEMA).await.unwrap();
        let settings = [
            ("default_transaction_read_only", "on"),
            ("statement_timeout", statement_timeout),
        ];
        let (head, heads) = watch::channel(Head::default());
        let (models, receiver) = watch::channel(Models::default());
        let refresh = Arc::new(Notify::new());
        let progress = Progress::new();
        let pokes = Arc::new(AtomicUsize::new(0));
        let poked = pokes.clone();
        let (age, ages) = watch::channel(Some(Duration::from_millis(1_500)));
        let pool = database.sessions("reader", 4, &settings);
        let looks = Looks {
            // Rows are changed by SQL here, of which no node knows.
            max_age: Duration::ZERO,
            waiters: limits.waiters,
        };
        let uncached = cache::Settings {
            bytes: 0,
            keep: Duration::from_secs(1),
        };
        let reader = Reader::new(
            pool.clone(),
            Catalog::new(receiver, refresh.clone()),
            Board::new(pool, progress.clone(), looks),
            // The same revision has other rows here.
            Cache::new(uncached, None, ""),
            limits,
            "read",
            Arc::default(),
        );
        Self {
            admin,
            router: reader
                .clone()
                .router()
                .layer(Extension(Arc::new(Identity::anybody()))),
            progress,
            head,
            models,
            refresh,
            pokes,
            age,
            reader,
            upstream: Upstream {
                head: heads,
                age_after: Arc::new(move |_| {
                    let age = *ages.borrow();
                    Box::pin(async move { Ok(age) })
                }),
                position_at: Arc::new(|_| Box::pin(async { Ok(0) })),
                poke: Arc::new(move || {
                    poked.fetch_add(1, Ordering::SeqCst);
                }),
            },
        }
    }

    /// Creates a generation's table for a read model and makes it the live one.
    pub(crate) async fn deploy(&self, generation: i64, model: &ReadModel) {
        let columns: Vec<String> = model
            .columns
            .iter()
            .map(|c| {
                let null = if c.nullable { "" } else { " not null" };
                format!("{} {}{null}", quote(&c.name), c.kind.sql())
            })
            .collect();
        let key: Vec<String> = model.key_columns().map(|c| quote(&c.name)).collect();
        self.sql(&format!(
            "create schema if not exists gobo_g{generation};
             create table gobo_g{generation}.{name} ({columns}, _position bigint not null default 1,
               _revision bigint not null default 1, _updated_at timestamptz not null default '2026-01-01', primary key ({key}));
             insert into gobo.checkpoints values ({generation}, 10) on conflict do nothing;
             insert into gobo.projections values ('test', {generation}) on conflict do nothing;
             insert into gobo.read_models values ('{name}', 'test', 1) on conflict do nothing",
            name = model.name,
            columns = columns.join(", "),
            key = key.join(", "),
        ))
        .await;
        self.publish(generation, model);
    }

    /// Makes a generation the live one.
    pub(crate) fn publish(&self, generation: i64, model: &ReadModel) {
        let readable = Readable {
            model: model.clone(),
            projection: "test".to_owned(),
            generation,
            standing: Standing::Live,
            schema: format!("gobo_g{generation}"),
            source: "gobo".to_owned(),
            upstream: self.upstream.clone(),
            slot: Slot::default(),
        };
        self.models.send_modify(|models| {
            let mut live = models.live.clone();
            live.insert(model.name.clone(), Arc::new(readable));
            *models = Arc::new(Published {
                live,
                ..Published::default()
            });
        });
    }

    pub(crate) async fn sql(&self, text: &str) {
        self.admin.batch_execute(text).await.unwrap();
    }

    pub(crate) async fn get(&self, uri: &str) -> Answer {
        self.send("GET", uri, &[]).await
    }

    pub(crate) async fn send(&self, method: &str, uri: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// A query that must succeed: its rows.
    pub(crate) async fn rows(&self, uri: &str) -> Vec<serde_json::Value> {
        let answer = self.get(uri).await;
        assert_eq!(answer.status, 200, "{uri}: {}", answer.body);
        answer.json().as_array().unwrap().clone()
    }

    /// Follows a query's pages to the end.
    pub(crate) async fn pages(&self, uri: &str) -> Vec<serde_json::Value> {
        let mut rows = Vec::new();
        let mut uri = uri.to_owned();
        loop {
            let answer = self.get(&uri).await;
            assert_eq!(answer.status, 200, "{uri}: {}", answer.body);
            rows.extend(answer.json().as_array().unwrap().iter().cloned());
            let Some(link) = answer.headers.get("link") else {
                return rows;
            };
            let link = link.to_str().unwrap();
            uri = link[1..link.find('>').unwrap()].to_owned();
            assert!(rows.len() < 10_000, "pages without end");
        }
    }
}

/// Awaits `main` while `other` goes on, and not for `other` when `main` ends without it.
pub(crate) async fn beside<T>(main: impl Future<Output = T>, other: impl Future<Output = ()>) -> T {
    let mut main = std::pin::pin!(main);
    tokio::select! {
        output = &mut main => return output,
        () = other => {}
    }
    main.await
}

/// A read model from `name type` lines; a `?` after the type makes a column nullable.
pub(crate) fn model(name: &str, columns: &str, key: &[&str]) -> ReadModel {
    let columns: Vec<Column> = columns
        .split(',')
        .map(|column| {
            let (name, kind) = column.trim().split_once(' ').unwrap();
            Column {
                name: name.to_owned(),
                kind: kind.trim_end_matches('?').parse().unwrap(),
                nullable: kind.ends_with('?'),
                comment: None,
            }
        })
        .collect();
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
