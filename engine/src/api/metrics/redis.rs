//! How Redis is doing, and what is published there.

use super::{Kind, Labels, Page};
use crate::api::admin::status::GenerationStatus;
use crate::feed::publish::{Feed, Published};
use crate::redis::Redis;

/// Redis itself.
pub(super) fn server(page: &mut Page, redis: &Redis) {
    let seen = redis.observed();
    let up = if seen.trouble.is_none() { 1.0 } else { 0.0 };
    page.family(
        "gobo_redis_up",
        Kind::Gauge,
        "Whether Redis is used: 0 while it is away, or too slow.",
        [(Vec::new(), up)],
    );
    let outcomes = [
        ("answered", seen.answered),
        ("failed", seen.failed),
        ("skipped", seen.skipped),
    ];
    page.family(
        "gobo_redis_commands_total",
        Kind::Counter,
        "Commands for Redis: answered, failed (no answer in time, or refused), skipped (not sent while it is not used).",
        outcomes.map(|(outcome, count)| (vec![("outcome", outcome)], count as f64)),
    );
}

/// The feeds of read models.
pub(super) fn feeds(page: &mut Page, published: &Published, generations: &[GenerationStatus]) {
    let feeds = published.feeds();
    let mut family = |name, kind, help, value: &dyn Fn(&str, &Feed) -> Option<f64>| {
        let samples = feeds.iter().filter_map(|(model, feed)| {
            let labels: Labels<'_> = vec![("read_model", model)];
            Some((labels, value(model, feed)?))
        });
        page.family(name, kind, help, samples);
    };
    let live = generations.iter().filter(|one| one.stage == "live");
    let models: Vec<_> = live.flat_map(|one| &one.status.read_models).collect();
    family(
        "gobo_redis_feed_lag_revisions",
        Kind::Gauge,
        "How many revisions a read model is ahead of its stream in Redis.",
        &|name, feed| {
            let model = models.iter().find(|model| model.name == name)?;
            Some((model.revision - feed.revision.unwrap_or(0)).max(0) as f64)
        },
    );
    family(
        "gobo_redis_feed_entries_total",
        Kind::Counter,
        "Entries that this process has added to the stream of a read model.",
        &|_, feed| Some(feed.entries as f64),
    );
    family(
        "gobo_redis_feed_refetches_total",
        Kind::Counter,
        "Those of them that told consumers to read the rows anew.",
        &|_, feed| Some(feed.refetches as f64),
    );
    family(
        "gobo_redis_feed_up",
        Kind::Gauge,
        "Whether the stream of a read model is kept up to date.",
        &|_, feed| Some(if feed.trouble.is_none() { 1.0 } else { 0.0 }),
    );
}
