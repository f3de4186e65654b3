//! `Authorization` -> a token or a JWT, not yet believed.

use std::fmt;

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Bytes of a token or a JWT.
const LONGEST: usize = 8 << 10;
/// What tokens of `gobo token new` begin with, and no JWT does.
pub(super) const PREFIX: &str = "gobo_";

/// What a request shows for itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    text: String,
    is_password: bool,
}

/// What a request shows for itself, and cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

impl Credential {
    /// The one in the `Authorization` header, if there is one: `Bearer`, or `Basic` with the token as password.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, Malformed> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(Malformed("there is more than one Authorization header"));
        }
        let value = value
            .to_str()
            .map_err(|_| Malformed("the Authorization header is not text"))?;
        let Some((scheme, text)) = value.trim().split_once(' ') else {
            return Err(Malformed(
                "the Authorization header has to be: Bearer TOKEN",
            ));
        };
        let text = text.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            Self::bearer(text).map(Some)
        } else if scheme.eq_ignore_ascii_case("basic") {
            Self::basic(text).map(Some)
        } else {
            Err(Malformed(
                "the Authorization header has to be: Bearer TOKEN",
            ))
        }
    }

    /// A token or a JWT as it stands.
    pub fn bearer(text: &str) -> Result<Self, Malformed> {
        if text.len() > LONGEST {
            return Err(Malformed("the token is longer than 8 KiB"));
        }
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Malformed(
                "the token is empty, or has characters that no token has",
            ));
        }
        Ok(Self {
            text: text.to_owned(),
            is_password: false,
        })
    }

    /// `base64(name:token)`, as browsers and curl send it. The name does not matter; a token may also stand in its place.
    fn basic(text: &str) -> Result<Self, Malformed> {
        const WHAT: Malformed =
            Malformed("the Authorization header has to be: Basic base64(NAME:TOKEN)");
        if text.len() > 2 * LONGEST {
            return Err(Malformed("the token is longer than 8 KiB"));
        }
        let decoded = STANDARD.decode(text).map_err(|_| WHAT)?;
        let decoded = String::from_utf8(decoded).map_err(|_| WHAT)?;
        let (name, password) = decoded.split_once(':').ok_or(WHAT)?;
        let token = if password.is_empty() { name } else { password };
        Ok(Self {
            is_password: true,
            ..Self::bearer(token)?
        })
    }

    /// Whether a browser may have sent it on its own, for a page that the user knows nothing of.
    pub fn is_password(&self) -> bool {
        self.is_password
    }

    pub(super) fn is_token(&self) -> bool {
        self.text.starts_with(PREFIX)
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Result<Option<(String, bool)>, Malformed> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        let credential = Credential::of(&headers)?;
        Ok(credential.map(|c| (c.text().to_owned(), c.is_password())))
    }

    #[test]
    fn a_token_comes_as_a_bearer_or_as_a_password() {
        assert_eq!(of(&[]), Ok(None));
        let bearer = Ok(Some(("gobo_a".to_owned(), false)));
        for value in ["Bearer gobo_a", "bearer  gobo_a ", "BEARER gobo_a"] {
            assert_eq!(of(&[value]), bearer, "{value}");
        }
        for text in ["me:gobo_a", "gobo_a:", ":gobo_a"] {
            let value = format!("Basic {}", STANDARD.encode(text));
            assert_eq!(
                of(&[&value]),
                Ok(Some(("gobo_a".to_owned(), true))),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_token_is_refused_before_anything_is_looked_up() {
        let long = format!("Bearer {}", "a".repeat(LONGEST + 1));
        let basic = format!("Basic {}", STANDARD.encode("no colon"));
        for values in [
            &["Bearer"][..],
            &["Bearer "],
            &["Bearer a b"],
            &["gobo_a"],
            &["Digest gobo_a"],
            &["Basic ***"],
            &[&basic],
            &[&long],
            &["Bearer gobo_a", "Bearer gobo_a"],
        ] {
            assert!(of(values).is_err(), "{values:?}");
        }
    }
}
