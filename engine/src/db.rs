//! Connections to PostgreSQL: how every session is set up, and raw values.

mod sessions;

use std::error::Error as StdError;
use std::time::Duration;

use bytes::BytesMut;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::mpsc;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, Notification};
use tokio_postgres_rustls::MakeRustlsConnect;

pub use sessions::{Keep, Sessions};

use sessions::Canceller;

/// Where the database is, and how sessions with it are set up.
#[derive(Clone)]
pub struct Database {
    config: Config,
    tls: Tls,
}

/// A database URL that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL does not parse.
    #[error("the database URL is malformed: {0}")]
    Url(tokio_postgres::Error),
    /// No TLS configuration could be made.
    #[error("TLS cannot be set up: {0}")]
    Tls(rustls::Error),
}

impl Database {
    /// Reads a URL such as `postgresql://user@host/database` or `postgresql:///database?host=/run/postgresql`.
    ///
    /// TLS follows `sslmode`; a certificate that is offered is always verified against the system's roots.
    pub fn new(url: &str) -> Result<Self, Error> {
        let mut config: Config = url.parse().map_err(Error::Url)?;
        config
            .connect_timeout(Duration::from_secs(10))
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(30));
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            config,
            tls: Tls(MakeRustlsConnect::new(tls)),
        })
    }

    /// The database's name, for messages.
    pub fn name(&self) -> &str {
        self.config.get_dbname().unwrap_or("(default)")
    }

    /// Opens a session of its own. `settings` are run-time parameters on top of those of every session.
    pub async fn connect(
        &self,
        purpose: &str,
        settings: &[(&str, &str)],
    ) -> Result<Client, tokio_postgres::Error> {
        let config = self.session(purpose, settings);
        let (client, connection) = config.connect(self.tls.clone()).await?;
        // The task ends when the client is dropped or the connection is lost; the client sees the error.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Opens a session that listens on `channels`. The receiver ends when the connection is lost: notifications may
    /// then have been missed, so whoever listens must look at the state itself after reconnecting.
    pub async fn listen(
        &self,
        channels: &[&str],
    ) -> Result<(Client, mpsc::Receiver<Notification>), tokio_postgres::Error> {
        let config = self.session("listener", &[]);
        let (client, mut connection) = config.connect(self.tls.clone()).await?;
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(async move {
            loop {
                match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                    // A full queue already holds a hint to look; more of them add nothing.
                    Some(Ok(AsyncMessage::Notification(notification))) => {
                        let _ = sender.try_send(notification);
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                }
            }
        });
        for channel in channels {
            client.batch_execute(&format!("listen {channel}")).await?;
        }
        Ok((client, receiver))
    }

    /// Asks the server to stop what the session is doing. It may come too late, and then stop nothing or the session's
    /// next statement; that fails with SQLSTATE 57014.
    pub async fn cancel(&self, client: &Client) {
        let canceller = Canceller(self.tls.clone());
        canceller.cancel(&client.cancel_token()).await;
    }

    /// A pool of at most `size` sessions for readers who may go away.
    pub fn sessions(&self, purpose: &str, size: usize, settings: &[(&str, &str)]) -> Sessions {
        let pool = self.pool(purpose, size, settings);
        Sessions::new(pool, Canceller(self.tls.clone()))
    }

    /// A pool of at most `size` sessions.
    pub fn pool(&self, purpose: &str, size: usize, settings: &[(&str, &str)]) -> Pool {
        let manager = Manager::from_config(
            self.session(purpose, settings),
            self.tls.clone(),
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(Duration::from_secs(10)))
            .create_timeout(Some(Duration::from_secs(10)))
            .build()
            .expect("a pool with a runtime can always be built")
    }

    /// Sessions pin UTF8 and UTC, so that text and times mean the same whatever the server's defaults are.
    fn session(&self, purpose: &str, settings: &[(&str, &str)]) -> Config {
        let mut config = self.config.clone();
        let mut options = config.get_options().unwrap_or_default().to_owned();
        let fixed = [
            ("timezone", "UTC"),
            ("datestyle", "ISO"),
            ("intervalstyle", "postgres"),
            ("extra_float_digits", "1"),
            ("bytea_output", "hex"),
            ("standard_conforming_strings", "on"),
            ("search_path", "pg_catalog"),
            ("jit", "off"),
            ("idle_in_transaction_session_timeout", "60s"),
            // A role's own settings must not end a commit that is merely large.
            ("statement_timeout", "0"),
            ("lock_timeout", "0"),
        ];
        for (name, value) in fixed.iter().chain(settings) {
            options.push_str(&format!(" -c {name}={}", value.replace(' ', "\\ ")));
        }
        config
            .options(options)
            .application_name(format!("gobo {purpose}"));
        config
    }
}

/// TLS that can be prepared for a unix socket too: it has no host name to verify, and the server never offers TLS there.
#[derive(Clone)]
struct Tls(MakeRustlsConnect);

impl<S> MakeTlsConnect<S> for Tls
where
    MakeRustlsConnect: MakeTlsConnect<S>,
{
    type Stream = <MakeRustlsConnect as MakeTlsConnect<S>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<S>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        let host = if host.is_empty() { "localhost" } else { host };
        self.0.make_tls_connect(host)
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The configuration holds the password.
        f.debug_struct("Database")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// A value's bytes in PostgreSQL's binary format, whatever its type.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a>(pub Option<&'a [u8]>);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Raw(Some(raw)))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Raw(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A parameter that is already in PostgreSQL's binary format.
#[derive(Debug)]
pub struct RawParam(pub Vec<u8>);

impl ToSql for RawParam {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    tokio_postgres::types::to_sql_checked!();
}

/// What to blame for an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The connection, resources, a shutdown, a conflict between transactions: worth retrying for ever.
    Infrastructure,
    /// A value that PostgreSQL does not take (SQLSTATE 21, 22, 23, 54).
    Value,
    /// The statement: a table that is gone, a privilege that is missing. Neither time nor other values mend it.
    Statement,
}

/// Finds out by its SQLSTATE what to blame for an error.
pub fn cause(error: &tokio_postgres::Error) -> Cause {
    let Some(state) = error.code() else {
        return Cause::Infrastructure;
    };
    match &state.code()[..2] {
        "08" | "25" | "40" | "53" | "55" | "57" | "58" | "XX" => Cause::Infrastructure,
        "21" | "22" | "23" | "54" => Cause::Value,
        _ => Cause::Statement,
    }
}

/// Whether an error is the infrastructure's, and so worth retrying for ever.
pub fn is_infrastructure(error: &tokio_postgres::Error) -> bool {
    cause(error) == Cause::Infrastructure
}

/// An error with what the server said: message, detail and SQLSTATE, which `Display` of the driver's type leaves out.
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        None => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
        Some(db) => {
            let detail = db.detail().map(|d| format!(" ({d})")).unwrap_or_default();
            format!("{}{detail} [SQLSTATE {}]", db.message(), db.code().code())
        }
    }
}

/// The same for a connection that was asked of a pool.
pub fn describe_pool(error: &deadpool_postgres::PoolError) -> String {
    match error {
        deadpool_postgres::PoolError::Backend(error) => describe(error),
        other => format!("no database connection is free: {other}"),
    }
}
