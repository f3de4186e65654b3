//! Access control: who is let in, what they may do, and what they see.

mod around;
mod browser;
mod described;
mod doors;
mod embeds;
mod guide;
mod jwt;
mod key_sets;
mod keys;
mod peers;
mod rows;
mod silence;
mod tokens;

use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use gobo_tests::{Answer, Database, Gobo, gobo_binary};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};

/// A secret of HS256.
const SECRET: &str = "a secret of thirty-two bytes or more";

/// An engine that asks for tokens, on a database with one for each role.
struct Guarded {
    database: Database,
    gobo: Gobo,
    read: String,
    append: String,
    admin: String,
}

impl Guarded {
    /// Serves with `[access] tokens = true`, `access` below it, and `tables` after it.
    async fn new(access: &str, tables: &str) -> Self {
        let database = Database::create().await;
        let [read, append, admin] =
            ["read", "append", "admin"].map(|role| token(&database, role, &["--role", role]));
        let gobo = Gobo::start(
            database.url(),
            &format!("[access]\ntokens = true\n{access}\n{tables}"),
        );
        Self {
            database,
            gobo,
            read,
            append,
            admin,
        }
    }

    /// Deploys a plugin as an administrator.
    fn deploy(&self, package: &str) {
        let module = gobo_tests::wasm_bytes(package);
        let bearer = bearer(&self.admin);
        let headers = [
            ("content-type", "application/wasm"),
            ("authorization", bearer.as_str()),
        ];
        self.gobo
            .request("POST", "/admin/projections", &headers, &module)
            .expect(201);
    }

    fn get(&self, path: &str, token: &str) -> Answer {
        get(&self.gobo, path, token)
    }
}

/// `GET path` by somebody.
pub(crate) fn get(gobo: &Gobo, path: &str, token: &str) -> Answer {
    gobo.request("GET", path, &[("authorization", &bearer(token))], b"")
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// What a browser sends after it has asked its user.
fn basic(token: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("me:{token}")))
}

/// Runs `gobo token`.
pub(crate) fn token_command(database: &Database, arguments: &[&str]) -> Output {
    let mut command = Command::new(gobo_binary());
    command
        .arg("token")
        .args(arguments)
        .args(["--database-url", database.url()]);
    command.output().unwrap()
}

/// Makes a token, which is all that is printed.
pub(crate) fn token(database: &Database, name: &str, arguments: &[&str]) -> String {
    let made = token_command(database, &[&["new", "--name", name], arguments].concat());
    assert!(made.status.success(), "{made:?}");
    let printed = String::from_utf8(made.stdout).unwrap();
    printed.trim_end().to_owned()
}

/// How a JWT is signed.
#[derive(Clone, Copy)]
enum Signed<'k> {
    Hs256(&'k [u8]),
    Rs256,
    Es256,
    Not,
}

/// A JWT with this header and these claims.
fn jwt_of(header: &Value, claims: &Value, signed: Signed<'_>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let bytes = message.as_bytes();
    let random = SystemRandom::new();
    let signature = match signed {
        Signed::Hs256(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), bytes)
            .as_ref()
            .to_vec(),
        Signed::Rs256 => {
            let key = RsaKeyPair::from_pkcs8(include_bytes!("access/keys/rsa.p8")).unwrap();
            let mut signature = vec![0; key.public().modulus_len()];
            key.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature)
                .unwrap();
            signature
        }
        Signed::Es256 => {
            let key = include_bytes!("access/keys/ec.p8");
            let key =
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key, &random).unwrap();
            key.sign(&random, bytes).unwrap().as_ref().to_vec()
        }
        Signed::Not => Vec::new(),
    };
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The same with HS256 and the secret of these tests, valid for an hour, for the audience "gobo".
pub(crate) fn jwt_for(mut claims: Value) -> String {
    if claims.get("exp").is_none() {
        claims["exp"] = json!(now() + 3_600);
    }
    claims["aud"] = json!("gobo");
    jwt_of(
        &json!({"alg": "HS256", "typ": "JWT"}),
        &claims,
        Signed::Hs256(SECRET.as_bytes()),
    )
}

pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}
