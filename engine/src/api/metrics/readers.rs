//! How readers learnt how fresh a read model is, and where their rows came from.

use super::{Kind, Page};
use crate::api::read::Reader;

pub(super) fn all(page: &mut Page, reader: &Reader) {
    let (looks, cache) = reader.counts();
    let outcomes = [
        ("shared", looks.reused),
        ("asked", looks.asked - looks.reused.min(looks.asked)),
    ];
    page.family(
        "gobo_freshness_looks_total",
        Kind::Counter,
        "How readers learnt how fresh a read model is: from a look that others had taken (shared), or from the database (asked).",
        outcomes.map(|(outcome, count)| (vec![("outcome", outcome)], count as f64)),
    );
    let outcomes = [
        ("hit", cache.hits),
        ("joined", cache.shared),
        ("miss", cache.misses - cache.shared.min(cache.misses)),
        ("not_modified", cache.spared),
    ];
    page.family(
        "gobo_cache_answers_total",
        Kind::Counter,
        "Where rows came from: memory (hit), a query for somebody else who asked at the same time (joined), further away (miss), \
         or nowhere because the reader had them (not_modified).",
        outcomes.map(|(outcome, count)| (vec![("outcome", outcome)], count as f64)),
    );
    if let Some(far) = cache.far {
        let outcomes = [("hit", far.hits), ("miss", far.misses), ("odd", far.odd)];
        page.family(
            "gobo_cache_redis_total",
            Kind::Counter,
            "Answers that were looked for in Redis: there (hit), not there or no answer (miss), no answer of ours (odd).",
            outcomes.map(|(outcome, count)| (vec![("outcome", outcome)], count as f64)),
        );
    }
    page.family(
        "gobo_cache_evictions_total",
        Kind::Counter,
        "Answers that left memory to make room for others.",
        [(Vec::new(), cache.evictions as f64)],
    );
    page.family(
        "gobo_cache_bytes",
        Kind::Gauge,
        "What the answers in memory take.",
        [(Vec::new(), cache.bytes as f64)],
    );
    page.family(
        "gobo_cache_entries",
        Kind::Gauge,
        "Answers in memory.",
        [(Vec::new(), cache.entries as f64)],
    );
}
