//! Taking events back, and saying where they have been read already.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_postgres::Transaction;
use uuid::Uuid;

use super::Admin;
use super::letters::{MAX_REASON, json_body};
use crate::api::problem::Problem;
use crate::config::OWN_SOURCE;
use crate::event::Position;
use crate::generations::decide;
use crate::store::redact::{self, Found, RedactError, Which};

/// How many events one request takes back at most.
const MOST: usize = 100_000;
/// How long it waits for a commit that is under way: a rebuild's may take long.
const PATIENCE: &str = "set local lock_timeout = '30s'";
/// Whatever was computed from an event that is not behind a generation yet cannot be committed any more.
const FENCE: &str = "update gobo.checkpoints c set epoch = c.epoch + 1 from gobo.generations g \
                      where g.id = c.generation and g.source = $1 and g.state <> 'dropping' and c.position < $2";

/// What commits changed may hold what is taken back. Whoever follows is told to read anew.
const FORGET_CHANGES: &str =
    "update gobo.feed set changes = null where generation = any ($1) and changes is not null";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    position: Option<Position>,
    event_id: Option<Uuid>,
    stream_id: Option<String>,
    source: Option<String>,
    reason: String,
    data: Option<Box<RawValue>>,
    /// Only say what would happen.
    #[serde(default)]
    dry_run: bool,
}

/// A generation whose rows may come from an event that was taken back.
#[derive(Serialize)]
struct Reader {
    projection: String,
    generation: i64,
    /// `building`, `live`, `kept` or `done`.
    stage: String,
    purpose: String,
    label: Option<String>,
    position: Position,
    /// What gets rid of the rows.
    advice: String,
    /// What else may quote the event.
    dead_letters: i64,
    log_lines: i64,
    stopped_there: bool,
}

pub(super) async fn redact(
    Shared(admin): Shared<Admin>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let asked: Asked = json_body(&body)?;
    let which = which(&asked)?;
    let reason = asked.reason.trim();
    if reason.is_empty() || reason.len() > MAX_REASON || reason.contains('\0') {
        return Err(Problem::bad_request(
            "bad_reason",
            format!("\"reason\" says why the event is taken back, in 1 to {MAX_REASON} bytes"),
        ));
    }
    let mut client = admin.pool.get().await?;
    let transaction = client.transaction().await?;
    decide(&transaction).await?;
    transaction.batch_execute(PATIENCE).await?;
    let found = redact::find(&transaction, &which).await?;
    let (Some(first), Some(last)) = (found.first(), found.last()) else {
        return Err(Problem::not_found(
            "no_such_event",
            "there is no such event",
        ));
    };
    if found.len() > MOST {
        return Err(Problem::bad_request(
            "too_many_events",
            format!(
                "the stream has {} events; at most {MOST} are taken back at once",
                found.len()
            ),
        )
        .with_hint("Take them back one by one, by their positions."));
    }
    let (first, last) = (first.position, last.position);
    let positions: Vec<Position> = found.iter().map(|event| event.position).collect();
    // First, so that no generation gets past an event between here and the commit.
    transaction.execute(FENCE, &[&OWN_SOURCE, &last]).await?;
    let data = asked.data.as_ref().map(|data| data.get());
    let changed = redact::redact(&transaction, &positions, reason, data).await?;
    let readers = readers(&admin, &transaction, &found, &changed).await?;
    let again = found.len() - changed.len();
    if !asked.dry_run {
        let generations: Vec<i64> = readers.iter().map(|reader| reader.generation).collect();
        redact::note_readers(&transaction, &changed, &generations).await?;
        transaction.execute(FORGET_CHANGES, &[&generations]).await?;
        transaction.commit().await?;
        tracing::warn!(
            first,
            last,
            count = changed.len(),
            reason,
            "events were taken back"
        );
    }
    let answer = json!({
        "outcome": if asked.dry_run { "dry_run" } else if changed.is_empty() { "unchanged" } else { "redacted" },
        "events": found.len(),
        "redacted": changed.len(),
        "redacted_before": again,
        "first_position": first,
        "last_position": last,
        "read_by": readers,
        "elsewhere": redact::ELSEWHERE,
    });
    Ok((StatusCode::OK, Json(answer)))
}

fn which(asked: &Asked) -> Result<Which, Problem> {
    if let Some(source) = asked
        .source
        .as_deref()
        .filter(|source| *source != OWN_SOURCE)
    {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "foreign_source",
            format!("the events of source \"{source}\" belong to the system that writes them: Gobo only reads that table"),
        )
        .with_hint(
            "Change the event there in place: its position and its identity stay, or projections that have read it last refuse to go on. Then rebuild the projections that read it.",
        ));
    }
    match (asked.position, asked.event_id, &asked.stream_id) {
        (Some(position), None, None) => Ok(Which::Position(position)),
        (None, Some(id), None) => Ok(Which::EventId(id)),
        (None, None, Some(stream_id)) => Ok(Which::Stream(stream_id.clone())),
        _ => Err(Problem::bad_request(
            "bad_request",
            "say which events are taken back: \"position\", or \"event_id\", or \"stream_id\" for all of a stream",
        )),
    }
}

/// The generations that have read one of the events as it was, and have it in their rows or beside them.
async fn readers(
    admin: &Admin,
    transaction: &Transaction<'_>,
    found: &[Found],
    changed: &[Position],
) -> Result<Vec<Reader>, Problem> {
    // Of each type, the first one that was taken back just now.
    let mut types: BTreeMap<&str, Position> = BTreeMap::new();
    for event in found
        .iter()
        .filter(|event| changed.contains(&event.position))
    {
        types.entry(&event.kind).or_insert(event.position);
    }
    let positions: Vec<Position> = found.iter().map(|event| event.position).collect();
    let rows = transaction
        .query(
            include_str!("redacted_readers.sql"),
            &[&OWN_SOURCE, &positions],
        )
        .await?;
    let catalog = admin.registry.catalog().borrow().clone();
    let noted: Vec<&str> = (rows.iter())
        .filter(|row| row.get("noted"))
        .map(|row| row.get("projection"))
        .collect();
    let mut readers = Vec::new();
    for row in &rows {
        let (generation, position): (i64, Position) = (row.get("id"), row.get("position"));
        let wants = |kind: &str| {
            // Code that is not known here, or that was replaced in place, may have wanted anything.
            let known = catalog.generations.get(&generation);
            let known = known.filter(|_| !row.get::<_, bool>("was_swapped"));
            let wanted = known.and_then(|found| found.plugin.descriptor.event_types.as_ref());
            wanted.is_none_or(|types| types.iter().any(|wanted| wanted == kind))
        };
        let has_read = types
            .iter()
            .any(|(kind, first)| position >= *first && wants(kind));
        let projection: String = row.get("projection");
        let is_copy = row.get("is_copy") && noted.contains(&projection.as_str());
        let (dead_letters, log_lines): (i64, i64) = (row.get("dead_letters"), row.get("log_lines"));
        let stopped_there: bool = row.get("stopped_there");
        if !(has_read || row.get("noted") || is_copy || dead_letters > 0 || stopped_there) {
            continue;
        }
        let stage: String = row.get("state");
        readers.push(Reader {
            advice: advice(&projection, generation, &stage),
            projection,
            generation,
            stage,
            purpose: row.get("purpose"),
            label: row.get("label"),
            position,
            dead_letters,
            log_lines,
            stopped_there,
        });
    }
    Ok(readers)
}

fn advice(projection: &str, generation: i64, stage: &str) -> String {
    match stage {
        "live" => format!(
            "gobo rebuild {projection}, and when the new one is live, gobo cancel {projection} --generation {generation}"
        ),
        "building" => format!("gobo rebuild {projection} --from-scratch"),
        _ => format!("gobo cancel {projection} --generation {generation}"),
    }
}

impl From<RedactError> for Problem {
    fn from(error: RedactError) -> Self {
        match error {
            RedactError::Refused(why) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "event_refused", why)
            }
            RedactError::Database(error) => error.into(),
        }
    }
}
