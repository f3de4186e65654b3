//! A consumer as the documentation describes one: it keeps a copy of the rows.

use std::collections::BTreeMap;

use gobo_tests::{PATIENCE, Redis, wait_until};
use redis::streams::{StreamId, StreamReadReply};
use redis::{Connection, RedisResult};
use serde_json::{Value, json};

use super::{current_stream, entries};
use crate::scene::Scene;

/// An entry of a feed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) op: String,
    /// Null in a `refetch`.
    pub(super) key: Value,
    /// Null in a `refetch` and a `delete`.
    pub(super) row: Value,
    pub(super) position: i64,
    /// The revision of the entry before those of its commit.
    pub(super) previous: Option<i64>,
    pub(super) next: Option<String>,
}

impl Entry {
    pub(super) fn of(found: &StreamId) -> Entry {
        let json = |field: &str| {
            let text: Option<String> = found.get(field);
            text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
        };
        Entry {
            id: found.id.clone(),
            op: found.get("op").unwrap(),
            key: json("key"),
            row: json("row"),
            position: found.get("position").unwrap(),
            previous: found.get("previous"),
            next: found.get("next"),
        }
    }

    /// Revision and index.
    pub(super) fn place(&self) -> (i64, u64) {
        let (revision, index) = self.id.split_once('-').unwrap();
        (revision.parse().unwrap(), index.parse().unwrap())
    }

    pub(super) fn revision(&self) -> i64 {
        self.place().0
    }
}

/// Reads as the only consumer of its group.
pub(super) struct Consumer<'r> {
    redis: &'r Redis,
    connection: Option<Connection>,
    stream: String,
    /// What it was told, once each: an entry that is delivered again has the same id.
    pub(super) told: Vec<Entry>,
    /// By their keys.
    pub(super) rows: BTreeMap<String, Value>,
    pub(super) refetched: usize,
    /// How often it noticed that entries were gone before it came to them.
    pub(super) missed: usize,
}

impl<'r> Consumer<'r> {
    /// Begins with the first entry of a stream.
    pub(super) fn new(redis: &'r Redis, stream: &str) -> Consumer<'r> {
        let mut consumer = Consumer {
            redis,
            connection: None,
            stream: stream.to_owned(),
            told: Vec::new(),
            rows: BTreeMap::new(),
            refetched: 0,
            missed: 0,
        };
        consumer.join();
        consumer
    }

    fn join(&mut self) {
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(&self.stream).arg("copy").arg("0");
        // It may be there: then the group goes on where it was.
        let _ = create.query::<()>(&mut self.redis.connect());
    }

    /// Reads what there is, and acknowledges it. False if Redis was away.
    pub(super) fn read(&mut self, rows: &dyn Fn() -> BTreeMap<String, Value>) -> bool {
        let done = self.try_read(rows);
        if done.is_err() {
            self.connection = None;
        }
        done.is_ok()
    }

    fn try_read(&mut self, rows: &dyn Fn() -> BTreeMap<String, Value>) -> RedisResult<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = self.redis.try_connect()?;
                connection.set_read_timeout(Some(PATIENCE))?;
                connection
            }
        };
        // First what was delivered and not acknowledged.
        for from in ["0", ">"] {
            let mut read = redis::cmd("XREADGROUP");
            read.arg("GROUP").arg("copy").arg("me").arg("COUNT").arg(10);
            read.arg("STREAMS").arg(&self.stream).arg(from);
            let found: Option<StreamReadReply> = read.query(&mut connection)?;
            let streams = found.map_or(Vec::new(), |found| found.keys);
            for found in streams.iter().flat_map(|stream| &stream.ids) {
                let of = self.stream.clone();
                self.take(Entry::of(found), rows);
                let mut acknowledge = redis::cmd("XACK");
                acknowledge.arg(&of).arg("copy").arg(&found.id);
                acknowledge.query::<()>(&mut connection)?;
                if of != self.stream {
                    self.join();
                    self.connection = Some(connection);
                    return Ok(());
                }
            }
        }
        self.connection = Some(connection);
        Ok(())
    }

    fn take(&mut self, entry: Entry, rows: &dyn Fn() -> BTreeMap<String, Value>) {
        if self.told.last() == Some(&entry) {
            return;
        }
        if entry.op != "refetch" && !self.continues_with(&entry) {
            self.missed += 1;
            self.rows = rows();
        }
        let key = entry.key.to_string();
        match entry.op.as_str() {
            "upsert" => drop(self.rows.insert(key, shown(&entry.row))),
            "delete" => drop(self.rows.remove(&key)),
            "refetch" => {
                self.refetched += 1;
                self.rows = rows();
                if let Some(next) = &entry.next {
                    self.stream = next.clone();
                }
            }
            other => panic!("an entry does {other:?}"),
        }
        self.told.push(entry);
    }

    /// Whether nothing is missing between the last entry and this one.
    fn continues_with(&self, entry: &Entry) -> bool {
        let last = self.told.last().map(Entry::revision);
        last == Some(entry.revision()) || last == entry.previous
    }

    /// Reads until it has everything that the current stream has.
    pub(super) fn follow(&mut self, scene: &Scene) {
        wait_until("the consumer to have everything", || {
            self.read(&|| rows_of(scene));
            let current = current_stream(self.redis);
            let last = entries(self.redis, &current).pop();
            let told = self.told.last();
            match self.stream == current && told == last.as_ref() {
                true => Ok(()),
                false => Err(Box::new((self.stream.clone(), told.cloned(), last))),
            }
        });
    }
}

/// A row as readers see it who do not ask for more: what the engine notes beside it is in the stream, and left out here.
pub(super) fn shown(row: &Value) -> Value {
    let mut row = row.clone();
    row.as_object_mut()
        .unwrap()
        .retain(|name, _| !name.starts_with('_'));
    row
}

/// The rows as readers see them, by key.
pub(super) fn rows_of(scene: &Scene) -> BTreeMap<String, Value> {
    let found = scene.gobo.get("/read/raw").expect(200).json();
    let rows = found.as_array().unwrap().iter();
    rows.map(|row| (json!([row["id"]]).to_string(), row.clone()))
        .collect()
}
