//! Bounds that meet other bounds.

use crate::config::Config;

/// Files and sockets that the process needs besides its clients' connections and the sessions that serve them.
const FILES: usize = 256;

/// How many clients there may be at the same time, as far as the system lets the process have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Connections that are accepted.
    pub(super) connections: usize,
    /// How many may follow live: each has a connection, and others want one, too.
    pub(super) subscribers: usize,
}

impl Bounds {
    /// What holds in this process, which is let open as many files as that needs, if the system allows it. Says which bounds of the
    /// configuration will not be reached.
    pub(super) fn of(config: &Config) -> Self {
        let (asked, subscribers) = (config.api.max_connections, config.live.max_subscribers);
        // Readers have that many sessions, and so have those who append.
        let kept = FILES + 2 * config.database.api_connections;
        let files = open_files(asked.saturating_add(kept));
        let bounds = Self::with(asked, subscribers, files, kept);
        if let Some(files) = files.filter(|_| bounds.connections < asked) {
            tracing::warn!(
                "api.max_connections is {asked}, and {} are accepted: this process may open {files} files, and keeps {kept} for \
                 other things. Raise the limit (ulimit -Hn, LimitNOFILE=), or lower api.max_connections",
                bounds.connections
            );
        }
        if bounds.subscribers < subscribers {
            tracing::warn!(
                "live.max_subscribers is {subscribers}, and {} are possible: a quarter of the {} connections (api.max_connections) is kept for others",
                bounds.subscribers,
                bounds.connections
            );
        }
        bounds
    }

    fn with(connections: usize, subscribers: usize, files: Option<usize>, kept: usize) -> Self {
        let possible = files.map_or(usize::MAX, |files| {
            // Who has very few shares them.
            files.saturating_sub(kept).max(files / 4).max(1)
        });
        let connections = connections.min(possible);
        Self {
            connections,
            subscribers: subscribers.min((connections / 4 * 3).max(1)),
        }
    }
}

/// How many files this process may open, once it has asked for as many as it needs. `None` is any number.
fn open_files(needed: usize) -> Option<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
    let wanted = now.maximum.map_or(needed, |most| most.min(needed));
    let is_enough = now.current.is_none_or(|current| current >= wanted);
    let raised = Rlimit {
        current: Some(wanted),
        maximum: now.maximum,
    };
    let is_raised = !is_enough && setrlimit(Resource::Nofile, raised).is_ok();
    let files = match is_raised {
        true => Some(wanted),
        false => now.current,
    };
    if is_raised {
        tracing::info!(files = wanted, "this process may open more files now");
    }
    files.map(|files| usize::try_from(files).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_connections_are_accepted_than_files_can_be_opened() {
        let of = |files| {
            let bounds = Bounds::with(4_096, 3_000, files, 256);
            (bounds.connections, bounds.subscribers)
        };
        assert_eq!(of(None), (4_096, 3_000));
        assert_eq!(of(Some(1 << 20)), (4_096, 3_000));
        assert_eq!(of(Some(4_352)), (4_096, 3_000));
        assert_eq!(of(Some(1_024)), (768, 576));
        assert_eq!(of(Some(256)), (64, 48));
        assert_eq!(of(Some(0)), (1, 1));
    }

    #[test]
    fn what_is_there_is_not_given_back() {
        let before = open_files(0);
        assert_eq!(open_files(1), before);
        assert!(open_files(usize::MAX) >= before || before.is_none());
    }
}
