//! One filter and selection, and everybody who follows it: judged once per commit, however many they are.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::commit::Parsed;
use super::mailbox::{End, Event, Mailbox, Reason, Slow};
use super::turns::Turns;
use crate::db::{Sessions, is_infrastructure};
use crate::query::live::Matcher;
use crate::query::sql::Statement;
use crate::query::{Failure, live};

/// One in so many sessions for reading may judge rows.
const SHARE: usize = 4;

/// What is followed: equal ones are shared.
#[derive(Debug, Clone)]
pub struct Question {
    /// Judges changed rows, and says what of them is shown, see [`live::statement`].
    pub statement: Statement,
    /// The same without the database, where that comes to the same.
    pub matcher: Option<Arc<Matcher>>,
}

impl Question {
    /// What the changes of a commit are to those who ask this: a JSON array, or nothing.
    pub(super) async fn judge(
        &self,
        judges: &Judges,
        commit: &Parsed,
    ) -> Result<Option<String>, End> {
        match &self.matcher {
            Some(matcher) => Ok(judge_here(matcher, commit).await),
            None => judges.judge(&self.statement, commit).await,
        }
    }
}

/// How long judging may go on before others have their turns.
const STRETCH: Duration = Duration::from_millis(5);

/// Leaves others their turns while something long is done. Not more often than it must: after each commit there are as many
/// others as there are followers, and all of them come first.
pub(super) struct Pace(Instant);

impl Pace {
    pub(super) fn begin() -> Self {
        Self(Instant::now())
    }

    pub(super) async fn keep(&mut self) {
        if self.0.elapsed() >= STRETCH {
            yield_now().await;
            self.0 = Instant::now();
        }
    }
}

/// Judges without the database. A large commit takes as long as it takes, and leaves others their turns meanwhile.
async fn judge_here(matcher: &Matcher, commit: &Parsed) -> Option<String> {
    let mut changes = String::new();
    let mut pace = Pace::begin();
    for change in &commit.changes {
        pace.keep().await;
        let is_in = |row: &&super::commit::Row| matcher.holds(&|column| row.value(column));
        let after = change.after.as_ref().filter(is_in);
        if after.is_none() && change.before.as_ref().filter(is_in).is_none() {
            continue;
        }
        changes.push(if changes.is_empty() { '[' } else { ',' });
        let key = change.key.get();
        match after {
            Some(row) => {
                changes.push_str("{\"op\":\"upsert\",\"key\":");
                changes.push_str(key);
                changes.push_str(",\"row\":");
                matcher.show(&mut changes, &|column| row.value(column));
                changes.push('}');
            }
            None => {
                changes.push_str("{\"op\":\"delete\",\"key\":");
                changes.push_str(key);
                changes.push('}');
            }
        }
    }
    if changes.is_empty() {
        return None;
    }
    changes.push(']');
    Some(changes)
}

/// The database, as far as it judges rows: a part of the sessions for reading, so that live queries do not keep anybody from
/// reading who does not follow. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Judges {
    readers: Sessions,
    places: Turns,
}

impl Judges {
    pub(super) fn new(readers: Sessions) -> Self {
        let places = (readers.max_size() / SHARE).max(1);
        Self {
            readers,
            places: Turns::new(places),
        }
    }

    /// The same for one reader, who never has all of them.
    pub(super) fn of_one(&self) -> Self {
        Self {
            readers: self.readers.clone(),
            places: self.places.of_one(),
        }
    }

    async fn judge(&self, statement: &Statement, commit: &Parsed) -> Result<Option<String>, End> {
        let _place = self.places.take().await;
        let judged = live::judge(&self.readers, statement, &commit.text).await;
        judged.map_err(|failure| {
            // What PostgreSQL says may name values of rows that the subscriber must not see.
            let revision = commit.revision;
            tracing::warn!(%failure, revision, "a live query could not be judged");
            match failure {
                Failure::Gone => End::Refetch(Reason::Generation),
                Failure::Pool(_) => End::Dropped(Slow::Database),
                Failure::Database(error) if is_infrastructure(&error) => {
                    End::Dropped(Slow::Database)
                }
                _ => End::Refetch(Reason::Failed),
            }
        })
    }
}

/// Where revisions mean something: what an id says besides the revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realm {
    /// See [`crate::query::Freshness`].
    pub incarnation: String,
    /// The generation.
    pub generation: i64,
}

impl Realm {
    /// The id of an event.
    pub fn id(&self, revision: i64) -> String {
        format!("{}-{}-{revision}", self.incarnation, self.generation)
    }

    /// Reads an id back.
    pub fn read(id: &str) -> Option<(Self, i64)> {
        let (rest, revision) = id.rsplit_once('-')?;
        let (incarnation, generation) = rest.rsplit_once('-')?;
        let realm = Self {
            incarnation: incarnation.to_owned(),
            generation: generation.parse().ok()?,
        };
        Some((
            realm,
            revision.parse().ok().filter(|&revision| revision >= 0)?,
        ))
    }

    /// The event that a commit is, from what [`Question::judge`] found.
    pub(super) fn event(&self, commit: &Parsed, changes: &str) -> Event {
        let data = format!(
            "{{\"position\":{},\"revision\":{},\"changes\":{changes}}}",
            commit.position, commit.revision
        );
        frame("changes", &self.id(commit.revision), commit.revision, &data)
    }
}

/// A server-sent event. Values of type json may hold line breaks, between their tokens; the format would take them for its
/// own.
pub fn frame(kind: &str, id: &str, revision: i64, data: &str) -> Event {
    let head = format!("id: {id}\nevent: {kind}\ndata: ");
    let mut frame = Vec::with_capacity(head.len() + data.len() + 2);
    frame.extend_from_slice(head.as_bytes());
    let breaks = |byte: u8| matches!(byte, b'\n' | b'\r');
    frame.extend(
        data.bytes()
            .map(|byte| if breaks(byte) { b' ' } else { byte }),
    );
    frame.extend_from_slice(b"\n\n");
    let frame = Bytes::from(frame);
    Event {
        revision,
        data: frame.slice(head.len()..frame.len() - 2),
        frame,
    }
}

/// A question with those who ask it.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) question: Question,
    pub(super) realm: Realm,
    /// Those of whoever asked first.
    judges: Judges,
    /// Everything up to this revision is in the mailboxes.
    seen: AtomicI64,
    mailboxes: Mutex<Vec<Arc<Mailbox>>>,
}

impl Followed {
    pub(super) fn new(question: Question, judges: Judges, realm: Realm, seen: i64) -> Self {
        Self {
            question,
            judges,
            realm,
            seen: AtomicI64::new(seen),
            mailboxes: Mutex::default(),
        }
    }

    pub(super) fn join(&self, mailbox: Arc<Mailbox>) {
        self.mailboxes().push(mailbox);
    }

    /// Gives whether nobody is left.
    pub(super) fn leave(&self, mailbox: &Arc<Mailbox>) -> bool {
        let mut mailboxes = self.mailboxes();
        mailboxes.retain(|other| !Arc::ptr_eq(other, mailbox));
        mailboxes.is_empty()
    }

    pub(super) fn seen(&self) -> i64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Takes the next commit over. Commits come in order.
    pub(super) async fn take(&self, commit: &Parsed) {
        if self.mailboxes().is_empty() {
            // Whoever comes now has to read by itself what was handed out before.
            self.seen.store(commit.revision, Ordering::Release);
            return;
        }
        match self.question.judge(&self.judges, commit).await {
            Ok(Some(changes)) => {
                let event = Arc::new(self.realm.event(commit, &changes));
                for mailbox in self.mailboxes().iter() {
                    mailbox.push(&event);
                }
            }
            Ok(None) => {}
            Err(end) => self.end(&end),
        }
        // Last, so that whoever sees it finds the events before it in the mailbox.
        self.seen.store(commit.revision, Ordering::Release);
    }

    /// Ends everybody.
    pub(super) fn end(&self, end: &End) {
        for mailbox in self.mailboxes().drain(..) {
            mailbox.end(end.clone());
        }
    }

    fn mailboxes(&self) -> MutexGuard<'_, Vec<Arc<Mailbox>>> {
        self.mailboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test]
    async fn others_have_their_turns_while_a_large_commit_is_judged() {
        let change = r#"{"k":[1],"b":null,"a":{"n":1}}"#;
        let changes = format!("[{}]", vec![change; 100_000].join(","));
        let commit = Parsed::read(1, 1, changes).unwrap();
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = turns.clone();
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let judged = judge_here(&Matcher::default(), &commit).await;
        assert_eq!(judged.unwrap().matches("upsert").count(), 100_000);
        assert!(turns.load(Ordering::Relaxed) > 0);
        other.abort();
    }

    #[test]
    fn an_id_is_read_back_as_it_was_written() {
        let realm = Realm {
            incarnation: "261121080000-1a2b3c4d".into(),
            generation: 7,
        };
        assert_eq!(Realm::read(&realm.id(12)), Some((realm, 12)));
        for bad in [
            "",
            "1",
            "1-2",
            "a-b-c",
            "a-1--5",
            "x-7-99999999999999999999",
        ] {
            assert_eq!(Realm::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn line_breaks_between_json_tokens_do_not_end_an_event() {
        let event = frame("changes", "x-1-2", 2, "{\"a\":\n1,\r\n\"b\":\"\\n\"}");
        let text = "id: x-1-2\nevent: changes\ndata: {\"a\": 1,  \"b\":\"\\n\"}\n\n";
        assert_eq!(event.frame, text);
        assert_eq!(event.data, "{\"a\": 1,  \"b\":\"\\n\"}");
    }
}
