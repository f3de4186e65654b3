//! Kills, freezes and take-overs: no event is skipped, none is applied twice.

use gobo_tests::{Database, Gobo, Random, wait_for};

use crate::orders::{checkpoint, copy_of_events, feed, head, rows};

/// Small batches, so that there are many moments at which something can be half done.
const SMALL_BATCHES: &str = "[engine]\nbatch_events = 20\n";

async fn caught_up(database: &Database) {
    wait_for("the projections to reach the head", async || {
        match (checkpoint(database).await, head(database).await) {
            (at, head) if at >= head => Ok(()),
            seen => Err(seen),
        }
    })
    .await;
}

fn deploy_shipped(gobo: &Gobo) {
    gobo.deploy("orders").expect(201);
    gobo.deploy("trading-stats").expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_leave_the_same_rows_as_an_uninterrupted_run() {
    let database = Database::create().await;
    // A short lease, because after a kill everybody waits for its end.
    let mut gobo = Gobo::start(
        database.url(),
        &format!("{SMALL_BATCHES}lease_seconds = 2\n"),
    );
    deploy_shipped(&gobo);
    let mut random = Random::new(0x2545_f491_4f6c_dd1d);
    for kill in 0..50 {
        let before = checkpoint(&database).await;
        // The first kills come while there is much to do, the later ones at the head.
        feed(&database, kill * 200, 200).await;
        wait_for("some progress", async || {
            match checkpoint(&database).await {
                at if at > before => Ok(()),
                at => Err(at),
            }
        })
        .await;
        // The moment is random on purpose, some questions later: anything may be half done.
        for _ in 0..random.below(30) {
            checkpoint(&database).await;
        }
        gobo.kill();
        gobo.start_again();
    }
    caught_up(&database).await;
    let interrupted = rows(&database).await;

    let uninterrupted = copy_of_events(&database).await;
    let gobo = Gobo::start(uninterrupted.url(), "");
    deploy_shipped(&gobo);
    caught_up(&uninterrupted).await;
    let expected = rows(&uninterrupted).await;
    for ((model, found), (_, expected)) in interrupted.iter().zip(&expected) {
        assert!(
            found.as_array().is_some_and(|rows| !rows.is_empty()),
            "{model} is empty"
        );
        assert_eq!(found, expected, "{model} differs");
    }
}

/// When the last lease of an engine that is gone ends, by the database's clock; the distant past if it has none.
///
/// This is what bounds a take-over, whatever the machine: nobody waits for longer than a lease lasts, which is three seconds
/// by default, and then until the next look, of which there are two in a second.
async fn end_of_leases(database: &Database, gone: &Gobo) -> String {
    let sql = format!(
        "select coalesce(max(expires_at), '-infinity')::text as ends, \
                coalesce(max(expires_at) <= clock_timestamp() + interval '3 seconds', true) as soon \
           from gobo.leases where owner_name like '%:{}'",
        gone.id()
    );
    let found = database.query_json(&sql).await[0].clone();
    assert_eq!(found["soon"], true, "a lease lasts longer: {found}");
    found["ends"].as_str().unwrap().to_owned()
}

/// Fails unless an engine that is alone owns both projections, by the name that [`end_of_leases`] looks for.
async fn assert_owner(database: &Database, gobo: &Gobo) {
    let sql = format!(
        "select count(*) from gobo.leases where owner_name like '%:{}'",
        gobo.id()
    );
    assert_eq!(database.query_i64(&sql).await, 2);
}

/// Fails if it is not over by now.
async fn assert_over(database: &Database, time: &str) {
    let sql = format!("select ('{time}'::timestamptz < clock_timestamp())::int");
    assert_eq!(database.query_i64(&sql).await, 1, "taken over too early");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_engine_takes_over_when_the_lease_of_a_killed_one_ends() {
    let database = Database::create().await;
    let mut first = Gobo::start(database.url(), "");
    deploy_shipped(&first);
    feed(&database, 0, 300).await;
    caught_up(&database).await;
    assert_owner(&database, &first).await;
    let _second = Gobo::start(database.url(), "");
    first.kill();
    let ends = end_of_leases(&database, &first).await;
    feed(&database, 300, 100).await;
    caught_up(&database).await;
    assert_over(&database, &ends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_owner_is_replaced_and_commits_nothing_when_it_wakes() {
    let database = Database::create().await;
    let mut first = Gobo::start(database.url(), SMALL_BATCHES);
    deploy_shipped(&first);
    feed(&database, 0, 300).await;
    caught_up(&database).await;
    assert_owner(&database, &first).await;
    let second = Gobo::start(database.url(), SMALL_BATCHES);
    let epochs = "select sum(epoch) from gobo.checkpoints";
    let before = database.query_i64(epochs).await;
    // Frozen while it is at work: events keep coming.
    let feeding = tokio::spawn({
        let url = database.url().to_owned();
        async move { feed(&Database::at(&url), 300, 2_000).await }
    });
    wait_for(
        "the first engine to be at work",
        async || match checkpoint(&database).await {
            at if at > 320 => Ok(()),
            at => Err(at),
        },
    )
    .await;
    first.stop();
    let ends = end_of_leases(&database, &first).await;
    wait_for(
        "the second engine to own both projections",
        async || match database.query_i64(epochs).await {
            epoch if epoch >= before + 2 => Ok(()),
            epoch => Err(epoch),
        },
    )
    .await;
    assert_over(&database, &ends).await;
    feeding.await.unwrap();
    caught_up(&database).await;
    let settled = rows(&database).await;
    // The woken engine has no lease, unless the other one was stopped for so long by the machine that it lost its own.
    let taken = database.query_i64(epochs).await;
    let owners = format!(
        "select case when ({epochs}) = {taken} then (select count(distinct owner) from gobo.leases) else 1 end"
    );
    let state = "select json_agg(c order by generation)::text from (select generation, position, revision from gobo.checkpoints) c";
    let before = database.query_json(state).await;
    first.cont();
    wait_for("the woken engine to notice", async || match first.log() {
        log if log.matches("taken over").count() >= 1 || log.contains("Fenced") => Ok(()),
        log => Err(log.lines().last().map(str::to_owned)),
    })
    .await;
    assert_eq!(
        database.query_json(state).await,
        before,
        "the woken engine committed"
    );
    wait_for("the leases to be one engine's", async || {
        match database.query_i64(&owners).await {
            1 => Ok(()),
            several => Err(several),
        }
    })
    .await;
    feed(&database, 2_300, 100).await;
    caught_up(&database).await;
    assert_ne!(rows(&database).await, settled);
    let reference = copy_of_events(&database).await;
    let third = Gobo::start(reference.url(), "");
    deploy_shipped(&third);
    caught_up(&reference).await;
    assert_eq!(rows(&database).await, rows(&reference).await);
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_and_comes_back_costs_nothing_but_time() {
    let mut cluster = gobo_cluster::Cluster::start(gobo_cluster::Options::ephemeral()).unwrap();
    let database = Database::create_in(&cluster).await;
    let gobo = Gobo::start(database.url(), SMALL_BATCHES);
    deploy_shipped(&gobo);
    feed(&database, 0, 400).await;
    for round in 1..4 {
        cluster.kill().unwrap();
        wait_for("readiness to go", async || {
            match gobo.get("/health/ready").status {
                503 => Ok(()),
                status => Err(status),
            }
        })
        .await;
        assert_eq!(gobo.get("/health/live").status, 200);
        cluster.restart().unwrap();
        feed(&database, round * 400, 400).await;
        caught_up(&database).await;
        wait_for("readiness to come back", async || {
            match gobo.get("/health/ready").status {
                200 => Ok(()),
                status => Err(status),
            }
        })
        .await;
    }
    let reference = copy_of_events(&database).await;
    let other = Gobo::start(reference.url(), "");
    deploy_shipped(&other);
    caught_up(&reference).await;
    assert_eq!(rows(&database).await, rows(&reference).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_asked_to_end_gives_its_leases_back() {
    let database = Database::create().await;
    let mut gobo = Gobo::start(database.url(), "");
    deploy_shipped(&gobo);
    feed(&database, 0, 250).await;
    caught_up(&database).await;
    assert_eq!(gobo.terminate(), 0, "{}", gobo.log());
    assert_eq!(
        database
            .query_i64("select count(owner) from gobo.leases")
            .await,
        0
    );
    let log = gobo.log();
    assert!(!log.contains("ERROR"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_stops_the_projection_instead_of_skipping_events() {
    let database = Database::create().await;
    let mut gobo = Gobo::start(database.url(), "");
    deploy_shipped(&gobo);
    feed(&database, 0, 300).await;
    caught_up(&database).await;
    gobo.terminate();
    // As if the events had been restored from an older backup, and the rows not.
    database
        .execute(
            "alter table gobo.events disable trigger all; delete from gobo.events where position > 250; \
             alter table gobo.events enable trigger all; \
             select setval(pg_get_serial_sequence('gobo.events', 'position'), 250)",
        )
        .await;
    gobo.start_again();
    let status = wait_for("the projection to stop", async || {
        let status = gobo.get("/admin/projections/orders").json();
        match status["state"].as_str() {
            Some("failed" | "stopped") => Ok(status),
            _ => Err(status),
        }
    })
    .await;
    let message = status["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("checkpoint"), "{status}");
}
