//! One batch once more, from a file instead of a database.

use std::sync::Arc;

use super::Interrupt;
use super::batch::{
    Begun, Next, TroubleKind, begin, decode, exceeded, take_logs, too_many_bytes, trouble,
};
use crate::change::{Change, Need, write_row};
use crate::failure::{Found, Given, Recorded};
use crate::host::{Frame, Plugin};
use crate::read_model::ReadModel;
use crate::read_model::writer::LogRecord;

/// Rows that are named of those that the file does not have.
const MOST_UNKNOWN: usize = 20;

/// How it came out.
#[derive(Debug)]
pub struct Rerun {
    /// What the plugin wants done, or why it cannot go on.
    pub result: Result<Vec<Change>, Fault>,
    /// What it logged.
    pub logs: Vec<LogRecord>,
    /// What it asked for and the file does not have, in the order asked, each once: it was told that there is no such row.
    pub unknown: Vec<String>,
}

/// Why a batch cannot be processed.
#[derive(Debug)]
pub struct Fault {
    /// The same text as in the engine.
    pub message: String,
    /// The event to blame, by its index, if that is known.
    pub event: Option<u32>,
    /// Whether a limit was met, which may be chance.
    pub is_limit: bool,
    /// Where the plugin was, the innermost function first.
    pub backtrace: Vec<Frame>,
}

/// Runs the events of `recorded` through `plugin`, under the plugin's limits. Fails when the host cannot run it at all.
pub async fn rerun(plugin: &Plugin, recorded: &Recorded) -> Result<Rerun, String> {
    let models = &plugin.descriptor.read_models;
    let limits = plugin.limits();
    let slot = plugin.slot().await;
    let Begun {
        batch,
        mut instance,
        mut next,
    } = begin(plugin, slot, models, recorded.batch.clone());
    let (mut rounds, mut keys) = (0, 0);
    let mut unknown = Vec::new();
    let failure = loop {
        let needs = match next {
            Ok(Next::Need(needs)) => needs,
            Ok(Next::Done(changes)) => {
                return Ok(Rerun {
                    result: Ok(changes),
                    logs: take_logs(instance, &batch),
                    unknown,
                });
            }
            Err(failure) => break failure,
        };
        rounds += 1;
        keys += needs.len();
        next = match exceeded(rounds, keys, limits) {
            Some(exceeded) => Err(exceeded),
            None => match answer(&needs, models, recorded, &mut unknown) {
                None => {
                    return Ok(Rerun {
                        result: Err(Fault::of_the_file(recorded)),
                        logs: take_logs(instance, &batch),
                        unknown,
                    });
                }
                Some(answer) if answer.len() > limits.memory_bytes => Err(too_many_bytes(limits)),
                Some(answer) => {
                    let running = instance.as_mut().ok_or("a batch lost its instance")?;
                    decode(running.resume(&answer), models, batch.len())
                }
            },
        };
    };
    match trouble(failure, instance, batch, Given::default()) {
        Ok(trouble) => Ok(Rerun {
            result: Err(Fault {
                message: trouble.message,
                event: trouble.event,
                is_limit: trouble.kind == TroubleKind::Limit,
                backtrace: trouble.evidence.backtrace,
            }),
            logs: trouble.logs,
            unknown,
        }),
        Err(Interrupt::Infrastructure(why)) => Err(why),
        Err(Interrupt::Fenced | Interrupt::Stop(_)) => Err("the plugin cannot be run".into()),
    }
}

impl Fault {
    /// Without a database the same answer has to be given as then.
    fn of_the_file(recorded: &Recorded) -> Self {
        Self {
            message: recorded.failure.error.message.clone(),
            event: None,
            is_limit: false,
            backtrace: Vec::new(),
        }
    }
}

/// Answers keys with the rows of the file (FRAMES.md, "resume"). `None` when PostgreSQL did not take one of them.
fn answer(
    needs: &[Need],
    models: &[ReadModel],
    recorded: &Recorded,
    unknown: &mut Vec<String>,
) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    for need in needs {
        let model = &models[need.model];
        let row: Option<Arc<[u8]>> = match recorded.find(need, model) {
            Found::Row(row) => Some(row),
            Found::Absent => None,
            Found::Refused => return None,
            Found::Unknown(what) => {
                if !unknown.contains(&what) && unknown.len() < MOST_UNKNOWN {
                    unknown.push(what);
                }
                None
            }
        };
        write_row(&mut frame, model, row.as_deref());
    }
    Some(frame)
}
