//! Notices changes of the sources.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use notify::event::EventKind;
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::crates::Sources;

/// An editor writes a file in several steps; it has finished when nothing comes for so long.
const SETTLE: Duration = Duration::from_millis(30);
/// Something that is written all the time is not waited for any longer.
const LONGEST: Duration = Duration::from_secs(2);

/// Watches the sources of all crates.
pub(super) struct Watched {
    changes: mpsc::UnboundedReceiver<Changes>,
    /// A change that may still go on, and when it began.
    open: Option<(Instant, Changes)>,
    /// Ends the notifications when it is dropped.
    _watcher: RecommendedWatcher,
}

/// What changed.
#[derive(Debug)]
pub(super) enum Changes {
    /// These files.
    Files(Vec<PathBuf>),
    /// Notifications were lost: anything.
    Anything,
}

impl Watched {
    /// Watches from now on.
    pub(super) fn start(sources: Vec<Sources>) -> Result<Self> {
        let (sender, changes) = mpsc::unbounded_channel();
        let watched = sources.clone();
        let tell = move |event: notify::Result<Event>| {
            // The other end is gone at the end of the process only.
            match event {
                Ok(event) if event.need_rescan() => drop(sender.send(Changes::Anything)),
                // Compiling reads the sources, which is told as well.
                Ok(Event {
                    kind: EventKind::Access(_),
                    ..
                }) => {}
                Ok(event) => {
                    let counts =
                        |path: &PathBuf| watched.iter().any(|sources| sources.contain(path));
                    let paths: Vec<PathBuf> = event.paths.into_iter().filter(counts).collect();
                    if !paths.is_empty() {
                        drop(sender.send(Changes::Files(paths)));
                    }
                }
                Err(_) => drop(sender.send(Changes::Anything)),
            }
        };
        let mut watcher =
            notify::recommended_watcher(tell).context("the sources cannot be watched")?;
        let folders: BTreeSet<&Path> = sources
            .iter()
            .flat_map(|sources| &sources.folders)
            .map(PathBuf::as_path)
            .collect();
        let files = sources.iter().flat_map(|sources| &sources.files);
        // A file is watched through its folder, since most editors put a new one in its place.
        let around: BTreeSet<&Path> = files
            .filter_map(|file| file.parent())
            .filter(|folder| !folders.iter().any(|whole| folder.starts_with(whole)))
            .collect();
        let all = (around
            .iter()
            .map(|path| (path, RecursiveMode::NonRecursive)))
        .chain(folders.iter().map(|path| (path, RecursiveMode::Recursive)));
        for (path, mode) in all {
            watcher
                .watch(path, mode)
                .with_context(|| format!("{} cannot be watched", path.display()))?;
        }
        Ok(Self {
            changes,
            open: None,
            _watcher: watcher,
        })
    }

    /// Waits for a change, then until it is complete. Gives when it began. Safe to cancel.
    pub(super) async fn next(&mut self) -> (Instant, Changes) {
        while self.open.is_none() {
            match self.changes.recv().await {
                Some(changes) => self.open = Some((Instant::now(), changes)),
                // The watcher lives as long as `self`, so this does not happen.
                None => std::future::pending().await,
            }
        }
        loop {
            // What is open stays there while this waits, so that it is not lost with the future.
            let more = tokio::time::timeout(SETTLE, self.changes.recv()).await;
            let is_complete = !matches!(more, Ok(Some(_)));
            let is_long = (self.open.as_ref()).is_some_and(|(began, _)| began.elapsed() > LONGEST);
            match (more, &mut self.open) {
                (Ok(Some(Changes::Files(more))), Some((_, Changes::Files(files)))) => {
                    files.extend(more);
                }
                (Ok(Some(_)), Some((_, open))) => *open = Changes::Anything,
                _ => {}
            }
            if (is_complete || is_long)
                && let Some(change) = self.open.take()
            {
                return change;
            }
        }
    }
}
