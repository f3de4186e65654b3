//! Dead letters that an operator asked to retry: each stream's in order, until one fails again.

use super::Interrupt;
use super::batch::Executed;
use super::keep;
use super::policy::refused;
use super::session::{Session, dead_letter};
use crate::event::{Batch, Position};

/// Retries what was asked for. Each event is committed on its own, together with the end of its dead letter.
pub(super) async fn retry(session: &mut Session<'_>) -> Result<(), Interrupt> {
    let streams = session.writer.retries().await?;
    for stream in streams {
        let letters = session.writer.dead_letters_of(&stream).await?;
        let mut all_settled = true;
        for (position, skipped) in letters {
            if !retry_one(session, &stream, position, skipped).await? {
                all_settled = false;
                break;
            }
        }
        if all_settled {
            session.parked.remove(&stream);
            if session.parked.is_empty() {
                session.writer.forget_absent(&session.checkpoint).await?;
            }
        }
        session.writer.retried(&stream).await?;
    }
    Ok(())
}

/// Gives whether the event could be processed now.
async fn retry_one(
    session: &mut Session<'_>,
    stream: &str,
    position: Position,
    skipped: bool,
) -> Result<bool, Interrupt> {
    let limits = session.limits(1, Some(position));
    let batch: Batch = session
        .reader
        .next_batch(position - 1, None, limits)
        .await?;
    if batch.is_empty() && batch.through < position {
        // After a lost connection the source has to settle anew, even what was read before.
        return Err(Interrupt::Infrastructure(format!(
            "the event at position {position} cannot be read again yet"
        )));
    }
    if batch.is_empty() {
        tracing::warn!(
            position,
            "the event of a dead letter is not in the source any more"
        );
        return Ok(false);
    }
    let mut set = session.change_set();
    set.settled.push(position);
    let failed = match session
        .execute(batch.clone(), Some((stream, position)))
        .await?
    {
        Err(trouble) => Some(trouble),
        Ok(executed) => match session.take_over(&executed, &mut set) {
            Err(trouble) => Some(*trouble),
            Ok(()) => {
                // The checkpoint is ahead of this event and stays where it is.
                set.through = session.checkpoint.position;
                set.applied = None;
                if let Some(reason) =
                    divergence(session, &executed, stream, position, skipped).await?
                {
                    set.diverge(position, &reason);
                }
                match session.commit(&set, executed.batch.len()).await? {
                    Ok(()) => None,
                    Err(message) => Some(executed.refused(message)),
                }
            }
        },
    };
    let Some(mut trouble) = failed else {
        return Ok(true);
    };
    let file = keep::keep(session.job, &mut trouble).await;
    session.rows.clear();
    let mut set = session.change_set();
    set.logs = trouble.logs;
    set.logs
        .extend(file.map(|file| keep::line(position, &file)));
    // Nothing waits behind an event that was skipped, and nothing shall from now on.
    let state = if skipped { "skipped" } else { "failed" };
    set.dead_letters
        .push(dead_letter(&batch, 0, state, Some(trouble.message)));
    refused(session.commit(&set, 0).await?)?;
    Ok(false)
}

/// Why the rows may come out otherwise than in a replay, what the event has read excepted, which [`super::late`] looks at.
async fn divergence(
    session: &Session<'_>,
    executed: &Executed,
    stream: &str,
    position: Position,
    skipped: bool,
) -> Result<Option<String>, Interrupt> {
    if session.checkpoint.diverged {
        return Ok(None);
    }
    if skipped {
        return Ok(Some(format!(
            "an event of stream \"{stream}\" was skipped, and processed after the events that follow it"
        )));
    }
    let mut shared = session.models.iter().filter(|model| !model.per_stream);
    if let Some(model) = shared.next() {
        return Ok(Some(format!(
            "an event of stream \"{stream}\" was processed late, and read model \"{}\" is not declared per_stream",
            model.name
        )));
    }
    let touched = executed.seen.touched(&executed.changes, &session.models);
    let hit = session
        .writer
        .absent_hit(stream, position, &touched.keys)
        .await?;
    Ok(hit.and_then(|place| touched.names.into_iter().nth(place)))
}
