//! One stream alone: all its events once more, from nothing, in place of the rows that it has.
//!
//! For read models that are declared per stream only: there every row says whose it is, and no other stream's events touch
//! it. The checkpoint stays where it is; rows of the stream that are not made any more go, its dead letters are settled, all
//! in one transaction or not at all. What an operator discarded stays discarded.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::batch::{self, Executed, Trouble, TroubleKind};
use super::late::Lookout;
use super::policy::TRIES;
use super::session::Session;
use super::{Control, Interrupt};
use crate::event::{Batch, Position};
use crate::read_model::writer::{ChangeSet, Rebuilt, StreamLetter, StreamWish};

/// Lines that the plugin logged meanwhile and that are kept: as many as a projection has at all.
const LINES: usize = 1_000;

/// Why the rows of a stream stay as they are.
enum Stay {
    /// Somebody has to know.
    Because(String),
    /// The loop is to end; the next owner begins again.
    Told,
}

impl From<String> for Stay {
    fn from(why: String) -> Self {
        Self::Because(why)
    }
}

/// Computes anew what was asked for.
pub(super) async fn rebuild(
    session: &mut Session<'_>,
    control: &watch::Receiver<Control>,
) -> Result<(), Interrupt> {
    for wish in session.writer.stream_wishes().await? {
        let stream: Arc<str> = wish.stream_id.as_str().into();
        session.rows.without(Some(stream.clone()));
        let done = replace(session, control, &wish, &stream).await?;
        // Whatever the plugin was shown meanwhile is not what is there.
        session.rows.without(None);
        match done {
            Ok(()) => {}
            Err(Stay::Told) => return Ok(()),
            Err(Stay::Because(why)) => {
                let projection = &session.job.target.projection;
                tracing::warn!(
                    projection,
                    stream = wish.stream_id,
                    why,
                    "its rows stay as they are"
                );
                let writer = &session.writer;
                writer.decline(&session.checkpoint, &wish, &why).await?;
            }
        }
    }
    Ok(())
}

async fn replace(
    session: &mut Session<'_>,
    control: &watch::Receiver<Control>,
    wish: &StreamWish,
    stream: &Arc<str>,
) -> Result<Result<(), Stay>, Interrupt> {
    if let Some(model) = session.models.iter().find(|model| !model.per_stream) {
        let why = format!("read model \"{}\" is not declared per_stream", model.name);
        return Ok(Err(why.into()));
    }
    let letters = session.writer.stream_letters(stream).await?;
    let mut set = session.change_set();
    let mut run = Run::new(stream, &letters);
    if let Err(stay) = run.all(session, control, &mut set).await? {
        return Ok(Err(stay));
    }
    let mut left = (session.job.settings.rebuild_bytes).saturating_sub(set.bytes());
    for model in 0..session.models.len() {
        let Some(keys) = session.rows.keys_of(model, stream, &mut left).await? else {
            return Ok(Err(too_large(session)));
        };
        set.replace(model, stream, keys);
    }
    // The checkpoint is ahead of these events and stays where it is.
    set.through = session.checkpoint.position;
    set.applied = None;
    set.settled.extend(run.open());
    set.rebuilt = Some(Rebuilt {
        wish: wish.clone(),
        rows: set.remaining() as i64,
    });
    if let Err(why) = session.commit(&set, run.events).await? {
        return Ok(Err(format!("the rows cannot be written: {why}").into()));
    }
    if session.parked.remove(&**stream) && session.parked.is_empty() {
        session.writer.forget_absent(&session.checkpoint).await?;
    }
    Ok(Ok(()))
}

/// The stream's events on their way through the plugin.
struct Run<'w> {
    stream: &'w Arc<str>,
    letters: &'w [StreamLetter],
    events: usize,
}

impl<'w> Run<'w> {
    fn new(stream: &'w Arc<str>, letters: &'w [StreamLetter]) -> Self {
        Self {
            stream,
            letters,
            events: 0,
        }
    }

    /// The events that wait or were skipped.
    fn open(&self) -> impl Iterator<Item = Position> {
        let open = self.letters.iter().filter(|letter| !letter.is_discarded);
        open.map(|letter| letter.position)
    }

    /// Takes all events up to the checkpoint through the plugin, in ever smaller batches where one fails.
    async fn all(
        &mut self,
        session: &mut Session<'_>,
        control: &watch::Receiver<Control>,
        set: &mut ChangeSet,
    ) -> Result<Result<(), Stay>, Interrupt> {
        let (end, most) = (
            session.checkpoint.position,
            session.job.settings.batch_events,
        );
        let (mut after, mut size, mut tries) = (0, most, 0);
        while after < end {
            if control.borrow().stop {
                return Ok(Err(Stay::Told));
            }
            let limits = session.limits(size, None);
            let reader = &mut session.reader;
            let read = reader.stream_batch(self.stream, after, end, limits).await?;
            if read.through <= after {
                // After a lost connection the source has to settle anew, even what was read before.
                return Err(Interrupt::Infrastructure(format!(
                    "the events of stream \"{}\" cannot be read again yet",
                    self.stream
                )));
            }
            let through = read.through;
            let batch = self.wanted(session, read);
            if batch.is_empty() {
                after = through;
                continue;
            }
            let trouble = match self.step(session, batch, set).await? {
                Ok(()) => {
                    (after, size, tries) = (through, (size * 2).min(most), 0);
                    continue;
                }
                Err(Failed::Because(why)) => return Ok(Err(why.into())),
                Err(Failed::Trouble(trouble)) => trouble,
            };
            tries += 1;
            match trouble.batch.len() {
                0 | 1 if trouble.kind == TroubleKind::Blamed || tries >= TRIES => {
                    return Ok(Err(names(&trouble).into()));
                }
                0 | 1 => {}
                _ => (size, tries) = (trouble.fewer(), 0),
            }
        }
        Ok(Ok(()))
    }

    /// Without the types that the plugin does not want, and without what was discarded.
    fn wanted(&self, session: &Session<'_>, read: Batch) -> Batch {
        let types = session.job.plugin.descriptor.event_types.as_deref();
        let discarded: HashSet<Position> = (self.letters.iter())
            .filter(|letter| letter.is_discarded)
            .map(|letter| letter.position)
            .collect();
        let is_wanted = |index: usize| {
            types.is_none_or(|types| types.iter().any(|kind| kind == read.kind(index)))
                && !discarded.contains(&read.events()[index].position)
        };
        let mut wanted = Batch::empty(read.through);
        for index in (0..read.len()).filter(|&index| is_wanted(index)) {
            wanted.push_from(&read, index);
        }
        wanted
    }

    async fn step(
        &mut self,
        session: &mut Session<'_>,
        batch: Batch,
        set: &mut ChangeSet,
    ) -> Result<Result<(), Failed>, Interrupt> {
        let plugin = session.job.plugin.clone();
        let begun = batch::begin_on_worker(plugin, session.models.clone(), batch).await?;
        let settles = self.open().next().is_some() && !session.checkpoint.diverged;
        let lookout = Lookout::alone(&session.models, &session.parked, self.stream, settles);
        let limits = session.job.plugin.limits();
        let finished =
            batch::finish(begun, &mut session.rows, &session.models, limits, lookout).await?;
        let executed = match finished {
            Ok(executed) => executed,
            Err(trouble) => return Ok(Err(Failed::Trouble(Box::new(trouble)))),
        };
        if let Some(foreign) = executed.seen.foreign() {
            return Ok(Err(Failed::Because(foreign.to_owned())));
        }
        if let Err(trouble) = session.take_over(&executed, set) {
            return Ok(Err(Failed::Trouble(trouble)));
        }
        if set.bytes() > session.job.settings.rebuild_bytes {
            return Ok(Err(too_large(session)));
        }
        let surplus = set.logs.len().saturating_sub(LINES);
        set.logs.drain(..surplus);
        self.events += executed.batch.len();
        if settles {
            self.note_divergence(session, &executed, set).await?;
        }
        Ok(Ok(()))
    }

    /// Events that wait are processed late by this: what other streams have seen meanwhile may not be what a replay shows
    /// them.
    async fn note_divergence(
        &self,
        session: &Session<'_>,
        executed: &Executed,
        set: &mut ChangeSet,
    ) -> Result<(), Interrupt> {
        let (Some(first), Some(last)) = (self.open().min(), executed.batch.events().last()) else {
            return Ok(());
        };
        if let Some(skipped) = self.letters.iter().find(|letter| letter.is_skipped) {
            let reason = format!(
                "an event of stream \"{}\" was skipped, and processed after events of other streams",
                self.stream
            );
            set.diverge(skipped.position, &reason);
        }
        if last.position < first {
            return Ok(());
        }
        let touched = executed.seen.touched(&executed.changes, &session.models);
        let writer = &session.writer;
        let hit = writer.absent_hit(self.stream, first, &touched.keys).await?;
        if let Some(reason) = hit.and_then(|place| touched.names.into_iter().nth(place)) {
            set.diverge(last.position, &reason);
        }
        Ok(())
    }
}

/// Why a batch was not taken through the plugin.
enum Failed {
    Trouble(Box<Trouble>),
    /// There is no use in trying its events one by one.
    Because(String),
}

fn names(trouble: &Trouble) -> String {
    let batch = &trouble.batch;
    let event = batch.events().first().map(|event| {
        format!(
            "event {} ({}) cannot be processed: ",
            event.position,
            batch.kind(0)
        )
    });
    format!("{}{}", event.unwrap_or_default(), trouble.message)
}

fn too_large<E: From<String>>(session: &Session<'_>) -> E {
    E::from(format!(
        "its rows do not fit into {} bytes (generations.rebuild_bytes); raise that, or rebuild the whole projection",
        session.job.settings.rebuild_bytes
    ))
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self::Because(why)
    }
}
