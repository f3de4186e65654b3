//! Which crates are plugins, and which files they are made of, as cargo sees it.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::cargo::{TARGET, answer};

/// What every plugin depends on.
const SDK: &str = "gobo-sdk";

/// The plugins of one workspace, which are built together.
#[derive(Debug, Clone)]
pub(super) struct Crates {
    /// Where cargo runs.
    pub(super) folder: PathBuf,
    /// The plugins, by the id that cargo gives them, with their names.
    pub(super) packages: HashMap<String, String>,
    /// What they are made of.
    pub(super) sources: Sources,
    /// Cargo's name for the workspace: two folders may belong to one.
    root: PathBuf,
}

/// The files that plugins are made of.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    /// Single ones: manifests and build scripts.
    pub(super) files: BTreeSet<PathBuf>,
    /// Folders that count with everything in them.
    pub(super) folders: BTreeSet<PathBuf>,
    /// Where cargo writes.
    target: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Option<Resolve>,
    #[serde(default)]
    workspace_default_members: Vec<String>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    /// `None`: it is built from files of this machine.
    source: Option<String>,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    crate_types: Vec<String>,
    src_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

impl Package {
    fn uses_sdk(&self) -> bool {
        (self.dependencies.iter()).any(|one| one.name == SDK && one.kind.is_none())
    }

    fn is_module(&self) -> bool {
        let mut kinds = self.targets.iter().flat_map(|target| &target.crate_types);
        kinds.any(|kind| kind == "cdylib")
    }
}

impl Crates {
    /// The plugins of a folder with a manifest: its package, or its workspace's default members. `None` when there are none.
    pub(super) fn find(folder: &Path) -> Result<Option<Self>> {
        let folder = std::path::absolute(folder)?;
        let asked = ["metadata", "--format-version", "1", "--no-deps"];
        let metadata = metadata(&folder, &asked)?;
        let manifest = folder.join("Cargo.toml");
        let own = |package: &&Package| same_file(&package.manifest_path, &manifest);
        let candidates: Vec<&Package> = match metadata.packages.iter().find(own) {
            Some(own) => vec![own],
            None => (metadata.packages.iter())
                .filter(|package| metadata.workspace_default_members.contains(&package.id))
                .collect(),
        };
        let plugins = candidates
            .iter()
            .filter(|package| package.uses_sdk() && package.is_module());
        let packages: HashMap<String, String> = plugins
            .map(|package| (package.id.clone(), package.name.clone()))
            .collect();
        if packages.is_empty() {
            if let Some(package) = candidates.iter().find(|package| package.uses_sdk()) {
                bail!(
                    "package `{}` depends on {SDK} but is not built as a module; add to {}:\n\n[lib]\ncrate-type = [\"cdylib\", \"rlib\"]\n",
                    package.name,
                    package.manifest_path.display()
                );
            }
            return Ok(None);
        }
        let mut found = Self {
            folder,
            packages,
            sources: Sources::default(),
            root: metadata.workspace_root,
        };
        found.look_again()?;
        Ok(Some(found))
    }

    /// Asks cargo anew for what the plugins are made of: a manifest has changed.
    pub(super) fn look_again(&mut self) -> Result<()> {
        let asked = [
            "metadata",
            "--format-version",
            "1",
            "--filter-platform",
            TARGET,
        ];
        self.sources = Sources::of(&metadata(&self.folder, &asked)?, self.packages.keys());
        Ok(())
    }

    /// Their names, for people.
    pub(super) fn names(&self) -> String {
        let mut names: Vec<&str> = self.packages.values().map(String::as_str).collect();
        names.sort_unstable();
        names.join(", ")
    }

    /// Whether both are built in one go, in which case this one takes the other in.
    pub(super) fn absorb(&mut self, other: &Self) -> bool {
        let same = self.root == other.root;
        if same {
            self.packages.extend(other.packages.clone());
            self.sources.files.extend(other.sources.files.clone());
            self.sources.folders.extend(other.sources.folders.clone());
        }
        same
    }
}

impl Sources {
    /// The files of these packages and of all that they are built from on this machine.
    fn of<'i>(metadata: &Metadata, packages: impl Iterator<Item = &'i String>) -> Self {
        let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
        let edges: HashMap<&str, &[Edge]> = nodes
            .map(|node| (node.id.as_str(), node.deps.as_slice()))
            .collect();
        let local: HashMap<&str, &Package> = (metadata.packages.iter())
            .filter(|package| package.source.is_none())
            .map(|package| (package.id.as_str(), package))
            .collect();
        let mut sources = Self {
            target: metadata.target_directory.clone(),
            ..Self::default()
        };
        let workspace = metadata.workspace_root.join("Cargo.toml");
        sources.files.insert(workspace);
        let mut open: Vec<&str> = packages.map(String::as_str).collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            let Some(package) = local.get(id).filter(|_| seen.insert(id)) else {
                continue;
            };
            sources.add(package);
            let edges = edges.get(id).copied().unwrap_or_default().iter();
            let built = edges.filter(|edge| {
                let mut kinds = edge.dep_kinds.iter();
                kinds.any(|kind| kind.kind.as_deref() != Some("dev"))
            });
            open.extend(built.map(|edge| edge.pkg.as_str()));
        }
        sources
    }

    fn add(&mut self, package: &Package) {
        let root = package.manifest_path.parent();
        self.files.insert(package.manifest_path.clone());
        for target in &package.targets {
            let is_built = |kind: &String| {
                ["lib", "rlib", "cdylib", "proc-macro", "custom-build"].contains(&kind.as_str())
            };
            if !target.kind.iter().any(is_built) {
                continue;
            }
            self.files.insert(target.src_path.clone());
            // A source beside its manifest stands for itself: everything else is there too.
            let folder = target.src_path.parent();
            if let Some(folder) = folder.filter(|folder| Some(*folder) != root) {
                self.folders.insert(folder.to_owned());
            }
        }
    }

    /// Whether the plugins are made of this file. What editors put beside a file for a moment does not count.
    pub(super) fn contain(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_passing = name.starts_with(['.', '#'])
            || name.ends_with(['~', '#'])
            || [".swp", ".swx", ".swo", ".tmp", ".bak", ".orig"]
                .iter()
                .any(|end| name.ends_with(end))
            // Vim tries with it whether it may write.
            || name == "4913";
        let is_written = path.starts_with(&self.target);
        !is_passing
            && !is_written
            && (self.files.contains(path)
                || self.folders.iter().any(|folder| path.starts_with(folder)))
    }
}

fn metadata(folder: &Path, arguments: &[&str]) -> Result<Metadata> {
    let text = answer(folder, arguments)?;
    serde_json::from_slice(&text).context("cargo's description of the crate cannot be read")
}

fn same_file(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    one == other || (real(one).is_some() && real(one) == real(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_plugin_is_made_of_counts() {
        let sources = Sources {
            files: [PathBuf::from("/p/Cargo.toml"), PathBuf::from("/p/build.rs")].into(),
            folders: [PathBuf::from("/p/src"), PathBuf::from("/lib/src")].into(),
            target: PathBuf::from("/p/src/target"),
        };
        let counts = |path: &str| sources.contain(Path::new(path));
        for path in [
            "/p/src/lib.rs",
            "/p/src/rows/a.rs",
            "/p/Cargo.toml",
            "/p/build.rs",
            "/lib/src/a.json",
        ] {
            assert!(counts(path), "{path}");
        }
        for path in [
            "/p/README.md",
            "/p/src/.lib.rs.swp",
            "/p/src/lib.rs~",
            "/p/src/4913",
            "/p/src/#lib.rs#",
            "/p/src/target/a.rs",
            "/p/tests/a.rs",
        ] {
            assert!(!counts(path), "{path}");
        }
    }
}
