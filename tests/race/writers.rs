//! Writers that do everything that makes positions become visible late, out of order, or never.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use gobo_tests::wait_for;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error, NoTls};

/// Chance with a seed (splitmix64).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// When a position is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// By the column's default.
    Default,
    /// By the client, some time before the INSERT of the same transaction.
    DrawFirst,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    committed: AtomicU64,
    lost_sessions: AtomicU64,
}

/// What the writers did.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) lost_sessions: u64,
}

pub(crate) struct Writers {
    url: String,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    pub(crate) fn start(url: &str, count: usize, style: Style, seed: u64) -> Self {
        let shared = Arc::new(Shared::default());
        let tasks = (0..count)
            .map(|number| {
                let writer = Writer {
                    url: url.to_owned(),
                    number,
                    style,
                    chance: Chance::new(seed * 1000 + number as u64),
                    prepared: 0,
                    shared: shared.clone(),
                };
                tokio::spawn(writer.run())
            })
            .collect();
        Self {
            url: url.to_owned(),
            shared,
            tasks,
        }
    }

    /// How many events they have written so far.
    pub(crate) fn committed(&self) -> u64 {
        self.shared.committed.load(Ordering::Relaxed)
    }

    /// Lets them write until there are so many events, however long the machine takes for that.
    pub(crate) async fn run_until(&self, committed: u64) {
        wait_for(&format!("{committed} events"), async || {
            match self.committed() {
                enough if enough >= committed => Ok(()),
                fewer => Err(fewer),
            }
        })
        .await;
    }

    /// Ends them and what they left prepared.
    pub(crate) async fn finish(self) -> Written {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let left = client
            .query(
                "select gid from pg_prepared_xacts where database = current_database() order by gid",
                &[],
            )
            .await
            .unwrap();
        for (index, row) in left.iter().enumerate() {
            let gid: String = row.get(0);
            let verb = if index % 2 == 0 { "commit" } else { "rollback" };
            client
                .batch_execute(&format!("{verb} prepared '{gid}'"))
                .await
                .unwrap();
        }
        Written {
            lost_sessions: self.shared.lost_sessions.load(Ordering::Relaxed),
        }
    }
}

struct Writer {
    url: String,
    number: usize,
    style: Style,
    chance: Chance,
    prepared: u32,
    shared: Arc<Shared>,
}

impl Writer {
    async fn run(mut self) {
        while !self.stopped() {
            let Ok((client, connection)) = tokio_postgres::connect(&self.url, NoTls).await else {
                self.pause(20).await;
                continue;
            };
            let connection = tokio::spawn(connection);
            if self.write(&client).await.is_err() {
                self.shared.lost_sessions.fetch_add(1, Ordering::Relaxed);
            }
            drop(client);
            let _ = connection.await;
        }
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    async fn write(&mut self, client: &Client) -> Result<(), Error> {
        // A transaction that was answered may be lost by a crash: then its events must not have been kept either.
        if self.number.is_multiple_of(2) {
            client.batch_execute("set synchronous_commit = off").await?;
        }
        while !self.stopped() {
            // The first writer never writes several events in one transaction, the others seldom do not.
            match self.chance.below(if self.number == 0 { 1 } else { 10 }) {
                0 => self.alone(client).await?,
                1 => self.copy(client).await?,
                2 => self.savepoints(client).await?,
                // Two writers: the server has ten slots for prepared transactions, and some outlive a crash.
                3 | 4 if self.number <= 2 => self.prepare(client).await?,
                _ => self.several(client).await?,
            }
        }
        Ok(())
    }

    async fn insert(&mut self, client: &Client) -> Result<(), Error> {
        let shard = self.chance.below(2);
        // Straight into the partition, or routed to it.
        let table = match self.chance.below(2) {
            0 => format!("sales.ledger_{shard}"),
            _ => "sales.ledger".to_owned(),
        };
        let kind = ["a", "b", "c"][usize::try_from(self.chance.below(3)).unwrap()];
        let stream = self.number;
        let rest = "shard, stream, number, kind, body) values";
        match self.style {
            Style::Default => {
                let sql = format!(
                    "insert into {table} ({rest} ({shard}, 's{stream}', 0, '{kind}', '{{}}')"
                );
                client.batch_execute(&sql).await?;
            }
            Style::DrawFirst => {
                let drawn: i64 = client
                    .query_one("select nextval('sales.ledger_seq')", &[])
                    .await?
                    .get(0);
                self.pause(25).await;
                let sql = format!(
                    "insert into {table} (seq, {rest} ({drawn}, {shard}, 's{stream}', 0, '{kind}', '{{}}')"
                );
                client.batch_execute(&sql).await?;
            }
        }
        self.shared.committed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// One event in a transaction of its own. A position that is drawn first is drawn in that transaction: drawn in one
    /// before it, nothing would tell that somebody is going to use it.
    async fn alone(&mut self, client: &Client) -> Result<(), Error> {
        match self.style {
            Style::Default => self.insert(client).await,
            Style::DrawFirst => {
                self.begin(client).await?;
                self.insert(client).await?;
                client.batch_execute("commit").await
            }
        }
    }

    async fn several(&mut self, client: &Client) -> Result<(), Error> {
        self.begin(client).await?;
        for _ in 0..=self.chance.below(4) {
            self.insert(client).await?;
            self.pause(20).await;
        }
        self.end(client).await
    }

    async fn savepoints(&mut self, client: &Client) -> Result<(), Error> {
        self.begin(client).await?;
        for _ in 0..=self.chance.below(3) {
            client.batch_execute("savepoint s").await?;
            self.insert(client).await?;
            self.pause(10).await;
            let end = ["release savepoint s", "rollback to savepoint s"];
            let end = end[usize::try_from(self.chance.below(2)).unwrap()];
            client.batch_execute(end).await?;
            // Only rolled back so far: no lock on the table is left, and yet there is more to come.
            self.pause(10).await;
        }
        self.insert(client).await?;
        self.end(client).await
    }

    async fn copy(&mut self, client: &Client) -> Result<(), Error> {
        if self.style == Style::DrawFirst {
            return self.several(client).await;
        }
        self.begin(client).await?;
        let sink = client
            .copy_in("copy sales.ledger (shard, stream, number, kind, body) from stdin")
            .await?;
        let mut sink = std::pin::pin!(sink);
        for _ in 0..=self.chance.below(20) {
            let row = format!("{}\tcopied\t0\ta\t{{}}\n", self.chance.below(2));
            sink.send(Bytes::from(row)).await?;
            if self.chance.below(4) == 0 {
                self.pause(5).await;
            }
        }
        sink.finish().await?;
        self.pause(20).await;
        self.end(client).await
    }

    async fn prepare(&mut self, client: &Client) -> Result<(), Error> {
        self.begin(client).await?;
        self.insert(client).await?;
        self.pause(10).await;
        self.prepared += 1;
        let gid = format!(
            "{}-{}-{}",
            self.number,
            self.prepared,
            self.chance.below(u64::MAX)
        );
        client
            .batch_execute(&format!("prepare transaction '{gid}'"))
            .await?;
        // The session goes on while it hangs in the air.
        self.alone(client).await?;
        self.pause(60).await;
        let verb = if self.chance.below(3) == 0 {
            "rollback"
        } else {
            "commit"
        };
        client
            .batch_execute(&format!("{verb} prepared '{gid}'"))
            .await
    }

    async fn begin(&mut self, client: &Client) -> Result<(), Error> {
        client.batch_execute("begin").await
    }

    async fn end(&mut self, client: &Client) -> Result<(), Error> {
        let end = if self.chance.below(10) < 3 {
            "rollback"
        } else {
            "commit"
        };
        client.batch_execute(end).await
    }

    async fn pause(&mut self, milliseconds: u64) {
        if self.chance.below(3) > 0 {
            let pause = Duration::from_millis(self.chance.below(milliseconds));
            tokio::time::sleep(pause).await;
        }
    }
}
