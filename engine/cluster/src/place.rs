//! Where a cluster's data and socket are, and as whom its server runs.

use std::fs::{DirBuilder, File, Metadata, Permissions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};

use crate::account::{self, Account};
use crate::lock;

/// The longest folder name that leaves room for `/.s.PGSQL.7170` in the 104 bytes of macOS
/// (Linux has 108).
const SOCKET_FOLDER_BYTES: usize = 88;

/// The folders of one cluster.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) account: Account,
    pub(crate) data: PathBuf,
    pub(crate) socket: PathBuf,
    /// The folder that the caller asked for, when the data had to go somewhere else.
    pub(crate) instead_of: Option<PathBuf>,
    /// The folder that goes when the cluster ends.
    pub(crate) temporary: Option<PathBuf>,
    /// Keeps other runs from the data as long as it is open.
    _lock: Option<File>,
}

impl Place {
    /// A fresh folder under the system's temporary one, for data that nobody wants to keep.
    pub(crate) fn temporary() -> Result<Place> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let account = Account::for_server(None)?;
        let nanos = std::time::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_nanos());
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let seed = format!("{} {nanos} {count}", std::process::id());
        let root =
            temporary_root(account)?.join(format!("gobo-{:016x}", fingerprint(seed.as_bytes())));
        create_private(&root, account)?;
        Ok(Place {
            account,
            data: root.join("data"),
            socket: root.clone(),
            instead_of: None,
            temporary: Some(root),
            _lock: None,
        })
    }

    /// The place for data that stays in `wanted`, or, when the server's account cannot enter that
    /// folder (a home directory that only its user may enter), in a folder that it can enter.
    pub(crate) fn durable(wanted: &Path) -> Result<Place> {
        let wanted = std::path::absolute(wanted)
            .with_context(|| format!("{} is no path", wanted.display()))?;
        let account = Account::for_server(Some(&wanted))?;
        let parent = wanted
            .parent()
            .with_context(|| format!("{} cannot hold a cluster", wanted.display()))?;
        std::fs::create_dir_all(parent)
            .with_context(|| format!("could not create {}", parent.display()))?;
        let (data, instead_of) = if !account::is_root() || account.can_enter(parent)? {
            (wanted.clone(), None)
        } else {
            let root = relocated(&wanted);
            use_private(&root, account)?;
            (root.join("postgres"), Some(wanted.clone()))
        };
        let lock = lock::take(&data)?;
        account.own(&data.with_extension("lock"))?;
        let socket = temporary_root(account)?.join(format!(
            "gobo-{:016x}",
            fingerprint(wanted.as_os_str().as_bytes())
        ));
        use_private(&socket, account)?;
        Ok(Place {
            account,
            data,
            socket,
            instead_of,
            temporary: None,
            _lock: Some(lock),
        })
    }
}

/// Removes the data of the durable cluster that was asked for as `wanted`, wherever it went. Refused
/// while a run uses it.
pub fn remove_data(wanted: &Path) -> Result<()> {
    let wanted =
        std::path::absolute(wanted).with_context(|| format!("{} is no path", wanted.display()))?;
    let elsewhere = relocated(&wanted);
    for (data, folder) in [
        (elsewhere.join("postgres"), elsewhere),
        (wanted.clone(), wanted),
    ] {
        if !data.exists() {
            continue;
        }
        let _lock = lock::take(&data)?;
        lock::clear(&data)?;
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("could not remove {}", folder.display()))?;
    }
    Ok(())
}

/// Where data goes that cannot be where it was wanted: /var/tmp outlives a restart of the machine.
fn relocated(wanted: &Path) -> PathBuf {
    let root = Path::new("/var/tmp");
    let root = if root.is_dir() {
        root.to_path_buf()
    } else {
        std::env::temp_dir()
    };
    root.join(format!(
        "gobo-{:016x}",
        fingerprint(wanted.as_os_str().as_bytes())
    ))
}

/// The system's temporary folder, when the server may use it and socket names fit, else /tmp.
fn temporary_root(account: Account) -> Result<PathBuf> {
    let folder = std::env::temp_dir();
    let fits = folder.as_os_str().len() + "/gobo-0123456789abcdef".len() <= SOCKET_FOLDER_BYTES;
    if fits && (!account::is_root() || account.can_enter(&folder)?) {
        return Ok(folder);
    }
    Ok(PathBuf::from("/tmp"))
}

fn create_private(folder: &Path, account: Account) -> Result<()> {
    DirBuilder::new()
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("could not create {}", folder.display()))?;
    account.own(folder)
}

/// Uses `folder` when it is ours alone, creating it when it is missing. The temporary folder is
/// everybody's: a folder or link that somebody else put there must not receive our data.
fn use_private(folder: &Path, account: Account) -> Result<()> {
    match std::fs::symlink_metadata(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => create_private(folder, account),
        Err(error) => Err(error).with_context(|| format!("could not read {}", folder.display())),
        Ok(found) if is_ours(&found, account) => {
            std::fs::set_permissions(folder, Permissions::from_mode(0o700))?;
            account.own(folder)
        }
        Ok(found) => bail!(
            "{} exists and belongs to user id {}, so it is not used; remove it, or point TMPDIR at another folder",
            folder.display(),
            found.uid()
        ),
    }
}

fn is_ours(found: &Metadata, account: Account) -> bool {
    found.is_dir() && (found.uid() == account.uid || (account::is_root() && found.uid() == 0))
}

/// 64-bit FNV-1a: short and the same in every build, unlike the standard library's hashers.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
