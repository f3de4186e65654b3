//! What commits changed, in order: read from the table that the writer tells it to, for live queries and publishers.
//!
//! A read model's commits form a chain: each names the revision before. Where the chain is broken (trimmed, or rows changed
//! in a way that is not told, such as a promotion) whoever follows has to read the rows anew.

mod commit;
mod hub;
mod mailbox;
pub mod publish;
mod query;
mod stats;
mod topic;
mod trim;
mod turns;

use tokio_postgres::GenericClient;

use commit::Parsed;
pub use hub::{Bounds, Full, Hub, Place, Pools, Subscription};
pub use mailbox::{End, Event, Reason};
pub use query::{Question, Realm, frame};
pub use stats::Stats;
pub use trim::{Kept, Trimmer};

/// What one commit changed in a read model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The revision that it made.
    pub revision: i64,
    /// The revision before.
    pub previous: i64,
    /// The generation that was live.
    pub generation: i64,
    /// The checkpoint after it.
    pub position: i64,
    /// `[{"k": [key], "b": row before or null, "a": row after or null}, ...]`; `None` when they are too many to be told.
    pub changes: Option<String>,
}

impl Commit {
    /// The changes row by row, or why they are not told.
    fn parsed(self) -> Result<Parsed, Reason> {
        let changes = self.changes.ok_or(Reason::TooManyChanges)?;
        Parsed::read(self.revision, self.position, changes).map_err(|error| {
            tracing::error!(revision = self.revision, %error, "what a commit changed cannot be read");
            Reason::Failed
        })
    }
}

/// A part of a read model's chain of commits, and where it stands: one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// What a revision means does not outlive this; see [`crate::query::Freshness`]. Unknown just after a crash of the server.
    pub incarnation: Option<String>,
    /// The live generation.
    pub generation: i64,
    /// Its checkpoint.
    pub position: i64,
    /// The read model's revision.
    pub revision: i64,
    /// The commits after the revision that was asked for, in order.
    pub commits: Vec<Commit>,
    /// Whether these are all.
    pub is_whole: bool,
}

/// After so many bytes of changes, a page ends.
const PAGE_BYTES: i64 = 1 << 20;

/// Reads the commits of a read model after a revision, at most `limit`, and not much more than a megabyte. `None` if there is no such read model, or nothing of
/// it is live. What is read is on the server's disk, unless it stands where it stood; the session has to be able to write.
pub async fn read(
    client: &impl GenericClient,
    read_model: &str,
    after: i64,
    limit: i64,
) -> Result<Option<Page>, tokio_postgres::Error> {
    let Some((page, is_flushed)) = look(client, read_model, after, limit).await? else {
        return Ok(None);
    };
    if !is_flushed {
        flush(client).await?;
    }
    Ok(Some(page))
}

/// The same without waiting for the disk, and whether it is there. Nothing is told that a crash could take back.
async fn look(
    client: &impl GenericClient,
    read_model: &str,
    after: i64,
    limit: i64,
) -> Result<Option<(Page, bool)>, tokio_postgres::Error> {
    let rows = client
        .query_typed(
            include_str!("feed/read.sql"),
            &[
                (&read_model, tokio_postgres::types::Type::TEXT),
                (&after, tokio_postgres::types::Type::INT8),
                (&limit, tokio_postgres::types::Type::INT8),
                (&PAGE_BYTES, tokio_postgres::types::Type::INT8),
            ],
        )
        .await?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let is_flushed: bool = first.try_get("is_flushed")?;
    let mut page = Page {
        incarnation: first.try_get("incarnation")?,
        generation: first.try_get("generation")?,
        position: first.try_get("position")?,
        revision: first.try_get("revision")?,
        commits: Vec::new(),
        is_whole: true,
    };
    for row in &rows {
        // Without any commit there is one row nevertheless.
        let Some(revision) = row.try_get("commit_revision")? else {
            continue;
        };
        page.is_whole = row.try_get::<_, i64>("bytes")? < PAGE_BYTES;
        page.commits.push(Commit {
            revision,
            previous: row.try_get("commit_previous")?,
            generation: row.try_get("commit_generation")?,
            position: row.try_get("commit_position")?,
            changes: row.try_get("changes")?,
        });
    }
    page.is_whole &= (page.commits.len() as i64) < limit;
    let is_flushed = is_flushed || page.revision == after;
    Ok(Some((page, is_flushed)))
}

/// Whether everything that this session has seen is on the server's disk: a transaction that is seen has written its end
/// before.
async fn is_flushed(client: &impl GenericClient) -> Result<bool, tokio_postgres::Error> {
    let is_flushed = "select pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()";
    let row = client.query_typed_one(is_flushed, &[]).await?;
    row.try_get(0)
}

/// Waits until everything that this session has seen is on the server's disk: batches commit without waiting for it, and
/// what a crash may take back must not have been told anybody. The session has to be able to write.
async fn flush(client: &impl GenericClient) -> Result<(), tokio_postgres::Error> {
    client
        .batch_execute(
            "begin read write; set local synchronous_commit = on; \
             select pg_logical_emit_message(true, 'gobo', ''); commit",
        )
        .await
}
