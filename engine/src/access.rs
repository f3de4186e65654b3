//! Who may do what: a request's credentials -> an [`Identity`] with roles and claims.
//!
//! Credentials are tokens, of which the database keeps hashes, or JSON Web Tokens, which are checked with keys from files.
//! Neither costs a query: nodes have all tokens in memory, so guessing them does not burden the database.

mod credential;
pub mod jwt;
mod limit;
pub mod tokens;
mod verify;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::HeaderName;
use deadpool_postgres::Pool;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{Anonymous, Config, ReadModelSettings};
use crate::query::rules::{ADMIN, Restriction, Rule, Rules, Viewer};
use crate::shutdown::Shutdown;
pub use credential::{Credential, Malformed};
use jwt::{Invalid, Jwts};
pub use limit::Peer;
use limit::{Limiter, Refusals};
use tokens::Tokens;

/// May read what does not say otherwise.
pub const READ: &str = "read";
/// May append events, and read streams.
pub const APPEND: &str = "append";

/// How often keys in files are looked at, and what is kept of identities is tidied.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Who asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// A stable name: of a token, or of whom a JWT is about.
    pub name: String,
    /// Roles and claims.
    pub viewer: Viewer,
    /// Whether the name is one person's; else many may go by it.
    is_one: bool,
    /// Where the request came from, if the name is not one person's.
    peer: Option<Peer>,
    /// When it ends to count, by this machine's clock.
    pub until: Option<SystemTime>,
    /// The token that says so, which may be revoked.
    token: Option<String>,
}

impl Identity {
    /// Whoever asks where access is not controlled: may do everything.
    pub fn anybody() -> Self {
        Self::anonymous([ADMIN])
    }

    fn anonymous<const N: usize>(roles: [&str; N]) -> Self {
        Self {
            name: "anonymous".to_owned(),
            viewer: Viewer {
                roles: roles.map(str::to_owned).into(),
                claims: Default::default(),
            },
            is_one: false,
            peer: None,
            until: None,
            token: None,
        }
    }

    /// The same with where the request came from, if that tells apart whom the name does not.
    pub fn coming_from(self: Arc<Self>, peer: Peer) -> Arc<Self> {
        match self.is_one {
            true => self,
            false => Arc::new(Self {
                peer: Some(peer),
                ..(*self).clone()
            }),
        }
    }

    /// What is counted as one reader: whoever has this name, or whoever comes from this address.
    pub fn counted_as(&self) -> Cow<'_, str> {
        match self.peer {
            Some(peer) => Cow::Owned(peer.to_string()),
            None => Cow::Borrowed(&self.name),
        }
    }

    /// Whether they may do what `role` may. An administrator may do everything.
    pub fn may(&self, role: &str) -> bool {
        self.viewer.roles.contains(role) || self.viewer.roles.contains(ADMIN)
    }
}

/// Why somebody is not let in. The texts tell nothing that an attacker could use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nothing says who it is.
    #[error("the request does not say who it is from")]
    Missing,
    /// What says it cannot be read.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// No such token, or not any more.
    #[error("the token is unknown, revoked or expired")]
    UnknownToken,
    /// A kind of token that is not in use here.
    #[error("{0}")]
    Unwanted(&'static str),
    /// A JWT that does not count.
    #[error("{0}")]
    Jwt(#[from] Invalid),
    /// What is known of tokens is too old to be relied on.
    #[error("tokens cannot be checked now: the database does not answer")]
    Unknowable,
    /// Too many that did not count came from the same address.
    #[error(
        "too many credentials that do not count came from this address (access.refused_per_minute)"
    )]
    TooMany(Duration),
}

/// Access control. Clones are the same.
#[derive(Clone)]
pub struct Access {
    control: Option<Arc<Control>>,
    rules: Arc<Rules>,
    open_metrics: bool,
    address_header: Option<HeaderName>,
}

struct Control {
    tokens: Option<Tokens>,
    jwts: Option<Jwts>,
    anonymous: Option<Arc<Identity>>,
    limiter: Option<Limiter>,
    refusals: Option<Refusals>,
}

impl Control {
    /// Whose credential it is. Tokens are looked up always: nobody guesses 256 random bits, and that costs one hash. A signature
    /// costs more, so few are checked for an address from which too many were wrong; a JWT that has counted before still does.
    fn find(&self, credential: &Credential, peer: Peer) -> Result<Arc<Identity>, Denied> {
        let text = credential.text();
        match (&self.tokens, &self.jwts) {
            (Some(tokens), _) if credential.is_token() => tokens.find(text),
            (_, Some(jwts)) if !credential.is_token() => {
                if let Some(identity) = jwts.known(text) {
                    return Ok(identity);
                }
                if let Some(refusals) = &self.refusals {
                    refusals.check(peer).map_err(Denied::TooMany)?;
                }
                Ok(jwts.verify(text)?)
            }
            (None, _) => Err(Denied::Unwanted(
                "a JSON Web Token is expected: tokens are not in use here",
            )),
            (_, None) => Err(Denied::Unwanted("this is no token of `gobo token new`")),
            (Some(_), Some(_)) => Err(Denied::UnknownToken),
        }
    }
}

/// Access control that cannot be set up. The text names the file and the fix.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {}: {why}", file.display())]
pub struct Unusable {
    /// The configuration's key.
    pub key: &'static str,
    /// The file that it names.
    pub file: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl Access {
    /// Everybody may do everything.
    pub fn open() -> Self {
        Self {
            control: None,
            rules: Arc::default(),
            open_metrics: false,
            address_header: None,
        }
    }

    /// Reads keys. `pool` is where tokens are.
    pub fn new(config: &Config, pool: Pool) -> Result<Self, Unusable> {
        let access = &config.access;
        if shares_an_address(config) {
            tracing::warn!(
                "only this machine can connect, so a proxy may be in front: then its address is everybody's, and somebody's wrong JWTs \
                 slow down all others, until access.address_header names the header in which it tells where a request comes from"
            );
        }
        let control = match access.is_on() {
            false => None,
            true => Some(Arc::new(Control {
                tokens: access.tokens.then(|| Tokens::new(pool)),
                jwts: access.jwt.clone().map(Jwts::new).transpose()?,
                anonymous: access
                    .anonymous
                    .map(|Anonymous::Read| Arc::new(Identity::anonymous([READ]))),
                limiter: Limiter::new(access.requests_per_second, access.burst),
                refusals: Refusals::new(access.refused_per_minute),
            })),
        };
        Ok(Self {
            control,
            rules: Arc::new(rules(&access.readers, &config.read_models)),
            open_metrics: access.open_metrics,
            // It was checked with the configuration.
            address_header: (access.address_header.as_deref())
                .and_then(|name| HeaderName::try_from(name).ok()),
        })
    }

    /// Whether requests have to say who they are from.
    pub fn is_on(&self) -> bool {
        self.control.is_some()
    }

    /// Whether `/metrics` is there for everybody.
    pub fn has_open_metrics(&self) -> bool {
        self.open_metrics
    }

    /// Who may read which read models, and which of their rows.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Whether JWTs are checked with keys from files.
    pub fn has_keys(&self) -> bool {
        self.jwts().is_some_and(Jwts::has_files)
    }

    /// Why the keys of JWTs in the files are not those that count, if so.
    pub fn trouble(&self) -> Option<String> {
        self.jwts()?.trouble()
    }

    fn jwts(&self) -> Option<&Jwts> {
        self.control.as_ref()?.jwts.as_ref()
    }

    /// The header in which a proxy says where a request comes from.
    pub fn address_header(&self) -> Option<&HeaderName> {
        self.address_header.as_ref()
    }

    /// Who it is that shows this, from there.
    pub fn identify(
        &self,
        credential: Result<Option<&Credential>, Malformed>,
        peer: Peer,
    ) -> Result<Arc<Identity>, Denied> {
        let Some(control) = &self.control else {
            return Ok(Arc::new(Identity::anybody()));
        };
        let denied = match credential {
            Ok(None) => return control.anonymous.clone().ok_or(Denied::Missing),
            Ok(Some(credential)) => match control.find(credential, peer) {
                Ok(identity) => return Ok(identity),
                Err(denied @ (Denied::Unknowable | Denied::TooMany(_))) => return Err(denied),
                Err(denied) => denied,
            },
            Err(malformed) => malformed.into(),
        };
        // Nobody forges the signature of a JWT whose time is wrong: it is an honest one's, who will ask for another.
        let is_honest = matches!(denied, Denied::Jwt(Invalid::Expired | Invalid::NotYet));
        if let Some(refusals) = control.refusals.as_ref().filter(|_| !is_honest) {
            refusals.count(peer).map_err(Denied::TooMany)?;
        }
        Err(denied)
    }

    /// Counts a request of somebody from there. Fails with the time to wait when there were too many.
    pub fn admit(&self, identity: &Identity, peer: Peer) -> Result<(), Duration> {
        let control = self.control.as_ref();
        match control.and_then(|control| control.limiter.as_ref()) {
            Some(limiter) if identity.is_one => limiter.admit(&identity.name),
            Some(limiter) => limiter.admit_from(peer),
            None => Ok(()),
        }
    }

    /// Waits until an identity counts no more: its time is over, or its token was revoked.
    pub async fn ended(&self, identity: &Identity) {
        let tokens = self.control.as_ref().and_then(|c| c.tokens.as_ref());
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let is_over = identity
                .until
                .is_some_and(|until| until <= SystemTime::now());
            let is_revoked = match (tokens, &identity.token) {
                (Some(tokens), Some(id)) => !tokens.has(id),
                _ => false,
            };
            if is_over || is_revoked {
                return;
            }
        }
    }

    /// Reads the tokens for the first time, once the schema is there.
    pub async fn load(&self) -> Result<(), String> {
        let tokens = self.control.as_ref().and_then(|c| c.tokens.as_ref());
        let Some(tokens) = tokens else {
            return Ok(());
        };
        if tokens.refresh().await? == 0 {
            tracing::warn!(
                "there are no tokens yet, so nobody is let in by one: gobo token new --name me --role admin"
            );
        }
        Ok(())
    }

    /// Keeps keys and tokens current until shutdown; `hints` change when there may be other tokens.
    pub async fn run(self, mut hints: watch::Receiver<u64>, mut shutdown: Shutdown) {
        let Some(control) = self.control else {
            return shutdown.requested().await;
        };
        let mut reading: Option<JoinHandle<()>> = None;
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                changed = hints.changed() => if changed.is_err() {
                    // The registry has ended, and so does the engine.
                    return shutdown.requested().await;
                },
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            // Files may be on a disk that does not answer. That stops neither requests nor tokens; nor does the database stop them.
            if control.jwts.is_some() && reading.as_ref().is_none_or(JoinHandle::is_finished) {
                let control = control.clone();
                reading = Some(tokio::task::spawn_blocking(move || {
                    if let Some(jwts) = &control.jwts {
                        jwts.reload();
                    }
                }));
            }
            if let Some(tokens) = &control.tokens
                && let Err(error) = tokens.refresh().await
            {
                tracing::warn!(error, "tokens cannot be read now");
            }
            if let Some(limiter) = &control.limiter {
                limiter.tidy();
            }
            if let Some(refusals) = &control.refusals {
                refusals.tidy();
            }
        }
    }
}

/// Whether everybody seems to come from one address that JWTs are counted by.
fn shares_an_address(config: &Config) -> bool {
    let access = &config.access;
    access.jwt.is_some()
        && access.refused_per_minute > 0
        && access.address_header.is_none()
        && config.listen.ip().is_loopback()
}

/// The rules that are configured. What cannot be read was refused with the configuration.
fn rules(
    readers: &[String],
    read_models: &std::collections::BTreeMap<String, ReadModelSettings>,
) -> Rules {
    let set = |roles: &[String]| -> BTreeSet<String> { roles.iter().cloned().collect() };
    let restriction = |settings: &ReadModelSettings| Restriction {
        readers: settings.readers.as_deref().map(set),
        rows: settings.rows.as_deref().map(Rule::parse_or_nobody),
    };
    Rules {
        readers: set(readers),
        restrictions: read_models
            .iter()
            .map(|(name, settings)| (name.clone(), restriction(settings)))
            .collect(),
    }
}
