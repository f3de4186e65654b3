//! Tokens of the engine's own: made once, shown once, kept as hashes.
//!
//! A token is `gobo_ID_SECRET`. The id finds its row; the hash of the whole is compared in constant time, so that the time
//! of an answer tells nothing about the hash. With 256 random bits there is nothing to guess, so a fast hash will do.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use deadpool_postgres::Pool;
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::credential::PREFIX;
use super::{Denied, Identity};
use crate::db::{describe, describe_pool};
use crate::query::rules::Viewer;

/// Tokens that can be in force at the same time: every node has them all in memory.
pub const MOST: i64 = 10_000;
/// After how long without an answer of the database nobody is let in by a token any more: it may have been revoked.
const STALE: Duration = Duration::from_secs(30);
/// A token's hash.
type Hash = [u8; 32];

/// A new token. It is shown once.
pub struct NewToken {
    /// Finds it.
    pub id: String,
    /// The whole.
    pub text: String,
    /// What is kept of it.
    pub hash: Hash,
}

impl NewToken {
    /// A token that nobody has seen before.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut id = [0; 6];
        let mut secret = [0; 32];
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut secret)?;
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret));
        let hash = hash(&text);
        Ok(Self { id, text, hash })
    }
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn hash(token: &str) -> Hash {
    Sha256::digest(token.as_bytes()).into()
}

/// All tokens that are in force, as the database had them a moment ago.
pub(super) struct Tokens {
    pool: Pool,
    known: RwLock<Option<Known>>,
}

struct Known {
    by_id: HashMap<String, Stored>,
    at: Instant,
}

struct Stored {
    hash: Hash,
    identity: Arc<Identity>,
}

impl Tokens {
    pub(super) fn new(pool: Pool) -> Self {
        Self {
            pool,
            known: RwLock::default(),
        }
    }

    /// Whose token it is.
    pub(super) fn find(&self, token: &str) -> Result<Arc<Identity>, Denied> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let known = known.as_ref().filter(|known| known.at.elapsed() < STALE);
        let known = known.ok_or(Denied::Unknowable)?;
        let id = token
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('_'));
        let stored = id.and_then(|(id, _)| known.by_id.get(id));
        let given = hash(token);
        // An unknown id takes the same steps as a known one.
        let is_same = given.ct_eq(&stored.map_or([0; 32], |stored| stored.hash));
        let stored = stored
            .filter(|_| is_same.into())
            .ok_or(Denied::UnknownToken)?;
        let until = stored.identity.until;
        if until.is_some_and(|until| until <= SystemTime::now()) {
            return Err(Denied::UnknownToken);
        }
        Ok(stored.identity.clone())
    }

    /// Whether the token with this id is in force. It is not when tokens could not be read for a while.
    pub(super) fn has(&self, id: &str) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let known = known.as_ref().filter(|known| known.at.elapsed() < STALE);
        known.is_some_and(|known| known.by_id.contains_key(id))
    }

    /// Reads the tokens, and gives how many there are.
    pub(super) async fn refresh(&self) -> Result<usize, String> {
        let at = Instant::now();
        let client = self
            .pool
            .get()
            .await
            .map_err(|error| describe_pool(&error))?;
        // How long a token still counts is said by the database's clock, which is also the one that it was made with.
        let rows = client
            .query(include_str!("sql/tokens.sql"), &[&MOST])
            .await
            .map_err(|error| describe(&error))?;
        let now = SystemTime::now();
        let mut by_id = HashMap::with_capacity(rows.len());
        for row in rows {
            let (id, name): (String, String) = (row.get(0), row.get(1));
            let Ok(hash) = Hash::try_from(row.get::<_, &[u8]>(2)) else {
                continue;
            };
            let roles: Vec<String> = row.get(3);
            let claims = match row.get(4) {
                Value::Object(claims) => claims,
                _ => continue,
            };
            let left: Option<f64> = row.get(5);
            let left = left.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
            let identity = Identity {
                name: format!("token {name} ({id})"),
                viewer: Viewer {
                    roles: BTreeSet::from_iter(roles),
                    claims,
                },
                is_one: true,
                peer: None,
                until: left.and_then(|left| now.checked_add(left)),
                token: Some(id.clone()),
            };
            let identity = Arc::new(identity);
            by_id.insert(id, Stored { hash, identity });
        }
        let count = by_id.len();
        let known = Known { by_id, at };
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(count)
    }
}
