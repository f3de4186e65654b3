//! The engine's HTTP interface, as far as the demo needs it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::market::Append;

/// How long the engine may be unreachable before an append fails. Repeating one is harmless: events
/// carry their ids.
const RETRY: Duration = Duration::from_secs(20);

/// A row as the engine wrote it: raw text keeps every digit of a number.
pub(crate) type RawRow = BTreeMap<String, Box<RawValue>>;

/// A connection pool to one engine.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    agent: ureq::Agent,
    url: String,
}

/// What `GET /admin/projections` says of one projection.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct Status {
    pub(crate) name: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) generation: i64,
    pub(crate) position: i64,
    #[serde(default)]
    pub(crate) head_position: i64,
    #[serde(default)]
    pub(crate) lag_seconds: Option<f64>,
    #[serde(default)]
    pub(crate) events_per_second: Option<f64>,
    #[serde(default)]
    pub(crate) error: Option<Value>,
}

impl Client {
    pub(crate) fn new(url: &str) -> Client {
        let settings = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_idle_connections(32)
            .max_idle_connections_per_host(32)
            .timeout_global(Some(Duration::from_secs(60)));
        Client {
            agent: settings.build().into(),
            url: url.to_owned(),
        }
    }

    /// Appends and returns the answer's `position` and `version`.
    pub(crate) fn append(&self, append: &Append) -> Result<(i64, i64)> {
        let path = format!("/streams/{}/events", append.stream);
        let expected = append.expected.clone().unwrap_or_else(|| json!("any"));
        let body = json!({ "expected_version": expected, "events": append.events });
        let deadline = Instant::now() + RETRY;
        loop {
            let answer = self
                .agent
                .post(format!("{}{path}", self.url))
                .send_json(&body);
            match answer {
                Ok(answer) if answer.status().as_u16() != 503 => {
                    let text = text_of(answer, &path)?;
                    let value: Value =
                        serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))?;
                    let number = |name: &str| {
                        value[name]
                            .as_i64()
                            .with_context(|| format!("{path}: no {name} in {text}"))
                    };
                    return Ok((number("position")?, number("version")?));
                }
                Ok(answer) if Instant::now() > deadline => drop(text_of(answer, &path)?),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| path.clone());
                }
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Deploys a module and returns the engine's answer.
    pub(crate) fn deploy(&self, name: &str, module: &[u8]) -> Result<Value> {
        let path = format!("/admin/projections/{name}");
        let request = self
            .agent
            .put(format!("{}{path}", self.url))
            .content_type("application/wasm");
        let text = text_of(request.send(module).with_context(|| path.clone())?, &path)?;
        serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))
    }

    /// Begins to fill a new generation, and gives its number.
    pub(crate) fn rebuild(&self, name: &str) -> Result<i64> {
        let path = format!("/admin/projections/{name}/rebuild");
        let request = self.agent.post(format!("{}{path}", self.url));
        let text = text_of(
            request.send_json(json!({})).with_context(|| path.clone())?,
            &path,
        )?;
        let answer: Value =
            serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))?;
        (answer["generation"].as_i64()).with_context(|| format!("{path}: {text}"))
    }

    /// All projections.
    pub(crate) fn projections(&self) -> Result<Vec<Status>> {
        let path = "/admin/projections";
        let (text, _) = self.get(path)?;
        let value: Value =
            serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))?;
        let list = if value.is_array() {
            value
        } else {
            value["projections"].clone()
        };
        serde_json::from_value(list).with_context(|| format!("{path}: {text}"))
    }

    /// Every row of a read model that passes `filter` (`column=eq.value&...`), page by page.
    pub(crate) fn rows(&self, model: &str, filter: &str) -> Result<Vec<RawRow>> {
        let mut rows = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/read/{model}?limit=1000&{filter}{cursor}");
            let (mut page, next) = self.page(&path)?;
            rows.append(&mut page);
            match next {
                Some(next) => cursor = format!("&cursor={}", encoded(&next)),
                None => return Ok(rows),
            }
        }
    }

    /// One page of rows, and the cursor of the next one.
    pub(crate) fn page(&self, path: &str) -> Result<(Vec<RawRow>, Option<String>)> {
        let (text, next) = self.get(path)?;
        let rows = serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))?;
        Ok((rows, next))
    }

    pub(crate) fn get(&self, path: &str) -> Result<(String, Option<String>)> {
        let answer = self
            .agent
            .get(format!("{}{path}", self.url))
            .call()
            .with_context(|| path.to_owned())?;
        let next = answer
            .headers()
            .get("gobo-next-cursor")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        Ok((text_of(answer, path)?, next))
    }
}

fn text_of(mut answer: ureq::http::Response<ureq::Body>, path: &str) -> Result<String> {
    let text = answer
        .body_mut()
        .with_config()
        .limit(1 << 28)
        .read_to_string()
        .with_context(|| path.to_owned())?;
    if !answer.status().is_success() {
        bail!("{path} answered {}: {text}", answer.status());
    }
    Ok(text)
}

fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
