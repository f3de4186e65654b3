//! JSON Web Tokens: HS256, RS256 and ES256, checked with keys that the configuration names.
//!
//! A key counts for one algorithm, which is the key's and never the token's choice; nothing that a token brings along (`jwk`,
//! `jku`, `x5c`) is looked at, and one that asks to be understood (`crit`) is refused.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind, Header, Validation, decode, decode_header,
};
use moka::sync::Cache;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Identity, Unusable, verify};
use crate::config::{Jwt, usable_secret};
use crate::query::rules::{ADMIN, Claims, Viewer};

/// Bytes of a file with keys.
const FILE_BYTES: u64 = 1 << 20;
/// Keys in one file.
const MOST_KEYS: usize = 100;
/// Keys of one algorithm in one file that have the same name, or none.
const MOST_ALIKE: usize = 3;
/// Keys that are tried for one JWT: those of its name, those without one, and those that are no set.
const MOST_TRIED: usize = 8;
/// Bytes that the known JWTs take, at most.
const KNOWN_BYTES: u64 = 64 << 20;
/// Bytes that each takes besides its claims.
const KNOWN_EACH: usize = 1 << 10;
/// Bytes of memory that claims take, at most, per byte of the JWT that says them: a list of one digit each is the worst.
const CLAIMS_FACTOR: usize = 16;
/// For how long a JWT is known that is not used.
const KNOWN_FOR: Duration = Duration::from_secs(300);
/// Roles of one JWT.
const MOST_ROLES: usize = 100;

/// Why a JWT does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is none.
    #[error(
        "the JWT cannot be read: it is malformed, or its algorithm is not one of HS256, RS256 and ES256"
    )]
    Unreadable,
    /// It is a JWT for something else.
    #[error("the JWT's header asks for what is not done here: {0}")]
    Header(&'static str),
    /// Nobody whom the configuration trusts has signed it.
    #[error("the JWT is not signed with a key that counts here")]
    Signature,
    /// Its time is over.
    #[error("the JWT has expired")]
    Expired,
    /// Its time has not come.
    #[error("the JWT is not valid yet")]
    NotYet,
    /// It is meant for somebody else.
    #[error("the JWT is for another audience")]
    Audience,
    /// It is somebody else's.
    #[error("the JWT is of another issuer")]
    Issuer,
    /// A claim is missing or has the wrong type.
    #[error("the JWT has no usable claim {0}")]
    Claim(String),
}

/// Verifies JWTs.
pub(super) struct Jwts {
    config: Jwt,
    keys: RwLock<Arc<Keys>>,
    seen: Mutex<Vec<Option<Stamp>>>,
    /// Why the keys in the files are not those that count.
    trouble: Mutex<Option<String>>,
}

/// Keys, and whom they have verified: a signature is checked once, not with every request. With other keys nobody is known.
struct Keys {
    all: Vec<Key>,
    known: Cache<[u8; 32], Known>,
}

#[derive(Clone)]
struct Known {
    identity: Arc<Identity>,
    bytes: u32,
}

impl Known {
    fn new(token: &str, identity: Arc<Identity>) -> Self {
        let bytes = token.len() * CLAIMS_FACTOR + KNOWN_EACH;
        Self {
            identity,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        }
    }
}

impl Keys {
    fn new(all: Vec<Key>) -> Arc<Self> {
        let known = Cache::builder()
            .max_capacity(KNOWN_BYTES)
            .weigher(|_, known: &Known| known.bytes)
            // Its keys and its `exp` bound it already. Whoever goes on asking needs no second check.
            .time_to_idle(KNOWN_FOR)
            .build();
        Arc::new(Self { all, known })
    }

    /// The keys that may have signed it.
    fn candidates(&self, header: &Header) -> Result<Vec<&Key>, Invalid> {
        let may_be = |key: &&Key| {
            let is_named = key.id.is_none() || header.kid.is_none() || key.id == header.kid;
            key.algorithm == header.alg && is_named
        };
        let candidates: Vec<&Key> = self.all.iter().filter(may_be).collect();
        // Each costs as much as a signature.
        match (candidates.len() > MOST_TRIED, &header.kid) {
            (false, _) => Ok(candidates),
            (true, None) => Err(Invalid::Header(
                "one of many keys, and does not say which (kid)",
            )),
            (true, Some(_)) => Err(Invalid::Header("a key (kid) that is one of too many")),
        }
    }
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// What changes with a file.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
}

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let of = |metadata: Metadata| Stamp {
            modified: metadata.modified().ok(),
            length: metadata.len(),
        };
        std::fs::metadata(file).ok().map(of)
    }
}

impl Jwts {
    /// Reads the keys.
    pub(super) fn new(config: Jwt) -> Result<Self, Unusable> {
        verify::install();
        let seen = stamps(&config);
        let keys = keys(&config)?;
        if keys.is_empty() {
            return Err(Unusable {
                key: "access.jwt.jwks_file",
                file: config.jwks_file.unwrap_or_default(),
                why: "there is no key in it".to_owned(),
            });
        }
        if config.audience.is_none() {
            tracing::info!(
                "without access.jwt.audience, no JWT makes an administrator: the role \"admin\" of one is passed over"
            );
        }
        Ok(Self {
            keys: RwLock::new(Keys::new(keys)),
            seen: Mutex::new(seen),
            trouble: Mutex::default(),
            config,
        })
    }

    /// Reads the keys again if a file has changed. While one cannot be used, those that were there count. No lock is held while
    /// files are read: requests take them, too.
    pub(super) fn reload(&self) {
        let now = stamps(&self.config);
        let had_trouble = self.trouble();
        let seen = std::mem::replace(&mut *lock(&self.seen), now.clone());
        if seen == now && had_trouble.is_none() {
            return;
        }
        let trouble = match keys(&self.config) {
            Ok(keys) => {
                match keys.len() {
                    0 => tracing::warn!(
                        "the keys of JWTs were read again: there are none, so no JWT counts"
                    ),
                    keys => tracing::info!(keys, "the keys of JWTs were read again"),
                }
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Keys::new(keys);
                None
            }
            Err(error) => {
                let error = error.to_string();
                if had_trouble.as_ref() != Some(&error) {
                    tracing::error!(
                        error,
                        "the keys of JWTs cannot be read; the former ones go on counting"
                    );
                }
                Some(error)
            }
        };
        *lock(&self.trouble) = trouble;
    }

    /// Whether keys are in files.
    pub(super) fn has_files(&self) -> bool {
        files(&self.config).iter().any(Option::is_some)
    }

    /// Why the keys in the files are not those that count, if so.
    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    fn keys(&self) -> Arc<Keys> {
        let keys = self.keys.read();
        keys.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who somebody is, if this very JWT has counted a moment ago, and does still.
    pub(super) fn known(&self, token: &str) -> Option<Arc<Identity>> {
        let known = self.keys().known.get(&digest(token))?;
        let is_over = (known.identity.until).is_none_or(|until| until <= SystemTime::now());
        (!is_over).then_some(known.identity)
    }

    /// Who somebody is, as a JWT says.
    pub(super) fn verify(&self, token: &str) -> Result<Arc<Identity>, Invalid> {
        let header = decode_header(token).map_err(|_| Invalid::Unreadable)?;
        check(&header)?;
        let keys = self.keys();
        for key in keys.candidates(&header)? {
            match decode::<Claims>(token, &key.key, &self.validation(key.algorithm)) {
                Ok(decoded) => {
                    let identity = Arc::new(self.identity(decoded.claims)?);
                    let known = Known::new(token, identity.clone());
                    keys.known.insert(digest(token), known);
                    return Ok(identity);
                }
                Err(error) => match invalid(error.into_kind()) {
                    Invalid::Signature => {}
                    other => return Err(other),
                },
            }
        }
        Err(Invalid::Signature)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.config.leeway_seconds;
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        if let Some(issuer) = &self.config.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        // Without one configured, a JWT that names an audience is for somebody else.
        if let Some(audience) = &self.config.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    fn identity(&self, claims: Claims) -> Result<Identity, Invalid> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let (subject, issuer) = (text("sub").unwrap_or("-"), text("iss").unwrap_or("-"));
        let until = claims.get("exp").and_then(Value::as_f64);
        let leeway = Duration::from_secs(self.config.leeway_seconds);
        let until = until
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .and_then(|since| UNIX_EPOCH.checked_add(since.checked_add(leeway)?));
        let roles = roles(&claims, self.config.roles_claim.as_deref())
            .unwrap_or_else(|| self.config.default_roles.clone());
        // Whoever does not say for whom it is may mean an administrator of something else.
        let counts = |role: &String| role != ADMIN || self.config.audience.is_some();
        Ok(Identity {
            name: format!("jwt {subject} of {issuer}"),
            is_one: !["", "-"].contains(&subject),
            peer: None,
            until,
            token: None,
            viewer: Viewer {
                roles: (roles.into_iter().take(MOST_ROLES))
                    .filter(counts)
                    .collect(),
                claims,
            },
        })
    }
}

/// Refuses JWTs that are made for another purpose (RFC 8725, section 3.11), and those that ask for more than is done here.
fn check(header: &Header) -> Result<(), Invalid> {
    if header.crit.is_some() {
        return Err(Invalid::Header("crit"));
    }
    if header.enc.is_some() || header.zip.is_some() {
        return Err(Invalid::Header("encryption or compression"));
    }
    let kind = header.typ.as_deref().unwrap_or("JWT").to_ascii_lowercase();
    match kind.strip_prefix("application/").unwrap_or(&kind) {
        "jwt" | "at+jwt" => Ok(()),
        _ => Err(Invalid::Header("another type")),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds it can leave it half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn invalid(error: ErrorKind) -> Invalid {
    match error {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => Invalid::Signature,
        ErrorKind::ExpiredSignature => Invalid::Expired,
        ErrorKind::ImmatureSignature => Invalid::NotYet,
        ErrorKind::InvalidAudience => Invalid::Audience,
        ErrorKind::InvalidIssuer => Invalid::Issuer,
        ErrorKind::MissingRequiredClaim(name) | ErrorKind::InvalidClaimFormat(name) => {
            Invalid::Claim(name)
        }
        _ => Invalid::Unreadable,
    }
}

/// The roles at `path`, or at the usual places: a list of texts, or one text with spaces between them. None only where nothing is
/// said of roles: an empty list takes them away.
fn roles(claims: &Claims, path: Option<&str>) -> Option<Vec<String>> {
    let found = match path {
        // A claim may have a point in its own name.
        Some(path) => claims.get(path).or_else(|| {
            let mut names = path.split('.');
            let first = claims.get(names.next()?)?;
            names.try_fold(first, |value, name| value.get(name))
        }),
        None => claims.get("roles").or_else(|| claims.get("role")),
    };
    Some(match found? {
        Value::String(text) => text.split_whitespace().map(str::to_owned).collect(),
        Value::Array(roles) => {
            let texts = roles.iter().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        }
        _ => Vec::new(),
    })
}

fn files(config: &Jwt) -> [Option<&PathBuf>; 3] {
    [
        &config.secret_file,
        &config.public_key_file,
        &config.jwks_file,
    ]
    .map(Option::as_ref)
}

fn stamps(config: &Jwt) -> Vec<Option<Stamp>> {
    let files = files(config).into_iter().flatten();
    files.map(|file| Stamp::of(file)).collect()
}

fn keys(config: &Jwt) -> Result<Vec<Key>, Unusable> {
    let mut keys = Vec::new();
    if let Some(secret) = &config.secret {
        keys.push(shared(secret.reveal().as_bytes()));
    }
    type Reader = fn(&[u8]) -> Result<Vec<Key>, String>;
    let readers: [(&'static str, Reader); 3] = [
        ("access.jwt.secret_file", secret_file),
        ("access.jwt.public_key_file", pem),
        ("access.jwt.jwks_file", jwks),
    ];
    for ((key, read), file) in readers.into_iter().zip(files(config)) {
        if let Some(file) = file {
            let found = content(file).and_then(|content| read(&content));
            let unusable = |why| Unusable {
                key,
                file: file.clone(),
                why,
            };
            keys.extend(found.map_err(unusable)?);
        }
    }
    Ok(keys)
}

fn content(file: &Path) -> Result<Vec<u8>, String> {
    let metadata =
        std::fs::metadata(file).map_err(|error| format!("the file cannot be read: {error}"))?;
    if metadata.len() > FILE_BYTES {
        return Err(format!("the file has more than {FILE_BYTES} bytes"));
    }
    std::fs::read(file).map_err(|error| format!("the file cannot be read: {error}"))
}

fn shared(secret: &[u8]) -> Key {
    Key {
        id: None,
        algorithm: Algorithm::HS256,
        key: DecodingKey::from_secret(secret),
    }
}

fn secret_file(content: &[u8]) -> Result<Vec<Key>, String> {
    // Editors end a file with a line break.
    let secret = content.trim_ascii_end();
    usable_secret(secret)?;
    Ok(vec![shared(secret)])
}

fn pem(content: &[u8]) -> Result<Vec<Key>, String> {
    let text = String::from_utf8_lossy(content);
    if text.contains("PRIVATE KEY-----") {
        return Err(
            "this is a private key, which only the issuer should have: give the public one \
                    (`openssl pkey -in private.pem -pubout`)"
                .to_owned(),
        );
    }
    let rsa = DecodingKey::from_rsa_pem(content).map(|key| (Algorithm::RS256, key));
    let found =
        rsa.or_else(|_| DecodingKey::from_ec_pem(content).map(|key| (Algorithm::ES256, key)));
    let (algorithm, key) = found.map_err(|_| "there is no public key in PEM in it (-----BEGIN PUBLIC KEY-----), or of another kind than RSA and P-256")?;
    check_key(algorithm, &key)?;
    let id = None;
    Ok(vec![Key { id, algorithm, key }])
}

/// Keys that would refuse every JWT are refused themselves.
fn check_key(algorithm: Algorithm, key: &DecodingKey) -> Result<(), String> {
    match (algorithm, key.kind()) {
        (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) if point.len() != 65 => {
            Err("the key is of another curve than P-256".to_owned())
        }
        (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, .. }) if n.len() < 256 => {
            Err("an RSA key has at least 2048 bits".to_owned())
        }
        (Algorithm::RS256, DecodingKeyKind::SecretOrDer(der)) if der.len() < 256 => {
            Err("an RSA key has at least 2048 bits".to_owned())
        }
        (Algorithm::HS256, DecodingKeyKind::SecretOrDer(secret)) => usable_secret(secret),
        _ => Ok(()),
    }
}

fn jwks(content: &[u8]) -> Result<Vec<Key>, String> {
    let set: Value =
        serde_json::from_slice(content).map_err(|error| format!("this is no JSON: {error}"))?;
    let all = set["keys"]
        .as_array()
        .ok_or("this is no JSON Web Key Set: {\"keys\": [..]}")?;
    let mut keys = Vec::new();
    let mut passed_over = Vec::new();
    for one in all {
        match jwk(one) {
            Ok(key) => keys.push(key),
            Err(why) => passed_over.push(why),
        }
    }
    // An empty set takes all keys away, and says so plainly. One with keys of other kinds alone is a mistake.
    if let (true, Some(why)) = (keys.is_empty(), passed_over.first()) {
        return Err(format!("no key of the set can be used: {why}"));
    }
    if keys.len() > MOST_KEYS {
        return Err(format!("the set has more than {MOST_KEYS} keys"));
    }
    for key in &keys {
        let alike = |other: &&Key| other.algorithm == key.algorithm && other.id == key.id;
        if keys.iter().filter(alike).count() > MOST_ALIKE {
            return Err(format!(
                "the set has more than {MOST_ALIKE} keys of one algorithm {}",
                match &key.id {
                    Some(id) => format!("with the kid \"{id}\""),
                    None => "without a kid".to_owned(),
                }
            ));
        }
    }
    Ok(keys)
}

/// One key of a set. Sets also hold keys for other purposes.
fn jwk(value: &Value) -> Result<Key, String> {
    let jwk: Jwk = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    if !matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    ) {
        return Err("it is not for signatures".to_owned());
    }
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKey(_) => (Algorithm::HS256, KeyAlgorithm::HS256),
        _ => return Err("it is of another kind than RSA, P-256 and a shared secret".to_owned()),
    };
    if jwk.common.key_algorithm.is_some_and(|said| said != name) {
        return Err("it is for another algorithm than HS256, RS256 and ES256".to_owned());
    }
    let key = DecodingKey::from_jwk(&jwk).map_err(|error| error.to_string())?;
    check_key(algorithm, &key)?;
    let id = jwk.common.key_id;
    Ok(Key { id, algorithm, key })
}
