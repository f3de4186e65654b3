//! The folder in which failures are kept: written whole or not at all, readable by their owner alone, bounded in number.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;

use super::Failure;

/// Files that are kept; the oldest go first.
const MOST_FILES: usize = 100;
/// How long writing may take before a loop goes on without the file.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where failures are kept. Clones are the same folder.
#[derive(Debug, Clone)]
pub struct Folder {
    path: Arc<Path>,
    /// One writer at a time: a disk that does not answer holds up one thread, not all that there are.
    writing: Arc<Semaphore>,
}

impl Folder {
    /// Names a folder; it is created when there is something to keep.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.into(),
            writing: Arc::new(Semaphore::new(1)),
        }
    }

    /// Keeps what `describe` gives, and gives the file's path. Whatever prevents it is a warning: a failure is kept for
    /// convenience, and nothing may depend on it.
    pub async fn keep(
        &self,
        describe: impl FnOnce() -> Option<Failure> + Send + 'static,
    ) -> Option<PathBuf> {
        let folder = self.path.clone();
        let writing = async {
            let turn = self.writing.clone().acquire_owned().await;
            let write = move || {
                let _turn = turn;
                describe().map(|failure| write(&folder, &failure))
            };
            tokio::task::spawn_blocking(write).await
        };
        let why = match tokio::time::timeout(PATIENCE, writing).await {
            Ok(Ok(Some(Ok(path)))) => return Some(path),
            Ok(Ok(None)) => "there is no event".to_owned(),
            Ok(Ok(Some(Err(error)))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it takes longer than {PATIENCE:?}"),
        };
        let folder = self.path.display();
        tracing::warn!(%folder, why, "a failure is not kept as a file (engine.failures_dir)");
        None
    }
}

fn write(folder: &Path, failure: &Failure) -> io::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let name = format!(
        "{}-g{}-{}.json",
        failure.projection, failure.generation, failure.position
    );
    let partial = folder.join(format!("{name}.{}.partial", std::process::id()));
    let path = folder.join(name);
    let write = || {
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = BufWriter::new(file.open(&partial)?);
        serde_json::to_writer_pretty(&mut file, failure)?;
        file.write_all(b"\n")?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?;
        fs::rename(&partial, &path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&partial);
    })?;
    if let Err(error) = prune(folder, &path) {
        tracing::warn!(%error, folder = %folder.display(), "old failures cannot be removed");
    }
    Ok(path)
}

/// Removes the oldest files until there are few enough, `newest` excepted.
fn prune(folder: &Path, newest: &Path) -> io::Result<()> {
    let mut kept: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_ours = entry.file_name().to_str().is_some_and(is_ours);
        if is_ours && entry.path() != newest {
            // It may be gone by now.
            if let Ok(found) = entry.metadata() {
                kept.push((found.modified()?, entry.path()));
            }
        }
    }
    kept.sort();
    let surplus = (kept.len() + 1).saturating_sub(MOST_FILES);
    for (_, path) in kept.into_iter().take(surplus) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a file of this name was written here, as a whole or, by a process that was killed, in part.
fn is_ours(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let whole = match name.strip_suffix(".partial").map(|n| n.rsplit_once('.')) {
        Some(Some((name, process))) if is_number(process) => name,
        Some(_) => return false,
        None => name,
    };
    let parts = whole
        .strip_suffix(".json")
        .and_then(|stem| stem.rsplit_once('-'))
        .and_then(|(rest, position)| Some((rest.rsplit_once("-g")?, position)));
    parts.is_some_and(|((projection, generation), position)| {
        !projection.is_empty() && is_number(generation) && is_number(position)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_files_are_ever_removed() {
        for (name, expected) in [
            ("orders-g1-12.json", true),
            ("a-g2-b-g3-4.json", true),
            ("orders-g1-12.json.77.partial", true),
            ("orders-g1-12.json.partial", false),
            ("orders-g1-12.txt", false),
            ("orders-g1-.json", false),
            ("-g1-2.json", false),
            ("package.json", false),
            ("report-2024-12.json", false),
        ] {
            assert_eq!(is_ours(name), expected, "{name}");
        }
    }
}
