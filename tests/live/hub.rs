//! The hub that all subscribers of a node share, step by step: who reads what by itself, and who waits for whom.

use deadpool_postgres::{Object, Pool};
use futures_util::future::join_all;
use gobo::db::{Keep, Sessions};
use gobo::feed::{Bounds, Event, Hub, Pools, Question, Realm, Subscription};
use gobo::progress::Progress;
use gobo::query::sql::{Bound, Statement};
use gobo::shutdown::{self, Trigger};
use gobo_tests::{Cluster, Database, Options, PATIENCE, wait_for};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::scene::{Scene, raw};

/// All changes, as they are told.
const EVERYTHING: &str = "select $1";

/// Whoever reads commits waits for this.
const LOCK_FEED: &str = "begin; lock table gobo.feed in access exclusive mode";

/// A subscriber, and the revisions that it has read by itself.
type CaughtUp = (Subscription, Vec<i64>);

/// A hub in this process over the read model `raw`, which an engine writes.
struct Node {
    scene: Scene,
    hub: Hub,
    topics: Pool,
    feed: Pool,
    readers: Sessions,
    realm: Realm,
    _trigger: Trigger,
}

impl Node {
    /// With so many sessions for those who begin or come back, and so many for readers.
    async fn new(feed: usize, readers: usize) -> Self {
        Self::over(Database::create().await, feed, readers).await
    }

    async fn over(database: Database, feed: usize, readers: usize) -> Self {
        let scene = Scene::over(database, "", &["raw-guest"]);
        let first = scene.append(&[put("first")]).await[0];
        scene.wait_for("raw", first);
        let database = gobo::db::Database::new(scene.database.url()).unwrap();
        let topics = opened(database.pool("hub topics", 2, &[])).await;
        let feed = opened(database.pool("hub feed", feed, &[])).await;
        let readers = database.sessions("hub reader", readers, &[]);
        let bounds = Bounds {
            subscribers: 100,
            each: 100,
            queue_bytes: 1 << 20,
        };
        let (trigger, shutdown) = shutdown::channel();
        let progress = Progress::new();
        let pools = Pools {
            topics: topics.clone(),
            subscribers: feed.clone(),
            readers: readers.clone(),
        };
        let hub = Hub::new(pools, progress, bounds, shutdown);
        let page = hub.present("raw").await.unwrap().unwrap();
        let realm = Realm {
            incarnation: page.incarnation.unwrap(),
            generation: page.generation,
        };
        Self {
            scene,
            hub,
            topics,
            feed,
            readers,
            realm,
            _trigger: trigger,
        }
    }

    async fn revision(&self) -> i64 {
        let revision = "select revision from gobo.read_models where name = 'raw'";
        self.scene.database.query_i64(revision).await
    }

    /// Changes a row, and gives the revision that this makes.
    async fn commit(&self, id: &str) -> i64 {
        let before = self.revision().await;
        self.scene.append(&[put(id)]).await;
        wait_for("the commit", async || match self.revision().await {
            same if same == before => Err(same),
            revision => Ok(revision),
        })
        .await
    }

    /// Somebody who has everything up to now, and is told what `judge` makes of the changes that come.
    async fn follow(&self, judge: &str) -> Subscription {
        self.follow_as(None, judge).await
    }

    /// The same as one of a reader's.
    async fn follow_as(&self, reader: Option<&str>, judge: &str) -> Subscription {
        let statement = Statement {
            text: judge.to_owned(),
            parameters: vec![Bound {
                column: String::new(),
                oid: Type::TEXT.oid(),
                text: None,
            }],
        };
        let question = Question {
            statement,
            matcher: None,
        };
        let place = self.hub.place(reader).unwrap();
        let (hub, realm) = (self.hub.clone(), self.realm.clone());
        Subscription::new(hub, place, "raw", question, realm, self.revision().await)
    }

    /// The same, with everything told that there is.
    async fn follow_from_now(&self, judge: &str) -> Subscription {
        let mut subscription = self.follow(judge).await;
        assert!(subscription.catch_up().await.unwrap().is_empty());
        assert!(subscription.has_caught_up());
        subscription
    }

    /// A session that holds a lock: `LOCK_FEED`, or one that statements wait for.
    async fn holding(&self, lock: &str) -> Client {
        let session = self.scene.database.connect().await;
        session.batch_execute(lock).await.unwrap();
        session
    }

    /// Begins to follow, and stops after the first read, which finds nothing: the next one needs the only session for those
    /// who begin, and that is here.
    async fn after_the_first_read(&self) -> (JoinHandle<CaughtUp>, Object) {
        let mut subscription = self.follow(EVERYTHING).await;
        let lock = self.holding(LOCK_FEED).await;
        let caught_up = tokio::spawn(async move {
            let events = subscription.catch_up().await;
            (subscription, revisions(&events.unwrap()))
        });
        self.wait_for_locks("relation", 1).await;
        let feed = self.feed.clone();
        let next = tokio::spawn(async move { feed.get().await.unwrap() });
        wait_for_queue(&self.feed, 1).await;
        lock.batch_execute("rollback").await.unwrap();
        (caught_up, next.await.unwrap())
    }

    /// Waits until so many of the hub's sessions wait for a lock of this kind.
    async fn wait_for_locks(&self, kind: &str, count: i64) {
        let waiting = format!(
            "select count(*) from pg_locks l join pg_stat_activity a using (pid)
              where a.datname = current_database() and a.application_name like 'gobo hub %'
                and not l.granted and l.locktype = '{kind}'"
        );
        wait_for("sessions that wait for a lock", async || {
            match self.scene.database.query_i64(&waiting).await {
                found if found >= count => Ok(()),
                found => Err(found),
            }
        })
        .await;
    }
}

/// All sessions of a pool, so that nobody else has one.
async fn all(pool: &Pool) -> Vec<Object> {
    let sessions = (0..pool.status().max_size).map(|_| async { pool.get().await.unwrap() });
    join_all(sessions).await
}

/// Waits until so many wait for a session.
async fn wait_for_queue(pool: &Pool, length: usize) {
    wait_for("a queue for a session", async || {
        match pool.status().waiting {
            found if found >= length => Ok(()),
            found => Err(found),
        }
    })
    .await;
}

fn put(id: &str) -> crate::scene::Event {
    raw("s", json!({"do": "put", "id": id}))
}

/// Opens all sessions of a pool, so that none is waited for later.
async fn opened(pool: Pool) -> Pool {
    drop(all(&pool).await);
    pool
}

fn revisions(events: &[std::sync::Arc<Event>]) -> Vec<i64> {
    events.iter().map(|event| event.revision).collect()
}

#[tokio::test]
async fn a_commit_between_the_first_read_and_the_seat_is_told() {
    let node = Node::new(1, 4).await;
    let topics = all(&node.topics).await;
    let (caught_up, session) = node.after_the_first_read().await;
    // The feed is not read for anybody yet: it will be from after this commit on.
    wait_for_queue(&node.topics, 1).await;
    let between = node.commit("between").await;
    drop((topics, session));
    let (mut subscription, told) = caught_up.await.unwrap();
    assert_eq!(told, [between]);
    assert!(subscription.catch_up().await.unwrap().is_empty());
    let later = node.commit("later").await;
    assert_eq!(subscription.next().await.unwrap().revision, later);
}

#[tokio::test]
async fn who_begins_while_commits_keep_coming_follows_with_the_others_soon() {
    let node = Node::new(4, 4).await;
    let mut subscription = node.follow(EVERYTHING).await;
    let (mut committed, mut told) = (Vec::new(), Vec::new());
    // One before each look: never is there nothing to be read.
    for id in ["1", "2", "3"] {
        committed.push(node.commit(id).await);
        told.extend(revisions(&subscription.catch_up().await.unwrap()));
    }
    assert!(subscription.has_caught_up());
    while told.len() < committed.len() {
        told.push(subscription.next().await.unwrap().revision);
    }
    assert_eq!(told, committed);
}

#[tokio::test]
async fn a_commit_that_is_read_twice_around_the_seat_is_told_once() {
    for waits in [true, false] {
        let node = Node::new(1, 4).await;
        let topics = all(&node.topics).await;
        let (caught_up, session) = node.after_the_first_read().await;
        wait_for_queue(&node.topics, 1).await;
        let between = node.commit("between").await;
        drop(topics);
        // The subscriber sits behind that one, which it has to read by itself; it will read the next one as well.
        wait_for_queue(&node.feed, 1).await;
        let twice = node.commit("twice").await;
        drop(session);
        let (mut subscription, told) = caught_up.await.unwrap();
        assert_eq!(told, [between, twice]);
        assert!(subscription.catch_up().await.unwrap().is_empty());
        let later = node.commit("later").await;
        let told = match waits {
            true => subscription.next().await,
            false => {
                wait_for("the later commit", async || {
                    subscription.try_next().ok_or(())
                })
                .await
            }
        };
        assert_eq!(told.unwrap().revision, later);
    }
}

#[tokio::test]
async fn the_id_of_who_is_silent_moves_on_but_never_past_what_waits() {
    let node = Node::new(4, 4).await;
    let shown = "select case when $1 like '%shown%' then $1 end";
    let mut silent = node.follow_from_now(shown).await;
    // Sits behind it, so has got what the other one has got before.
    let mut witness = node.follow_from_now(shown).await;
    let waiting = [node.commit("shown 1").await, node.commit("shown 2").await];
    for revision in waiting {
        assert_eq!(witness.next().await.unwrap().revision, revision);
    }
    for revision in waiting {
        assert_eq!(silent.move_on().unwrap().unwrap().revision, revision);
        assert_eq!(silent.id(), node.realm.id(revision));
    }
    let last = node.commit("hidden").await;
    wait_for("the id to move on", async || {
        assert!(silent.move_on().is_none());
        match silent.id() {
            id if id == node.realm.id(last) => Ok(()),
            id => Err(id),
        }
    })
    .await;
}

#[tokio::test]
async fn queries_that_are_held_up_in_the_database_leave_its_sessions_to_readers() {
    let node = Node::new(4, 8).await;
    let mut subscriptions = Vec::new();
    for n in 0..8 {
        let judge = format!("select $1 from pg_advisory_xact_lock_shared({n})");
        subscriptions.push(node.follow_from_now(&judge).await);
    }
    let all = "select pg_advisory_lock(n) from generate_series(0, 7) n";
    let lock = node.holding(all).await;
    let revision = node.commit("a").await;
    node.wait_for_locks("advisory", 2).await;
    // A quarter of them judges, and the others are free.
    let reads = (0..6).map(|_| node.readers.rows("select 1", &[], &[], Keep::Nothing));
    for rows in join_all(reads).await {
        assert_eq!(rows.unwrap().unwrap().len(), 1);
    }
    lock.batch_execute("select pg_advisory_unlock_all()")
        .await
        .unwrap();
    for subscription in &mut subscriptions {
        assert_eq!(subscription.next().await.unwrap().revision, revision);
    }
}

#[tokio::test]
async fn eight_of_those_who_come_back_read_commits_and_the_others_wait() {
    let node = Node::new(12, 4).await;
    let mut subscriptions = Vec::new();
    for _ in 0..20 {
        subscriptions.push(node.follow(EVERYTHING).await);
    }
    let missed = node.commit("missed").await;
    let lock = node.holding(LOCK_FEED).await;
    let catching_up: Vec<_> = subscriptions
        .into_iter()
        .map(|mut subscription| tokio::spawn(async move { subscription.catch_up().await }))
        .collect();
    node.wait_for_locks("relation", 8).await;
    assert_eq!(node.feed.status().available, 4);
    lock.batch_execute("rollback").await.unwrap();
    for events in catching_up {
        let events = events.await.unwrap().unwrap();
        assert_eq!(revisions(&events), [missed]);
    }
}

#[tokio::test]
async fn nothing_is_judged_for_those_who_have_left() {
    let node = Node::new(4, 8).await;
    let lock = node
        .holding("select pg_advisory_lock(n) from generate_series(0, 1) n")
        .await;
    let mut leaving = Vec::new();
    for n in 0..2 {
        let judge = format!("select $1 from pg_advisory_xact_lock_shared({n})");
        leaving.push(node.follow_from_now(&judge).await);
    }
    let mut staying = node.follow_from_now(EVERYTHING).await;
    // They take both places to judge at, and more waits for them.
    let first = node.commit("a").await;
    node.wait_for_locks("advisory", 2).await;
    let second = node.commit("b").await;
    drop(leaving);
    for revision in [first, second] {
        let told = wait_for("a place", async || staying.try_next().ok_or(())).await;
        assert_eq!(told.unwrap().revision, revision);
    }
    drop(lock);
}

#[tokio::test]
async fn who_was_told_that_nothing_follows_is_not_judged_for_any_more() {
    let node = Node::new(4, 8).await;
    node.scene
        .database
        .execute("create sequence public.judged")
        .await;
    let failing = "select $1 || 1 / (nextval('public.judged') * 0)";
    let mut ended = node.follow_from_now(failing).await;
    node.commit("a").await;
    assert!(ended.next().await.is_err());
    // It has not left yet.
    node.commit("b").await;
    node.commit("c").await;
    // Asks the same, so what comes is judged after what waits.
    let mut next = node.follow_from_now(failing).await;
    node.commit("d").await;
    assert!(next.next().await.is_err());
    let judged = "select last_value from public.judged";
    assert_eq!(node.scene.database.query_i64(judged).await, 2);
}

#[tokio::test]
async fn one_reader_leaves_turns_and_places_to_others() {
    let node = Node::new(12, 16).await;
    let mut hers = Vec::new();
    for n in 0..8 {
        let judge = format!("select $1 from pg_advisory_xact_lock_shared({n})");
        hers.push(node.follow_as(Some("alice"), &judge).await);
    }
    let mut his = node.follow_as(Some("bob"), EVERYTHING).await;
    let missed = node.commit("missed").await;
    let all = "select pg_advisory_lock(n) from generate_series(0, 7) n";
    let lock = node.holding(all).await;
    let hers: Vec<_> = hers
        .into_iter()
        .map(|mut subscription| {
            tokio::spawn(async move {
                let told = revisions(&subscription.catch_up().await.unwrap());
                assert!(subscription.catch_up().await.unwrap().is_empty());
                (subscription, told)
            })
        })
        .collect();
    // She has three of the four places to judge at, and six of the eight turns.
    node.wait_for_locks("advisory", 3).await;
    let told = timeout(PATIENCE, his.catch_up()).await.expect("a turn");
    assert_eq!(revisions(&told.unwrap()), [missed]);
    assert!(his.catch_up().await.unwrap().is_empty());
    lock.batch_execute("select pg_advisory_unlock_all()")
        .await
        .unwrap();
    let mut caught_up = Vec::new();
    for subscription in hers {
        let (subscription, told) = subscription.await.unwrap();
        assert_eq!(told, [missed]);
        caught_up.push(subscription);
    }
    // The same for what comes.
    lock.batch_execute(all).await.unwrap();
    let first = node.commit("first").await;
    node.wait_for_locks("advisory", 3).await;
    let second = node.commit("second").await;
    for revision in [first, second] {
        let told = wait_for("a place", async || his.try_next().ok_or(())).await;
        assert_eq!(told.unwrap().revision, revision);
    }
    lock.batch_execute("select pg_advisory_unlock_all()")
        .await
        .unwrap();
    for subscription in &mut caught_up {
        for revision in [first, second] {
            assert_eq!(subscription.next().await.unwrap().revision, revision);
        }
    }
}

#[tokio::test]
async fn who_comes_back_with_a_slow_query_gives_its_turn_up_after_a_second() {
    let node = Node::new(4, 4).await;
    // Each commit takes longer to judge than a turn is.
    let mut slow = node.follow("select $1 from pg_sleep(1.1)").await;
    for revision in [node.commit("a").await, node.commit("b").await] {
        assert_eq!(revisions(&slow.catch_up().await.unwrap()), [revision]);
        assert_eq!(slow.id(), node.realm.id(revision));
    }
}

#[tokio::test]
async fn those_who_begin_or_come_back_hold_up_nobody_who_follows() {
    let node = Node::new(4, 4).await;
    let mut subscription = node.follow_from_now(EVERYTHING).await;
    let taken = all(&node.feed).await;
    let revision = node.commit("a").await;
    let told = wait_for("the commit", async || subscription.try_next().ok_or(())).await;
    assert_eq!(told.unwrap().revision, revision);
    drop(taken);
}

#[tokio::test]
async fn those_who_begin_write_nothing_for_it_or_once_for_all() {
    // Nobody else begins a transaction that writes.
    let options = Options::ephemeral().with("autovacuum", "off");
    let cluster = Cluster::start(options).unwrap();
    let database = Database::create_in(&cluster).await;
    let mut node = Node::over(database, 4, 4).await;
    node.scene.gobo.stop();
    let session = node.scene.database.connect().await;
    let transactions = async || -> i64 {
        let next = "select pg_snapshot_xmax(pg_current_snapshot())::text::int8";
        session.query_one(next, &[]).await.unwrap().get(0)
    };
    let unflushed = "set synchronous_commit = off; create table public.unflushed ()";
    session.batch_execute(unflushed).await.unwrap();
    let before = transactions().await;
    for flushed in join_all((0..50).map(|_| node.hub.flushed())).await {
        flushed.unwrap();
    }
    for _ in 0..50 {
        node.hub.present("raw").await.unwrap().unwrap();
        node.hub.flushed().await.unwrap();
    }
    // The server itself writes now and then.
    let written = transactions().await - before;
    assert!(written < 10, "{written}");
    node.scene.gobo.cont();
}
