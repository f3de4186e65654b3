//! Compiled plugins on disk, keyed by the plugin's hash and the compiler's own.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use wasmtime::Engine;
use wasmtime::component::Component;

use super::PluginHash;

/// A folder that only this user can write to. Loading machine code from it equals running a program from there.
#[derive(Clone)]
pub(super) struct CodeCache {
    folder: Option<PathBuf>,
    engine: u64,
}

impl CodeCache {
    pub(super) fn new(folder: Option<PathBuf>, engine: &Engine) -> Self {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let folder = folder.filter(|folder| match prepare(folder) {
            Ok(()) => true,
            Err(why) => {
                let folder = folder.display();
                tracing::warn!(%folder, why, "compiled plugins are not cached");
                false
            }
        });
        Self {
            folder,
            engine: hasher.finish(),
        }
    }

    pub(super) fn get(&self, engine: &Engine, hash: &PluginHash) -> Option<Component> {
        let path = self.path(hash)?;
        let bytes = std::fs::read(&path).ok()?;
        // SAFETY: the folder belongs to this user and nobody else can write to it (checked when it was opened), and
        // this module is the only writer: the bytes are what `Component::serialize` gave for this plugin and compiler.
        #[expect(
            unsafe_code,
            reason = "loads machine code that this engine compiled itself"
        )]
        let compiled = unsafe { Component::deserialize(engine, bytes) };
        compiled
            .inspect_err(|error| {
                tracing::debug!(%error, path = %path.display(), "cached code is not usable");
                let _ = std::fs::remove_file(&path);
            })
            .ok()
    }

    /// Stores compiled code; a failure costs a compilation later, nothing else.
    pub(super) fn put(&self, hash: &PluginHash, compiled: &Component) {
        let Some(path) = self.path(hash) else { return };
        let partial = path.with_extension(format!("{}.partial", std::process::id()));
        let written = compiled
            .serialize()
            .map_err(|error| error.to_string())
            .and_then(|bytes| std::fs::write(&partial, bytes).map_err(|error| error.to_string()))
            .and_then(|()| std::fs::rename(&partial, &path).map_err(|error| error.to_string()));
        if let Err(error) = written {
            tracing::warn!(error, path = %path.display(), "compiled code cannot be cached");
            let _ = std::fs::remove_file(&partial);
        }
    }

    fn path(&self, hash: &PluginHash) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?;
        Some(folder.join(format!("{hash}-{:016x}.code", self.engine)))
    }
}

/// Creates the folder for this user alone, or checks that it is.
fn prepare(folder: &Path) -> Result<(), String> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| error.to_string())?;
    let found = std::fs::metadata(folder).map_err(|error| error.to_string())?;
    let probe = folder.join(format!(".probe-{}", std::process::id()));
    std::fs::write(&probe, b"").map_err(|error| error.to_string())?;
    let mine = std::fs::metadata(&probe).map(|file| file.uid());
    let _ = std::fs::remove_file(&probe);
    if mine.map_err(|error| error.to_string())? != found.uid() || found.mode() & 0o022 != 0 {
        return Err(
            "other users can write to the folder: chmod 700 it, or name another one as cache_dir"
                .into(),
        );
    }
    Ok(())
}
