//! What PostgreSQL's own words about a failure mean for the person who reads them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::place::Place;

/// What to do about a failure that the server describes in `log`; continues a sentence.
pub(crate) fn advice(log: &str, place: &Place) -> String {
    let data = place.data.display();
    if log.contains("No space left on device") || log.contains("Disk quota exceeded") {
        format!(": the disk is full; free some space for {data}")
    } else if log.contains("Cannot allocate memory")
        || log.contains("could not create shared memory segment")
    {
        ": there is not enough memory; end other programs or start it with a smaller `shared_buffers`".to_owned()
    } else if log.contains("Permission denied") || log.contains("wrong ownership") {
        let owner = fs::metadata(&place.data)
            .map(|found| format!(" (it belongs to user id {})", found.uid()));
        let (uid, owner) = (place.account.uid, owner.unwrap_or_default());
        format!(
            ": it runs as user id {uid}, which must own {data}{owner} and be able to enter the folders above it"
        )
    } else {
        String::new()
    }
}

/// The last lines of a log.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
