//! What operators decide about events that could not be processed. The owner's loop does the work: these requests only
//! leave a note in the database, synchronously, and wake it up.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use deadpool_postgres::{Client, Transaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Admin;
use super::status::{live_generation, parsed};
use crate::api::body;
use crate::api::problem::Problem;
use crate::event::Position;
use crate::registry::tell;

/// Dead letters in one answer.
const MAX_LETTERS: i64 = 1_000;
/// Bytes of the reason for a decision.
pub(crate) const MAX_REASON: usize = 1_000;

/// An event that could not be processed, and what became of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Letter {
    pub(crate) position: Position,
    pub(crate) stream_id: String,
    pub(crate) event_type: String,
    pub(crate) event_id: Uuid,
    pub(crate) state: LetterState,
    /// The error, or the reason for discarding it.
    pub(crate) message: Option<String>,
    pub(crate) attempts: i32,
    /// Somebody asked to try again, and the owner has not got to it yet.
    pub(crate) retry: bool,
    pub(crate) created_at: String,
    pub(crate) updated_at: String,
}

/// What became of an event that could not be processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LetterState {
    /// Its stream waits for it.
    Failed,
    /// It waits for an earlier event of its stream.
    Behind,
    /// Its stream went on without it.
    Skipped,
    /// An operator gave it up.
    Discarded,
}

/// Which dead letters of a projection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which<'a> {
    /// Every one after `after`, in order.
    All {
        /// A position.
        after: Position,
    },
    /// Those after `after` about which nobody has decided, of one stream or of all, in order.
    Open {
        stream_id: Option<&'a str>,
        after: Position,
    },
    /// Those that were given up, the last decision first.
    Discarded,
}

/// Which dead letters are listed: those after a position, in order.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    after: Option<i64>,
    limit: Option<i64>,
}

pub(super) async fn list(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(Page { after, limit }) =
        page.map_err(|error| Problem::bad_request("bad_parameter", error.body_text()))?;
    let limit = limit.unwrap_or(MAX_LETTERS);
    if !(1..=MAX_LETTERS).contains(&limit) {
        return Err(Problem::bad_request(
            "bad_parameter",
            format!("limit is a number from 1 to {MAX_LETTERS}"),
        ));
    }
    let which = Which::All {
        after: after.unwrap_or(0),
    };
    // One more than is shown tells whether there are more.
    let mut shown = letters(&admin, &name, which, limit + 1).await?;
    let is_more = shown.len() as i64 > limit;
    shown.truncate(usize::try_from(limit).unwrap_or(0));
    let next = shown.last().map(|letter| letter.position);
    Ok(Json(
        json!({ "dead_letters": shown, "next": next.filter(|_| is_more) }),
    ))
}

/// At most `limit` dead letters of a projection.
pub(crate) async fn letters(
    admin: &Admin,
    name: &str,
    which: Which<'_>,
    limit: i64,
) -> Result<Vec<Letter>, Problem> {
    let client = admin.pool.get().await?;
    let generation = live_generation(&client, name).await?;
    let (wanted, stream_id, after) = match which {
        Which::All { after } => ("true order by position", None, after),
        Which::Open { stream_id, after } => {
            ("state <> 'discarded' order by position", stream_id, after)
        }
        Which::Discarded => (
            "state = 'discarded' order by updated_at desc, position desc",
            None,
            0,
        ),
    };
    let sql = format!(
        "select json_build_object('position', position, 'stream_id', stream_id, 'event_type', event_type, \
                'event_id', event_id, 'state', state, 'message', message, 'attempts', attempts, 'retry', retry, \
                'created_at', created_at, 'updated_at', updated_at)::text \
           from gobo.dead_letters \
          where generation = $1 and ($2::text is null or stream_id = $2) and position > $3 and {wanted} limit $4"
    );
    let rows = client
        .query(&sql, &[&generation, &stream_id, &after, &limit])
        .await?;
    parsed(&rows)
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Retry {
    stream_id: Option<String>,
}

pub(super) async fn retry(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let Retry { stream_id } = json_body(&body)?;
    let count = ask_to_retry(&admin, &name, stream_id.as_deref()).await?;
    Ok((
        StatusCode::ACCEPTED,
        Json(json!({ "projection": name, "count": count })),
    ))
}

/// Asks the owner to try the dead letters of a stream, or of all, again. Gives how many.
pub(crate) async fn ask_to_retry(
    admin: &Admin,
    name: &str,
    stream_id: Option<&str>,
) -> Result<u64, Problem> {
    let mut client = admin.pool.get().await?;
    let generation = live_generation(&client, name).await?;
    let transaction = durable(&mut client).await?;
    let count = transaction
        .execute(
            "update gobo.dead_letters set retry = true, updated_at = now() \
              where generation = $1 and ($2::text is null or stream_id = $2) and state <> 'discarded'",
            &[&generation, &stream_id],
        )
        .await?;
    tell(&*transaction).await?;
    transaction.commit().await?;
    Ok(count)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Discard {
    stream_id: Option<String>,
    position: Option<Position>,
    #[serde(default)]
    whole_stream: bool,
    reason: String,
}

/// What is given up.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target<'a> {
    /// One event: the one at `position`, or the first one of a stream. Those that wait behind it are retried.
    One {
        stream_id: Option<&'a str>,
        position: Option<Position>,
    },
    /// Every dead letter of a stream. Events that come later are processed.
    Stream(&'a str),
}

/// What was given up, and what goes on because of it.
#[derive(Debug)]
pub(crate) struct Discarded {
    /// The event, or the first one.
    pub(crate) position: Position,
    pub(crate) stream_id: String,
    pub(crate) count: u64,
    /// How many waited behind it.
    pub(crate) retried: u64,
}

pub(super) async fn discard(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let asked: Discard = json_body(&body)?;
    let target = match (asked.stream_id.as_deref(), asked.position) {
        (Some(stream_id), None) if asked.whole_stream => Target::Stream(stream_id),
        (_, _) if asked.whole_stream => {
            return Err(Problem::bad_request(
                "bad_request",
                "\"whole_stream\" goes with \"stream_id\" alone",
            ));
        }
        (None, None) => {
            return Err(Problem::bad_request(
                "bad_request",
                "say which event is discarded: \"position\", or \"stream_id\" for the first one of a stream",
            ));
        }
        (stream_id, position) => Target::One {
            stream_id,
            position,
        },
    };
    let discarded = give_up(&admin, &name, target, &asked.reason).await?;
    Ok(Json(json!({
        "projection": name,
        "discarded": { "position": discarded.position, "stream_id": discarded.stream_id },
        "count": discarded.count,
        "retried": discarded.retried,
    })))
}

/// Discards what `target` says, for a reason that is kept with it.
pub(crate) async fn give_up(
    admin: &Admin,
    name: &str,
    target: Target<'_>,
    reason: &str,
) -> Result<Discarded, Problem> {
    let reason = reason.trim();
    if reason.is_empty() || reason.len() > MAX_REASON || reason.contains('\0') {
        return Err(Problem::bad_request(
            "bad_reason",
            format!("\"reason\" says why the event is given up, in 1 to {MAX_REASON} bytes"),
        ));
    }
    let (stream_id, position) = match target {
        Target::One {
            stream_id,
            position,
        } => (stream_id, position),
        Target::Stream(stream_id) => (Some(stream_id), None),
    };
    let mut client = admin.pool.get().await?;
    let generation = live_generation(&client, name).await?;
    let transaction = durable(&mut client).await?;
    let letter = transaction
        .query_opt(
            "select position, stream_id, state from gobo.dead_letters \
              where generation = $1 and ($2::text is null or stream_id = $2) and ($3::int8 is null or position = $3) \
                and state <> 'discarded' order by position limit 1 for update",
            &[&generation, &stream_id, &position],
        )
        .await?
        .ok_or_else(|| {
            Problem::not_found("no_such_dead_letter", "there is no such dead letter")
                .with_hint(format!("GET /admin/projections/{name}/dead-letters lists them."))
        })?;
    let (position, stream_id, state): (Position, String, String) =
        (letter.get(0), letter.get(1), letter.get(2));
    let whole_stream = matches!(target, Target::Stream(_));
    if state == "behind" && !whole_stream {
        return Err(waits_behind(position, &stream_id));
    }
    let count = transaction
        .execute(
            // The wish to retry makes the owner look at the stream, even when nothing waits behind this event yet.
            "update gobo.dead_letters set state = 'discarded', message = $4, retry = true, updated_at = now() \
              where generation = $1 and stream_id = $2 and (position = $3 or $5) and state <> 'discarded'",
            &[&generation, &stream_id, &position, &reason, &whole_stream],
        )
        .await?;
    let retried = transaction
        .execute(
            "update gobo.dead_letters set retry = true, updated_at = now() \
              where generation = $1 and stream_id = $2 and state = 'behind'",
            &[&generation, &stream_id],
        )
        .await?;
    tell(&*transaction).await?;
    transaction.commit().await?;
    Ok(Discarded {
        position,
        stream_id,
        count,
        retried,
    })
}

fn waits_behind(position: Position, stream_id: &str) -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "waits_behind",
        format!(
            "event {position} waits behind an earlier one of stream \"{stream_id}\" and may well succeed after it"
        ),
    )
    .with_hint("Retry or discard the stream's first dead letter.")
}

pub(super) async fn restart(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let restarted = try_again(&admin, &name).await?;
    Ok((
        StatusCode::ACCEPTED,
        Json(json!({ "projection": name, "restarted": restarted })),
    ))
}

/// Lets a projection that stopped try again, from its checkpoint. Gives whether it had stopped.
pub(crate) async fn try_again(admin: &Admin, name: &str) -> Result<bool, Problem> {
    let mut client = admin.pool.get().await?;
    let generation = live_generation(&client, name).await?;
    let transaction = durable(&mut client).await?;
    let cleared = transaction
        .execute(
            "update gobo.checkpoints set error = null, updated_at = clock_timestamp() \
              where generation = $1 and error is not null",
            &[&generation],
        )
        .await?;
    tell(&*transaction).await?;
    transaction.commit().await?;
    Ok(cleared > 0)
}

/// A transaction for what an operator decides: it must not be lost with the last moments before a crash.
async fn durable(client: &mut Client) -> Result<Transaction<'_>, Problem> {
    let transaction = client.transaction().await?;
    transaction
        .batch_execute("set local synchronous_commit = on")
        .await?;
    Ok(transaction)
}

/// A body of JSON whatever its content type; an empty one counts as `{}`.
pub(super) fn json_body<T: DeserializeOwned>(given: &[u8]) -> Result<T, Problem> {
    body::object(if given.is_empty() { b"{}" } else { given })
}
