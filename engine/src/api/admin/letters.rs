//! What operators decide about events that could not be processed. The owner's loop does the work: these requests only
//! leave a note in the database, synchronously, and wake it up.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use deadpool_postgres::{Object, Transaction};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Admin;
use super::status::{live_generation, parsed};
use crate::api::problem::Problem;

/// Dead letters in one answer.
const MAX_LETTERS: i64 = 1_000;
const MAX_REASON: usize = 1_000;

pub(super) async fn list(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let client = admin.pool.get().await?;
    let generation = live_generation(&client, &name).await?;
    let rows = client
        .query(
            "select json_build_object('position', position, 'stream_id', stream_id, 'event_type', event_type, \
                    'event_id', event_id, 'state', state, 'message', message, 'attempts', attempts, 'retry', retry, \
                    'created_at', created_at, 'updated_at', updated_at)::text \
               from gobo.dead_letters where generation = $1 order by position limit $2",
            &[&generation, &MAX_LETTERS],
        )
        .await?;
    Ok(Json(json!({ "dead_letters": parsed(&rows) })))
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
    let mut client = admin.pool.get().await?;
    let generation = live_generation(&client, &name).await?;
    let transaction = durable(&mut client).await?;
    let count = transaction
        .execute(
            "update gobo.dead_letters set retry = true, updated_at = now() \
              where generation = $1 and ($2::text is null or stream_id = $2) and state <> 'discarded'",
            &[&generation, &stream_id],
        )
        .await?;
    wake(&transaction).await?;
    transaction.commit().await?;
    Ok((
        StatusCode::ACCEPTED,
        Json(json!({ "projection": name, "count": count })),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Discard {
    stream_id: Option<String>,
    position: Option<i64>,
    reason: String,
}

/// Discards one event: the one at `position`, or the first one of a stream. Those that wait behind it are retried.
pub(super) async fn discard(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let Discard {
        stream_id,
        position,
        reason,
    } = json_body(&body)?;
    let reason = reason.trim();
    if reason.is_empty() || reason.len() > MAX_REASON || reason.contains('\0') {
        return Err(Problem::bad_request(
            "bad_reason",
            format!("\"reason\" says why the event is given up, in 1 to {MAX_REASON} bytes"),
        ));
    }
    if stream_id.is_none() && position.is_none() {
        return Err(Problem::bad_request(
            "bad_request",
            "say which event is discarded: \"position\", or \"stream_id\" for the first one of a stream",
        ));
    }
    let mut client = admin.pool.get().await?;
    let generation = live_generation(&client, &name).await?;
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
    let (position, stream_id, state): (i64, String, String) =
        (letter.get(0), letter.get(1), letter.get(2));
    if state == "behind" {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "waits_behind",
            format!(
                "event {position} waits behind an earlier one of stream \"{stream_id}\" and may well succeed after it"
            ),
        )
        .with_hint("Retry or discard the stream's first dead letter."));
    }
    transaction
        .execute(
            // The wish to retry makes the owner look at the stream, even when nothing waits behind this event yet.
            "update gobo.dead_letters set state = 'discarded', message = $3, retry = true, updated_at = now() \
              where generation = $1 and position = $2",
            &[&generation, &position, &reason],
        )
        .await?;
    let retried = transaction
        .execute(
            "update gobo.dead_letters set retry = true, updated_at = now() \
              where generation = $1 and stream_id = $2 and state = 'behind'",
            &[&generation, &stream_id],
        )
        .await?;
    wake(&transaction).await?;
    transaction.commit().await?;
    Ok(Json(json!({
        "projection": name,
        "discarded": { "position": position, "stream_id": stream_id },
        "retried": retried,
    })))
}

/// Lets a projection that stopped try again, from its checkpoint.
pub(super) async fn restart(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let mut client = admin.pool.get().await?;
    let generation = live_generation(&client, &name).await?;
    let transaction = durable(&mut client).await?;
    let cleared = transaction
        .execute(
            "update gobo.checkpoints set error = null, updated_at = clock_timestamp() \
              where generation = $1 and error is not null",
            &[&generation],
        )
        .await?;
    wake(&transaction).await?;
    transaction.commit().await?;
    Ok((
        StatusCode::ACCEPTED,
        Json(json!({ "projection": name, "restarted": cleared > 0 })),
    ))
}

/// A transaction for what an operator decides: it must not be lost with the last moments before a crash.
async fn durable(client: &mut Object) -> Result<Transaction<'_>, Problem> {
    let transaction = client.transaction().await?;
    transaction
        .batch_execute("set local synchronous_commit = on")
        .await?;
    Ok(transaction)
}

async fn wake(transaction: &Transaction<'_>) -> Result<(), Problem> {
    transaction
        .batch_execute("select pg_notify('gobo_control', '')")
        .await?;
    Ok(())
}

/// A body of JSON whatever its content type; an empty one counts as `{}`.
pub(super) fn json_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|error| Problem::bad_request("bad_json", format!("the request's body: {error}")))
}
