//! The consumer group: reading, acknowledging, and taking over what others left.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, RedisError, Value};

use super::{Entry, Options};

/// How long Redis may take for anything.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a read waits for an entry.
const BLOCK: Duration = Duration::from_secs(1);
/// The field of a refused entry that says why.
const REASON: &str = "refused_because";
/// The field of a refused entry that holds its id.
const ENTRY: &str = "refused_entry";

/// A connection that reads as one consumer of a group.
pub(super) struct Group<'o> {
    link: MultiplexedConnection,
    options: &'o Options,
}

/// Entries that were handed out and not acknowledged.
pub(super) struct Orphans {
    pub(super) entries: Vec<Entry>,
    /// Entries that are not in the stream any more.
    pub(super) lost: u64,
    /// From where to look on; `None` when that was all.
    pub(super) next: Option<String>,
}

impl<'o> Group<'o> {
    /// Connects, and makes the group when it is not there.
    pub(super) async fn join(client: &Client, options: &'o Options) -> Result<Self, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(LIMIT))
            .set_response_timeout(None);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let link = tokio::time::timeout(LIMIT, connecting)
            .await
            .map_err(|_| silent())??;
        let mut group = Self { link, options };
        group.make(&options.from).await?;
        Ok(group)
    }

    async fn make(&mut self, from: &str) -> Result<(), RedisError> {
        let Options { stream, group, .. } = self.options;
        let mut command = redis::cmd("XGROUP");
        command.arg("CREATE").arg(stream).arg(group).arg(from);
        match self.ask::<()>(command.arg("MKSTREAM")).await {
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            made => made,
        }
    }

    /// Makes what was handed out to others, or to an earlier run, ours; in the order of the stream.
    pub(super) async fn orphans(&mut self, after: &str) -> Result<Orphans, RedisError> {
        let options = self.options;
        let mut command = redis::cmd("XAUTOCLAIM");
        command.arg(&options.stream).arg(&options.group);
        command.arg(&options.consumer).arg(0).arg(after);
        let reply: Vec<Value> = self.ask(command.arg("COUNT").arg(options.batch)).await?;
        let mut reply = reply.into_iter();
        let next = reply.next().map(String::from_redis_value).transpose()?;
        let found = reply.next().and_then(Entry::all).ok_or_else(strange)?;
        // Redis 7 names those that are gone, older ones have a gap for each.
        let gaps = found.iter().filter(|entry| entry.is_none()).count();
        let named = match reply.next() {
            Some(Value::Array(gone)) => gone.len(),
            _ => 0,
        };
        Ok(Orphans {
            entries: found.into_iter().flatten().collect(),
            lost: (gaps + named) as u64,
            next: next.filter(|next| next != "0-0"),
        })
    }

    /// The next entries, at most a batch; if told to, it waits a moment for them.
    pub(super) async fn read(&mut self, wait: bool) -> Result<Vec<Entry>, RedisError> {
        let options = self.options;
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg("GROUP")
            .arg(&options.group)
            .arg(&options.consumer);
        command.arg("COUNT").arg(options.batch);
        if wait {
            command.arg("BLOCK").arg(BLOCK.as_millis() as u64);
        }
        command.arg("STREAMS").arg(&options.stream).arg(">");
        match self.ask::<Value>(&command).await {
            Ok(Value::Nil) => Ok(Vec::new()),
            // `[[stream, entries]]`
            Ok(Value::Array(mut streams)) => match streams.pop() {
                Some(Value::Array(mut stream)) => {
                    let entries = stream.pop().and_then(Entry::all).ok_or_else(strange)?;
                    Ok(entries.into_iter().flatten().collect())
                }
                _ => Err(strange()),
            },
            Ok(_) => Err(strange()),
            // Redis was emptied, or the group removed: what is in the stream now is all new, or known by its ids.
            Err(error) if error.code() == Some("NOGROUP") => {
                self.make("0").await?;
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Acknowledges entries whose events are durable.
    pub(super) async fn acknowledge(&mut self, entries: &[Entry]) -> Result<(), RedisError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("XACK");
        command.arg(&self.options.stream).arg(&self.options.group);
        for entry in entries {
            command.arg(&entry.id);
        }
        self.ask(&command).await
    }

    /// Moves an entry to the refused ones: it is there and acknowledged, or neither.
    pub(super) async fn set_aside(&mut self, entry: &Entry, why: &str) -> Result<(), RedisError> {
        let Options { stream, group, .. } = self.options;
        let mut pipeline = redis::pipe();
        pipeline
            .atomic()
            .cmd("XADD")
            .arg(format!("{stream}:refused"))
            .arg("*");
        for (name, value) in &entry.fields {
            pipeline.arg(name).arg(value);
        }
        pipeline.arg(ENTRY).arg(&entry.id).arg(REASON).arg(why);
        pipeline.cmd("XACK").arg(stream).arg(group).arg(&entry.id);
        let asking = pipeline.query_async::<Value>(&mut self.link);
        match tokio::time::timeout(LIMIT, asking).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(silent()),
        }
    }

    async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, RedisError> {
        let asking = command.query_async(&mut self.link);
        tokio::time::timeout(LIMIT, asking)
            .await
            .unwrap_or_else(|_| Err(silent()))
    }
}

fn silent() -> RedisError {
    std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        format!("no answer within {} s", LIMIT.as_secs()),
    )
    .into()
}

fn strange() -> RedisError {
    RedisError::from((
        ErrorKind::UnexpectedReturnType,
        "the answer is not what the command promises",
    ))
}
