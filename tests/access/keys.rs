//! The keys of JWTs while the engine runs: which are tried, when they go, and what a JWT may make of somebody.

use gobo_tests::{Database, Gobo, wait_until};
use serde_json::{Value, json};

use super::jwt::{check, claims, engine, header, jwks};
use super::{Signed, get, jwt_of, now, token};

/// A JWT signed with the P-256 key that is called so.
fn by(kid: &str) -> String {
    let header = json!({"alg": "ES256", "kid": kid});
    jwt_of(&header, &claims(json!({})), Signed::Es256)
}

fn status(gobo: &Gobo, jwt: &str) -> u16 {
    get(gobo, "/read/nothing", jwt).status
}

fn refused_at_last(gobo: &Gobo, jwt: &str, reason: &str) {
    wait_until("the JWT to be refused", || match status(gobo, jwt) {
        401 => Ok(()),
        other => Err(other),
    });
    check(gobo, jwt, Some(reason));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_that_has_counted_counts_no_longer_than_its_key_and_its_time() {
    let (gobo, files) = engine("jwks_file = \"FILES/jwks.json\"").await;
    let (one, new) = (by("one"), by("new"));
    for _ in 0..3 {
        check(&gobo, &one, None);
        check(&gobo, &new, Some("jwt_invalid"));
    }
    let short = wait_until("a JWT that has counted twice", || {
        // With the leeway of 30 seconds there are two left, which a machine that is very busy may need for less than this.
        let short = claims(json!({"exp": now() - 28}));
        let short = jwt_of(&header("ES256"), &short, Signed::Es256);
        match [status(&gobo, &short), status(&gobo, &short)] {
            [404, 404] => Ok(short),
            seen => Err(seen),
        }
    });
    refused_at_last(&gobo, &short, "jwt_expired");
    std::fs::write(files.path().join("jwks.json"), jwks(&["new"])).unwrap();
    refused_at_last(&gobo, &one, "jwt_invalid");
    check(&gobo, &new, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_key_file_is_gone_its_keys_count_and_the_engine_says_that_it_is_degraded() {
    let (gobo, files) = engine("jwks_file = \"FILES/jwks.json\"").await;
    let file = files.path().join("jwks.json");
    let ready = || gobo.get("/health/ready").expect(200).json();
    let wait_for = |expected: &str| {
        wait_until(expected, || match ready() {
            said if said["status"] == expected => Ok(said),
            said => Err(said),
        })
    };
    let said = wait_for("ready");
    assert_eq!(said["components"]["jwt_keys"], json!({"status": "ok"}));
    check(&gobo, &by("one"), None);
    let content = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let said = wait_for("degraded");
    // Why is an administrator's business.
    assert_eq!(
        said["components"]["jwt_keys"],
        json!({"status": "degraded"})
    );
    assert!(
        gobo.log().contains("the former ones go on counting"),
        "{}",
        gobo.log()
    );
    check(&gobo, &by("one"), None);
    std::fs::write(&file, content).unwrap();
    wait_for("ready");
    check(&gobo, &by("one"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_key_set_takes_all_keys_away() {
    let (gobo, files) = engine("jwks_file = \"FILES/jwks.json\"").await;
    let one = by("one");
    check(&gobo, &one, None);
    std::fs::write(files.path().join("jwks.json"), "{\"keys\": []}").unwrap();
    refused_at_last(&gobo, &one, "jwt_invalid");
    assert_eq!(
        gobo.get("/health/ready").expect(200).json()["status"],
        "ready"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_is_tried_with_few_keys_however_many_there_are() {
    let (gobo, files) = engine("jwks_file = \"FILES/jwks.json\"").await;
    let nameless = jwt_of(&header("ES256"), &claims(json!({})), Signed::Es256);
    check(&gobo, &nameless, None);
    let names: Vec<String> = (0..50).map(|n| format!("key {n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    std::fs::write(files.path().join("jwks.json"), jwks(&names)).unwrap();
    refused_at_last(&gobo, &nameless, "jwt_invalid");
    check(&gobo, &by("key 49"), None);
    // Nor may one name stand for many.
    let same = files.path().join("same.json");
    std::fs::write(&same, jwks(&["same"; 10])).unwrap();
    let database = Database::create().await;
    let tables = format!("[access.jwt]\njwks_file = {same:?}");
    let refused = Gobo::try_start(database.url(), &tables).unwrap_err();
    assert!(
        refused.log.contains("with the kid \"same\""),
        "{}",
        refused.log
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_makes_an_administrator_only_for_the_audience_that_is_configured() {
    let may = |gobo: &Gobo, claims: Value| {
        let jwt = jwt_of(&header("ES256"), &claims, Signed::Es256);
        ["/read/nothing", "/events"].map(|path| get(gobo, path, &jwt).status)
    };
    let (gobo, _files) = engine("jwks_file = \"FILES/jwks.json\"").await;
    let roles = json!({"roles": ["read", "admin"]});
    assert_eq!(may(&gobo, claims(roles.clone())), [404, 403]);
    assert!(gobo.log().contains("access.jwt.audience"), "{}", gobo.log());
    let (gobo, _files) = engine("jwks_file = \"FILES/jwks.json\"\naudience = \"gobo\"").await;
    assert_eq!(may(&gobo, claims(roles.clone())), [401, 401]);
    let ours = json!({"roles": ["read", "admin"], "aud": "gobo"});
    assert_eq!(may(&gobo, claims(ours)), [404, 200]);

    let database = Database::create().await;
    let admin = token(&database, "admin", &["--role", "admin"]);
    assert!(admin.starts_with("gobo_"));
    let tables = "[access.jwt]\nsecret = \"a secret of thirty-two bytes or more\"\ndefault_roles = [\"admin\"]";
    let refused = Gobo::try_start(database.url(), tables).unwrap_err();
    assert!(
        refused.log.contains("access.jwt.default_roles"),
        "{}",
        refused.log
    );
}
