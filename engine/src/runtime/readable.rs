//! From what is deployed to what can be read.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::query::board::Slot;
use crate::query::catalog::{ByName, Models, Published, Readable, Standing};
use crate::query::rules::Rules;
use crate::read_model::ReadModel;
use crate::read_model::schema::generation_schema;
use crate::registry::{Catalog, Deployed, Purpose, Registry};
use crate::shutdown::Shutdown;
use crate::sources::Sources;

/// Looks again when a reader finds a generation gone.
pub(super) async fn run(registry: Registry, refresh: Arc<Notify>, mut shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            () = refresh.notified() => {
                if let Err(error) = registry.refresh().await {
                    let error = crate::db::describe_pool(&error);
                    tracing::warn!(error, "a reader wants newer read models, but the database is away");
                }
            }
        }
    }
}

/// Publishes the read models of a catalogue. What did not change stays the same object.
pub(super) fn publish(catalog: &Catalog, sources: &Sources, models: &watch::Sender<Models>) {
    let old = models.borrow().clone();
    let mut new = Published::default();
    for (name, served) in &catalog.models {
        let (deployed, model) = (&served.deployed, served.model());
        let readable = readable(sources, &old.live, deployed, model, Standing::Live);
        new.live.extend(readable.map(|model| (name.clone(), model)));
    }
    let nothing = ByName::default();
    for (generation, deployed) in &catalog.generations {
        if !matches!(deployed.facts.purpose, Purpose::Replay | Purpose::Snapshot) {
            continue;
        }
        let old = old.past.get(generation).unwrap_or(&nothing);
        let models = deployed.plugin.descriptor.read_models.iter();
        let models = models.filter_map(|model| {
            let readable = readable(sources, old, deployed, model, Standing::Past)?;
            Some((model.name.clone(), readable))
        });
        new.past.insert(*generation, models.collect());
    }
    models.send_replace(Arc::new(new));
}

/// Says in the log which row rules do not fit their read models, when there are others. Readers find it out by themselves:
/// nothing is shown then.
pub(super) async fn judge(
    rules: Arc<Rules>,
    mut models: watch::Receiver<Models>,
    mut shutdown: Shutdown,
) {
    let mut known = BTreeMap::new();
    loop {
        let published = models.borrow_and_update().clone();
        let misfits: BTreeMap<String, String> = published
            .live
            .iter()
            .filter_map(|(name, one)| Some((name.clone(), rules.check(&one.model).err()?)))
            .collect();
        for (model, why) in &misfits {
            if known.get(model) != Some(why) {
                tracing::error!(
                    model,
                    why,
                    "a row rule does not fit its read model, of which nothing is shown until it does"
                );
            }
        }
        known = misfits;
        tokio::select! {
            () = shutdown.requested() => return,
            changed = models.changed() => if changed.is_err() {
                return shutdown.requested().await;
            },
        }
    }
}

/// A read model of a generation. `None` if its source is not configured here, which is told where it matters: in the
/// projection's own status.
fn readable(
    sources: &Sources,
    old: &ByName,
    deployed: &Deployed,
    model: &ReadModel,
    standing: Standing,
) -> Option<Arc<Readable>> {
    let facts = &deployed.facts;
    let upstream = sources.upstream(&facts.source)?;
    let kept = old.get(&model.name).filter(|old| {
        old.generation == facts.generation
            && old.projection == facts.projection
            && old.source == facts.source
            && old.model == *model
            && old.upstream.head.same_channel(&upstream.head)
    });
    Some(kept.cloned().unwrap_or_else(|| {
        Arc::new(Readable {
            model: model.clone(),
            projection: facts.projection.clone(),
            generation: facts.generation,
            standing,
            schema: generation_schema(facts.generation),
            source: facts.source.clone(),
            upstream: upstream.clone(),
            slot: Slot::default(),
        })
    }))
}
