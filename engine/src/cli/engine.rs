//! A running engine, spoken to over HTTP.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::RequestBuilder;

use crate::config::Secret;
pub use crate::query::scan::encode as encoded;

/// The largest answer that is read.
const ANSWER_LIMIT: u64 = 256 << 20;

/// Which engine a command talks to.
#[derive(Debug, Clone, Args)]
pub struct EngineArgs {
    /// The address of a running engine.
    #[arg(
        long,
        env = "GOBO_URL",
        default_value = "http://127.0.0.1:7171",
        global = true
    )]
    pub url: String,
    /// A token of `gobo token new`, or a JWT, if the engine asks for one.
    #[arg(
        long,
        env = "GOBO_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        value_parser = |text: &str| Ok::<_, String>(Secret::from(text)),
        global = true
    )]
    pub token: Option<Secret>,
}

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    agent: ureq::Agent,
    url: String,
    token: Option<Secret>,
}

/// The engine cannot answer at present: it is not there, or its database is not.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Away(String);

/// What was asked for does not exist, or not yet.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Absent(String);

impl Engine {
    /// The engine at the given address; nothing is sent yet.
    pub fn new(args: &EngineArgs) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .build();
        Self {
            agent: config.into(),
            url: args.url.trim_end_matches('/').to_owned(),
            token: args.token.clone(),
        }
    }

    /// Adds what says who asks.
    fn signed<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.token {
            None => request,
            Some(token) => request.header("authorization", format!("Bearer {}", token.reveal())),
        }
    }

    /// Asks for `path`, which begins with a slash and is encoded already.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let request = self.agent.get(format!("{}{path}", self.url));
        let answer = self.signed(request).call();
        self.read(answer)
    }

    /// Posts JSON to `path`.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &str) -> Result<T> {
        let request = self.agent.post(format!("{}{path}", self.url));
        let answer = self
            .signed(request)
            .content_type("application/json")
            .send(body);
        self.read(answer)
    }

    /// Changes what is at `path` as JSON says.
    pub fn patch<T: DeserializeOwned>(&self, path: &str, body: &str) -> Result<T> {
        let request = self.agent.patch(format!("{}{path}", self.url));
        let answer = self
            .signed(request)
            .content_type("application/json")
            .send(body);
        self.read(answer)
    }

    /// Removes what is at `path`.
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let request = self.agent.delete(format!("{}{path}", self.url));
        let answer = self.signed(request).call();
        self.read(answer)
    }

    /// Sends a module: to `path` with PUT, when it is a projection's own, else with POST.
    pub fn send_module<T: DeserializeOwned>(
        &self,
        path: &str,
        is_own: bool,
        wasm: &[u8],
    ) -> Result<T> {
        let address = format!("{}{path}", self.url);
        let request = match is_own {
            true => self.agent.put(address),
            false => self.agent.post(address),
        };
        let request = self.signed(request).content_type("application/wasm");
        self.read(request.send(wasm))
    }

    /// Asks for server-sent events at `path`: their body, as it comes.
    pub fn stream(&self, path: &str) -> Result<impl std::io::Read> {
        let request = self.agent.get(format!("{}{path}", self.url));
        let answer = self.signed(request).call();
        Ok(self.successful(answer)?.into_body().into_reader())
    }

    fn read<T: DeserializeOwned>(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T> {
        let mut answer = self.successful(answer)?;
        let text = self.text(&mut answer)?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} did not answer as a gobo engine does", self.url))
    }

    fn text(&self, answer: &mut ureq::http::Response<ureq::Body>) -> Result<String> {
        let body = answer.body_mut().with_config().limit(ANSWER_LIMIT);
        body.read_to_string()
            .map_err(|error| Away(format!("the answer of {} broke off: {error}", self.url)).into())
    }

    /// An answer that is no error.
    fn successful(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<ureq::http::Response<ureq::Body>> {
        let mut answer = answer.map_err(|error| {
            Away(format!(
                "no engine answers at {}: {error} (start one with `gobo dev` or `gobo serve`, or name its address with --url)",
                self.url
            ))
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = self.text(&mut answer)?;
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        let mut message = match problem["detail"].as_str() {
            Some(detail) => detail.to_owned(),
            None => format!("{} answered {status}", self.url),
        };
        if let Some(hint) = problem["hint"].as_str() {
            message.push_str(&format!("\n{hint}"));
        }
        if status.as_u16() == 401 && self.token.is_none() {
            message
                .push_str("\nname a token with --token or GOBO_TOKEN; `gobo token new` makes one");
        }
        match status.as_u16() {
            404 => Err(Absent(message).into()),
            502..=504 => Err(Away(message).into()),
            _ => Err(anyhow!(message)),
        }
    }
}
