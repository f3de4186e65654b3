//! Answers that were read before: in this process, and in Redis where it is configured.
//!
//! Rows at a revision never change, so an answer is kept under everything that says which rows they are: incarnation,
//! generation, read model, revision, and the query with its values and its form. It can only go unused, never be wrong;
//! nothing has to be invalidated, and which revision is the present one is asked of the database
//! ([`crate::query::board`]). Errors are never kept. What is kept goes after a while whether it is used or not, so that
//! what was erased from the tables does not live on here.

mod far;
mod flight;
mod wire;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::notification::RemovalCause;
use moka::sync::Cache as Memory;
use sha2::{Digest, Sha256};

use self::far::Far;
use self::flight::Flights;
use crate::query::catalog::{Catalog, Readable};
use crate::query::sql::Statement;
use crate::query::{Failure, Freshness, Page};
use crate::redis::Redis;
use crate::shutdown::Shutdown;

/// What an entry takes besides its texts, about.
const OVERHEAD: usize = 256;
/// An answer that would take more than this part of the memory is not kept.
const LARGEST_PART: u64 = 8;

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Bytes in this process; 0 keeps nothing.
    pub bytes: u64,
    /// After this long an answer goes.
    pub keep: Duration,
}

/// Rows, and how fresh they are.
#[derive(Debug, Clone)]
pub struct Found {
    /// A state in which the rows are these.
    pub fresh: Arc<Freshness>,
    /// The rows.
    pub page: Arc<Page>,
}

/// What a query shows, revision and generation aside: everything that the answer's body depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Representation([u8; 32]);

/// Names an entry: the same for the same rows in the same form only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    generation: i64,
    hash: [u8; 32],
}

impl Representation {
    /// What the statement shows, whose own parameters say which values are meant.
    pub fn of(statement: &Statement) -> Self {
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        };
        add(&statement.text);
        for bound in statement.own_parameters() {
            add(if bound.text.is_some() { "=" } else { "" });
            add(bound.text.as_deref().unwrap_or_default());
        }
        Self(hash.finalize().into())
    }

    /// The beginning of it, for a tag.
    pub fn short(&self) -> String {
        self.0[..8].iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl Key {
    /// `None` while nobody can tell what a revision means.
    pub fn new(model: &Readable, fresh: &Freshness, shown: &Representation) -> Option<Self> {
        let incarnation = fresh.incarnation.as_deref()?;
        let mut hash = Sha256::new();
        for text in [incarnation, &model.model.name] {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        hash.update(model.generation.to_be_bytes());
        hash.update(fresh.revision.to_be_bytes());
        hash.update(shown.0);
        Some(Self {
            generation: model.generation,
            hash: hash.finalize().into(),
        })
    }
}

/// Keeps answers. Clones are the same.
#[derive(Debug, Clone)]
pub struct Cache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    memory: Option<Memory<Key, Arc<Page>>>,
    far: Option<Far>,
    most: u64,
    flights: Flights,
    counts: Arc<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    hits: AtomicU64,
    misses: AtomicU64,
    shared: AtomicU64,
    evictions: AtomicU64,
    spared: AtomicU64,
}

/// What happened since the start, and what is kept now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Answers that were in memory.
    pub hits: u64,
    /// Answers that were not.
    pub misses: u64,
    /// Those of them that another reader was fetching already.
    pub shared: u64,
    /// Entries that made room for others.
    pub evictions: u64,
    /// Answers that their readers had already.
    pub spared: u64,
    /// Entries in memory.
    pub entries: u64,
    /// Bytes in memory.
    pub bytes: u64,
    /// The same of Redis, where it is configured.
    pub far: Option<FarCounts>,
}

/// How often Redis had an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FarCounts {
    /// Answers that were there.
    pub hits: u64,
    /// Answers that were not, or Redis did not say.
    pub misses: u64,
    /// Values that were no answers.
    pub odd: u64,
}

impl Cache {
    /// An empty cache in this process, in front of what Redis has of this database.
    pub fn new(settings: Settings, redis: Option<Redis>, database: &str) -> Self {
        let counts = Arc::<Tally>::default();
        Self {
            shared: Arc::new(Shared {
                memory: (settings.bytes > 0).then(|| memory(settings, &counts)),
                far: redis.map(|redis| Far::new(redis, database, settings.keep)),
                most: settings.bytes / LARGEST_PART,
                flights: Flights::default(),
                counts,
            }),
        }
    }

    /// Whether nothing is ever kept.
    pub fn is_off(&self) -> bool {
        self.shared.memory.is_none() && self.shared.far.is_none()
    }

    /// The rows of a query, if they are in memory.
    pub fn at_hand(
        &self,
        model: &Readable,
        fresh: Arc<Freshness>,
        shown: &Representation,
    ) -> Option<Found> {
        let key = Key::new(model, &fresh, shown)?;
        let page = self.shared.memory.as_ref()?.get(&key)?;
        self.shared.counts.hits.fetch_add(1, Ordering::Relaxed);
        Some(Found { fresh, page })
    }

    /// The rows of a query: kept ones, if the read model is as `fresh` says, else what `read` gives, which is kept. Whoever
    /// asks for the same rows meanwhile gets the same.
    pub async fn rows(
        &self,
        model: &Readable,
        fresh: Arc<Freshness>,
        shown: &Representation,
        read: impl AsyncFnOnce() -> Result<Found, Failure>,
    ) -> Result<Found, Failure> {
        let shared = &*self.shared;
        let Some(key) = Key::new(model, &fresh, shown).filter(|_| !self.is_off()) else {
            return read().await;
        };
        if let Some(page) = shared.memory.as_ref().and_then(|memory| memory.get(&key)) {
            shared.counts.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Found { fresh, page });
        }
        shared.counts.misses.fetch_add(1, Ordering::Relaxed);
        let mut flight = shared.flights.join(key);
        if let Some(found) = flight.landed().await {
            shared.counts.shared.fetch_add(1, Ordering::Relaxed);
            // The rows of this revision, which `fresh` is right for as well; or those of a later one, or of another incarnation.
            return Ok(match Key::new(model, &found.fresh, shown) == Some(key) {
                true => Found { fresh, ..found },
                false => found,
            });
        }
        if let Some(far) = &shared.far
            && let Some(page) = far.get(&key).await.map(Arc::new)
        {
            self.remember(key, &page);
            let found = Found { fresh, page };
            flight.landed_with(found.clone());
            return Ok(found);
        }
        let found = read().await.inspect_err(|_| flight.failed())?;
        // They may be of a later revision by now.
        if let Some(key) = Key::new(model, &found.fresh, shown) {
            self.remember(key, &found.page);
            if let Some(far) = &shared.far {
                far.put(&key, &found.page);
            }
        }
        flight.landed_with(found.clone());
        Ok(found)
    }

    fn remember(&self, key: Key, page: &Arc<Page>) {
        if let Some(memory) = &self.shared.memory
            && u64::from(weight(page)) <= self.shared.most
        {
            memory.insert(key, page.clone());
        }
    }

    /// Counts an answer that its reader had already.
    pub fn spared(&self) {
        self.shared.counts.spared.fetch_add(1, Ordering::Relaxed);
    }

    /// Drops what is kept of other generations than these.
    fn retain(&self, generations: impl Fn(i64) -> bool + Send + Sync + 'static) {
        if let Some(memory) = &self.shared.memory {
            // Fails only for a cache that was built without support for it.
            let _ = memory.invalidate_entries_if(move |key, _| !generations(key.generation));
        }
    }

    /// Drops what is kept of generations that nobody can read any more, whenever there are such.
    pub async fn run(self, mut catalog: Catalog, mut shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                changed = catalog.changed() => if !changed { return },
            }
            let models = catalog.models();
            let live = models.live.values().map(|model| model.generation);
            let there: HashSet<i64> = live.chain(models.past.keys().copied()).collect();
            self.retain(move |generation| there.contains(&generation));
        }
    }

    /// What happened since the start.
    pub fn counts(&self) -> Counts {
        let Shared {
            memory,
            far,
            counts,
            ..
        } = &*self.shared;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            hits: count(&counts.hits),
            misses: count(&counts.misses),
            shared: count(&counts.shared),
            evictions: count(&counts.evictions),
            spared: count(&counts.spared),
            entries: memory.as_ref().map_or(0, Memory::entry_count),
            bytes: memory.as_ref().map_or(0, Memory::weighted_size),
            far: far.as_ref().map(|far| FarCounts {
                hits: count(&far.hits),
                misses: count(&far.misses),
                odd: count(&far.odd),
            }),
        }
    }
}

fn memory(settings: Settings, counts: &Arc<Tally>) -> Memory<Key, Arc<Page>> {
    let counts = counts.clone();
    Memory::builder()
        .max_capacity(settings.bytes)
        .weigher(|_, page: &Arc<Page>| weight(page))
        .time_to_live(settings.keep)
        .support_invalidation_closures()
        .eviction_listener(move |_, _, cause| {
            if cause == RemovalCause::Size {
                counts.evictions.fetch_add(1, Ordering::Relaxed);
            }
        })
        .build()
}

fn weight(page: &Page) -> u32 {
    let next = page.next.as_ref().map_or(0, String::len);
    u32::try_from(page.body.len() + next + OVERHEAD).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
