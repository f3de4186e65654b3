//! `rediss://`: certificates are verified, against the system's roots or those that `SSL_CERT_FILE` names.

use gobo_tests::{Database, Gobo, RedisServer, wait_until};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use redis::Commands;
use serde_json::json;

use super::expect_readiness;

/// A Redis that speaks TLS under a name, and the certificate of who has vouched for it.
fn server(name: &str) -> (RedisServer, String) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &issuer).unwrap();
    gobo_cluster::install_redis().expect("Redis for the tests");
    let server = RedisServer::start_with_tls(&certificate.pem(), &key.serialize_pem());
    (server.unwrap(), root)
}

fn section(server: &RedisServer) -> String {
    let port = server.tls_port().unwrap();
    format!("[redis]\nurl = \"rediss://localhost:{port}\"\ntimeout_ms = 1000\n")
}

#[tokio::test]
async fn answers_and_feeds_go_to_a_redis_with_tls_that_the_engine_is_told_to_trust() {
    let (server, root) = server("localhost");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("root.pem");
    std::fs::write(&file, root).unwrap();
    let database = Database::create().await;
    let feed = "[read_models.accounts]\nfeed = \"redis\"\n[cache]\nbytes = 0\n";
    let gobo = Gobo::start_in(
        database.url(),
        &format!("{}{feed}", section(&server)),
        &[("SSL_CERT_FILE", file.as_os_str())],
    );
    expect_readiness(&gobo, "ready", "ok");
    gobo.deploy("ledger").expect(201);
    let body = json!({ "events": [{ "type": "Booked", "data": { "amount": 5 } }] });
    gobo.post("/streams/a/events?wait_for=ledger&wait=30s", &body)
        .expect(200);
    // What is there is seen over the socket, which knows nothing of TLS.
    let client = redis::Client::open(server.url()).unwrap();
    let mut plain = client.get_connection().unwrap();
    wait_until("an answer and a change in Redis", || {
        gobo.get("/read/accounts").expect(200);
        let pages: Vec<String> = plain.keys("gobo:page:*").unwrap();
        let streams: Vec<String> = plain.keys("gobo:feed:accounts:*").unwrap();
        match pages.is_empty() || streams.is_empty() {
            true => Err((pages, streams)),
            false => Ok(()),
        }
    });
}

#[tokio::test]
async fn a_redis_whose_certificate_nobody_vouches_for_is_not_used() {
    let (server, _) = server("localhost");
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), &section(&server));
    expect_refused(&gobo, "UnknownIssuer");
}

#[tokio::test]
async fn a_redis_whose_certificate_is_for_another_host_is_not_used() {
    let (server, root) = server("redis.example.org");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("root.pem");
    std::fs::write(&file, root).unwrap();
    let database = Database::create().await;
    let trusted = [("SSL_CERT_FILE", file.as_os_str())];
    let gobo = Gobo::start_in(database.url(), &section(&server), &trusted);
    expect_refused(&gobo, "not valid for name");
}

/// Redis is not used, for this reason, and nothing is sent to it.
#[track_caller]
fn expect_refused(gobo: &Gobo, why: &str) {
    let seen = expect_readiness(gobo, "degraded", "degraded");
    let detail = wait_until("the reason", || {
        let seen = gobo.get("/health/ready").expect(200).json();
        let detail = seen["components"]["redis"]["detail"].to_string();
        match detail.contains("reached:") {
            true => Ok(detail),
            false => Err(seen),
        }
    });
    assert!(detail.contains(why), "{detail} {seen}");
}
