//! JSON Web Tokens: which count, and how one might try to make one that does not.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gobo_tests::{Database, Gobo, wait_until};
use serde_json::{Value, json};

use super::{SECRET, Signed, get, jwt_of, now};

const RSA: &str = include_str!("keys/rsa.pub.pem");
const EC: &str = include_str!("keys/ec.pub.pem");
const NONE: Signed<'static> = Signed::Not;
const HS: Signed<'static> = Signed::Hs256(SECRET.as_bytes());

/// An engine with these keys of JWTs; files are in its own folder.
pub(super) async fn engine(keys: &str) -> (Gobo, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("rsa.pem", RSA),
        ("ec.pem", EC),
        ("secret", &format!("{SECRET}\n")),
        ("jwks.json", &jwks(&["one"])),
    ] {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let database = Database::create().await;
    let keys = keys.replace("FILES", folder.path().to_str().unwrap());
    (
        // These tests fail more often than guessing is allowed.
        Gobo::start(
            database.url(),
            &format!("[access]\nrefused_per_minute = 0\n[access.jwt]\n{keys}"),
        ),
        folder,
    )
}

/// The public P-256 key as a key set, once under each name.
pub(super) fn jwks(names: &[&str]) -> String {
    // The last 64 bytes of the DER are the point.
    let der: String = EC
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(der)
        .unwrap();
    let (x, y) = der[der.len() - 64..].split_at(32);
    let keys: Vec<Value> = names
        .iter()
        .map(|name| {
            json!({
                "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": name,
                "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
            })
        })
        // Sets hold other keys, too.
        .chain([
            json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}),
            json!({"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"}),
        ])
        .collect();
    json!({ "keys": keys }).to_string()
}

pub(super) fn claims(more: Value) -> Value {
    let mut claims = json!({"sub": "alice", "role": "read", "exp": now() + 3_600});
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

pub(super) fn header(alg: &str) -> Value {
    json!({"alg": alg, "typ": "JWT"})
}

/// Asks for a read model that does not exist: 404 for whoever is let in, else why not.
#[track_caller]
pub(super) fn check(gobo: &Gobo, jwt: &str, refused: Option<&str>) {
    let answer = get(gobo, "/read/nothing", jwt);
    match refused {
        None => assert_eq!(answer.status, 404, "{}", answer.text()),
        Some(reason) => {
            assert_eq!(answer.status, 401, "{}", answer.text());
            assert_eq!(answer.json()["reason"], reason, "{jwt}: {}", answer.text());
            assert!(
                answer
                    .header("www-authenticate")
                    .unwrap()
                    .contains("invalid_token")
            );
            for secret in [SECRET, jwt.rsplit('.').next().unwrap()] {
                assert!(
                    secret.is_empty() || !answer.text().contains(secret),
                    "{}",
                    answer.text()
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_algorithm_counts_with_its_key() {
    let all = "secret_file = \"FILES/secret\"\npublic_key_file = \"FILES/rsa.pem\"\njwks_file = \"FILES/jwks.json\"";
    let (gobo, _files) = engine(all).await;
    for (alg, signed) in [
        ("HS256", HS),
        ("RS256", Signed::Rs256),
        ("ES256", Signed::Es256),
    ] {
        check(
            &gobo,
            &jwt_of(&header(alg), &claims(json!({})), signed),
            None,
        );
    }
    let (gobo, _files) = engine("public_key_file = \"FILES/ec.pem\"").await;
    check(
        &gobo,
        &jwt_of(&header("ES256"), &claims(json!({})), Signed::Es256),
        None,
    );
    check(
        &gobo,
        &jwt_of(&header("RS256"), &claims(json!({})), Signed::Rs256),
        Some("jwt_invalid"),
    );
    check(
        &gobo,
        &jwt_of(&header("HS256"), &claims(json!({})), HS),
        Some("jwt_invalid"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_never_used_with_another_algorithm() {
    for keys in [
        "public_key_file = \"FILES/rsa.pem\"",
        "public_key_file = \"FILES/ec.pem\"",
        "public_key_file = \"FILES/rsa.pem\"\nsecret_file = \"FILES/secret\"\njwks_file = \"FILES/jwks.json\"",
    ] {
        let (gobo, _files) = engine(keys).await;
        let good = claims(json!({}));
        // Everything that everybody knows, used as a secret.
        let der: String = RSA
            .lines()
            .filter(|line| !line.starts_with("-----"))
            .collect();
        let der = base64::engine::general_purpose::STANDARD
            .decode(der)
            .unwrap();
        for public in [
            RSA.as_bytes(),
            RSA.trim_end().as_bytes(),
            EC.as_bytes(),
            EC.trim_end().as_bytes(),
            &der,
            &der[24..],
            b"",
            b"null",
        ] {
            check(
                &gobo,
                &jwt_of(&header("HS256"), &good, Signed::Hs256(public)),
                Some("jwt_invalid"),
            );
        }
        for alg in [
            "none", "None", "NONE", "nOnE", "", "HS256 ", "hs256", "RS256\0", "HS384", "PS256",
            "EdDSA",
        ] {
            check(
                &gobo,
                &jwt_of(&header(alg), &good, NONE),
                Some("jwt_invalid"),
            );
            check(
                &gobo,
                &jwt_of(&header(alg), &good, Signed::Rs256),
                Some("jwt_invalid"),
            );
        }
        for alg in [
            json!(null),
            json!(["HS256"]),
            json!({"alg": "HS256"}),
            json!(0),
        ] {
            check(
                &gobo,
                &jwt_of(&json!({"alg": alg}), &good, NONE),
                Some("jwt_invalid"),
            );
        }
        for alg in ["HS256", "RS256", "ES256"] {
            check(
                &gobo,
                &jwt_of(&header(alg), &good, NONE),
                Some("jwt_invalid"),
            );
            // r and s that are zero pass broken verifiers of ECDSA.
            let zero = format!(
                "{}{}",
                jwt_of(&header(alg), &good, NONE),
                URL_SAFE_NO_PAD.encode([0; 64])
            );
            check(&gobo, &zero, Some("jwt_invalid"));
        }
        check(
            &gobo,
            &jwt_of(&header("RS256"), &good, Signed::Es256),
            Some("jwt_invalid"),
        );
        check(
            &gobo,
            &jwt_of(&header("ES256"), &good, Signed::Rs256),
            Some("jwt_invalid"),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_jwt_says_of_its_own_key_is_not_believed() {
    let (gobo, _files) =
        engine("jwks_file = \"FILES/jwks.json\"\nsecret_file = \"FILES/secret\"").await;
    let good = claims(json!({}));
    let check_header = |more: Value, signed: Signed<'_>, refused| {
        let alg = match signed {
            Signed::Hs256(_) => "HS256",
            _ => "ES256",
        };
        let mut header = header(alg);
        for (name, value) in more.as_object().unwrap() {
            header[name] = value.clone();
        }
        check(&gobo, &jwt_of(&header, &good, signed), refused);
    };
    let own = b"an attacker's own secret of 32 bytes";
    check_header(json!({"kid": "one"}), Signed::Es256, None);
    for kid in [
        "two",
        "",
        "../../../../dev/null",
        "one' or '1'='1",
        "/etc/gobo/secret",
        "FILES/secret",
    ] {
        check_header(json!({"kid": kid}), Signed::Es256, Some("jwt_invalid"));
        check_header(json!({"kid": kid}), Signed::Hs256(own), Some("jwt_invalid"));
    }
    let own_key = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(own)});
    check_header(
        json!({"jwk": own_key}),
        Signed::Hs256(own),
        Some("jwt_invalid"),
    );
    check_header(
        json!({"jku": "http://127.0.0.1:1/jwks.json"}),
        Signed::Hs256(own),
        Some("jwt_invalid"),
    );
    check_header(
        json!({"x5u": "http://127.0.0.1:1/x", "x5c": ["AAAA"]}),
        Signed::Hs256(own),
        Some("jwt_invalid"),
    );
    // Well signed, and asking to be understood in a way that nobody here does.
    check_header(json!({"crit": ["exp"]}), HS, Some("jwt_invalid"));
    check_header(json!({"crit": []}), HS, Some("jwt_invalid"));
    check_header(
        json!({"crit": ["b64"], "b64": false}),
        HS,
        Some("jwt_invalid"),
    );
    check_header(json!({"zip": "DEF"}), HS, Some("jwt_invalid"));
    check_header(json!({"typ": "logout+jwt"}), HS, Some("jwt_invalid"));
    check_header(json!({"typ": "at+jwt"}), HS, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn times_audience_and_issuer_have_to_fit() {
    let keys = "secret_file = \"FILES/secret\"\nissuer = \"https://issuer.example\"\naudience = \"gobo\"\nleeway_seconds = 30";
    let (gobo, _files) = engine(keys).await;
    let ours = json!({"iss": "https://issuer.example", "aud": "gobo"});
    let check_claims = |more: Value, refused: Option<&str>| {
        let mut all = claims(ours.clone());
        for (name, value) in more.as_object().unwrap() {
            match value {
                // Left out.
                Value::Null => drop(all.as_object_mut().unwrap().remove(name)),
                value => all[name] = value.clone(),
            }
        }
        check(&gobo, &jwt_of(&header("HS256"), &all, HS), refused);
    };
    check_claims(json!({}), None);
    check_claims(json!({"aud": ["other", "gobo"]}), None);
    check_claims(json!({"exp": now() - 20}), None);
    check_claims(json!({"nbf": now() + 20}), None);
    check_claims(json!({"exp": now() as f64 + 3_600.5}), None);
    check_claims(json!({"exp": now() - 40}), Some("jwt_expired"));
    check_claims(json!({"exp": 0}), Some("jwt_expired"));
    check_claims(json!({"nbf": now() + 60}), Some("jwt_not_yet_valid"));
    for exp in [
        json!("never"),
        json!((now() + 3_600).to_string()),
        json!(-1),
        json!(1e300),
        json!(true),
    ] {
        check_claims(json!({"exp": exp}), Some("jwt_claims"));
    }
    // What is no plain value at all is no JWT.
    for name in ["exp", "nbf"] {
        check_claims(json!({name: [now() + 3_600]}), Some("jwt_invalid"));
        check_claims(json!({name: {"a": 1}}), Some("jwt_invalid"));
    }
    for nbf in [json!("99999999999"), json!(-1)] {
        check_claims(json!({"nbf": nbf}), Some("jwt_claims"));
    }
    check_claims(json!({"exp": null}), Some("jwt_claims"));
    for (name, wrong) in [
        ("aud", json!("other")),
        ("aud", json!(["other"])),
        ("aud", json!([])),
        ("aud", json!("GOBO")),
        ("aud", json!(1)),
        ("aud", Value::Null),
        ("iss", json!("https://issuer.example.org")),
        ("iss", json!("https://issuer.example/")),
        ("iss", json!(1)),
        ("iss", Value::Null),
    ] {
        check_claims(json!({name: wrong}), Some("jwt_claims"));
    }
    // Somebody else's JWT is not taken only because nobody said whose this engine is.
    let (gobo, _files) = engine("secret_file = \"FILES/secret\"").await;
    check(
        &gobo,
        &jwt_of(&header("HS256"), &claims(json!({"aud": "other"})), HS),
        Some("jwt_claims"),
    );
    check(
        &gobo,
        &jwt_of(&header("HS256"), &claims(json!({})), HS),
        None,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_jwt_or_was_changed_is_refused() {
    let (gobo, _files) = engine("secret_file = \"FILES/secret\"").await;
    let good = jwt_of(&header("HS256"), &claims(json!({})), HS);
    check(&gobo, &good, None);
    let parts: Vec<&str> = good.split('.').collect();
    let admin = URL_SAFE_NO_PAD.encode(claims(json!({"role": "admin"})).to_string());
    for forged in [
        format!("{}.{admin}.{}", parts[0], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{good}."),
        format!("{good}.x"),
        format!("{}.{}.{}", parts[0], parts[1], parts[2].to_lowercase()),
        format!("..{}", parts[2]),
        "...".to_owned(),
        "x".to_owned(),
        jwt_of(&header("HS256"), &json!("no object"), HS),
        jwt_of(&header("HS256"), &json!([1, 2]), HS),
        jwt_of(&json!([]), &claims(json!({})), HS),
    ] {
        check(&gobo, &forged, Some("jwt_invalid"));
    }
    let twice = format!(
        "{{\"exp\":{0},\"exp\":{0},\"role\":\"read\"}}",
        now() + 3_600
    );
    let message = format!("{}.{}", parts[0], URL_SAFE_NO_PAD.encode(twice));
    let signature = ring::hmac::sign(
        &ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes()),
        message.as_bytes(),
    );
    check(
        &gobo,
        &format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)),
        Some("jwt_invalid"),
    );
    let large = jwt_of(
        &header("HS256"),
        &claims(json!({"x": "a".repeat(9_000)})),
        HS,
    );
    check(&gobo, &large, Some("credentials_malformed"));
    check(&gobo, "gobo_000000000000_x", Some("token_unknown"));
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_where_the_issuer_puts_them() {
    let may = |gobo: &Gobo, more: Value| {
        let mut all = claims(more);
        all["aud"] = json!("gobo");
        all.as_object_mut()
            .unwrap()
            .retain(|name, value| name != "role" || value != "read");
        let jwt = jwt_of(&header("HS256"), &all, HS);
        ["/read/nothing", "/streams/s/events", "/events"]
            .map(|path| ![401, 403].contains(&get(gobo, path, &jwt).status))
    };
    let (gobo, _files) = engine("secret_file = \"FILES/secret\"\naudience = \"gobo\"").await;
    assert_eq!(may(&gobo, json!({})), [false, false, false]);
    assert_eq!(
        may(&gobo, json!({"roles": ["read", "append", 7]})),
        [true, true, false]
    );
    assert_eq!(may(&gobo, json!({"role": "append"})), [false, true, false]);
    assert_eq!(may(&gobo, json!({"roles": "admin"})), [true, true, true]);
    assert_eq!(
        may(&gobo, json!({"roles": [["admin"]], "scope": "admin"})),
        [false, false, false]
    );
    assert_eq!(
        may(&gobo, json!({"roles": {"admin": true}})),
        [false, false, false]
    );
    let (gobo, _files) = engine("secret_file = \"FILES/secret\"\naudience = \"gobo\"\nroles_claim = \"realm.access\"\ndefault_roles = [\"read\"]").await;
    assert_eq!(
        may(&gobo, json!({"realm": {"access": "append read"}})),
        [true, true, false]
    );
    assert_eq!(
        may(&gobo, json!({"realm.access": ["admin"]})),
        [true, true, true]
    );
    assert_eq!(
        may(&gobo, json!({"roles": ["admin"]})),
        [true, false, false]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_read_again_when_their_file_changes() {
    let (gobo, files) = engine("jwks_file = \"FILES/jwks.json\"").await;
    let jwt = |kid: &str| {
        jwt_of(
            &json!({"alg": "ES256", "kid": kid}),
            &claims(json!({})),
            Signed::Es256,
        )
    };
    check(&gobo, &jwt("one"), None);
    check(&gobo, &jwt("new"), Some("jwt_invalid"));
    let file = files.path().join("jwks.json");
    std::fs::write(&file, jwks(&["new", "newer"])).unwrap();
    let status = |kid: &str| get(&gobo, "/read/nothing", &jwt(kid)).status;
    wait_until("the new keys", || {
        if status("new") == 404 {
            Ok(())
        } else {
            Err(())
        }
    });
    check(&gobo, &jwt("one"), Some("jwt_invalid"));
    // A broken file takes nothing away.
    std::fs::write(&file, "{").unwrap();
    wait_until("the engine to say so", || {
        if gobo.log().contains("the former ones go on counting") {
            Ok(())
        } else {
            Err(gobo.log())
        }
    });
    check(&gobo, &jwt("new"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_cannot_be_used_keep_the_engine_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let database = Database::create().await;
    let short = file("short", "too short");
    let public = file("public", RSA);
    let private = file(
        "private",
        "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----",
    );
    let empty = file("empty.json", "{\"keys\": []}");
    for (keys, said) in [
        ("".to_owned(), "no key is given"),
        ("secret = \"short\"".to_owned(), "at least 32 bytes"),
        (format!("secret_file = {short:?}"), "at least 32 bytes"),
        (format!("secret_file = {public:?}"), "public_key_file"),
        (format!("secret = '''{RSA}'''"), "public_key_file"),
        (format!("public_key_file = {private:?}"), "private key"),
        (format!("public_key_file = {short:?}"), "no public key"),
        (format!("jwks_file = {empty:?}"), "there is no key in it"),
        (
            "jwks_file = \"/nowhere/jwks.json\"".to_owned(),
            "cannot be read",
        ),
    ] {
        let refused =
            Gobo::try_start(database.url(), &format!("[access.jwt]\n{keys}")).unwrap_err();
        assert_eq!(refused.code, 2, "{}", refused.log);
        assert!(
            refused.log.contains(said),
            "{said} is missing in: {}",
            refused.log
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_shown_by_nothing() {
    let (gobo, files) = engine(&format!("secret = {SECRET:?}")).await;
    check(
        &gobo,
        &jwt_of(&header("HS256"), &claims(json!({})), HS),
        None,
    );
    let config = gobo.folder().join("gobo.toml");
    let shown = gobo.command(&["serve", "--check", "--config", config.to_str().unwrap()]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("secret = \"***\"") && !shown.contains(SECRET),
        "{shown}"
    );
    assert!(!gobo.log().contains(SECRET));
    drop(files);
}
