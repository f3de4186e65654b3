//! `begin` and `resume`, without the component model around them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::frame::{self, Tuple, hex, int8};
use crate::{misbehave, model};

/// What a call leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Keys.
    Need(Vec<u8>),
    /// Changes.
    Done(Vec<u8>),
}

/// The index of an event, and what is wrong with it.
pub type Failure = (u32, String);

/// A message: its level, and the text.
pub type Line = (String, String);

/// A batch between `begin` and its end.
#[derive(Debug, Default)]
pub struct Run {
    events: Vec<Value>,
    /// The keys that were asked for, read model and fields.
    asked: Vec<Key>,
    /// The rows as the events so far leave them, by key.
    rows: BTreeMap<Key, Tuple>,
    /// What has been logged.
    pub log: Vec<Line>,
}

type Key = (i16, Tuple);

const UPSERT: i16 = 0;
const DELETE: i16 = 1;

impl Run {
    /// Decodes a batch and says which rows are needed, or what changes.
    ///
    /// # Errors
    /// When an event cannot be read, or says so.
    pub fn begin(batch: &[u8]) -> Result<(Self, Step), Failure> {
        let mut run = Self::default();
        for (index, tuple) in frame::read(batch)
            .map_err(|error| (0, error))?
            .iter()
            .enumerate()
        {
            let [
                _position,
                _stream,
                _version,
                _type,
                Some(data),
                _metadata,
                _id,
                _occurred,
                _recorded,
            ] = tuple.as_slice()
            else {
                return Err((index as u32, format!("an event of {} fields", tuple.len())));
            };
            let data =
                serde_json::from_slice(data).map_err(|error| (index as u32, error.to_string()))?;
            run.events.push(data);
        }
        let mut keys = Vec::new();
        for event in &run.events {
            if let Some(key) = needed(event) {
                write_key(&mut keys, &key);
                run.asked.push(key);
            }
            misbehave::need(event, &mut keys);
        }
        let step = if keys.is_empty() {
            run.finish()?
        } else {
            Step::Need(keys)
        };
        Ok((run, step))
    }

    /// Takes the rows that were asked for.
    ///
    /// # Errors
    /// When an event says so.
    pub fn resume(&mut self, rows: &[u8]) -> Result<Step, Failure> {
        let rows = frame::read(rows).map_err(|error| (0, error))?;
        for (key, row) in std::mem::take(&mut self.asked).into_iter().zip(rows) {
            if !row.is_empty() {
                self.rows.insert(key, row);
            }
        }
        for event in &self.events {
            if action(event) == "need_forever" {
                let mut keys = Vec::new();
                misbehave::need(event, &mut keys);
                return Ok(Step::Need(keys));
            }
        }
        self.finish()
    }

    fn finish(&mut self) -> Result<Step, Failure> {
        let mut changes = Vec::new();
        for index in 0..self.events.len() {
            let event = self.events[index].clone();
            self.apply(index as u32, &event, &mut changes)?;
        }
        Ok(Step::Done(changes))
    }

    fn apply(&mut self, index: u32, event: &Value, changes: &mut Vec<u8>) -> Result<(), Failure> {
        let fail = |message: String| (index, message);
        match action(event) {
            "put" => {
                let row = put(event).map_err(fail)?;
                self.upsert(index, 0, row, changes);
            }
            "add" => {
                let key = raw_key(event);
                let mut row = self
                    .rows
                    .get(&key)
                    .cloned()
                    .unwrap_or_else(|| model::nulls(id(event)));
                let place = model::place("c_int8").ok_or_else(|| fail("no c_int8".to_owned()))?;
                row[place] = Some(
                    (int8(&row[place]) + number(event, "n"))
                        .to_be_bytes()
                        .to_vec(),
                );
                self.upsert(index, 0, row, changes);
            }
            "pair" => {
                let key = pair_key(event);
                let mut row = self
                    .rows
                    .get(&key)
                    .cloned()
                    .unwrap_or_else(|| [key.1.clone(), vec![None]].concat());
                row[2] = Some((int8(&row[2]) + number(event, "n")).to_be_bytes().to_vec());
                self.upsert(index, 1, row, changes);
            }
            "own" => {
                let key = owned_key(event);
                let row = vec![
                    key.1[0].clone(),
                    Some(number(event, "n").to_be_bytes().to_vec()),
                ];
                self.upsert(index, 2, row, changes);
            }
            "gain" => {
                let key = owned_key(event);
                let mut row = self
                    .rows
                    .get(&key)
                    .cloned()
                    .unwrap_or_else(|| [key.1.clone(), vec![None]].concat());
                row[1] = Some((int8(&row[1]) + number(event, "n")).to_be_bytes().to_vec());
                self.upsert(index, 2, row, changes);
            }
            "disown" => self.delete(index, owned_key(event), changes),
            "delete" => self.delete(index, raw_key(event), changes),
            "unpair" => self.delete(index, pair_key(event), changes),
            "log" => {
                let line = (text(event, "level", "info"), text(event, "message", ""));
                let times = event["times"].as_u64().unwrap_or(1);
                self.log
                    .extend((0..times).map(|_| (line.0.to_owned(), line.1.to_owned())));
            }
            "nothing" => {}
            _ => misbehave::change(index, event, changes)?,
        }
        Ok(())
    }

    fn upsert(&mut self, index: u32, read_model: i16, row: Tuple, changes: &mut Vec<u8>) {
        let key_width = if read_model == 1 { 2 } else { 1 };
        write_change(changes, index, read_model, UPSERT, &row);
        self.rows
            .insert((read_model, row[..key_width].to_vec()), row);
    }

    fn delete(&mut self, index: u32, key: Key, changes: &mut Vec<u8>) {
        write_change(changes, index, key.0, DELETE, &key.1);
        self.rows.remove(&key);
    }
}

/// What an event asks for.
#[must_use]
pub fn action(event: &Value) -> &str {
    event["do"].as_str().unwrap_or_default()
}

/// The row that an event is about.
#[must_use]
pub fn id(event: &Value) -> &str {
    text(event, "id", "x")
}

fn text<'e>(event: &'e Value, member: &str, default: &'e str) -> &'e str {
    event[member].as_str().unwrap_or(default)
}

fn number(event: &Value, member: &str) -> i64 {
    event[member].as_i64().unwrap_or_default()
}

fn raw_key(event: &Value) -> Key {
    (0, vec![Some(id(event).as_bytes().to_vec())])
}

fn owned_key(event: &Value) -> Key {
    (2, raw_key(event).1)
}

fn pair_key(event: &Value) -> Key {
    let b = number(event, "b") as i32;
    (
        1,
        vec![
            Some(text(event, "a", "x").as_bytes().to_vec()),
            Some(b.to_be_bytes().to_vec()),
        ],
    )
}

fn needed(event: &Value) -> Option<Key> {
    match action(event) {
        "add" => Some(raw_key(event)),
        "pair" => Some(pair_key(event)),
        "gain" => Some(owned_key(event)),
        _ => None,
    }
}

fn put(event: &Value) -> Result<Tuple, String> {
    let nulls = event["nulls"].as_bool().unwrap_or_default();
    let mut row = if nulls {
        model::nulls(id(event))
    } else {
        model::sample(id(event))?
    };
    let mut set = |column: &str, field| -> Result<(), String> {
        row[model::place(column).ok_or_else(|| format!("there is no column {column}"))?] = field;
        Ok(())
    };
    if let Some(n) = event["n"].as_i64() {
        set("c_int8", Some(n.to_be_bytes().to_vec()))?;
    }
    if let Some(text) = event["text"].as_str() {
        set("c_text", Some(text.as_bytes().to_vec()))?;
    }
    for (column, field) in event["fields"].as_object().into_iter().flatten() {
        set(column, field.as_str().map(hex).transpose()?)?;
    }
    Ok(row)
}

fn write_key(keys: &mut Vec<u8>, (read_model, key): &Key) {
    let mut tuple = vec![Some(read_model.to_be_bytes().to_vec())];
    tuple.extend(key.iter().cloned());
    frame::write(keys, &tuple);
}

/// Appends a change.
pub fn write_change(
    changes: &mut Vec<u8>,
    index: u32,
    read_model: i16,
    operation: i16,
    fields: &[Option<Vec<u8>>],
) {
    let mut tuple = vec![
        Some((index as i32).to_be_bytes().to_vec()),
        Some(read_model.to_be_bytes().to_vec()),
        Some(operation.to_be_bytes().to_vec()),
    ];
    tuple.extend(fields.iter().cloned());
    frame::write(changes, &tuple);
}
