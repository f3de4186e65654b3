//! A reader of server-sent events, and the copy of the rows that it keeps.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use gobo_tests::PATIENCE;
use serde_json::Value;

/// An event as the stream has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    pub(super) kind: String,
    pub(super) data: Value,
}

impl Event {
    pub(super) fn reason(&self) -> (&str, &str) {
        (&self.kind, self.data["reason"].as_str().unwrap_or_default())
    }
}

/// An open stream.
pub(super) struct Stream {
    reader: BufReader<TcpStream>,
    pub(super) status: u16,
    pub(super) head: String,
    left: usize,
    is_chunked: bool,
    line: Vec<u8>,
    /// As a browser keeps it.
    pub(super) id: String,
    pub(super) signs_of_life: usize,
}

impl Stream {
    /// `GET path` of the engine at `url`, with this `Last-Event-ID`.
    pub(super) fn open(url: &str, path: &str, id: &str) -> Self {
        Self::open_as(url, path, id, "")
    }

    /// The same with a token, or with none.
    pub(super) fn open_as(url: &str, path: &str, id: &str, token: &str) -> Self {
        let token = match token {
            "" => String::new(),
            token => format!("Bearer {token}"),
        };
        let headers = [("last-event-id", id), ("authorization", &token)];
        let sent: Vec<_> = headers.into_iter().filter(|(_, v)| !v.is_empty()).collect();
        let mut stream = Self::open_with(url, path, &sent);
        stream.id = id.to_owned();
        stream
    }

    /// The same with any headers.
    pub(super) fn open_with(url: &str, path: &str, headers: &[(&str, &str)]) -> Self {
        let host = url.strip_prefix("http://").unwrap();
        let stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut more = String::new();
        if !headers.iter().any(|(name, _)| *name == "accept") {
            more.push_str("accept: text/event-stream\r\n");
        }
        for (name, value) in headers {
            more.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut writer = stream.try_clone().unwrap();
        write!(writer, "GET {path} HTTP/1.1\r\nhost: {host}\r\n{more}\r\n").unwrap();
        let mut reader = BufReader::with_capacity(1024, stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
        }
        Self {
            status: head[9..12].parse().unwrap(),
            reader,
            left: length(&head).unwrap_or(0),
            is_chunked: length(&head).is_none(),
            head,
            line: Vec::new(),
            id: String::new(),
            signs_of_life: 0,
        }
    }

    /// The whole body, for an answer that is no stream.
    pub(super) fn rest(mut self) -> String {
        while self.read_on().is_some() {}
        String::from_utf8(self.line).unwrap()
    }

    /// The next event; `None` at the end, or when the engine was killed.
    pub(super) fn next(&mut self) -> Option<Event> {
        let (mut kind, mut data) = (String::new(), None::<String>);
        loop {
            let line = self.line()?;
            let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
            match name {
                "" if data.is_some() => {
                    let data = data.unwrap_or_default();
                    let data = serde_json::from_str(&data).unwrap();
                    return Some(Event { kind, data });
                }
                "" => self.signs_of_life += 1,
                "event" => kind = value.to_owned(),
                "data" => data = Some(value.to_owned()),
                "id" => self.id = value.to_owned(),
                ":" => {}
                other => panic!("{other:?} in a stream of events"),
            }
        }
    }

    /// Reads until at least one sign of life more has come.
    pub(super) fn wait_for_sign_of_life(&mut self) {
        let before = self.signs_of_life;
        while self.signs_of_life == before {
            let line = self.line().expect("the stream is open");
            match line.split_once(": ") {
                Some(("id", id)) => self.id = id.to_owned(),
                _ if line.is_empty() => self.signs_of_life += 1,
                _ => assert_eq!(line, ":"),
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.line.iter().position(|&byte| byte == b'\n') {
                let rest = self.line.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.line, rest);
                line.pop();
                return Some(String::from_utf8(line).unwrap());
            }
            self.read_on()?;
        }
    }

    /// Takes over what comes next of the body.
    fn read_on(&mut self) -> Option<()> {
        if self.left == 0 && !self.is_chunked {
            return None;
        }
        while self.left == 0 {
            let mut size = String::new();
            let read = self.reader.read_line(&mut size).ok()?;
            if read > 0 && size == "\r\n" {
                continue;
            }
            self.left = usize::from_str_radix(size.trim_end(), 16).ok()?;
            if self.left == 0 {
                return None;
            }
        }
        let found = self.reader.fill_buf().ok()?;
        let taken = found.len().min(self.left);
        if taken == 0 {
            return None;
        }
        self.line.extend_from_slice(&found[..taken]);
        self.reader.consume(taken);
        self.left -= taken;
        Some(())
    }
}

/// What an answer's head says of the length of its body.
fn length(head: &str) -> Option<usize> {
    let head = head.to_lowercase();
    let (_, length) = head.split_once("content-length: ")?;
    length.lines().next()?.parse().ok()
}

/// The rows as a subscriber has them, by their keys.
#[derive(Debug, Default)]
pub(super) struct Replica {
    pub(super) rows: BTreeMap<String, Value>,
    pub(super) revision: i64,
    key: Vec<&'static str>,
}

impl Replica {
    pub(super) fn new(key: &[&'static str]) -> Self {
        Self {
            key: key.to_vec(),
            ..Self::default()
        }
    }

    /// Takes an event over; `false` when the rows have to be read anew.
    pub(super) fn apply(&mut self, event: &Event) -> bool {
        let data = &event.data;
        match event.kind.as_str() {
            "rows" => {
                self.revision = data["revision"].as_i64().unwrap();
                let rows = data["rows"].as_array().unwrap().iter();
                let key = |row: &Value| {
                    let key: Vec<_> = self.key.iter().map(|name| row[*name].clone()).collect();
                    Value::from(key).to_string()
                };
                self.rows = rows.map(|row| (key(row), row.clone())).collect();
            }
            "changes" => {
                let revision = data["revision"].as_i64().unwrap();
                assert!(
                    revision > self.revision,
                    "{revision} after {}",
                    self.revision
                );
                self.revision = revision;
                let changes = data["changes"].as_array().unwrap();
                assert!(!changes.is_empty());
                for change in changes {
                    let key = change["key"].to_string();
                    match change["op"].as_str().unwrap() {
                        "upsert" => drop(self.rows.insert(key, change["row"].clone())),
                        "delete" => {
                            assert!(self.rows.remove(&key).is_some(), "{key} was not there")
                        }
                        other => panic!("{other}"),
                    }
                }
            }
            "refetch" => return false,
            other => panic!("{other}: {data}"),
        }
        true
    }

    pub(super) fn values(&self) -> Vec<&Value> {
        self.rows.values().collect()
    }
}
