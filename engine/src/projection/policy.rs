//! Around an event that cannot be processed: find the one event, then stop, park its stream, or skip it.

use tokio::sync::watch;

use super::batch::{Trouble, TroubleKind};
use super::keep;
use super::session::{Session, dead_letter, split_parked};
use super::{Control, Interrupt, Policy, StopError, stopped};
use crate::event::{Batch, Position};
use crate::read_model::writer::DeadLetter;

/// How often a single event that met a limit is tried before it is blamed.
pub(super) const TRIES: u32 = 2;

/// Processes the events up to `through`, one batch after the other, each committed on its own, in ever smaller batches
/// where one fails, until the failing event stands alone and the policy decides. Ends early when it is told to stop.
pub(super) async fn carefully(
    session: &mut Session<'_>,
    control: &mut watch::Receiver<Control>,
    through: Position,
) -> Result<(), Interrupt> {
    let most = session.job.settings.batch_events;
    let mut size = most;
    let mut tries = 0;
    // Rows of batches that were not committed must not be seen.
    session.rows.clear();
    while session.checkpoint.position < through && !control.borrow().stop {
        let types = session.job.plugin.descriptor.event_types.clone();
        let limits = session.limits(size, Some(through));
        let after = session.checkpoint.position;
        let batch = session
            .reader
            .next_batch(after, types.as_deref(), limits)
            .await?;
        if batch.through <= after {
            // After a lost connection the source has to settle anew, even what was read before.
            tokio::select! {
                settled = session.job.source.wait_past(after) => settled?,
                () = stopped(control) => {}
            }
            continue;
        }
        let Some((trouble, waiting)) = step(session, batch).await? else {
            size = (size * 2).min(most);
            tries = 0;
            continue;
        };
        session.rows.clear();
        tries += 1;
        match trouble.batch.len() {
            0 | 1 if trouble.kind == TroubleKind::Blamed || tries >= TRIES => {
                decide(session, trouble, waiting).await?;
                tries = 0;
            }
            0 | 1 => tokio::time::sleep(std::time::Duration::from_millis(200)).await,
            _ => (size, tries) = (trouble.fewer(), 0),
        }
    }
    Ok(())
}

/// Processes and commits one batch. Gives the trouble, if there is any; then nothing was committed. The batch in trouble
/// lacks the events of parked streams: they come with it, as the dead letters that they are to be.
async fn step(
    session: &mut Session<'_>,
    batch: Batch,
) -> Result<Option<(Trouble, Vec<DeadLetter>)>, Interrupt> {
    let read_through = batch.through;
    let (batch, waiting) = split_parked(batch, &session.parked);
    let mut set = session.change_set();
    set.through = read_through;
    set.dead_letters = waiting;
    let executed = match session.execute(batch, None).await? {
        Ok(executed) => executed,
        Err(trouble) => return Ok(Some((trouble, set.dead_letters))),
    };
    if let Err(trouble) = session.take_over(&executed, &mut set) {
        return Ok(Some((*trouble, set.dead_letters)));
    }
    Ok(match session.commit(&set, executed.batch.len()).await? {
        Ok(()) => None,
        Err(message) => {
            let trouble = executed.refused(message);
            Some((trouble, set.dead_letters))
        }
    })
}

/// Applies the policy to the one event of `trouble`. `waiting` are the events of parked streams around it.
async fn decide(
    session: &mut Session<'_>,
    mut trouble: Trouble,
    waiting: Vec<DeadLetter>,
) -> Result<(), Interrupt> {
    let file = keep::keep(session.job, &mut trouble).await;
    let batch = &trouble.batch;
    let Some(head) = batch.events().first() else {
        return Err(Interrupt::Infrastructure(trouble.message));
    };
    let projection = &session.job.target.projection;
    let (stream_id, position) = (batch.stream_id(0), head.position);
    tracing::warn!(projection, position, stream_id, error = trouble.message, policy = ?session.job.settings.policy, file, "an event cannot be processed");
    let state = match session.job.settings.policy {
        Policy::Stop => {
            let mut set = session.change_set();
            set.logs = trouble.logs;
            if !set.logs.is_empty() {
                refused(session.commit(&set, 0).await?)?;
            }
            return Err(Interrupt::Stop(Box::new(StopError {
                message: trouble.message,
                position: Some(position),
                stream_id: Some(stream_id.to_owned()),
                event_type: Some(batch.kind(0).to_owned()),
                hint: Some(
                    "deploy a mended plugin, or set policy = \"park\" or \"skip\" for the projection and run `gobo restart`"
                        .into(),
                ),
                file,
            })));
        }
        Policy::Park => "failed",
        Policy::Skip => "skipped",
    };
    let mut set = session.change_set();
    set.through = batch.through;
    set.applied = Some((position, head.event_id));
    set.logs = trouble.logs;
    set.logs
        .extend(file.map(|file| keep::line(position, &file)));
    set.dead_letters = waiting;
    set.dead_letters
        .push(dead_letter(batch, 0, state, Some(trouble.message.clone())));
    refused(session.commit(&set, 0).await?)?;
    if state == "failed" {
        session.parked.insert(stream_id.to_owned());
    }
    Ok(())
}

/// Dead letters and log lines hold nothing that PostgreSQL could refuse; if it does, somebody changed the tables.
pub(super) fn refused(result: Result<(), String>) -> Result<(), Interrupt> {
    result.map_err(Interrupt::Infrastructure)
}
