//! From what is deployed to what can be read.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::query::catalog::{LiveModel, Models};
use crate::read_model::schema::generation_schema;
use crate::registry::Registry;
use crate::shutdown::Shutdown;
use crate::sources::Sources;

/// Publishes the read models whenever what is deployed changes, and looks again when a reader finds a generation gone.
pub(super) async fn run(
    registry: Registry,
    sources: Sources,
    models: watch::Sender<Models>,
    refresh: Arc<Notify>,
    mut shutdown: Shutdown,
) {
    let mut catalog = registry.catalog();
    loop {
        publish(&registry, &sources, &models);
        tokio::select! {
            () = shutdown.requested() => return,
            changed = catalog.changed() => if changed.is_err() { return },
            () = refresh.notified() => {
                if let Err(error) = registry.refresh().await {
                    let error = crate::db::describe_pool(&error);
                    tracing::warn!(error, "a reader wants newer read models, but the database is away");
                }
            }
        }
    }
}

/// Publishes the read models of the present catalogue. What did not change stays the same object.
pub(super) fn publish(registry: &Registry, sources: &Sources, models: &watch::Sender<Models>) {
    let catalog = registry.catalog().borrow().clone();
    let old = models.borrow().clone();
    let mut new = HashMap::new();
    for (name, served) in &catalog.models {
        let facts = &served.deployed.facts;
        let Some(upstream) = sources.upstream(&facts.source) else {
            // Told where it matters: the projection's own status.
            continue;
        };
        let kept = old.get(name).filter(|old| {
            old.generation == facts.generation
                && old.projection == facts.projection
                && old.model == *served.model()
                && old.upstream.head.same_channel(&upstream.head)
        });
        let live = kept.cloned().unwrap_or_else(|| {
            Arc::new(LiveModel {
                model: served.model().clone(),
                projection: facts.projection.clone(),
                generation: facts.generation,
                schema: generation_schema(facts.generation),
                upstream: upstream.clone(),
            })
        });
        new.insert(name.clone(), live);
    }
    models.send_replace(Arc::new(new));
}
