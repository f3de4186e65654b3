//! A running private Redis server.

pub mod program;

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::machine::Machine;
use crate::place::Place;
use crate::settings::environment;
use crate::supervise::{Signal, Supervised, Task};
use crate::trouble::tail;

/// How long the server may take to open, reading its data included.
const OPENING: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(5);

/// What a server remembers when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing.
    Nothing,
    /// Everything that it has answered: an append-only file, flushed before each answer.
    Everything,
}

/// A private Redis server in a temporary folder, on a unix socket, and where it is wanted on a port of this machine with
/// TLS. It ends when this is dropped, and when this process ends in any other way, `kill -9` included; its folder goes with
/// it.
#[derive(Debug)]
pub struct RedisServer {
    place: Place,
    program: PathBuf,
    persistence: Persistence,
    /// Where TLS is spoken, if it is.
    tls_port: Option<u16>,
    server: Option<Supervised>,
}

impl RedisServer {
    /// Starts an empty server and waits until it answers. Errors name the fix and quote the server's log.
    pub fn start(persistence: Persistence) -> Result<RedisServer> {
        let mut server = RedisServer::create(persistence)?;
        server.open()?;
        Ok(server)
    }

    /// The same, remembering nothing, and speaking TLS as well, with a certificate and its key in PEM.
    pub fn start_with_tls(certificate: &str, key: &str) -> Result<RedisServer> {
        let mut server = RedisServer::create(Persistence::Nothing)?;
        for (file, text) in [(server.certificate(), certificate), (server.key(), key)] {
            fs::write(&file, text)?;
            server.place.account.own(&file)?;
        }
        let mut attempts = 0;
        loop {
            // Somebody else may take the port before the server does.
            let free = TcpListener::bind(("127.0.0.1", 0))?;
            server.tls_port = Some(free.local_addr()?.port());
            drop(free);
            attempts += 1;
            match server.open() {
                Err(_) if attempts < 5 => {}
                opened => return opened.map(|()| server),
            }
        }
    }

    fn create(persistence: Persistence) -> Result<RedisServer> {
        let program = program::find_on(&Machine::this())?.path;
        let place = Place::temporary()?;
        fs::create_dir(&place.data)?;
        place.account.own(&place.data)?;
        Ok(RedisServer {
            place,
            program,
            persistence,
            tls_port: None,
            server: None,
        })
    }

    /// The address of its database number 0, as the engine's configuration has it.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// The port of 127.0.0.1 on which it speaks TLS, if it does.
    pub fn tls_port(&self) -> Option<u16> {
        self.tls_port
    }

    fn certificate(&self) -> PathBuf {
        self.place.socket.join("tls.crt")
    }

    fn key(&self) -> PathBuf {
        self.place.socket.join("tls.key")
    }

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.place.socket.join("redis.sock")
    }

    /// Kills the server without warning. What it remembers depends on its persistence.
    pub fn kill(&mut self) -> Result<()> {
        match self.server.take() {
            Some(mut server) => server.kill(),
            None => Ok(()),
        }
    }

    /// Starts the killed (or running) server again, with what it remembers.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.open()
    }

    /// Starts another, empty one in its place.
    pub fn replace(&mut self) -> Result<()> {
        self.kill()?;
        let data = &self.place.data;
        fs::remove_dir_all(data).with_context(|| format!("could not empty {}", data.display()))?;
        fs::create_dir(data)?;
        self.place.account.own(data)?;
        self.open()
    }

    /// Freezes the server: connections stay open and nothing answers.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::Stop)
    }

    /// Lets a paused server go on.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::Continue)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        match &mut self.server {
            Some(server) => server.signal(signal),
            None => Ok(()),
        }
    }

    fn open(&mut self) -> Result<()> {
        let socket = self.socket();
        // A killed server leaves it.
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let task = self.task();
        let log = task.log.clone();
        let server = self
            .server
            .insert(Supervised::start_as(&task, self.place.account)?);
        let deadline = Instant::now() + OPENING;
        while !answers(&socket) {
            if server.ended()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(&log).unwrap_or_default();
                self.server = None;
                bail!("Redis did not start; its log says:\n{}", tail(&log));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn task(&self) -> Task {
        let socket = self.socket();
        let (socket, data) = (socket.to_string_lossy(), self.place.data.to_string_lossy());
        let appends = match self.persistence {
            Persistence::Nothing => "no",
            Persistence::Everything => "yes",
        };
        let port = self.tls_port.unwrap_or_default().to_string();
        let (certificate, key) = (self.certificate(), self.key());
        let (certificate, key) = (certificate.to_string_lossy(), key.to_string_lossy());
        let with_tls = [
            ("bind", "127.0.0.1"),
            ("tls-port", &port),
            ("tls-cert-file", &certificate),
            ("tls-key-file", &key),
            ("tls-auth-clients", "no"),
        ];
        let settings = [
            ("port", "0"),
            ("unixsocket", &socket),
            ("unixsocketperm", "700"),
            ("dir", &data),
            ("save", ""),
            ("appendonly", appends),
            ("appendfsync", "always"),
            ("daemonize", "no"),
        ];
        let more = with_tls.iter().filter(|_| self.tls_port.is_some());
        let arguments = (settings.iter())
            .chain(more)
            .flat_map(|(name, value)| [format!("--{name}").into(), (*value).into()]);
        Task {
            program: self.program.clone(),
            arguments: arguments.collect(),
            environment: environment(),
            folder: "/".into(),
            log: self.place.socket.join("server.log"),
            stop: Signal::Kill,
            grace: Duration::from_secs(10),
            remove: self.place.temporary.clone(),
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        drop(self.server.take());
        // What cannot be removed here is only litter in the temporary folder.
        let _ = self.place.temporary.as_ref().map(fs::remove_dir_all);
    }
}

/// Whether the server answers, and has read its data.
fn answers(socket: &PathBuf) -> bool {
    let asked = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"+PONG")
    };
    asked().unwrap_or(false)
}
