//! Keys out of a set: one of each kind, and what is passed over.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gobo_tests::{Database, Gobo};
use ring::rsa::PublicKeyComponents;
use ring::signature::RsaKeyPair;
use serde_json::{Value, json};

use super::jwt::{check, claims, jwks};
use super::{SECRET, Signed, jwt_of};

const HS: Signed<'static> = Signed::Hs256(SECRET.as_bytes());
const REFUSED: Option<&str> = Some("jwt_invalid");

fn rsa() -> PublicKeyComponents<Vec<u8>> {
    let pair = RsaKeyPair::from_pkcs8(include_bytes!("keys/rsa.p8")).unwrap();
    pair.public().into()
}

/// A key with these members besides its own.
fn with(mut key: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        key[name] = value.clone();
    }
    key
}

fn rsa_key(more: Value) -> Value {
    let PublicKeyComponents { n, e } = rsa();
    let [n, e] = [n, e].map(|number| URL_SAFE_NO_PAD.encode(number));
    with(json!({"kty": "RSA", "n": n, "e": e}), more)
}

fn shared(secret: &str, more: Value) -> Value {
    let k = URL_SAFE_NO_PAD.encode(secret);
    with(json!({"kty": "oct", "k": k}), more)
}

/// The P-256 key, called "ec", and these.
fn set(more: Vec<Value>) -> String {
    let mut set: Value = serde_json::from_str(&jwks(&["ec"])).unwrap();
    set["keys"].as_array_mut().unwrap().extend(more);
    set.to_string()
}

/// What an engine with this key set says to a JWT with this `alg` and `kid`.
struct Checked {
    gobo: Gobo,
    _folder: tempfile::TempDir,
}

impl Checked {
    async fn new(set: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jwks.json");
        std::fs::write(&file, set).unwrap();
        let access =
            format!("[access]\nrefused_per_minute = 0\n[access.jwt]\njwks_file = {file:?}");
        Self {
            gobo: Gobo::start(Database::create().await.url(), &access),
            _folder: folder,
        }
    }

    #[track_caller]
    fn check(&self, kid: Option<&str>, signed: Signed<'_>, refused: Option<&str>) {
        let alg = match signed {
            Signed::Hs256(_) => "HS256",
            Signed::Rs256 => "RS256",
            Signed::Es256 | Signed::Not => "ES256",
        };
        let header = match kid {
            Some(kid) => json!({"alg": alg, "kid": kid}),
            None => json!({ "alg": alg }),
        };
        let jwt = jwt_of(&header, &claims(json!({})), signed);
        check(&self.gobo, &jwt, refused);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_set_counts_with_the_algorithm_of_its_kind_and_under_its_own_name() {
    let engine = Checked::new(&set(vec![
        rsa_key(json!({"kid": "rsa", "alg": "RS256", "use": "sig"})),
        shared(SECRET, json!({"kid": "shared"})),
    ]))
    .await;
    let all = [
        ("ec", Signed::Es256),
        ("rsa", Signed::Rs256),
        ("shared", HS),
    ];
    for (name, signed) in all {
        engine.check(Some(name), signed, None);
        engine.check(None, signed, None);
        engine.check(Some("nobody"), signed, REFUSED);
        for (other, _) in all.iter().filter(|(other, _)| *other != name) {
            engine.check(Some(other), signed, REFUSED);
        }
    }
    // What everybody knows of the RSA key, used as a secret.
    let PublicKeyComponents { n, e } = rsa();
    for public in [&n, &e, URL_SAFE_NO_PAD.encode(&n).as_bytes()] {
        for kid in [None, Some("rsa"), Some("shared")] {
            engine.check(kid, Signed::Hs256(public), REFUSED);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_set_that_are_for_something_else_or_too_weak_are_passed_over() {
    let engine = Checked::new(&set(vec![
        rsa_key(json!({"kid": "enc", "use": "enc"})),
        rsa_key(json!({"kid": "other", "alg": "RS512"})),
        shared("too short", json!({"kid": "short"})),
        shared(SECRET, json!({"kid": "larger", "alg": "HS512"})),
    ]))
    .await;
    engine.check(None, Signed::Es256, None);
    for kid in [None, Some("enc"), Some("other")] {
        engine.check(kid, Signed::Rs256, REFUSED);
    }
    for kid in [None, Some("short"), Some("larger")] {
        engine.check(kid, HS, REFUSED);
        engine.check(kid, Signed::Hs256(b"too short"), REFUSED);
    }
}
