//! One consumer's way through a source: from memory at the head, on its own connection behind it.

use std::sync::Arc;
use std::time::Instant;

use tokio_postgres::Client;
use uuid::Uuid;

use super::columns::{Only, Selection, Table, failed, refused};
use super::convoy::{self, Ask, Chunk, Next};
use super::ring;
use super::scan::{End, scan};
use super::{Limits, SafeHead, Shared, Source, SourceError, State};
use crate::event::{Batch, Micros, Position};

/// How many positions one statement looks at: no snapshot is held for longer than that takes.
pub(super) const SPAN: i64 = 500_000;

/// The same for one that others may join: not so many that they never meet.
const ALONE_SPAN: i64 = 50_000;

/// A guess at an event's size, until one has been seen.
const TYPICAL_BYTES: usize = 512;

/// Reads a source in order. Opens a connection of its own as soon as it has to read on its own.
#[derive(Debug)]
pub struct Reader {
    source: Source,
    /// Its name among those that rebuild.
    convoy: Option<convoy::Id>,
    session: Option<Session>,
    event_bytes: usize,
}

/// A connection to the very server that the tail looks at.
struct Session {
    epoch: u64,
    client: Client,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn new(source: Source, convoy: Option<convoy::Id>) -> Self {
        source.count_reader(1);
        Self {
            source,
            convoy,
            session: None,
            event_bytes: TYPICAL_BYTES,
        }
    }

    /// The source that is read.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The next events after `after`: all at or below the safe head, in order, of the wanted types.
    ///
    /// Returns without waiting for new ones: what was found may be empty, and its `through` tells up to where nothing
    /// (more) is wanted; it never falls below `after`. It may be empty and yet have come further.
    pub async fn next_batch(
        &mut self,
        after: Position,
        types: Option<&[String]>,
        limits: Limits,
    ) -> Result<Batch, SourceError> {
        let head = self.head().await?;
        let upto = limits.upto.unwrap_or(Position::MAX);
        let safe = self.safe(&head);
        let near = self.source.ring().since(after);
        if let Some((batches, through)) = near
            && through >= safe.min(upto)
        {
            self.leave_convoy();
            let through = through.min(upto);
            return Ok(ring::select(&batches, after, through, types, &limits));
        }
        let through = safe.min(upto).min(after.saturating_add(SPAN));
        if through <= after {
            self.leave_convoy();
            return Ok(Batch::empty(after));
        }
        if types.is_some_and(<[String]>::is_empty) {
            self.leave_convoy();
            return Ok(Batch::empty(through));
        }
        let selection = Selection {
            after,
            through,
            only: Only::Types(types),
        };
        match self.convoy {
            None => self.read(&head, selection, &limits).await,
            Some(id) => {
                let ask = Ask {
                    id,
                    after,
                    types,
                    epoch: head.epoch,
                };
                self.read_shared(&head, ask, safe, &limits).await
            }
        }
    }

    /// Whether the place where a consumer stopped is still what it was: its checkpoint does not lie ahead of the source,
    /// and the last event that it applied is still the same one. To be called with a checkpoint just read from the
    /// database, after every start and every lost connection.
    ///
    /// A refusal means that the database was restored, or its events were changed. Only a crash of the server between
    /// reading an unflushed checkpoint and this call can lead to one wrongly: read it again before believing it.
    pub async fn verify_resume(
        &mut self,
        checkpoint: Position,
        last: Option<(Position, Uuid)>,
    ) -> Result<(), SourceError> {
        let head = self.head().await?;
        let (client, table) = self.session(&head).await?;
        let drawn = table.head(client).await?;
        if checkpoint > drawn {
            return Err(refused(format!(
                "the checkpoint is at position {checkpoint}, but {} has only reached {drawn}: the events were restored \
                 from an older state than the checkpoint",
                table.name()
            )));
        }
        if let Some((position, event_id)) = last {
            let found = client
                .query_opt(&table.identity_sql(), &[&position])
                .await
                .map_err(|e| failed(&e, table.name()))?;
            let found: Option<Uuid> = found.and_then(|row| row.get(0));
            if found != Some(event_id) {
                let found = found.map_or("gone".to_owned(), |id| format!("now {id}"));
                return Err(refused(format!(
                    "the last event applied was {event_id} at position {position} of {}, which is {found}: the events \
                     are not those that were read",
                    table.name()
                )));
            }
        }
        self.source.raise(head.epoch, checkpoint);
        Ok(())
    }

    /// The event at `position`, in a batch that is empty when there is none. For people who look at it: it need not be
    /// settled.
    pub async fn event_at(&mut self, position: Position) -> Result<Batch, SourceError> {
        let head = self.head().await?;
        let limits = Limits {
            max_events: 1,
            // Never reached: PostgreSQL's own values end here.
            max_bytes: 1 << 30,
            upto: Some(position),
        };
        let selection = Selection {
            after: position.saturating_sub(1),
            through: position,
            only: Only::Types(None),
        };
        self.read(&head, selection, &limits).await
    }

    /// When the oldest event after `position` was stored; `None` when there is none.
    pub async fn oldest_after(
        &mut self,
        position: Position,
    ) -> Result<Option<Micros>, SourceError> {
        let head = self.head().await?;
        if let Some((batches, _)) = self.source.ring().since(position) {
            let oldest = batches
                .iter()
                .flat_map(|batch| batch.events())
                .find(|event| event.position > position);
            if let Some(oldest) = oldest {
                return Ok(Some(oldest.recorded_at));
            }
            // The next one may be there already without having been seen here.
        }
        let (client, table) = self.session(&head).await?;
        let row = client
            .query_opt(&table.oldest_sql(), &[&position])
            .await
            .map_err(|e| failed(&e, table.name()))?;
        match row {
            None => Ok(None),
            Some(row) => {
                let stored: Option<Recorded> = row.get(0);
                Ok(stored.map(|Recorded(micros)| micros))
            }
        }
    }

    /// What follows the position, from what is read for all that are near it, or read alone.
    async fn read_shared(
        &mut self,
        head: &SafeHead,
        ask: Ask<'_>,
        safe: Position,
        limits: &Limits,
    ) -> Result<Batch, SourceError> {
        let shared = self.source.inner.shared.clone();
        let upto = limits.upto.unwrap_or(Position::MAX);
        let batch = loop {
            // Before looking: what changes from now on wakes.
            let moved = shared.moved.notified();
            let next = shared.convoys().next(&ask, Instant::now());
            let bound = match next {
                Next::Take(batches, through) => {
                    let through = through.min(upto);
                    break ring::select(&batches, ask.after, through, ask.types, limits);
                }
                Next::Alone(bound) => bound,
                Next::Wait => {
                    let _ = tokio::time::timeout(convoy::TICK, moved).await;
                    continue;
                }
                Next::Lead(chunk) => {
                    let _resigns = Lead(shared.clone(), ask.id);
                    match self.read_chunk(head, &chunk, safe).await {
                        Ok(batch) => {
                            shared.convoys().push(&ask, chunk, batch);
                            continue;
                        }
                        Err(SourceError::Refused(_)) => {
                            // Perhaps for the sake of an event that others want: is it on this reader's way?
                            shared.convoys().part(ask.id);
                            Position::MAX
                        }
                        Err(lost) => return Err(lost),
                    }
                }
            };
            let selection = Selection {
                after: ask.after,
                through: safe.min(upto).min(bound).min(ask.after + ALONE_SPAN),
                only: Only::Types(ask.types),
            };
            break self.read(head, selection, limits).await?;
        };
        let mut convoys = shared.convoys();
        convoys.passed(ask.id, batch.through, Instant::now());
        shared.moved.notify_waiters();
        Ok(batch)
    }

    async fn read_chunk(
        &mut self,
        head: &SafeHead,
        chunk: &Chunk,
        safe: Position,
    ) -> Result<Batch, SourceError> {
        let selection = Selection {
            after: chunk.after,
            through: safe.min(chunk.after.saturating_add(SPAN)),
            only: Only::Types(chunk.types.as_deref()),
        };
        let limits = Limits {
            max_events: usize::MAX,
            max_bytes: chunk.max_bytes,
            upto: None,
        };
        self.read(head, selection, &limits).await
    }

    fn leave_convoy(&self) {
        if let Some(id) = self.convoy {
            let shared = &self.source.inner.shared;
            shared.convoys().leave(id);
            shared.moved.notify_waiters();
        }
    }

    /// The selected events, as far as `limits` allow, on this reader's own connection.
    pub(super) async fn read(
        &mut self,
        head: &SafeHead,
        selection: Selection<'_>,
        limits: &Limits,
    ) -> Result<Batch, SourceError> {
        // A little less than would fit, so that a scan seldom has to be broken off.
        let fitting = limits.max_bytes / self.event_bytes.max(1) * 9 / 10;
        let limit = fitting.clamp(1, limits.max_events.max(1));
        let (mut batch, mut end) = self.scan(head, selection, limit, limits.max_bytes).await?;
        if matches!(end, End::Misfit(_)) && batch.is_empty() {
            // The server may have sorted, and so failed early: is it really the very next one?
            (batch, end) = self.scan(head, selection, 1, limits.max_bytes).await?;
            if let End::Misfit(said) = end {
                return Err(self.unfit(head, selection, &said).await);
            }
            end = End::Full;
        }
        let exhausted = end == End::Complete && batch.len() < limit;
        batch.through = match batch.events().last() {
            Some(last) if !exhausted => last.position,
            _ => selection.through,
        };
        if !batch.is_empty() {
            self.event_bytes = (batch.frame().len() / batch.len()).max(1);
        }
        Ok(batch)
    }

    async fn scan(
        &mut self,
        head: &SafeHead,
        selection: Selection<'_>,
        limit: usize,
        max_bytes: usize,
    ) -> Result<(Batch, End), SourceError> {
        let (client, table) = self.session(head).await?;
        let sql = table.copy_sql(selection, limit);
        let (batch, end) = scan(client, &sql, selection.after, max_bytes).await?;
        if end != End::Complete
            && let Some(session) = self.session.take()
        {
            // Whatever else the server has to send is stopped at its root. The session is given up, because a
            // cancellation that comes late would hit its next statement.
            self.source.database().cancel(&session.client).await;
        }
        Ok((batch, end))
    }

    /// Names the first of the selected events, which does not fit its wire types.
    async fn unfit(
        &mut self,
        head: &SafeHead,
        selection: Selection<'_>,
        said: &str,
    ) -> SourceError {
        let (client, table) = match self.session(head).await {
            Ok(session) => session,
            Err(lost) => return lost,
        };
        let sql = table.first_sql(selection);
        match client.query_opt(&sql, &[]).await {
            Err(error) => failed(&error, table.name()),
            Ok(None) => SourceError::Infrastructure("an event disappeared".into()),
            Ok(Some(row)) => refused(format!(
                "the event at position {} of {} does not fit: {said}",
                row.get::<_, Position>(0),
                table.name()
            )),
        }
    }

    /// Up to where events may be read.
    pub(super) fn safe(&self, head: &SafeHead) -> Position {
        head.position.max(self.source.verified(head.epoch))
    }

    /// The state of things, once it is known.
    pub(super) async fn head(&self) -> Result<SafeHead, SourceError> {
        let mut heads = self.source.safe_head();
        let shared = &self.source.inner.shared;
        let known = |head: &SafeHead| match head.state {
            State::Starting => false,
            State::Ok => shared.is_current(head.epoch),
            State::Unreachable(_) | State::Refused(_) => true,
        };
        let head = heads.wait_for(known).await;
        let head = head
            .map_err(|_| SourceError::Infrastructure("the source has stopped".into()))?
            .clone();
        match &head.state {
            State::Ok => Ok(head),
            State::Refused(reason) => Err(refused(reason.clone())),
            State::Unreachable(reason) => Err(SourceError::Infrastructure(reason.clone())),
            State::Starting => Err(SourceError::Infrastructure("the source is starting".into())),
        }
    }

    /// A connection that may trust the safe heads of `head`'s epoch.
    ///
    /// A safe head says nothing about the server after a crash (see `Lookout`), so the reader's session must be with the
    /// same run of the server as the tail's. It is, if it can see the tail's session: a crash ends all of them.
    pub(super) async fn session<'a>(
        &'a mut self,
        head: &'a SafeHead,
    ) -> Result<(&'a Client, &'a Table), SourceError> {
        let usable = self
            .session
            .as_ref()
            .is_some_and(|s| s.epoch == head.epoch && !s.client.is_closed());
        let Some(table) = head.table.as_deref() else {
            return Err(SourceError::Infrastructure("the source is starting".into()));
        };
        if !usable {
            self.session = None;
        }
        let session = match self.session.take() {
            Some(session) => session,
            None => Session {
                epoch: head.epoch,
                client: self.connect(table).await?,
            },
        };
        Ok((&self.session.insert(session).client, table))
    }

    async fn connect(&self, table: &Table) -> Result<Client, SourceError> {
        // Ranges are bounded, and there is an index on the position: a plan that scans or sorts the table is never
        // better by much, and one that flips to it half-way through a large table is far worse.
        let settings = [
            ("enable_seqscan", "off"),
            ("enable_bitmapscan", "off"),
            ("default_transaction_read_only", "on"),
        ];
        let lost = |e: tokio_postgres::Error| failed(&e, table.name());
        let database = self.source.database();
        let client = database.connect("reader", &settings).await.map_err(lost)?;
        let sql = "select from pg_stat_activity where pid = $1 and backend_start::text = $2";
        let backend = &table.backend;
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
            [&backend.pid, &backend.started];
        let same = client.query_opt(sql, &parameters).await.map_err(lost)?;
        if same.is_none() {
            self.source.poke();
            return Err(SourceError::Infrastructure(
                "the source has lost its connection".into(),
            ));
        }
        Ok(client)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.source.count_reader(-1);
        self.leave_convoy();
    }
}

/// Reads for everybody, until it is dropped, for whatever reason.
struct Lead(Arc<Shared>, convoy::Id);

impl Drop for Lead {
    fn drop(&mut self) {
        self.0.convoys().resign(self.1);
        self.0.moved.notify_waiters();
    }
}

/// A `timestamptz` as PostgreSQL sends it.
struct Recorded(Micros);

impl<'a> tokio_postgres::types::FromSql<'a> for Recorded {
    fn from_sql(
        _: &tokio_postgres::types::Type,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(i64::from_be_bytes(raw.try_into()?)))
    }

    tokio_postgres::types::accepts!(TIMESTAMPTZ);
}
