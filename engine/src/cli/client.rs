//! Speaking to a running engine.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

/// Which engine to speak to
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Remote {
    /// Address of the running engine
    #[arg(long, env = "GOBO_URL", default_value = "http://127.0.0.1:7171", value_name = "URL")]
    pub(super) url: String,
}

/// A connection to the engine at an address.
pub(super) struct Client {
    base: String,
    agent: ureq::Agent,
}

impl Remote {
    pub(super) fn client(&self) -> Client {
        let settings = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(Duration::from_secs(150)));
        Client {
            base: self.url.trim_end_matches('/').to_owned(),
            agent: settings.build().into(),
        }
    }
}

impl Client {
    pub(super) fn get(&self, path: &str) -> Result<Value> {
        self.answer(self.agent.get(format!("{}{path}", self.base)).call())
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.agent.post(format!("{}{path}", self.base));
        self.answer(request.send_json(body))
    }

    pub(super) fn put(&self, path: &str, body: &[u8]) -> Result<Value> {
        let request = self.agent.put(format!("{}{path}", self.base));
        self.answer(request.content_type("application/wasm").send(body))
    }

    pub(super) fn post_bytes(&self, path: &str, body: &[u8]) -> Result<Value> {
        let request = self.agent.post(format!("{}{path}", self.base));
        self.answer(request.content_type("application/wasm").send(body))
    }

    fn answer(
        &self,
        sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value> {
        let mut response = sent.map_err(|error| {
            anyhow!(
                "the engine at {} does not answer ({error}): start it with `gobo serve` or `gobo dev`, or name another one with --url or GOBO_URL",
                self.base
            )
        })?;
        let body = response
            .body_mut()
            .with_config()
            .limit(256 << 20)
            .read_to_string()?;
        if response.status().is_success() {
            return serde_json::from_str(&body)
                .with_context(|| format!("{} is not a gobo engine: it answered {body:.200}", self.base));
        }
        bail!(explain(response.status().as_u16(), &body))
    }
}

/// A problem in words for a terminal.
fn explain(status: u16, body: &str) -> String {
    let Ok(problem) = serde_json::from_str::<Value>(body) else {
        return format!("the engine answered {status}: {body:.500}");
    };
    let text = |member: &str| problem[member].as_str();
    let mut words = text("detail").unwrap_or("the engine gave no reason").to_owned();
    if let Some(hint) = text("hint") {
        words.push_str("\nhint: ");
        words.push_str(hint);
    }
    words
}

/// A name as a segment of a path.
pub(super) fn segment(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
