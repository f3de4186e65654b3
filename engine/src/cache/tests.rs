//! What is kept, for whom, and how often it is fetched.

use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use tokio::sync::{Notify, oneshot, watch};

use bytes::Bytes;

use super::*;
use crate::query::board::Slot;
use crate::query::catalog::{Head, Standing, Upstream};
use crate::read_model::ReadModel;

fn model(name: &str, generation: i64) -> Readable {
    Readable {
        model: ReadModel {
            name: name.to_owned(),
            comment: None,
            per_stream: false,
            key: Vec::new(),
            columns: Vec::new(),
            indexes: Vec::new(),
            references: Vec::new(),
        },
        projection: "p".to_owned(),
        generation,
        standing: Standing::Live,
        schema: String::new(),
        source: "gobo".to_owned(),
        upstream: Upstream {
            head: watch::channel(Head::default()).1,
            age_after: Arc::new(|_| Box::pin(async { Ok(None) })),
            position_at: Arc::new(|_| Box::pin(async { Ok(0) })),
            poke: Arc::new(|| {}),
        },
        slot: Slot::default(),
    }
}

fn at(position: i64, revision: i64) -> Arc<Freshness> {
    Arc::new(Freshness {
        position,
        incarnation: Some("a".to_owned()),
        revision,
        embedded: None,
        dead_letters: 0,
        dead_positions: Vec::new(),
    })
}

fn rows(fresh: &Arc<Freshness>, text: &str) -> Found {
    Found {
        fresh: fresh.clone(),
        page: Arc::new(Page {
            count: 1,
            total: None,
            body: Bytes::from(text.to_owned()),
            next: None,
        }),
    }
}

fn cache(bytes: u64) -> Cache {
    let settings = Settings {
        bytes,
        keep: Duration::from_secs(60),
    };
    Cache::new(settings, None, "")
}

const SHOWN: Representation = Representation([7; 32]);

async fn ask(cache: &Cache, model: &Readable, fresh: &Arc<Freshness>, text: &str) -> String {
    let read = async || Ok(rows(fresh, text));
    let found = cache.rows(model, fresh.clone(), &SHOWN, read).await;
    String::from_utf8(found.unwrap().page.body.to_vec()).unwrap()
}

#[tokio::test]
async fn rows_are_kept_for_their_incarnation_generation_model_revision_and_query_alone() {
    let (cache, orders) = (cache(1 << 20), model("orders", 1));
    let fresh = at(10, 1);
    assert_eq!(ask(&cache, &orders, &fresh, "first").await, "first");
    assert_eq!(ask(&cache, &orders, &fresh, "again").await, "first");
    let moved = at(11, 1);
    let read = async || -> Result<Found, Failure> { panic!("it is there") };
    let found = cache.rows(&orders, moved, &SHOWN, read).await.unwrap();
    assert_eq!(found.fresh.position, 11, "events that change no row");
    assert_eq!(ask(&cache, &orders, &at(12, 2), "second").await, "second");
    assert_eq!(ask(&cache, &model("orders", 2), &fresh, "g").await, "g");
    assert_eq!(ask(&cache, &model("others", 1), &fresh, "m").await, "m");
    let crashed = Freshness {
        incarnation: Some("b".to_owned()),
        ..(*fresh).clone()
    };
    assert_eq!(ask(&cache, &orders, &Arc::new(crashed), "i").await, "i");
    let read = async || Ok(rows(&fresh, "q"));
    let other = Representation([8; 32]);
    let found = cache.rows(&orders, fresh.clone(), &other, read).await;
    assert_eq!(found.unwrap().page.body, "q");
    assert_eq!(ask(&cache, &orders, &fresh, "again").await, "first");
}

#[tokio::test]
async fn nothing_is_kept_while_nobody_can_tell_what_a_revision_means() {
    let (cache, orders) = (cache(1 << 20), model("orders", 1));
    let unknown = Arc::new(Freshness {
        incarnation: None,
        ..(*at(10, 1)).clone()
    });
    assert_eq!(ask(&cache, &orders, &unknown, "first").await, "first");
    assert_eq!(ask(&cache, &orders, &unknown, "second").await, "second");
    assert_eq!(cache.counts().entries, 0);
}

#[tokio::test]
async fn rows_that_are_newer_than_what_was_asked_for_are_kept_as_what_they_are() {
    let (cache, orders) = (cache(1 << 20), model("orders", 1));
    let (old, new) = (at(10, 1), at(11, 2));
    let read = async || Ok(rows(&new, "new"));
    let found = cache
        .rows(&orders, old.clone(), &SHOWN, read)
        .await
        .unwrap();
    assert_eq!((found.fresh.position, found.fresh.revision), (11, 2));
    assert_eq!(ask(&cache, &orders, &new, "again").await, "new");
    assert_eq!(ask(&cache, &orders, &old, "old").await, "old");
}

#[tokio::test]
async fn who_asks_at_the_same_time_shares_one_fetch_and_the_next_one_fetches_if_that_reader_goes() {
    let (cache, orders) = (cache(1 << 20), Arc::new(model("orders", 1)));
    let (fetches, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let reader = |cache: Cache, orders: Arc<Readable>| {
        let (fetches, go) = (fetches.clone(), go.clone());
        tokio::spawn(async move {
            let fresh = at(10, 1);
            let read = async || {
                fetches.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                Ok(rows(&fresh, "rows"))
            };
            cache.rows(&orders, fresh.clone(), &SHOWN, read).await
        })
    };
    let first = reader(cache.clone(), orders.clone());
    while fetches.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let others: Vec<_> = (0..5)
        .map(|_| reader(cache.clone(), orders.clone()))
        .collect();
    while cache.counts().misses < 6 {
        tokio::task::yield_now().await;
    }
    first.abort();
    while fetches.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    go.notify_one();
    for other in others {
        assert_eq!(other.await.unwrap().unwrap().page.body, "rows");
    }
    assert_eq!(fetches.load(Ordering::SeqCst), 2);
    assert_eq!((cache.counts().shared, cache.shared.flights.len()), (4, 0));
}

#[tokio::test]
async fn an_error_is_nobody_elses_and_is_not_kept() {
    let (cache, orders) = (cache(1 << 20), Arc::new(model("orders", 1)));
    let (fail, failing) = oneshot::channel::<()>();
    let fresh = at(10, 1);
    let first = async {
        let read = async || {
            let _ = failing.await;
            Err(Failure::Timeout)
        };
        cache.rows(&orders, fresh.clone(), &SHOWN, read).await
    };
    let second = async {
        let read = async || Ok(rows(&fresh, "rows"));
        let asked = cache.rows(&orders, fresh.clone(), &SHOWN, read);
        fail.send(()).unwrap();
        asked.await
    };
    let (first, second) = tokio::join!(first, second);
    assert!(matches!(first, Err(Failure::Timeout)));
    assert_eq!(second.unwrap().page.body, "rows");
    assert_eq!(cache.shared.flights.len(), 0);
}

#[tokio::test]
async fn memory_is_bounded() {
    let (cache, orders) = (cache(64 << 10), model("orders", 1));
    let memory = cache.shared.memory.clone().unwrap();
    for revision in 0..1_000 {
        ask(&cache, &orders, &at(revision, revision), &"x".repeat(1_000)).await;
    }
    memory.run_pending_tasks();
    let counts = cache.counts();
    assert!(
        counts.bytes <= 64 << 10 && counts.entries > 10,
        "{counts:?}"
    );
    assert!(counts.evictions > 900, "{counts:?}");
    let large = "x".repeat(9 << 10);
    assert_eq!(ask(&cache, &orders, &at(0, 5_000), &large).await, large);
    assert_eq!(ask(&cache, &orders, &at(0, 5_000), "other").await, "other");
}

#[tokio::test]
async fn generations_that_are_gone_take_no_memory() {
    let (cache, orders) = (cache(64 << 10), model("orders", 1));
    let memory = cache.shared.memory.clone().unwrap();
    for revision in 0..10 {
        ask(&cache, &orders, &at(revision, revision), "gone").await;
    }
    let next = model("orders", 2);
    assert_eq!(ask(&cache, &next, &at(0, 1), "kept").await, "kept");
    cache.retain(|generation| generation != 1);
    // They go a few at a time, and nothing tells of it: it is asked again until they are gone.
    let patience = Instant::now();
    while cache.counts().entries > 1 {
        assert!(
            patience.elapsed() < Duration::from_secs(30),
            "{:?}",
            cache.counts()
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
        memory.run_pending_tasks();
    }
    assert_eq!(ask(&cache, &next, &at(0, 1), "again").await, "kept");
    assert_eq!(ask(&cache, &orders, &at(9, 9), "new").await, "new");
}
