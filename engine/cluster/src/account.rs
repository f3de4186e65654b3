//! As whom a server runs: PostgreSQL refuses to run as root.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// A user and a group that a process drops to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// The account for a server: this process's own, or when that is root an unprivileged one.
    /// Data that exists already is served as its owner.
    pub(crate) fn for_server(data: Option<&Path>) -> Result<Account> {
        let own = Account {
            uid: id(&["-u"])?,
            gid: id(&["-g"])?,
        };
        if own.uid != 0 {
            return Ok(own);
        }
        if let Some(owner) = data.and_then(|data| std::fs::metadata(data).ok())
            && owner.uid() != 0
        {
            return Ok(Account {
                uid: owner.uid(),
                gid: owner.gid(),
            });
        }
        for name in ["postgres", "nobody"] {
            if let (Ok(uid), Ok(gid)) = (id(&["-u", name]), id(&["-g", name])) {
                return Ok(Account { uid, gid });
            }
        }
        bail!(
            "PostgreSQL refuses to run as root, and there is neither a user `postgres` nor `nobody` to run it as; \
             create one (`useradd --system postgres`) or start this as an ordinary user"
        )
    }

    /// Whether a process of this account may enter `folder`; asked of the system itself, since
    /// access lists and mount options decide as well as modes.
    pub(crate) fn can_enter(self, folder: &Path) -> Result<bool> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "cd -- \"$0\" 2>/dev/null"]).arg(folder);
        self.apply(&mut command);
        let status = command
            .current_dir("/")
            .stdin(Stdio::null())
            .status()
            .context("could not run /bin/sh")?;
        Ok(status.success())
    }

    /// Makes `command` run as this account. A no-op for one's own account, since changing groups
    /// needs privileges even when nothing changes.
    pub(crate) fn apply(self, command: &mut Command) {
        if is_root() {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Gives `path` to this account when it belongs to somebody else.
    pub(crate) fn own(self, path: &Path) -> Result<()> {
        let now = std::fs::metadata(path)
            .with_context(|| format!("could not read {}", path.display()))?;
        if now.uid() != self.uid {
            std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid)).with_context(|| {
                format!("could not give {} to user id {}", path.display(), self.uid)
            })?;
        }
        Ok(())
    }
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    id(&["-u"]).is_ok_and(|uid| uid == 0)
}

fn id(arguments: &[&str]) -> Result<u32> {
    let output = Command::new("id")
        .args(arguments)
        .stderr(Stdio::null())
        .output()
        .context("could not run `id`")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim()
        .parse()
        .with_context(|| format!("`id {}` answered {text:?}", arguments.join(" ")))
}
