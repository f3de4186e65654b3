//! Who follows sees no more than who reads: row rules, tokens that end, and what one reader may take of what there is.

use gobo_tests::{Database, Gobo, wait_until, wasm_bytes};
use serde_json::{Value, json};

use super::follow::{Event, Stream};
use crate::access::{get, jwt_for, now, token, token_command};
use crate::scene::{append, raw};

const RULE: &str = "[access]\ntokens = true\n[access.jwt]\nsecret = \"a secret of thirty-two bytes or more\"\naudience = \"gobo\"\nleeway_seconds = 0\n\
    [read_models.raw]\nrows = \"c_text = claim.sub\"\n";

struct Shop {
    database: Database,
    gobo: Gobo,
    admin: String,
}

impl Shop {
    async fn new(tables: &str) -> Self {
        let database = Database::create().await;
        let admin = token(&database, "admin", &["--role", "admin"]);
        let gobo = Gobo::start(database.url(), &format!("{RULE}{tables}"));
        let bearer = format!("Bearer {admin}");
        let headers = [
            ("content-type", "application/wasm"),
            ("authorization", bearer.as_str()),
        ];
        gobo.request(
            "POST",
            "/admin/projections",
            &headers,
            &wasm_bytes("raw-guest"),
        )
        .expect(201);
        Self {
            database,
            gobo,
            admin,
        }
    }

    /// Changes rows in one commit, and waits until they are there.
    async fn change(&self, changes: &[Value]) -> i64 {
        let events: Vec<_> = changes.iter().map(|data| raw("s", data.clone())).collect();
        let last = *append(&self.database, &events).await.last().unwrap();
        let bearer = format!("Bearer {}", self.admin);
        let path = format!("/read/raw?limit=0&min_position={last}&wait=30s");
        self.gobo
            .request("GET", &path, &[("authorization", &bearer)], b"")
            .expect(200);
        last
    }

    fn open(&self, path: &str, id: &str, token: &str) -> Stream {
        Stream::open_as(self.gobo.url(), path, id, token)
    }
}

fn own(id: &str, owner: &str, n: i64) -> Value {
    json!({"do": "put", "id": id, "text": owner, "n": n})
}

fn delete(id: &str) -> Value {
    json!({"do": "delete", "id": id})
}

fn reader(name: &str) -> String {
    jwt_for(json!({"role": "read", "sub": name}))
}

fn upsert(id: &str, n: i64) -> Value {
    json!({"op": "upsert", "key": [id], "row": {"id": id, "c_int8": n, "c_text": "alice"}})
}

fn gone(id: &str) -> Value {
    json!({"op": "delete", "key": [id]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_hides_from_who_follows_what_it_hides_from_who_reads() {
    let shop = Shop::new("").await;
    shop.change(&[own("a", "alice", 1), own("b", "bob", 1)])
        .await;
    let columns = "select=id,c_int8,c_text";
    let all = format!("/read/raw?{columns}");
    // Judged by the engine, by PostgreSQL, and around the rule.
    let paths = [
        all.clone(),
        format!("/read/raw?{columns}&id=like.*"),
        format!("/read/raw?{columns}&or=(c_text.eq.bob,c_text.eq.alice)"),
        format!("/read/raw?{columns}&or=(c_text.like.b*,c_text.like.a*)"),
    ];
    let alice = reader("alice");
    let mut streams: Vec<Stream> = (paths.iter())
        .map(|path| shop.open(path, "", &alice))
        .collect();
    let mut one = shop.open(&format!("/read/raw/b?{columns}"), "", &alice);
    assert_eq!(one.next().unwrap().data["rows"], json!([]));
    for stream in &mut streams {
        let rows = &stream.next().unwrap().data["rows"];
        assert_eq!(rows, &json!([{"id": "a", "c_int8": 1, "c_text": "alice"}]));
    }
    let mut admin = shop.open(&all, "", &shop.admin);
    assert_eq!(
        admin.next().unwrap().data["rows"].as_array().unwrap().len(),
        2
    );
    let everybody = admin.id.clone();
    let mut told = Vec::new();
    for (changes, expected) in [
        // Another's row: is made, is changed, goes.
        (vec![own("c", "bob", 1), own("b", "bob", 2)], vec![]),
        (
            vec![own("a", "alice", 2), own("b", "bob", 3)],
            vec![upsert("a", 2)],
        ),
        (vec![delete("c")], vec![]),
        // Becomes hers; is no more.
        (vec![own("b", "alice", 4)], vec![upsert("b", 4)]),
        (
            vec![own("b", "bob", 5), own("d", "alice", 1)],
            vec![gone("b"), upsert("d", 1)],
        ),
        (vec![own("b", "bob", 6)], vec![]),
        (
            vec![delete("b"), own("a", "alice", 3)],
            vec![upsert("a", 3)],
        ),
        (vec![own("a", "bob", 4)], vec![gone("a")]),
    ] {
        let position = shop.change(&changes).await;
        if !expected.is_empty() {
            told.push((position, expected));
        }
    }
    let check = |stream: &mut Stream, path: &str| {
        for (position, expected) in &told {
            let event = stream.next().unwrap();
            assert_eq!(event.kind, "changes", "{path}");
            assert_eq!(event.data["position"], *position, "{path}");
            let mut changes = event.data["changes"].as_array().unwrap().clone();
            changes.sort_by_key(|change| change["key"].to_string());
            assert_eq!(&changes, expected, "{path}");
        }
    };
    for (stream, path) in streams.iter_mut().zip(&paths) {
        check(stream, path);
        // From an id on that somebody has had who sees everything.
        check(&mut shop.open(path, &everybody, &alice), path);
    }
    let keys: Vec<Value> = (0..2)
        .map(|_| one.next().unwrap().data["changes"].clone())
        .collect();
    assert_eq!(keys, [json!([upsert("b", 4)]), json!([gone("b")])]);
    // Who has no claim sees nothing, and who may not read it finds nothing to follow.
    let nobody = jwt_for(json!({"role": "read"}));
    let mut stream = shop.open(&all, &everybody, &nobody);
    shop.change(&[own("e", "alice", 1)]).await;
    let other = jwt_for(json!({"role": "append", "sub": "alice"}));
    assert!([403, 404].contains(&shop.open(&all, "", &other).status));
    shop.change(&[own("f", "", 1)]).await;
    drop(shop);
    let left: Vec<Event> = std::iter::from_fn(|| stream.next()).collect();
    assert_eq!(left, [], "until the end of the engine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_token_that_it_was_asked_for_with_and_says_so() {
    let shop = Shop::new("").await;
    shop.change(&[own("a", "alice", 1)]).await;
    let path = "/read/raw?select=id,c_int8,c_text";
    let claim = ["--role", "read", "--claim", "sub=alice"];
    let revoked = token(&shop.database, "alice", &claim);
    wait_until("the new token to be known", || {
        match get(&shop.gobo, "/read/raw", &revoked) {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer),
        }
    });
    let short = jwt_for(json!({"role": "read", "sub": "alice", "exp": now() + 10}));
    let mut streams = [&short, &revoked].map(|token| shop.open(path, "", token));
    for stream in &mut streams {
        assert_eq!(stream.next().unwrap().kind, "rows");
    }
    let command = token_command(&shop.database, &["revoke", "alice"]);
    assert!(command.status.success(), "{command:?}");
    for (stream, token) in streams.iter_mut().zip([&short, &revoked]) {
        let before = stream.id.clone();
        let end = stream.next().unwrap();
        assert_eq!(end.reason(), ("dropped", "access_ended"));
        assert!(stream.next().is_none());
        assert_eq!(stream.id, before);
        let back = || shop.open(path, &before, token).status;
        wait_until("the token to be refused", || match back() {
            401 => Ok(()),
            other => Err(other),
        });
    }
    // With another token it goes on where it was.
    shop.change(&[own("b", "alice", 1)]).await;
    let mut back = shop.open(path, &streams[0].id, &reader("alice"));
    assert_eq!(
        back.next().unwrap().data["changes"],
        json!([upsert("b", 1)])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_reader_leaves_places_to_others() {
    let shop = Shop::new("[live]\nmax_subscribers = 5\nmax_subscribers_each = 2\n").await;
    shop.change(&[own("a", "alice", 1)]).await;
    let path = "/read/raw?live=changes";
    let (alice, bob) = (reader("alice"), reader("bob"));
    let mut hers: Vec<Stream> = (0..2).map(|_| shop.open(path, "", &alice)).collect();
    assert!(hers.iter().all(|stream| stream.status == 200));
    let refused = shop.open(path, "", &alice);
    assert_eq!(refused.status, 429);
    let body = refused.rest();
    assert!(body.contains("live.max_subscribers_each"), "{body}");
    // The same person with another token.
    let again = jwt_for(json!({"role": "read", "sub": "alice", "jti": "other"}));
    assert_eq!(
        shop.open("/read/raw?live=poll&wait=0s", "", &again).status,
        429
    );
    let his = shop.open(path, "", &bob);
    assert_eq!(his.status, 200);
    // Administrators are bound by what there is alone.
    let admins: Vec<Stream> = (0..3).map(|_| shop.open(path, "", &shop.admin)).collect();
    let statuses: Vec<u16> = admins.iter().map(|stream| stream.status).collect();
    assert_eq!(statuses, [200, 200, 503]);
    hers.pop();
    wait_until("a place", || match shop.open(path, "", &alice).status {
        200 => Ok(()),
        other => Err(other),
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_on_a_changed_row_is_told_to_the_log_alone() {
    let shop = Shop::new("").await;
    shop.change(&[own("a", "17", 1)]).await;
    let path = "/read/raw?select=id,n:c_text::int8";
    let mut stream = shop.open(path, "", &shop.admin);
    assert_eq!(
        stream.next().unwrap().data["rows"],
        json!([{"id": "a", "n": 17}])
    );
    let before = stream.id.clone();
    shop.change(&[own("b", "hidden words", 1)]).await;
    // As it comes, and by somebody who was away.
    for mut stream in [stream, shop.open(path, &before, &shop.admin)] {
        let end = stream.next().unwrap();
        assert_eq!(end.reason(), ("refetch", "failed"));
        assert!(!end.data.to_string().contains("hidden"), "{}", end.data);
        assert!(stream.next().is_none());
    }
    assert!(shop.gobo.log().contains("hidden words"));
}
