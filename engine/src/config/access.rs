//! `[access]` and `[read_models.NAME]`: who may do what, and see what.

use std::fmt;
use std::path::PathBuf;

use axum::http::HeaderName;
use serde::{Deserialize, Serialize, Serializer};

use super::Config;
use super::feed::FeedTo;
use super::read::ConfigError;
use super::validate::{refuse, within};
use crate::query::rules::{ADMIN, Rule};

/// The shortest secret of HS256 (RFC 7518, section 3.2).
const SECRET_BYTES: usize = 32;

/// `[access]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// Whether requests carry tokens of `gobo token new`.
    pub tokens: bool,
    /// What may be done without saying who one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<Anonymous>,
    /// The roles that may read the read models that do not say it themselves.
    pub readers: Vec<String>,
    /// Whether `/metrics` is there for everybody.
    pub open_metrics: bool,
    /// Requests per second and identity; 0 for any number.
    pub requests_per_second: u32,
    /// Requests that may come at once; 0 for as many as per second.
    pub burst: u32,
    /// Credentials per minute and address that do not count, before the address has to wait; 0 for any number.
    pub refused_per_minute: u32,
    /// The header in which a proxy says where a request comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_header: Option<String>,
    /// JSON Web Tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// Web pages of other origins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
}

/// What may be done without saying who one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Anonymous {
    /// Reading, with the role `read` and without claims.
    Read,
}

/// `[access.jwt]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// The shared secret of HS256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// A file with that secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// A file with a public key in PEM: RSA for RS256, P-256 for ES256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key_file: Option<PathBuf>,
    /// A file with a JSON Web Key Set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_file: Option<PathBuf>,
    /// What `iss` has to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What `aud` has to be, or to contain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// By how much clocks may differ.
    pub leeway_seconds: u64,
    /// Where the roles are; by default `roles`, then `role`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles_claim: Option<String>,
    /// The roles of a JWT that names none.
    pub default_roles: Vec<String>,
}

/// `[access.cors]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// Origins of pages that may ask; `*` for all.
    pub origins: Vec<String>,
    /// For how long a browser may remember that.
    pub max_age_seconds: u64,
}

/// `[read_models.NAME]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadModelSettings {
    /// The roles that may read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readers: Option<Vec<String>>,
    /// Which rows they see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<String>,
    /// Where its changes are published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feed: Option<FeedTo>,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl Default for Access {
    fn default() -> Self {
        Self {
            tokens: false,
            anonymous: None,
            readers: vec!["read".to_owned()],
            open_metrics: false,
            requests_per_second: 0,
            burst: 0,
            refused_per_minute: 60,
            address_header: None,
            jwt: None,
            cors: None,
        }
    }
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            secret: None,
            secret_file: None,
            public_key_file: None,
            jwks_file: None,
            issuer: None,
            audience: None,
            leeway_seconds: 30,
            roles_claim: None,
            default_roles: Vec::new(),
        }
    }
}

impl Default for Cors {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            max_age_seconds: 3_600,
        }
    }
}

impl Access {
    /// Whether requests have to say who they are from.
    pub fn is_on(&self) -> bool {
        self.tokens || self.jwt.is_some()
    }
}

/// Whether a role can be called so.
pub fn is_role(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c);
    !name.is_empty() && name.len() <= 100 && name.chars().all(fits)
}

impl Config {
    pub(super) fn check_access(&self) -> Result<(), ConfigError> {
        let access = &self.access;
        if !self.listen.ip().is_loopback() && !access.is_on() {
            return refuse(
                "listen",
                format!(
                    "{} can be reached from other machines, which needs access control. Switch it on with [access] tokens = true \
                     (or GOBO_ACCESS_TOKENS=true) and make a token with `gobo token new --name me --role admin`; or say in \
                     [access.jwt] which JSON Web Tokens count. Without either, listen on 127.0.0.1",
                    self.listen
                ),
            );
        }
        if access.anonymous.is_some() && !access.is_on() {
            return refuse(
                "access.anonymous",
                "without access.tokens or [access.jwt], everybody may do everything already",
            );
        }
        check_roles("access.readers", &access.readers)?;
        within(
            "access.requests_per_second",
            access.requests_per_second,
            0..=1_000_000,
        )?;
        within("access.burst", access.burst, 0..=1_000_000)?;
        within(
            "access.refused_per_minute",
            access.refused_per_minute,
            0..=1_000_000,
        )?;
        if let Some(name) = &access.address_header
            && HeaderName::try_from(name.as_str()).is_err()
        {
            return refuse(
                "access.address_header",
                format!(
                    "\"{name}\" is no name of a header: x-forwarded-for is what most proxies use"
                ),
            );
        }
        if let Some(jwt) = &access.jwt {
            jwt.check()?;
        }
        if let Some(cors) = &access.cors {
            cors.check()?;
            if cors.allows("*") && !access.is_on() {
                return refuse(
                    "access.cors.origins",
                    "\"*\" needs access control: any page in a browser on this machine could do everything. Name the origins, or \
                     set [access] tokens = true",
                );
            }
        }
        for (name, settings) in &self.read_models {
            settings.check(name, access.is_on())?;
        }
        Ok(())
    }
}

impl Jwt {
    fn check(&self) -> Result<(), ConfigError> {
        let files = [&self.secret_file, &self.public_key_file, &self.jwks_file];
        if self.secret.is_none() && files.iter().all(|file| file.is_none()) {
            return refuse(
                "access.jwt",
                "no key is given: set secret, secret_file (HS256), public_key_file (RS256, ES256) or jwks_file",
            );
        }
        if let Some(secret) = &self.secret
            && let Err(why) = usable_secret(secret.reveal().as_bytes())
        {
            return refuse("access.jwt.secret", why);
        }
        within("access.jwt.leeway_seconds", self.leeway_seconds, 0..=3_600)?;
        check_roles("access.jwt.default_roles", &self.default_roles)?;
        match self.default_roles.iter().any(|role| role == ADMIN) {
            true => refuse(
                "access.jwt.default_roles",
                "everybody with a JWT would be an administrator",
            ),
            false => Ok(()),
        }
    }
}

/// Whether a secret is good enough for HS256.
pub fn usable_secret(secret: &[u8]) -> Result<(), String> {
    if secret.len() < SECRET_BYTES {
        return Err(format!(
            "a secret of HS256 has at least {SECRET_BYTES} bytes (`openssl rand -base64 48` makes one); this one has {}",
            secret.len()
        ));
    }
    if secret.starts_with(b"-----BEGIN") {
        return Err(
            "this is a key in PEM, not a secret: whoever has a public key could sign with it. It goes into public_key_file"
                .to_owned(),
        );
    }
    Ok(())
}

impl Cors {
    /// Whether pages of an origin may ask.
    pub fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|one| one == "*" || one == origin)
    }

    fn check(&self) -> Result<(), ConfigError> {
        for origin in &self.origins {
            let host = origin
                .strip_prefix("https://")
                .or_else(|| origin.strip_prefix("http://"));
            let is_origin = host.is_some_and(|host| {
                !host.is_empty()
                    && host.bytes().all(|b| b.is_ascii_graphic())
                    && !host.contains(['/', '*', '?', '#', '@', ','])
            });
            if origin != "*" && !is_origin {
                return refuse(
                    "access.cors.origins",
                    format!(
                        "\"{origin}\" is no origin: write it as https://app.example.org, without a path, or as * for all"
                    ),
                );
            }
        }
        within(
            "access.cors.max_age_seconds",
            self.max_age_seconds,
            0..=86_400,
        )
    }
}

impl ReadModelSettings {
    fn check(&self, name: &str, is_on: bool) -> Result<(), ConfigError> {
        let key = |key: &str| format!("read_models.{name}.{key}");
        if let Some(readers) = &self.readers {
            check_roles(&key("readers"), readers)?;
        }
        if let Some(rows) = &self.rows
            && let Err(error) = Rule::parse(rows)
        {
            return refuse(&key("rows"), error.to_string());
        }
        if !is_on && (self.readers.is_some() || self.rows.is_some()) {
            return refuse(
                &key(if self.rows.is_some() {
                    "rows"
                } else {
                    "readers"
                }),
                "it would protect nothing, because everybody may do everything: switch access control on with \
                 [access] tokens = true, or [access.jwt]",
            );
        }
        Ok(())
    }
}

fn check_roles(key: &str, roles: &[String]) -> Result<(), ConfigError> {
    match roles.iter().find(|role| !is_role(role)) {
        None => Ok(()),
        Some(role) => refuse(
            key,
            format!("\"{role}\" is no role: letters, digits and _-.:/, at most 100"),
        ),
    }
}
