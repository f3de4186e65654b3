//! Consumers that keep what they were given, and the place where they stopped, in one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gobo::event::Batch;
use gobo::source::{Columns, Expression, Fence, Field, Limits, Source, SourceConfig, SourceError};
use gobo_tests::{Database, wait_for};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

/// The ledger as a source.
pub(crate) fn config(fence: Fence) -> SourceConfig {
    let column = |name: &str| Field::Column(name.into());
    SourceConfig {
        table: "sales.ledger".into(),
        sequence: None,
        fence,
        notify: None,
        columns: Columns {
            position: "seq".into(),
            stream_id: column("stream"),
            version: column("number"),
            kind: column("kind"),
            data: column("body"),
            metadata: Field::Expression(Expression { sql: "null".into() }),
            event_id: column("id"),
            occurred_at: column("at"),
            recorded_at: column("at"),
        },
    }
}

/// Applies events like a projection: each batch and its checkpoint in one transaction, unflushed.
pub(crate) struct Consumer<'a> {
    database: &'a Database,
    name: &'static str,
    types: Option<Vec<String>>,
    lost_sessions: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for Consumer<'_> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<'a> Consumer<'a> {
    pub(crate) async fn start(
        database: &'a Database,
        name: &'static str,
        source: Source,
        types: Option<&[&str]>,
    ) -> Self {
        let setup = format!(
            "create schema if not exists consumed;
             create table consumed.of_{name} (n bigserial, seq bigint not null, id uuid not null);
             create table consumed.of_{name}_checkpoint (position bigint not null, last bigint, id uuid);
             insert into consumed.of_{name}_checkpoint values (0, null, null)"
        );
        database.execute(&setup).await;
        let types: Option<Vec<String>> =
            types.map(|types| types.iter().map(|t| (*t).to_owned()).collect());
        let lost_sessions = Arc::new(AtomicU64::new(0));
        let task = {
            let url = database.url().to_owned();
            let (types, lost) = (types.clone(), lost_sessions.clone());
            tokio::spawn(async move {
                loop {
                    match consume(&url, name, &source, types.as_deref()).await {
                        Err(Stop::Lost(reason)) => {
                            eprintln!("{name} starts over: {reason}");
                            lost.fetch_add(1, Ordering::Relaxed)
                        }
                        Err(Stop::Refused(reason)) => panic!("{name}: {reason}"),
                        Ok(never) => match never {},
                    };
                }
            })
        };
        Self {
            database,
            name,
            types,
            lost_sessions,
            task,
        }
    }

    pub(crate) fn lost_sessions(&self) -> u64 {
        self.lost_sessions.load(Ordering::Relaxed)
    }

    /// Waits until everything up to `position` is applied.
    pub(crate) async fn has_reached(&self, position: i64) {
        let sql = format!("select position from consumed.of_{}_checkpoint", self.name);
        wait_for(&format!("{} to reach {position}", self.name), async || {
            assert!(!self.task.is_finished(), "{} has ended", self.name);
            let reached = self.database.query_i64(&sql).await;
            if reached >= position {
                Ok(())
            } else {
                Err(reached)
            }
        })
        .await;
    }

    /// How many events are missing, were given twice, out of order, or though nobody committed them.
    pub(crate) async fn differences(&self) -> i64 {
        let name = self.name;
        let filter = match &self.types {
            None => "true".to_owned(),
            Some(types) => format!("kind = any(array['{}'])", types.join("','")),
        };
        let sql = format!(
            "select (select count(*) from (select seq, id from sales.ledger where {filter}) e
                       full join consumed.of_{name} c using (seq, id) where e.seq is null or c.n is null)
                  + (select count(*) - count(distinct seq) from consumed.of_{name})
                  + (select count(*) from (select seq - lag(seq) over (order by n) as step from consumed.of_{name}) s
                      where step <= 0)"
        );
        self.database.query_i64(&sql).await
    }
}

enum Stop {
    Lost(String),
    Refused(String),
}

impl From<tokio_postgres::Error> for Stop {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Lost(format!("{error:?}"))
    }
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Infrastructure(reason) => Self::Lost(reason),
            SourceError::Refused(reason) => Self::Refused(reason),
        }
    }
}

/// One session: whatever was read ahead on it ends with it.
async fn consume(
    url: &str,
    name: &str,
    source: &Source,
    types: Option<&[String]>,
) -> Result<std::convert::Infallible, Stop> {
    let Ok((client, connection)) = tokio_postgres::connect(url, NoTls).await else {
        tokio::time::sleep(Duration::from_millis(20)).await;
        return Err(Stop::Lost("no connection".into()));
    };
    tokio::spawn(connection);
    client.batch_execute("set synchronous_commit = off").await?;
    let mut reader = source.reader();
    let row = client
        .query_one(
            &format!("select position, last, id from consumed.of_{name}_checkpoint"),
            &[],
        )
        .await?;
    let mut after: i64 = row.get(0);
    let last: Option<(i64, Uuid)> = row.get::<_, Option<i64>>(1).zip(row.get(2));
    reader.verify_resume(after, last).await?;
    // Some batches are small, so that the reader falls behind and reads on its own at times.
    let limits = Limits {
        max_events: if types.is_some() { 7 } else { 500 },
        max_bytes: 1 << 20,
        upto: None,
    };
    loop {
        let batch = reader.next_batch(after, types, limits).await?;
        assert!(batch.through >= after, "{name} went back");
        if batch.through > after {
            apply(&client, name, &batch).await?;
            after = batch.through;
        } else {
            tokio::select! {
                waited = source.wait_past(after) => waited?,
                () = closed(&client) => return Err(Stop::Lost("connection closed".into())),
            }
        }
    }
}

async fn closed(client: &Client) {
    while client.query_one("select 1", &[]).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn apply(client: &Client, name: &str, batch: &Batch) -> Result<(), Stop> {
    let positions: Vec<i64> = batch.events().iter().map(|e| e.position).collect();
    let ids: Vec<Uuid> = batch.events().iter().map(|e| e.event_id).collect();
    let last = positions.last().copied();
    let id = ids.last().copied();
    let sql = format!(
        "with given as (
             insert into consumed.of_{name} (seq, id)
             select p, i from unnest($1::int8[], $2::uuid[]) with ordinality as given (p, i, n) order by n)
         update consumed.of_{name}_checkpoint
            set position = $3, last = coalesce($4, last), id = coalesce($5, id)"
    );
    client
        .execute(&sql, &[&positions, &ids, &batch.through, &last, &id])
        .await?;
    Ok(())
}

/// The reader that everybody writes first: what lies after the highest position seen.
pub(crate) struct Naive {
    stop: tokio::sync::watch::Sender<bool>,
    task: JoinHandle<Vec<i64>>,
}

impl Naive {
    pub(crate) async fn start(database: &Database) -> Self {
        let client = database.connect().await;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let task = tokio::spawn(async move {
            let mut seen = Vec::new();
            loop {
                let last = *stopped.borrow();
                let after: i64 = seen.last().copied().unwrap_or(0);
                let sql = "select seq from sales.ledger where seq > $1 order by seq";
                let rows = client.query(sql, &[&after]).await.unwrap();
                seen.extend(rows.iter().map(|row| row.get::<_, i64>(0)));
                if last {
                    return seen;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { stop, task }
    }

    pub(crate) async fn stop(self) -> Vec<i64> {
        self.stop.send_replace(true);
        self.task.await.unwrap()
    }
}

/// How many of the ledger's events are not among `seen`.
pub(crate) async fn missing(database: &Database, seen: Vec<i64>) -> i64 {
    let client = database.connect().await;
    let sql = "select count(*) from sales.ledger where not seq = any($1)";
    client.query_one(sql, &[&seen]).await.unwrap().get(0)
}
