//! The built engine as a process of its own, spoken to over HTTP.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use gobo_cluster::Signal;
use serde_json::Value;
use tempfile::TempDir;
use xtask::serve::{Outcome, Served};

use crate::build::gobo_binary;
use crate::wait::{PATIENCE, wait_until};

/// A running `gobo serve`. It ends when this is dropped or when the test process ends; when the test
/// fails, the end of its log is printed.
#[derive(Debug)]
pub struct Gobo {
    served: Served,
    log: PathBuf,
    config: PathBuf,
    agent: ureq::Agent,
    environment: Vec<(OsString, OsString)>,
    /// Holds the configuration and the log.
    folder: TempDir,
}

/// An engine that ended instead of serving.
#[derive(Debug)]
pub struct Refusal {
    /// Its exit code.
    pub code: i32,
    /// Everything it printed.
    pub log: String,
}

/// An HTTP answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Gobo {
    /// Serves `database` on a free port. `tables` is appended to the configuration, for example
    /// `[limits]\nbatch_time = "1s"`.
    pub fn start(database: &str, tables: &str) -> Gobo {
        Gobo::try_start(database, tables)
            .unwrap_or_else(|refusal| panic!("gobo did not start: {}", refusal.log))
    }

    /// The same with more in the engine's environment.
    pub fn start_in(database: &str, tables: &str, more: &[(&str, &OsStr)]) -> Gobo {
        let more = more
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Gobo::serve(&configuration(database, tables), more.collect())
            .unwrap_or_else(|refusal| panic!("gobo did not start: {}", refusal.log))
    }

    /// The same for an engine that may refuse to start.
    pub fn try_start(database: &str, tables: &str) -> Result<Gobo, Refusal> {
        Gobo::try_serve(&configuration(database, tables))
    }

    /// Serves with exactly this configuration.
    pub fn try_serve(config: &str) -> Result<Gobo, Refusal> {
        Gobo::serve(config, Vec::new())
    }

    fn serve(config: &str, more: Vec<(OsString, OsString)>) -> Result<Gobo, Refusal> {
        let environment = [environment(), more].concat();
        let folder = tempfile::Builder::new()
            .prefix("gobo-test-")
            .tempdir()
            .expect("a temporary folder");
        let path = folder.path().join("gobo.toml");
        std::fs::write(&path, config).expect("write gobo.toml");
        let log = folder.path().join("gobo.log");
        let served = serve(&path, &log, &environment)?;
        let settings = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE));
        Ok(Gobo {
            served,
            log,
            config: path,
            agent: settings.build().into(),
            environment,
            folder,
        })
    }

    /// Starts the ended (or killed) engine again with the same configuration, on another port.
    pub fn start_again(&mut self) {
        self.terminate();
        self.served = serve(&self.config, &self.log, &self.environment)
            .unwrap_or_else(|refusal| panic!("gobo did not start again: {}", refusal.log));
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.served.url
    }

    /// A folder of this engine that goes with it: a place for watched plugins.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything that the engine has printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The engine's process id.
    pub fn id(&self) -> u32 {
        self.served.process.id()
    }

    /// `GET path`
    pub fn get(&self, path: &str) -> Answer {
        self.try_get(path)
            .unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// `GET path` for an engine that may be down.
    pub fn try_get(&self, path: &str) -> Result<Answer, ureq::Error> {
        self.agent
            .get(format!("{}{path}", self.served.url))
            .call()
            .and_then(Answer::read)
    }

    /// `POST path` with a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.try_post(path, body)
            .unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// `POST path` with a JSON body for an engine that may be down.
    pub fn try_post(&self, path: &str, body: &Value) -> Result<Answer, ureq::Error> {
        self.agent
            .post(format!("{}{path}", self.served.url))
            .send_json(body)
            .and_then(Answer::read)
    }

    /// `PUT path` with raw bytes.
    pub fn put_bytes(&self, path: &str, body: &[u8]) -> Answer {
        let request = self
            .agent
            .put(format!("{}{path}", self.served.url))
            .content_type("application/octet-stream");
        request
            .send(body)
            .and_then(Answer::read)
            .unwrap_or_else(|error| panic!("PUT {path}: {error}"))
    }

    /// Any method, headers and body.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.served.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).expect("a well-formed request");
        let sent = self.agent.run(request).and_then(Answer::read);
        sent.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Deploys the built guest `package` under its own name and returns the answer.
    pub fn deploy(&self, package: &str) -> Answer {
        let module = crate::build::wasm_bytes(package);
        self.request(
            "POST",
            "/admin/projections",
            &[("content-type", "application/wasm")],
            &module,
        )
    }

    /// The same, in the place of what is live: the rows are kept and the checkpoint goes on.
    pub fn swap(&self, package: &str) -> Answer {
        let module = crate::build::wasm_bytes(package);
        self.request(
            "POST",
            "/admin/projections?mode=continue",
            &[("content-type", "application/wasm")],
            &module,
        )
    }

    /// Waits until the engine says that it is ready, and returns how it says it.
    pub fn wait_until_ready(&self) -> Answer {
        wait_until("the engine to be ready", || {
            match self.get("/health/ready") {
                answer if answer.status == 200 => Ok(answer),
                answer => Err(answer),
            }
        })
    }

    /// Runs another `gobo` command against this engine.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(gobo_binary());
        command
            .args(arguments)
            .env_clear()
            .envs(environment())
            .env("GOBO_URL", &self.served.url);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command.output().expect("gobo can be run")
    }

    /// SIGKILL: the engine ends without being asked.
    pub fn kill(&mut self) {
        self.served.process.kill().expect("kill the engine");
    }

    /// SIGSTOP: the engine freezes.
    pub fn stop(&mut self) {
        self.served
            .process
            .signal(Signal::Stop)
            .expect("freeze the engine");
    }

    /// SIGCONT: a frozen engine goes on.
    pub fn cont(&mut self) {
        self.served
            .process
            .signal(Signal::Continue)
            .expect("wake the engine");
    }

    /// SIGTERM, and waits for the end. Returns the exit code.
    pub fn terminate(&mut self) -> i32 {
        self.served.process.stop().expect("end the engine")
    }

    /// Waits until the engine ends by itself and returns its exit code.
    pub fn wait(&mut self) -> i32 {
        self.served.process.wait(PATIENCE).expect("the engine ends")
    }
}

impl Drop for Gobo {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(100)..].join("\n");
            eprintln!(
                "--- the end of the log of gobo {} ---\n{end}\n--- end ---",
                self.served.url
            );
        }
    }
}

impl Answer {
    fn read(response: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
        let (head, mut body) = response.into_parts();
        let headers = head.headers.iter();
        let headers = headers.map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into(),
            )
        });
        Ok(Answer {
            status: head.status.as_u16(),
            headers: headers.collect(),
            body: body.with_config().limit(1 << 30).read_to_vec()?,
        })
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// Fails unless the status is `status`, showing the body; returns the answer.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

/// Starts the engine and waits for its address.
fn serve(
    config: &Path,
    log: &Path,
    environment: &[(OsString, OsString)],
) -> Result<Served, Refusal> {
    let started = xtask::serve::serve(gobo_binary(), config, log, environment.to_vec());
    match started.expect("start the engine") {
        Outcome::Served(served) => Ok(served),
        Outcome::Ended { code, log } => Err(Refusal { code, log }),
    }
}

fn configuration(database: &str, tables: &str) -> String {
    format!("listen = \"127.0.0.1:0\"\n\n[database]\nurl = {database:?}\n\n{tables}\n")
}

fn environment() -> Vec<(OsString, OsString)> {
    let mut environment = xtask::serve::plain_environment();
    environment.push(("RUST_BACKTRACE".into(), "1".into()));
    environment
}
