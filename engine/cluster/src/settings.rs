//! What a cluster is for decides how careful its server is.

use std::ffi::OsString;
use std::path::PathBuf;

/// The port number of every private cluster. It only names the socket file: nothing listens on TCP,
/// and each cluster has a socket folder of its own.
pub const PORT: u16 = 7170;

/// The superuser that owns a private cluster.
pub const ROLE: &str = "gobo";

/// Which cluster to start.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) data: Option<PathBuf>,
    pub(crate) settings: Vec<(String, String)>,
}

impl Options {
    /// A cluster whose data stays in `data` between runs and survives a crash of the machine.
    pub fn durable(data: impl Into<PathBuf>) -> Options {
        let settings = [
            ("max_connections", "100"),
            ("shared_buffers", "256MB"),
            ("max_wal_size", "4GB"),
        ];
        Options {
            data: Some(data.into()),
            settings: owned(&settings),
        }
    }

    /// A cluster in a fresh temporary folder that is removed with it. It never waits for a disk,
    /// so it survives a crash of the server but not one of the machine.
    pub fn ephemeral() -> Options {
        let settings = [
            ("fsync", "off"),
            ("full_page_writes", "off"),
            ("max_connections", "300"),
            ("max_prepared_transactions", "10"),
            ("shared_buffers", "256MB"),
            ("max_wal_size", "8GB"),
        ];
        Options {
            data: None,
            settings: owned(&settings),
        }
    }

    /// The same with one of PostgreSQL's settings changed.
    pub fn with(mut self, name: &str, value: &str) -> Options {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// The whole environment of PostgreSQL's programs. Their messages are wanted in English, since
/// `trouble` reads them.
pub(crate) fn environment() -> Vec<(OsString, OsString)> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    vec![("PATH".into(), path), ("LC_MESSAGES".into(), "C".into())]
}
