//! One bounded `COPY ... TO STDOUT (FORMAT binary)`, from the socket into a batch.

use std::pin::pin;

use futures_util::StreamExt;
use tokio_postgres::Client;

use super::SourceError;
use super::columns::refused;
use crate::db;
use crate::event::{Batch, Position};

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const TRAILER: [u8; 2] = (-1i16).to_be_bytes();

/// How a scan ended. If it is not complete, the session may have more to receive, which it throws away.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Every row was read.
    Complete,
    /// The batch is full; more rows would follow.
    Full,
    /// A value does not fit its wire type, and why. The rows before it are in the batch.
    Misfit(String),
}

/// Runs `sql` and collects its rows until `max_bytes` are reached. `after` is where the batch begins.
pub(super) async fn scan(
    client: &Client,
    sql: &str,
    after: Position,
    max_bytes: usize,
) -> Result<(Batch, End), SourceError> {
    let mut batch = Batch::empty(after);
    let stream = match client.copy_out(sql).await {
        Ok(stream) => stream,
        Err(error) => return Ok((batch, misfit(&error)?)),
    };
    let mut stream = pin!(stream);
    let mut header = true;
    while let Some(message) = stream.next().await {
        let message = match message {
            Ok(message) => message,
            Err(error) => return Ok((batch, misfit(&error)?)),
        };
        // The server sends one row per message, the header before the first of them.
        let row = if std::mem::take(&mut header) {
            without_header(&message)?
        } else {
            &message[..]
        };
        if row == TRAILER || row.is_empty() {
            continue;
        }
        match batch.push(row) {
            Err(error) => return Ok((batch, End::Misfit(error.what))),
            Ok(()) if batch.frame().len() >= max_bytes => return Ok((batch, End::Full)),
            Ok(()) => {}
        }
    }
    Ok((batch, End::Complete))
}

/// A cast that fails ends the scan like the end of the rows: those before it are good.
fn misfit(error: &tokio_postgres::Error) -> Result<End, SourceError> {
    match error.code() {
        Some(state) if state.code().starts_with("22") => Ok(End::Misfit(db::describe(error))),
        _ if db::is_infrastructure(error) => Err(SourceError::Infrastructure(db::describe(error))),
        _ => Err(refused(db::describe(error))),
    }
}

fn without_header(message: &[u8]) -> Result<&[u8], SourceError> {
    // Signature, four bytes of flags, and an extension with its length.
    let rest = message.strip_prefix(SIGNATURE).and_then(|rest| {
        let (length, rest) = rest.get(4..)?.split_first_chunk::<4>()?;
        rest.get(usize::try_from(u32::from_be_bytes(*length)).ok()?..)
    });
    rest.ok_or_else(|| {
        SourceError::Infrastructure("the server's COPY does not begin with its header".into())
    })
}
