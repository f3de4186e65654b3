//! Keeps an event that cannot be processed as a file.

use super::Job;
use super::batch::Trouble;
use crate::event::Position;
use crate::failure::Failure;
use crate::read_model::writer::LogRecord;

/// Writes the event of `trouble`, with its evidence, which is used up. Gives the file's path, unless that did not work: nothing
/// depends on it.
pub(super) async fn keep(job: &Job, trouble: &mut Trouble) -> Option<String> {
    let folder = job.failures.as_ref()?;
    let (projection, generation) = (job.target.projection.clone(), job.target.generation);
    let (plugin, batch) = (job.plugin.clone(), trouble.batch.clone());
    let (message, evidence) = (
        trouble.message.clone(),
        std::mem::take(&mut trouble.evidence),
    );
    let describe = move || {
        Failure::new(
            &projection,
            generation,
            &plugin,
            &batch,
            &message,
            &evidence,
        )
    };
    let path = folder.keep(describe).await?;
    Some(path.display().to_string())
}

/// What the projection's log says of it.
pub(super) fn line(position: Position, file: &str) -> LogRecord {
    LogRecord {
        position,
        level: "warn",
        message: format!(
            "the event at position {position} cannot be processed; to run it again: gobo replay --frame {file} --plugin PLUGIN.wasm"
        ),
    }
}
