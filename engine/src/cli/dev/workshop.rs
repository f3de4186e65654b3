//! Build, deploy, wait for the next change.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::cargo::{Built, build};
use super::crates::Crates;
use super::sources::{Changes, Watched};
use crate::deploy::{Action, DeployError, Mode, Origin, Outcome, Request};
use crate::host::PluginHash;
use crate::read_model::schema::SchemaError;
use crate::registry::{Registry, State};
use crate::runtime::Tools;
use crate::shutdown::Shutdown;

/// Between two attempts to deploy, while the database is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Builds crates whenever they change, and deploys what comes out.
pub(super) struct Workshop {
    crates: Vec<Crates>,
    profile: Option<String>,
    /// There once the engine runs.
    tools: watch::Receiver<Option<Arc<Tools>>>,
}

/// What is to be done, and what has been.
struct Bench {
    /// Workspaces that have changed since they were built, by index.
    dirty: BTreeSet<usize>,
    /// Workspaces that have been built, by index.
    built: BTreeSet<usize>,
    /// The module that each file last brought, whether it was taken or not.
    brought: HashMap<PathBuf, PluginHash>,
    /// When the change was saved; `None` at the start.
    saved: Option<Instant>,
    /// Waits for generations to become live.
    waiting: JoinSet<()>,
}

impl Workshop {
    /// A workshop that has built nothing yet.
    pub(super) fn new(
        crates: Vec<Crates>,
        profile: Option<String>,
        tools: watch::Receiver<Option<Arc<Tools>>>,
    ) -> Self {
        Self {
            crates,
            profile,
            tools,
        }
    }

    /// Builds what is there and what changes, until shutdown. A build that runs when a change comes is ended.
    pub(super) async fn run(mut self, mut shutdown: Shutdown) -> Result<()> {
        let mut watched = self.watch()?;
        let mut bench = Bench {
            dirty: (0..self.crates.len()).collect(),
            built: BTreeSet::new(),
            brought: HashMap::new(),
            saved: None,
            waiting: JoinSet::new(),
        };
        loop {
            let (saved, changes) = tokio::select! {
                () = shutdown.requested() => return Ok(()),
                change = watched.next() => change,
                () = self.work(&mut bench) => {
                    tokio::select! {
                        () = shutdown.requested() => return Ok(()),
                        change = watched.next() => change,
                    }
                }
            };
            bench.saved = Some(saved);
            bench.dirty.extend(self.affected(&changes));
            if concerns_manifests(&changes) {
                tokio::task::block_in_place(|| self.look_again(&changes));
                match self.watch() {
                    Ok(anew) => watched = anew,
                    Err(error) => eprintln!("{error:#}; watching what there was before"),
                }
                // What changed between the two watches went unnoticed.
                bench.dirty.extend(0..self.crates.len());
            }
        }
    }

    fn watch(&self) -> Result<Watched> {
        Watched::start(self.crates.iter().map(|one| one.sources.clone()).collect())
    }

    fn affected(&self, changes: &Changes) -> Vec<usize> {
        let concerns = |one: &Crates| match changes {
            Changes::Anything => true,
            Changes::Files(files) => files.iter().any(|file| one.sources.contain(file)),
        };
        let all = self.crates.iter().enumerate();
        all.filter(|(_, one)| concerns(one))
            .map(|(index, _)| index)
            .collect()
    }

    fn look_again(&mut self, changes: &Changes) {
        for index in self.affected(changes) {
            let one = &mut self.crates[index];
            if let Err(error) = one.look_again() {
                // The build fails for the same reason, and shows it.
                eprintln!("{}: {error:#}", one.names());
            }
        }
    }

    /// Builds and deploys everything that has changed.
    async fn work(&self, bench: &mut Bench) {
        for index in bench.dirty.clone() {
            let one = &self.crates[index];
            let started = Instant::now();
            eprintln!("building {} ...", one.names());
            let first = !bench.built.contains(&index);
            match build(one, self.profile.as_deref(), first).await {
                Ok(Built::Modules(modules)) => {
                    eprintln!("built {} in {}", one.names(), seconds(started.elapsed()));
                    bench.built.insert(index);
                    for (name, module) in modules {
                        self.bring(&name, &module, bench).await;
                    }
                }
                Ok(Built::Failed) => {
                    eprintln!("failed: {} does not build; what runs stays", one.names());
                }
                Err(error) => eprintln!("failed: {error:#}; what runs stays"),
            }
            bench.dirty.remove(&index);
        }
    }

    /// Deploys a module unless the file brought the same one before.
    async fn bring(&self, name: &str, module: &Path, bench: &mut Bench) {
        let bytes = match tokio::fs::read(module).await {
            Ok(bytes) => bytes,
            Err(error) => return eprintln!("failed: {} cannot be read: {error}", module.display()),
        };
        let hash = PluginHash::of(&bytes);
        if bench.brought.get(module) == Some(&hash) {
            return eprintln!("{name}: the same module as before");
        }
        let mut tools = self.tools.clone();
        // Without an engine, this process is about to end.
        let Ok(tools) = tools
            .wait_for(Option::is_some)
            .await
            .map(|tools| tools.clone())
        else {
            return;
        };
        let Some(tools) = tools else { return };
        let deployed = deploy(&tools, name, bytes).await;
        bench.brought.insert(module.to_owned(), hash);
        match deployed {
            Ok(outcome) => announce(&outcome, &tools.registry, bench),
            Err(error) => eprintln!("failed: {name} is refused, and what runs stays: {error}"),
        }
    }
}

/// Deploys as soon as the database is there.
async fn deploy(tools: &Tools, name: &str, bytes: Vec<u8>) -> Result<Outcome, DeployError> {
    let request = Request {
        expected: None,
        mode: Mode::Auto,
        hold: false,
        origin: Origin::Request,
    };
    let mut complained = false;
    loop {
        let error = match tools.deployer.deploy(bytes.clone(), &request).await {
            Err(error) if is_away(&error) => error,
            done => return done,
        };
        if !std::mem::replace(&mut complained, true) {
            eprintln!("{name} cannot be deployed now; trying again: {error}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_away(error: &DeployError) -> bool {
    match error {
        DeployError::Pool(_) => true,
        DeployError::Database(error) | DeployError::Schema(SchemaError::Database(error)) => {
            crate::db::is_infrastructure(error)
        }
        _ => false,
    }
}

/// Says what a deploy led to, and once more when readers see it.
fn announce(outcome: &Outcome, registry: &Registry, bench: &mut Bench) {
    let (projection, generation) = (outcome.projection.clone(), outcome.generation);
    let since = bench
        .saved
        .map_or(String::new(), |_| " after the save".into());
    let saved = bench.saved.unwrap_or_else(Instant::now);
    match outcome.outcome {
        Action::Created => {
            eprintln!("deployed {projection} as generation {generation}, from the first event on");
        }
        Action::Swapped => {
            let after = seconds(saved.elapsed());
            eprintln!(
                "{projection} goes on with the new code as generation {generation}, {after}{since}"
            );
        }
        Action::Unchanged => eprintln!("{}", outcome.detail),
        Action::Rebuilding => {
            eprintln!("deployed {projection} as generation {generation}, rebuilding ...");
            let registry = registry.clone();
            bench.waiting.spawn(async move {
                if becomes_live(&registry, generation).await {
                    let after = seconds(saved.elapsed());
                    eprintln!("{projection} is live as generation {generation}, {after}{since}");
                }
            });
        }
    }
    while bench.waiting.try_join_next().is_some() {}
}

/// Waits until readers see the generation. Gives false when it has been given up.
async fn becomes_live(registry: &Registry, generation: i64) -> bool {
    let mut catalog = registry.catalog();
    loop {
        let picture = catalog.borrow_and_update().clone();
        let deployed = picture.generations.get(&generation);
        if deployed.is_some_and(|one| one.facts.state == State::Live) {
            return true;
        }
        let is_there = picture.generations.contains_key(&generation)
            || picture.broken.contains_key(&generation);
        if !is_there || catalog.changed().await.is_err() {
            return false;
        }
    }
}

fn concerns_manifests(changes: &Changes) -> bool {
    match changes {
        Changes::Anything => true,
        Changes::Files(files) => (files.iter()).any(|file| file.ends_with("Cargo.toml")),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
