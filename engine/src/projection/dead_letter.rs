//! Dead letters that an operator asked to retry: each stream's in order, until one fails again.

use super::Interrupt;
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
            if !retry_one(session, position, skipped).await? {
                all_settled = false;
                break;
            }
        }
        if all_settled {
            session.parked.remove(&stream);
        }
        session.writer.retried(&stream).await?;
    }
    Ok(())
}

/// Gives whether the event could be processed now.
async fn retry_one(
    session: &mut Session<'_>,
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
    // Rows that other streams, or later events of this one, have changed since may come out otherwise than in a replay.
    set.diverged = skipped || !session.models.iter().all(|model| model.per_stream);
    let failed = match session.execute(batch.clone()).await? {
        Err(trouble) => Some((trouble.message, trouble.logs)),
        Ok(executed) => match session.take_over(&executed, &mut set) {
            Err(trouble) => Some((trouble.message, trouble.logs)),
            Ok(()) => {
                // The checkpoint is ahead of this event and stays where it is.
                set.through = session.checkpoint.position;
                set.applied = None;
                match session.commit(&set, executed.batch.len()).await? {
                    Ok(()) => None,
                    Err(message) => Some((message, executed.logs)),
                }
            }
        },
    };
    let Some((message, logs)) = failed else {
        return Ok(true);
    };
    session.rows.clear();
    let mut set = session.change_set();
    set.logs = logs;
    // Nothing waits behind an event that was skipped, and nothing shall from now on.
    let state = if skipped { "skipped" } else { "failed" };
    set.dead_letters
        .push(dead_letter(&batch, 0, state, Some(message)));
    refused(session.commit(&set, 0).await?)?;
    Ok(false)
}
