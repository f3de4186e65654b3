//! The configured sources, started, and what the readers of read models want to know of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};

use crate::config::{Config, OWN_SOURCE};
use crate::db::Database;
use crate::event::{Batch, Micros, Position, now_micros};
use crate::query::catalog::{Away, Head, Upstream};
use crate::source::{Polling, Reader, Source, SourceError};

/// Every source of the configuration by name. Clones are the same.
#[derive(Clone)]
pub struct Sources {
    started: Arc<HashMap<String, Started>>,
}

struct Started {
    source: Source,
    /// One for all who ask now and then, made when first asked: it holds a session.
    reader: Arc<Mutex<Option<Reader>>>,
    /// The same for questions whose answers take long.
    searcher: Arc<Mutex<Option<Reader>>>,
    upstream: Upstream,
}

impl Sources {
    /// Starts looking at every source. What is wrong with one shows in its head and harms no other.
    pub fn start(database: &Database, config: &Config) -> Self {
        let started = config.all_sources().into_iter().map(|(name, settings)| {
            let source = Source::start(database.clone(), &name, settings, Polling::default());
            let reader = Arc::default();
            let searcher = Arc::default();
            let upstream = upstream(&source, &reader, &searcher);
            let started = Started {
                source,
                reader,
                searcher,
                upstream,
            };
            (name, started)
        });
        Self {
            started: Arc::new(started.collect()),
        }
    }

    /// The source called `name`, if it is configured.
    pub fn get(&self, name: &str) -> Option<&Source> {
        self.started.get(name).map(|started| &started.source)
    }

    /// All of them by name.
    pub fn by_name(&self) -> HashMap<String, Source> {
        let started = self.started.iter();
        started
            .map(|(name, started)| (name.clone(), started.source.clone()))
            .collect()
    }

    /// What readers know of the source called `name`.
    pub fn upstream(&self, name: &str) -> Option<&Upstream> {
        self.started.get(name).map(|started| &started.upstream)
    }

    /// The event at `position` of the source called `name`, in a batch that is empty when there is none.
    pub async fn event_at(&self, name: &str, position: Position) -> Result<Batch, SourceError> {
        let started = self.started(name)?;
        let mut reader = started.reader.lock().await;
        let reader = reader.get_or_insert_with(|| started.source.reader());
        reader.event_at(position).await
    }

    /// The last position of the source called `name` before the first event that was stored after `time`.
    pub async fn position_at(&self, name: &str, time: Micros) -> Result<Position, SourceError> {
        let started = self.started(name)?;
        search(&started.source, &started.searcher, time).await
    }

    fn started(&self, name: &str) -> Result<&Started, SourceError> {
        (self.started.get(name))
            .ok_or_else(|| SourceError::Refused(format!("the source \"{name}\" is not configured")))
    }

    /// Up to where Gobo's own store (or what is configured under its name) has settled.
    pub fn own_safe_head(&self) -> watch::Receiver<Position> {
        let (sender, receiver) = watch::channel(0);
        if let Some(own) = self.get(OWN_SOURCE) {
            let mut heads = own.safe_head();
            tokio::spawn(async move {
                loop {
                    let position = heads.borrow_and_update().position;
                    sender.send_if_modified(|old| std::mem::replace(old, position) != position);
                    tokio::select! {
                        changed = heads.changed() => if changed.is_err() { return },
                        () = sender.closed() => return,
                    }
                }
            });
        }
        receiver
    }
}

async fn search(
    source: &Source,
    searcher: &Mutex<Option<Reader>>,
    time: Micros,
) -> Result<Position, SourceError> {
    let mut searcher = searcher.lock().await;
    let searcher = searcher.get_or_insert_with(|| source.reader());
    searcher.position_at(time).await
}

fn upstream(
    source: &Source,
    reader: &Arc<Mutex<Option<Reader>>>,
    searcher: &Arc<Mutex<Option<Reader>>>,
) -> Upstream {
    let mut heads = source.safe_head();
    let (sender, head) = watch::channel(Head::default());
    tokio::spawn(async move {
        loop {
            let found = {
                let found = heads.borrow_and_update();
                Head {
                    safe: found.position,
                    head: found.head,
                }
            };
            sender.send_if_modified(|old| std::mem::replace(old, found) != found);
            tokio::select! {
                changed = heads.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
        }
    });
    let (reader, asked, poked) = (reader.clone(), source.clone(), source.clone());
    let (searcher, searched) = (searcher.clone(), source.clone());
    Upstream {
        head,
        age_after: Arc::new(move |position| {
            let (reader, source) = (reader.clone(), asked.clone());
            Box::pin(async move {
                let mut reader = reader.lock().await;
                let reader = reader.get_or_insert_with(|| source.reader());
                let stored = reader.oldest_after(position).await.map_err(Away::from)?;
                Ok(stored
                    .map(|at| Duration::from_micros(u64::try_from(now_micros() - at).unwrap_or(0))))
            })
        }),
        position_at: Arc::new(move |time| {
            let (searcher, source) = (searcher.clone(), searched.clone());
            Box::pin(async move {
                let position = search(&source, &searcher, time).await;
                position.map_err(Away::from)
            })
        }),
        poke: Arc::new(move || poked.poke()),
    }
}
