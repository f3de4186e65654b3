//! The watched folder: a `.wasm` file that appears or changes is deployed.
//!
//! Notifications are hints; the folder is looked at every few seconds as well, because they may be lost, or not exist on a
//! network's file system. What counts is each file's content: the last bytes that a file brought are remembered in the
//! database, so that an old file never replaces a newer deploy. Deleting a file undeploys nothing.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Pool, PoolError};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::{DeployError, Deployer, Mode, Origin, Request, remember};
use crate::db::describe_pool;
use crate::host::PluginHash;
use crate::read_model::schema::SchemaError;
use crate::shutdown::Shutdown;

/// A file has to stay as it is for so long before it is read.
const SETTLE: Duration = Duration::from_millis(75);
/// How often the folder is looked at without a hint.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Deploys what a folder holds.
pub struct Watcher {
    folder: PathBuf,
    deployer: Arc<Deployer>,
    pool: Pool,
    /// The stamp at which each file was last dealt with.
    seen: HashMap<PathBuf, Stamp>,
    /// The content that each file last failed with, so that it is reported once.
    refused: HashMap<PathBuf, PluginHash>,
    complained: bool,
}

/// Changes whenever a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    async fn of(path: &Path) -> Option<Self> {
        let file = tokio::fs::metadata(path).await.ok()?;
        file.is_file().then(|| Self {
            inode: file.ino(),
            bytes: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

impl Watcher {
    /// A watcher that has looked at nothing yet.
    pub fn new(folder: PathBuf, deployer: Arc<Deployer>, pool: Pool) -> Self {
        Self {
            folder: std::path::absolute(&folder).unwrap_or(folder),
            deployer,
            pool,
            seen: HashMap::new(),
            refused: HashMap::new(),
            complained: false,
        }
    }

    /// Deploys what is there and what comes, until shutdown.
    pub async fn run(mut self, mut shutdown: Shutdown) {
        let (hint, mut hints) = mpsc::channel(1);
        let mut notifier = None;
        let folder = self.folder.display().to_string();
        tracing::info!(folder, "watching for plugins");
        loop {
            if notifier.is_none() {
                notifier = self.watch(&hint);
            }
            let pause = match self.look().await {
                // Something is being written: look again as soon as it can have settled.
                true => SETTLE,
                false => LOOK_EVERY,
            };
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(pause) => {}
                _ = hints.recv() => {
                    // Files are written in many steps; one look after them is enough.
                    tokio::time::sleep(SETTLE).await;
                    while hints.try_recv().is_ok() {}
                }
            }
            if !self.folder.is_dir() {
                notifier = None;
            }
        }
    }

    /// Asks for notifications. `None` when the folder is not there, or the system has none: looking is enough then.
    fn watch(&mut self, hint: &mpsc::Sender<()>) -> Option<RecommendedWatcher> {
        let folder = self.folder.display().to_string();
        if let Err(error) = std::fs::create_dir_all(&self.folder) {
            if !std::mem::replace(&mut self.complained, true) {
                tracing::warn!(folder, %error, "the watched folder cannot be created; waiting for it");
            }
            return None;
        }
        self.complained = false;
        let hint = hint.clone();
        let tell = move |_| {
            // A hint that is already waiting says the same.
            let _ = hint.try_send(());
        };
        let watching = notify::recommended_watcher(tell).and_then(|mut watcher| {
            watcher.watch(&self.folder, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        watching
            .inspect_err(|error| tracing::debug!(folder, %error, "no notifications; looking every few seconds"))
            .ok()
    }

    /// Deals with every file that changed. Gives whether one was still being written.
    async fn look(&mut self) -> bool {
        let files = match modules(&self.folder).await {
            Ok(files) => files,
            Err(error) => {
                let folder = self.folder.display().to_string();
                tracing::debug!(folder, %error, "the watched folder cannot be read");
                return false;
            }
        };
        let mut changed = Vec::new();
        for path in files {
            match Stamp::of(&path).await {
                Some(stamp) if self.seen.get(&path) != Some(&stamp) => changed.push((path, stamp)),
                _ => {}
            }
        }
        if changed.is_empty() {
            return false;
        }
        tokio::time::sleep(SETTLE).await;
        let mut unsettled = false;
        for (path, stamp) in changed {
            unsettled |= !self.settled(path, stamp).await;
        }
        unsettled
    }

    /// Deals with one file, unless it has changed since `stamp`. Gives whether it had not.
    async fn settled(&mut self, path: PathBuf, stamp: Stamp) -> bool {
        if Stamp::of(&path).await != Some(stamp) {
            return false;
        }
        let bytes = match tokio::fs::read(&path).await {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(file = %path.display(), %error, "the file cannot be read");
                self.seen.insert(path, stamp);
                return true;
            }
        };
        if Stamp::of(&path).await != Some(stamp) {
            return false;
        }
        match self.bring(&path, bytes).await {
            Ok(()) => {
                self.seen.insert(path, stamp);
            }
            Err(error) => {
                // Not dealt with: the next look tries again.
                let error = describe_pool(&error);
                tracing::warn!(file = %path.display(), error, "cannot be deployed now; trying again");
            }
        }
        true
    }

    /// Deploys a file's content if it is new. Fails only when the database is away.
    async fn bring(&mut self, path: &Path, bytes: Vec<u8>) -> Result<(), PoolError> {
        let hash = PluginHash::of(&bytes);
        let remembered_as = remembered_as(path);
        if !self.is_new(&remembered_as, path, &hash).await? {
            return Ok(());
        }
        let file = path.display().to_string();
        let request = Request {
            expected: None,
            mode: Mode::Auto,
            hold: false,
            origin: Origin::File {
                path: path.to_owned(),
                remembered_as,
            },
        };
        match self.deployer.deploy(bytes, &request).await {
            Ok(_) => {
                self.refused.remove(path);
            }
            Err(DeployError::Pool(error)) => return Err(error),
            Err(
                DeployError::Database(error) | DeployError::Schema(SchemaError::Database(error)),
            ) if crate::db::is_infrastructure(&error) => {
                return Err(PoolError::Backend(error));
            }
            Err(error) => {
                if self.refused.insert(path.to_owned(), hash) != Some(hash) {
                    tracing::error!(file, %hash, "refused, and what runs stays: {error}");
                }
            }
        }
        Ok(())
    }

    /// Whether the content is another one than the file's last, as far as anyone remembers.
    async fn is_new(
        &self,
        remembered_as: &str,
        path: &Path,
        hash: &PluginHash,
    ) -> Result<bool, PoolError> {
        let client = self.pool.get().await?;
        let row = client
            .query_one(
                include_str!("seen.sql"),
                &[&remembered_as, &hash.0.as_slice()],
            )
            .await?;
        let (last, is_superseded): (Option<&[u8]>, bool) = (row.get(0), row.get(1));
        match last {
            Some(last) => Ok(last != hash.0),
            None if is_superseded => {
                let file = path.display();
                tracing::warn!(
                    %file,
                    "holds a plugin that was deployed before and has been replaced by a newer one since; it is left alone. \
                     To go back to it: gobo deploy {file}"
                );
                remember(&**client, remembered_as, hash).await?;
                Ok(false)
            }
            None => Ok(true),
        }
    }
}

/// The folder's modules, by name, so that the order of deploys is the same everywhere.
async fn modules(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut entries = tokio::fs::read_dir(folder).await?;
    let mut files = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden
            && path
                .extension()
                .is_some_and(|extension| extension == "wasm")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The host is part of the name: engines on several machines may each have a folder of the same path.
fn remembered_as(path: &Path) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", host.trim(), path.display())
}
