//! Tokens: made, listed, revoked, and not to be guessed.

use gobo_tests::{Gobo, wait_until};
use serde_json::{Value, json};

use super::{Guarded, bearer, get, token, token_command};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_and_kept_nowhere() {
    let guarded = Guarded::new("", "").await;
    let claims = [
        "--role",
        "read",
        "--claim",
        "sub=alice",
        "--claim",
        "groups:=[\"a\"]",
        "--expires",
        "30d",
    ];
    let alice = token(&guarded.database, "alice", &claims);
    assert!(alice.starts_with("gobo_") && alice.len() > 60, "{alice}");
    // The secret may have that character, too.
    let secret = alice.splitn(3, '_').nth(2).unwrap();
    let list = |arguments: &[&str]| {
        let listed = token_command(&guarded.database, &[&["list"], arguments].concat());
        assert!(listed.status.success(), "{listed:?}");
        String::from_utf8(listed.stdout).unwrap()
    };
    let listed: Value = serde_json::from_str(&list(&["--json"])).unwrap();
    let found = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "alice")
        .unwrap();
    assert_eq!(found["roles"], json!(["read"]));
    assert_eq!(found["claims"], json!({"sub": "alice", "groups": ["a"]}));
    assert_eq!(found["state"], "in force");
    assert!(found["expires_at"].is_string());
    get(&guarded.gobo, "/read/nothing", &alice).expect(404);
    get(&guarded.gobo, "/read/nothing", &format!("{alice}x")).expect(401);
    let stored = guarded
        .database
        .query_json("select * from gobo.tokens")
        .await
        .to_string();
    for place in [list(&[]), listed.to_string(), stored, guarded.gobo.log()] {
        assert!(!place.contains(secret), "{place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_belongs_to_one_token_at_a_time() {
    let guarded = Guarded::new("", "").await;
    let again = token_command(
        &guarded.database,
        &["new", "--name", "read", "--role", "read"],
    );
    assert_eq!(again.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("there is a token called \"read\""),
        "{again:?}"
    );
    assert!(
        token_command(&guarded.database, &["revoke", "read"])
            .status
            .success()
    );
    token(&guarded.database, "read", &["--role", "read"]);
    let unknown = token_command(&guarded.database, &["revoke", "nobody"]);
    assert_eq!(unknown.status.code(), Some(1));
    for wrong in [
        &["--role", "two words"][..],
        &["--role", "read", "--expires", "soon"],
        &["--role", "read", "--claim", "a"],
    ] {
        let arguments = [&["new", "--name", "x"], wrong].concat();
        assert!(
            !token_command(&guarded.database, &arguments)
                .status
                .success(),
            "{wrong:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_revoked_or_over_is_refused_on_every_node() {
    let guarded = Guarded::new("", "").await;
    let other = Gobo::start(guarded.database.url(), "[access]\ntokens = true");
    let made = token(
        &guarded.database,
        "short",
        &["--role", "read", "--expires", "20s"],
    );
    let nodes = [&guarded.gobo, &other];
    // One that was made while they run is known to both at once.
    for node in nodes {
        wait_until("the new token to be known", || {
            match get(node, "/read/nothing", &made) {
                answer if answer.status == 404 => Ok(()),
                answer => Err(answer),
            }
        });
        get(node, "/read/nothing", &guarded.read).expect(404);
    }
    assert!(
        token_command(&guarded.database, &["revoke", "read"])
            .status
            .success()
    );
    for node in nodes {
        for token in [&guarded.read, &made] {
            let refused = wait_until("the token to be refused", || {
                match get(node, "/read/nothing", token) {
                    answer if answer.status == 401 => Ok(answer),
                    answer => Err(answer),
                }
            });
            assert_eq!(refused.json()["reason"], "token_unknown");
        }
        get(node, "/read/nothing", &guarded.admin).expect(404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_over_in_time_also_when_nobody_can_ask_the_database() {
    let guarded = Guarded::new("", "").await;
    let arguments = ["--role", "read", "--expires", "10s"];
    let short = token(&guarded.database, "short", &arguments);
    let status = || guarded.get("/read/nothing", &short).status;
    wait_until("the new token to be known", || match status() {
        404 => Ok(()),
        other => Err(other),
    });
    let client = guarded.database.connect().await;
    client
        .batch_execute("begin; lock table gobo.tokens in access exclusive mode")
        .await
        .unwrap();
    wait_until("the token to be over", || match status() {
        401 => Ok(()),
        other => Err(other),
    });
    guarded.get("/read/nothing", &guarded.read).expect(404);
    client.batch_execute("rollback").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_tokens_costs_the_database_nothing() {
    let guarded = Guarded::new("", "").await;
    let (known, secret) = guarded.read.rsplit_once('_').unwrap();
    let mut other = secret.to_owned();
    let last = other.pop().unwrap();
    other.push(if last == 'A' { 'E' } else { 'A' });
    // Nobody can read the table any more, and still everybody is answered. It is locked for one request at a time: without
    // an answer of the database for half a minute, nobody would be let in.
    let client = guarded.database.connect().await;
    let lock = "begin; lock table gobo.tokens in access exclusive mode";
    for forged in [
        format!("{known}_{other}"),
        format!("{known}_"),
        known.to_owned(),
        format!("gobo_000000000000_{secret}"),
        "gobo_".to_owned(),
        "gobo__".to_owned(),
        format!("gobo_{}", "a".repeat(8_000)),
        format!("gobo_{}", "a".repeat(9_000)),
        guarded.read.to_uppercase(),
        "eyJhbGciOiJub25lIn0.e30.".to_owned(),
    ] {
        client.batch_execute(lock).await.unwrap();
        let answer = guarded.get("/read/nothing", &forged).expect(401);
        client.batch_execute("rollback").await.unwrap();
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
        assert!(!answer.text().contains(secret), "{}", answer.text());
    }
    client.batch_execute(lock).await.unwrap();
    guarded.get("/read/nothing", &guarded.read).expect(404);
    let twice = [
        ("authorization", bearer(&guarded.read)),
        ("authorization", bearer(&guarded.read)),
    ];
    let twice = twice
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    guarded
        .gobo
        .request("GET", "/read/nothing", &twice, b"")
        .expect(401);
    client.batch_execute("rollback").await.unwrap();
    assert!(!guarded.gobo.log().contains(secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_carry_a_token_and_say_when_they_need_one() {
    let guarded = Guarded::new("", "").await;
    let refused = guarded.gobo.command(&["status"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("GOBO_TOKEN") && said.contains("--token"),
        "{said}"
    );
    let done = guarded.gobo.command(&["status", "--token", &guarded.admin]);
    assert!(done.status.success(), "{done:?}");
    let appended = ["append", "s", "Happened", "{}", "--token", &guarded.append];
    assert!(guarded.gobo.command(&appended).status.success());
    assert!(
        !guarded
            .gobo
            .command(&["append", "s", "Happened", "{}", "--token", &guarded.read])
            .status
            .success()
    );
    let help = guarded.gobo.command(&["status", "--help"]);
    assert!(
        !String::from_utf8_lossy(&help.stdout).contains("gobo_"),
        "{help:?}"
    );
}
