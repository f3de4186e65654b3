//! Where Redis is.

use redis::{Client, IntoConnectionInfo};

use super::Unusable;

/// What an address may look like.
const FORMS: &str = "it is redis://[user:password@]host[:port][/database], rediss://... with TLS, or redis+unix:///path/to/socket";

/// Reads the address; connects to nothing.
pub(crate) fn client(url: &str) -> Result<Client, Unusable> {
    let info = url
        .into_connection_info()
        .map_err(|error| Unusable(format!("{}: {error}; {FORMS}", masked(url))))?;
    if url.contains("#insecure") {
        return Err(Unusable(format!(
            "{}: certificates are always verified, leave #insecure out",
            masked(url)
        )));
    }
    if url.starts_with("rediss:") || url.starts_with("valkeys:") {
        // The driver takes the process's provider; a second installation of the same one changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    Client::open(info).map_err(|error| Unusable(format!("{}: {error}; {FORMS}", masked(url))))
}

/// The address without its password.
pub fn masked(url: &str) -> String {
    let mut masked = url.to_owned();
    if let Some((scheme, rest)) = url.split_once("://") {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        // The last "@": passwords that are not escaped may hold another one.
        if let Some(at) = rest[..end].rfind('@')
            && let Some(colon) = rest[..at].find(':')
        {
            masked = format!("{scheme}://{}:***{}", &rest[..colon], &rest[at..]);
        }
    }
    let Some(start) = masked.find("pass=").map(|found| found + "pass=".len()) else {
        return masked;
    };
    let length = masked[start..].find('&').unwrap_or(masked.len() - start);
    format!("{}***{}", &masked[..start], &masked[start + length..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("redis://:secret@host:6379/1", "redis://:***@host:6379/1"),
            ("rediss://me:se@cret@host", "rediss://me:***@host"),
            ("redis://host/0", "redis://host/0"),
            (
                "redis+unix:///run/redis.sock?user=me&pass=secret&db=1",
                "redis+unix:///run/redis.sock?user=me&pass=***&db=1",
            ),
        ] {
            assert_eq!(masked(url), shown);
        }
    }

    #[test]
    fn an_address_that_is_none_is_refused_without_its_password() {
        for url in [
            "redis://:secret@host/first",
            "http://:secret@host",
            "rediss://:secret@host/#insecure",
            "nonsense",
        ] {
            let error = client(url).map(drop).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
            assert!(error.contains(&masked(url)), "{error}");
        }
        for url in [
            "redis://host",
            "rediss://host:1/2",
            "redis+unix:///run/redis.sock?db=1",
        ] {
            assert!(client(url).is_ok(), "{url}");
        }
    }
}
