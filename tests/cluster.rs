//! The private PostgreSQL cluster.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use gobo_tests::{Cluster, Database, Options, connect, wait_until};

/// Set in the process that the test of the owner's death starts and kills.
const OWNER: &str = "GOBO_TEST_OWNS_A_CLUSTER";

#[tokio::test]
async fn a_cluster_is_utf8_private_and_speaks_only_on_its_socket() {
    let database = Database::create().await;
    let settings = "SELECT current_setting('server_encoding') AS encoding, current_setting('listen_addresses') AS tcp, \
                    current_setting('max_prepared_transactions') AS prepared, current_setting('TimeZone') AS zone";
    let found = database.query_json(settings).await;
    assert_eq!(
        found,
        serde_json::json!([{"encoding": "UTF8", "tcp": "", "prepared": "10", "zone": "UTC"}])
    );
    let socket = std::fs::metadata(gobo_tests::shared_cluster().socket()).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_durable_cluster_keeps_its_data_and_survives_a_stale_lock_file() {
    let folder = open_folder();
    let data = folder.path().join("postgres");
    let cluster = Cluster::start(Options::durable(&data)).unwrap();
    assert_eq!(cluster.instead_of(), None);
    let client = connect(&cluster.url("gobo")).await;
    client
        .batch_execute("CREATE TABLE kept AS SELECT 42 AS answer")
        .await
        .unwrap();
    let fsync: String = client.query_one("SHOW fsync", &[]).await.unwrap().get(0);
    assert_eq!(fsync, "on");
    drop(cluster);

    // The lock of a server that was killed, whose process id belongs to another process by now.
    let lock = format!(
        "{}\n{}\n1700000000\n7170\n/tmp\n\n12345 0\nready\n",
        std::process::id(),
        data.display()
    );
    std::fs::write(data.join("postmaster.pid"), lock).unwrap();
    let cluster = Cluster::start(Options::durable(&data)).unwrap();
    let client = connect(&cluster.url("gobo")).await;
    let answer: i32 = client
        .query_one("SELECT answer FROM kept", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(answer, 42);
}

#[tokio::test]
async fn a_folder_that_the_server_cannot_enter_is_replaced_by_one_that_it_can() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let wanted = folder.path().join("postgres");
    for run in 1..=2_i64 {
        let cluster = Cluster::start(Options::durable(&wanted)).unwrap();
        // Without root's privileges the server runs as the folder's owner and needs no other place.
        let moved = cluster.instead_of().is_some();
        assert_eq!(moved, !cluster.data().starts_with(folder.path()));
        assert!(cluster.instead_of().is_none_or(|path| path == wanted));
        let client = connect(&cluster.url("gobo")).await;
        client
            .batch_execute("CREATE TABLE IF NOT EXISTS runs (id int); INSERT INTO runs VALUES (1)")
            .await
            .unwrap();
        let runs: i64 = client
            .query_one("SELECT count(*) FROM runs", &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(runs, run, "the data of the first run is found again");
    }
    gobo_cluster::remove_data(&wanted).unwrap();
}

#[tokio::test]
async fn a_killed_server_recovers_what_it_had_committed() {
    let mut cluster = Cluster::start(Options::ephemeral()).unwrap();
    let client = connect(&cluster.url("gobo")).await;
    client
        .batch_execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS id")
        .await
        .unwrap();
    cluster.kill().unwrap();
    assert!(client.simple_query("SELECT 1").await.is_err());
    cluster.restart().unwrap();
    let client = connect(&cluster.url("gobo")).await;
    let count: i64 = client
        .query_one("SELECT count(*) FROM kept", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(count, 1000);
}

#[tokio::test]
async fn a_paused_server_answers_when_it_is_resumed() {
    let cluster = Cluster::start(Options::ephemeral()).unwrap();
    let client = connect(&cluster.url("gobo")).await;
    client.simple_query("SELECT 1").await.unwrap();
    cluster.pause().unwrap();
    let mut answer = Box::pin(client.simple_query("SELECT 1"));
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), &mut answer).await;
    assert!(early.is_err(), "a paused server does not answer");
    cluster.resume().unwrap();
    answer.await.unwrap();
}

#[test]
fn a_data_folder_in_use_is_reported_with_the_process_that_uses_it() {
    let folder = open_folder();
    let data = folder.path().join("postgres");
    let _first = Cluster::start(Options::durable(&data)).unwrap();
    let error = format!("{:#}", Cluster::start(Options::durable(&data)).unwrap_err());
    assert!(
        error.contains("in use by another run") && error.contains("kill -INT"),
        "{error}"
    );
    let error = format!("{:#}", gobo_cluster::remove_data(&data).unwrap_err());
    assert!(error.contains("in use by another run"), "{error}");
}

#[test]
fn two_first_runs_at_the_same_time_do_not_harm_each_other() {
    let folder = open_folder();
    let data = folder.path().join("postgres");
    let starts = [(); 2].map(|()| {
        let data = data.clone();
        std::thread::spawn(move || Cluster::start(Options::durable(data)))
    });
    let results = starts.map(|start| start.join().unwrap());
    let running = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(running, 1, "{results:?}");
    let refused = results.iter().find_map(|result| result.as_ref().err());
    let text = format!("{:#}", refused.unwrap());
    assert!(text.contains("in use by another run"), "{text}");
}

#[test]
fn a_setting_that_postgresql_refuses_is_shown_from_its_log() {
    let error = Cluster::start(Options::ephemeral().with("no_such_setting", "1")).unwrap_err();
    assert!(
        format!("{error:#}").contains("no_such_setting"),
        "{error:#}"
    );
}

#[test]
fn files_that_are_no_cluster_are_left_alone() {
    let folder = open_folder();
    let data = folder.path().join("postgres");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("letter.txt"), "do not lose me").unwrap();
    let error = format!("{:#}", Cluster::start(Options::durable(&data)).unwrap_err());
    assert!(
        error.contains("holds files but no PostgreSQL cluster"),
        "{error}"
    );
    assert!(data.join("letter.txt").exists());
}

#[test]
fn a_cluster_ends_when_its_owner_is_killed() {
    if std::env::var_os(OWNER).is_some() {
        let cluster = Cluster::start(Options::ephemeral()).unwrap();
        let lock = std::fs::read_to_string(cluster.data().join("postmaster.pid")).unwrap();
        println!(
            "\nowned {} {}",
            lock.lines().next().unwrap(),
            cluster.socket().display()
        );
        loop {
            std::thread::park();
        }
    }
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "cluster::a_cluster_ends_when_its_owner_is_killed",
        ])
        .env(OWNER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let line = lines
        .find(|line| line.starts_with("owned "))
        .expect("the other process starts a cluster");
    let words: Vec<&str> = line.split(' ').collect();
    let (server, folder) = (words[1], PathBuf::from(words[2]));
    assert!(is_running(server) && folder.exists());

    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until("the server to end after its owner", || {
        if is_running(server) {
            Err(server)
        } else {
            Ok(())
        }
    });
    wait_until("its folder to be removed", || {
        if folder.exists() {
            Err(&folder)
        } else {
            Ok(())
        }
    });
}

/// A folder that an unprivileged server may enter.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

fn is_running(process: &str) -> bool {
    let listed = Command::new("ps")
        .args(["-o", "stat=", "-p", process])
        .output()
        .unwrap();
    let state = String::from_utf8_lossy(&listed.stdout);
    !state.trim().is_empty() && !state.starts_with('Z')
}
