//! Bounds that meet other bounds.

use crate::config::Config;

/// Files and sockets that the process needs besides its clients' connections.
const FILES: usize = 256;

/// How many may follow live: each has a connection, and others want one, too.
pub(super) fn subscribers(config: &Config) -> usize {
    let most = config.api.max_connections / 4 * 3;
    config.live.max_subscribers.min(most.max(1))
}

/// Says which bounds will not be reached, because another one is.
pub(super) fn warn(config: &Config) {
    let (asked, subscribers) = (config.live.max_subscribers, subscribers(config));
    if subscribers < asked {
        tracing::warn!(
            "live.max_subscribers is {asked}, and {subscribers} are possible: a quarter of api.max_connections ({}) is kept for others",
            config.api.max_connections
        );
    }
    let needed = config.api.max_connections.saturating_add(FILES);
    if let Some(files) = open_files()
        && files < needed
    {
        tracing::warn!(
            "this process may open {files} files, and api.max_connections ({}) needs {needed}: raise the limit (ulimit -n, LimitNOFILE=), \
             or lower api.max_connections",
            config.api.max_connections
        );
    }
}

/// How many files this process may open, where the system says so.
fn open_files() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}
