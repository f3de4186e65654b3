//! What a stream still has to be told, by what it ends with and what the database has.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::feed::{Commit, Page};

/// The id of an entry: the revision of its commit, and its place in it from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) revision: i64,
    pub(super) index: u64,
}

/// An entry with its fields in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: Id,
    pub(super) fields: Vec<(&'static str, String)>,
}

/// Why consumers have to read the rows anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The stream begins.
    Begun,
    /// Rows changed in a way that is not told, or commits were forgotten before they could be published.
    Hole,
    /// A commit changed more rows than are told.
    TooMany,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The stream has everything up to this revision.
    Nothing(i64),
    /// Add these; then it has everything up to this revision.
    Append(Vec<Entry>, i64),
    /// The stream tells what the database does not know: begin it anew.
    Anew,
}

#[derive(Deserialize)]
struct Change<'a> {
    #[serde(borrow)]
    k: &'a RawValue,
    #[serde(borrow)]
    a: Option<&'a RawValue>,
}

/// Continues a stream that has everything up to the revision `told` and ends with `last`, by a page that was read after
/// `told`.
pub(super) fn step(last: Id, told: i64, page: &Page) -> Step {
    if told > page.revision || last.revision > page.revision {
        return Step::Anew;
    }
    let (mut entries, mut told): (Vec<Entry>, i64) = (Vec::new(), told);
    for commit in &page.commits {
        // A promotion has come after it: what it changed is read anew.
        if commit.generation != page.generation {
            continue;
        }
        if commit.previous < told {
            return Step::Anew;
        }
        if commit.previous > told {
            entries.push(refetch(commit.previous, page, commit.position, Why::Hole));
        }
        let before = entries.last().map_or(last, |entry| entry.id);
        match tell(commit, before.revision) {
            Some(changes) => entries.extend(changes),
            None => entries.push(refetch(
                commit.revision,
                page,
                commit.position,
                Why::TooMany,
            )),
        }
        told = commit.revision;
    }
    if page.is_whole && told < page.revision {
        entries.push(refetch(page.revision, page, page.position, Why::Hole));
        told = page.revision;
    }
    // Commits of a generation that is live no longer are all that this page has.
    if let Some(commit) = page.commits.last()
        && commit.generation != page.generation
        && told < commit.revision
    {
        told = commit.revision;
        entries.push(refetch(told, page, commit.position, Why::Hole));
    }
    match entries.is_empty() {
        true => Step::Nothing(told),
        false => Step::Append(entries, told),
    }
}

/// The entries of a commit; `None` when it does not tell what it changed. They name the revision of the entry before them, not
/// the commit's own: there is nothing to be told of one that changed no row, and nobody is to look for it.
fn tell(commit: &Commit, before: i64) -> Option<Vec<Entry>> {
    let changes: Vec<Change<'_>> = serde_json::from_str(commit.changes.as_deref()?).ok()?;
    let count = changes.len();
    let entries = (1..).zip(changes).map(|(index, change)| {
        let op = if change.a.is_some() {
            "upsert"
        } else {
            "delete"
        };
        let mut fields = vec![("op", op.to_owned()), ("key", change.k.get().to_owned())];
        fields.extend(change.a.map(|row| ("row", row.get().to_owned())));
        fields.extend([
            ("position", commit.position.to_string()),
            ("revision", commit.revision.to_string()),
            ("previous", before.to_string()),
            ("count", count.to_string()),
        ]);
        Entry {
            id: Id {
                revision: commit.revision,
                index,
            },
            fields,
        }
    });
    Some(entries.collect())
}

fn refetch(revision: i64, page: &Page, position: i64, why: Why) -> Entry {
    Entry {
        id: Id { revision, index: 1 },
        fields: refetch_fields(revision, page.generation, position, why),
    }
}

/// The fields of an entry that tells consumers to read the rows anew.
pub(super) fn refetch_fields(
    revision: i64,
    generation: i64,
    position: i64,
    why: Why,
) -> Vec<(&'static str, String)> {
    vec![
        ("op", "refetch".to_owned()),
        ("reason", why.text().to_owned()),
        ("position", position.to_string()),
        ("revision", revision.to_string()),
        ("generation", generation.to_string()),
    ]
}

impl Why {
    fn text(self) -> &'static str {
        match self {
            Why::Begun => "this stream begins here",
            Why::Hole => "rows have changed in a way that is not told",
            Why::TooMany => "a commit has changed more rows than are told",
        }
    }
}

impl Entry {
    pub(super) fn is_refetch(&self) -> bool {
        self.fields.first().is_some_and(|(_, op)| op == "refetch")
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.revision, self.index)
    }
}

impl std::str::FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (revision, index) = text.split_once('-').ok_or(())?;
        Ok(Self {
            revision: revision.parse().map_err(drop)?,
            index: index.parse().map_err(drop)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(previous: i64, revision: i64, generation: i64) -> Commit {
        Commit {
            revision,
            previous,
            generation,
            position: revision * 10,
            changes: Some(
                r#"[{"k":["a"],"b":null,"a":{"id":"a"}},{"k":["b"],"b":{},"a":null}]"#.into(),
            ),
        }
    }

    fn page(revision: i64, commits: Vec<Commit>) -> Page {
        Page {
            incarnation: None,
            generation: 1,
            position: revision * 10,
            revision,
            is_whole: commits.len() < 10,
            commits,
        }
    }

    /// The entries as `id op`, and up to where the stream is then complete.
    #[track_caller]
    fn check(told: i64, page: Page, expected: &str, then: i64) {
        let last = Id {
            revision: told,
            index: 1,
        };
        let (entries, told) = match step(last, told, &page) {
            Step::Append(entries, told) => (entries, told),
            Step::Nothing(told) => (Vec::new(), told),
            Step::Anew => panic!("begun anew"),
        };
        let shown: Vec<String> = (entries.iter())
            .map(|entry| format!("{} {}", entry.id, entry.fields[0].1))
            .collect();
        assert_eq!(shown.join(", "), expected);
        assert_eq!(told, then);
        assert!(entries.is_sorted_by(|a, b| a.id < b.id));
    }

    #[test]
    fn a_chain_of_commits_is_told_change_by_change() {
        check(5, page(5, vec![]), "", 5);
        let commits = vec![commit(5, 6, 1), commit(6, 9, 1)];
        check(
            5,
            page(9, commits),
            "6-1 upsert, 6-2 delete, 9-1 upsert, 9-2 delete",
            9,
        );
    }

    #[test]
    fn what_is_missing_at_the_beginning_in_the_middle_or_at_the_end_is_to_be_read_anew() {
        let told = "8-1 upsert, 8-2 delete";
        check(
            5,
            page(8, vec![commit(7, 8, 1)]),
            &format!("7-1 refetch, {told}"),
            8,
        );
        check(5, page(9, vec![]), "9-1 refetch", 9);
        let commits = vec![commit(5, 6, 1), commit(7, 8, 1)];
        check(
            5,
            page(9, commits),
            &format!("6-1 upsert, 6-2 delete, 7-1 refetch, {told}, 9-1 refetch"),
            9,
        );
    }

    #[test]
    fn a_commit_that_does_not_tell_what_it_changed_is_to_be_read_anew() {
        let silent = Commit {
            changes: None,
            ..commit(5, 6, 1)
        };
        check(5, page(6, vec![silent]), "6-1 refetch", 6);
    }

    #[test]
    fn a_commit_without_changes_is_passed_over() {
        let empty = Commit {
            changes: Some("[]".into()),
            ..commit(5, 6, 1)
        };
        check(5, page(6, vec![empty.clone()]), "", 6);
        let commits = vec![empty, commit(6, 7, 1), commit(7, 8, 1)];
        let last = Id {
            revision: 5,
            index: 1,
        };
        let Step::Append(entries, 8) = step(last, 5, &page(8, commits)) else {
            panic!("nothing is told");
        };
        let previous = entries.iter().flat_map(|entry| &entry.fields);
        let previous = previous.filter(|(field, _)| *field == "previous");
        let previous: Vec<&str> = previous.map(|(_, value)| value.as_str()).collect();
        assert_eq!(previous, ["5", "5", "7", "7"]);
    }

    #[test]
    fn commits_of_the_generation_before_are_not_told() {
        let commits = vec![commit(5, 6, 0), commit(8, 9, 1)];
        check(
            5,
            page(9, commits),
            "8-1 refetch, 9-1 upsert, 9-2 delete",
            9,
        );
        let full: Vec<Commit> = (5..15).map(|n| commit(n, n + 1, 0)).collect();
        check(5, page(40, full), "15-1 refetch", 15);
    }

    #[test]
    fn a_stream_that_knows_more_than_the_database_is_begun_anew() {
        let last = Id {
            revision: 7,
            index: 1,
        };
        assert_eq!(step(last, 7, &page(6, vec![])), Step::Anew);
        let forked = page(9, vec![commit(6, 9, 1)]);
        assert_eq!(step(last, 7, &forked), Step::Anew);
    }
}
