//! The one task per source that looks at the database: safe head and newest events, published to everybody.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;

use super::columns::{Only, Selection, Table, failed, quoted};
use super::safe_head::{Look, Lookout};
use super::scan::{End, scan};
use super::wake::{Found, Pauses, wait};
use super::{Polling, Shared, SourceConfig, SourceError, State, locked};
use crate::db::Database;

/// A server that does not answer for so long is treated as gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// More new positions than this are not read for everybody: whoever wants them reads on its own.
const SHARED_SPAN: i64 = 10_000;

/// How often a refused table is looked at again.
const RECHECK: Duration = Duration::from_secs(5);

const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

pub(super) struct Tail {
    database: Database,
    config: SourceConfig,
    polling: Polling,
    shared: Arc<Shared>,
    epoch: u64,
    backoff: Duration,
}

/// Why a session ended.
enum Ended {
    /// To be tried again soon.
    Lost(String),
    /// The table was found unfit; it may be mended.
    Unfit(String),
    /// The rules were broken while events were read; whatever was read since may be incomplete.
    Broken(String),
    /// Events were changed: nothing that was read before is served any more.
    Stale,
}

impl Tail {
    pub(super) fn new(
        database: Database,
        config: SourceConfig,
        polling: Polling,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            database,
            config,
            polling,
            shared,
            epoch: 0,
            backoff: FIRST_BACKOFF,
        }
    }

    /// Looks until the task is aborted.
    pub(super) async fn run(mut self) {
        loop {
            let ended = match self.serve().await {
                Ok(never) => match never {},
                Err(ended) => ended,
            };
            self.shared.ring().close();
            self.shared.convoys().clear();
            match ended {
                Ended::Lost(reason) => {
                    self.publish_state(State::Unreachable(reason));
                    sleep(self.backoff).await;
                    self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
                }
                Ended::Unfit(reason) => {
                    self.publish_state(State::Refused(reason));
                    // A poke (a new deployment, say) is worth another look.
                    let _ = timeout(RECHECK, self.shared.poked.notified()).await;
                }
                Ended::Stale => {}
                Ended::Broken(reason) => {
                    self.publish_state(State::Refused(reason));
                    return std::future::pending().await;
                }
            }
        }
    }

    /// One session, from connecting until it ends.
    async fn serve(&mut self) -> Result<Infallible, Ended> {
        let connected = timeout(PATIENCE, self.database.listen(&[])).await;
        let (client, mut notifications) = connected
            .map_err(|_| silent())?
            .map_err(|e| Ended::unfit(failed(&e, "the source's connection")))?;
        let found = timeout(PATIENCE, self.find(&client)).await;
        let (table, mut lookout) = found.map_err(|_| silent())?.map_err(Ended::unfit)?;
        self.epoch += 1;
        let mut pauses = Pauses::new(self.polling);
        let mut last = None;
        loop {
            let started = Instant::now();
            let looked = timeout(PATIENCE, self.look(&client, &table, &mut lookout, last)).await;
            let look = looked.map_err(|_| silent())?.map_err(Ended::broken)?;
            self.backoff = FIRST_BACKOFF;
            let moved = last.is_none_or(|last: Look| last.safe != look.safe);
            let pause = pauses.after(match (moved, look.safe < look.head) {
                (true, _) => Found::News,
                (false, true) => Found::Pending,
                (false, false) => Found::Nothing,
            });
            last = Some(look);
            if !wait(&self.shared, &mut notifications, started, pause).await {
                return Err(Ended::Lost("the connection was lost".into()));
            }
            if !self.shared.is_current(self.epoch) {
                return Err(Ended::Stale);
            }
        }
    }

    async fn find(&self, client: &Client) -> Result<(Arc<Table>, Lookout), SourceError> {
        // The same plan for ever: see the reader's settings.
        let settings = "set enable_seqscan = off; set enable_bitmapscan = off; \
                        set default_transaction_read_only = on";
        client
            .batch_execute(settings)
            .await
            .map_err(|e| failed(&e, "the session"))?;
        let table = Table::find(client, &self.config).await?;
        let lookout = Lookout::new(client, &table, self.config.fence).await?;
        // Only now: a standby cannot listen, and is to be told apart from a server that is away.
        if let Some(channel) = &self.config.notify {
            let listen = format!("listen {}", quoted(channel));
            let listening = client.batch_execute(&listen).await;
            listening.map_err(|e| failed(&e, channel))?;
        }
        Ok((Arc::new(table), lookout))
    }

    async fn look(
        &self,
        client: &Client,
        table: &Arc<Table>,
        lookout: &mut Lookout,
        last: Option<Look>,
    ) -> Result<Look, SourceError> {
        let (epoch, verified) = *locked(&self.shared.verified);
        if epoch == self.epoch {
            lookout.raise(verified);
        }
        let look = lookout.look(client, table).await?;
        match last {
            Some(last) if last.safe == look.safe => {}
            Some(last) => self.share(client, table, last, look).await?,
            None => self.shared.ring().restart(look.safe),
        }
        self.publish(table, look);
        Ok(look)
    }

    /// Reads what has become safe for everybody, if it is little enough and somebody reads.
    async fn share(
        &self,
        client: &Client,
        table: &Table,
        last: Look,
        look: Look,
    ) -> Result<(), SourceError> {
        let wanted =
            self.shared.readers.load(Ordering::Relaxed) > 0 && look.safe - last.safe <= SHARED_SPAN;
        if wanted {
            let limit = usize::try_from(SHARED_SPAN).unwrap_or(usize::MAX);
            let selection = Selection {
                after: last.safe,
                through: look.safe,
                only: Only::Types(None),
            };
            let sql = table.copy_sql(selection, limit);
            let bytes = self.polling.ring_bytes / 4;
            match scan(client, &sql, last.safe, bytes).await {
                Ok((mut batch, End::Complete)) => {
                    batch.through = look.safe;
                    self.shared.ring().push(batch);
                    return Ok(());
                }
                // Too many bytes, or an event that does not fit: the readers find that out in their own time.
                Ok(_) | Err(SourceError::Refused(_)) => {}
                Err(lost) => return Err(lost),
            }
        }
        self.shared.ring().restart(look.safe);
        Ok(())
    }

    fn publish(&self, table: &Arc<Table>, look: Look) {
        self.shared.head.send_if_modified(|head| {
            let new = head.position != look.safe
                || head.head != look.head
                || head.epoch != self.epoch
                || head.state != State::Ok;
            head.position = look.safe;
            head.head = look.head;
            head.state = State::Ok;
            head.epoch = self.epoch;
            head.table = Some(table.clone());
            new
        });
    }

    fn publish_state(&self, state: State) {
        self.shared.head.send_if_modified(|head| {
            let new = head.state != state;
            head.state = state;
            new
        });
    }
}

impl Ended {
    fn unfit(error: SourceError) -> Self {
        match error {
            SourceError::Infrastructure(reason) => Self::Lost(reason),
            SourceError::Refused(reason) => Self::Unfit(reason),
        }
    }

    fn broken(error: SourceError) -> Self {
        match error {
            SourceError::Infrastructure(reason) => Self::Lost(reason),
            SourceError::Refused(reason) => Self::Broken(reason),
        }
    }
}

fn silent() -> Ended {
    Ended::Lost(format!("no answer within {} s", PATIENCE.as_secs()))
}
