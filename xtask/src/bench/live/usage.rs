//! Processor time, as the system counts it.

use std::fs;

use anyhow::{Context as _, Result};
use gobo_cluster::Cluster;

/// The unit in which Linux tells times, whatever the kernel's own is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) engine: f64,
    pub(super) postgres: f64,
}

/// One process.
struct Process {
    parent: u32,
    own: u64,
    /// Of its children that have ended.
    ended: u64,
}

impl Usage {
    /// What the engine with this process id and the server with all its sessions have used.
    pub(super) fn of(engine: u32, cluster: &Cluster) -> Result<Self> {
        let file = cluster.data().join("postmaster.pid");
        let text = fs::read_to_string(&file)
            .with_context(|| format!("could not read {}", file.display()))?;
        let server: u32 = (text.lines().next().unwrap_or_default().parse())
            .with_context(|| format!("no process in {}", file.display()))?;
        let mut ticks = {
            let server = Process::read(server).context("the server is gone")?;
            server.own + server.ended
        };
        for entry in fs::read_dir("/proc").context("processor time is known on Linux only")? {
            let name = entry?.file_name();
            let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if let Some(process) = Process::read(number).filter(|found| found.parent == server) {
                ticks += process.own;
            }
        }
        let engine = Process::read(engine).context("the engine is gone")?;
        Ok(Self {
            engine: engine.own as f64 / TICKS_PER_SECOND,
            postgres: ticks as f64 / TICKS_PER_SECOND,
        })
    }

    pub(super) fn since(self, before: &Usage) -> Self {
        Self {
            engine: self.engine - before.engine,
            postgres: self.postgres - before.postgres,
        }
    }
}

impl Process {
    fn read(number: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        // The name, in parentheses, may hold anything.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let field = |place: usize| fields.get(place)?.parse::<u64>().ok();
        Some(Self {
            parent: field(1)? as u32,
            own: field(11)? + field(12)?,
            ended: field(13)? + field(14)?,
        })
    }
}

/// How many files this process, and those that it starts, may have open; `None` where that is not limited or not known.
pub(super) fn open_files() -> Result<Option<u64>> {
    let Ok(limits) = fs::read_to_string("/proc/self/limits") else {
        return Ok(None);
    };
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let most = line.and_then(|rest| rest.split_whitespace().next());
    Ok(most.and_then(|most| most.parse().ok()))
}
