//! What a plugin may use: memory, time, output, log lines.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::{Engine, EngineWeak, ResourceLimiter, Trap};

use super::backtrace::{self, Frame};
use super::bindings::log;
use super::{CallError, LogLevel, LogLine};

/// Bounds on everything that a plugin can ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one instance, in bytes.
    pub memory_bytes: usize,
    /// Time of one call of `begin` or `resume`.
    pub batch_time: Duration,
    /// Bytes that one instance may hand to the host.
    pub output_bytes: usize,
    /// Log lines kept per batch; more are counted.
    pub log_lines: usize,
    /// Bytes of one log line or failure message; the rest is cut.
    pub message_bytes: usize,
    /// Rows that a batch may ask for, over all rounds.
    pub keys_per_batch: usize,
    /// How often a batch may ask for rows.
    pub rounds: usize,
    /// Size of a module that is deployed.
    pub module_bytes: usize,
    /// Instances that exist at the same time in this process.
    pub concurrent_instances: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            batch_time: Duration::from_secs(5),
            output_bytes: 64 << 20,
            log_lines: 100,
            message_bytes: 4_096,
            keys_per_batch: 200_000,
            rounds: 64,
            module_bytes: 16 << 20,
            concurrent_instances: 64,
        }
    }
}

/// What one component may consist of: one module and what wit-component puts around it. One memory, so that the limit
/// of a memory is the limit of the plugin.
pub(super) const MEMORIES: usize = 1;
pub(super) const CORE_INSTANCES: usize = 8;
pub(super) const TABLES: usize = 4;

/// How often the clock that interrupts plugins ticks.
const TICK: Duration = Duration::from_millis(10);

/// The number of ticks after which at least `time` has passed.
pub(super) fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX / 2) + 1
}

/// Advances the epoch of `engine` until the engine is dropped. The clock has a thread of its own, so that busy worker
/// threads cannot hold it up.
pub(super) fn start_ticker(engine: &Engine) {
    let weak: EngineWeak = engine.weak();
    let tick = move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    if let Err(error) = std::thread::Builder::new()
        .name("plugin clock".into())
        .spawn(tick)
    {
        tracing::error!(%error, "the plugin clock cannot start: plugins run without a time limit");
    }
}

/// Cuts `text` to at most `bytes`, at a character boundary, and says so.
pub(super) fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        let end = (0..=bytes)
            .rev()
            .find(|&i| text.is_char_boundary(i))
            .unwrap_or(0);
        text.truncate(end);
        text.push_str(" ... (cut)");
    }
    // PostgreSQL cannot store U+0000 in text.
    if text.contains('\0') {
        text = text.replace('\0', "\u{fffd}");
    }
    text
}

/// The state of one instance: what it used, what it logged.
pub(super) struct Meter {
    pub(super) limits: Arc<Limits>,
    memory_refused: bool,
    /// Why the machine could not give memory that the limits allow.
    machine_failed: Option<String>,
    logs: Vec<LogLine>,
    dropped: u64,
    backtrace: Vec<Frame>,
}

impl Meter {
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        Self {
            limits,
            memory_refused: false,
            machine_failed: None,
            logs: Vec::new(),
            dropped: 0,
            backtrace: Vec::new(),
        }
    }

    pub(super) fn take_logs(&mut self) -> (Vec<LogLine>, u64) {
        (
            std::mem::take(&mut self.logs),
            std::mem::take(&mut self.dropped),
        )
    }

    pub(super) fn take_backtrace(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.backtrace)
    }

    /// Finds out why a call failed, and keeps where.
    pub(super) fn failed(&mut self, error: &wasmtime::Error) -> CallError {
        self.backtrace = backtrace::frames(error);
        self.explain(error)
    }

    /// Finds out why a call failed.
    pub(super) fn explain(&self, error: &wasmtime::Error) -> CallError {
        if self.memory_refused {
            return CallError::Memory {
                limit: self.limits.memory_bytes,
            };
        }
        if let Some(why) = &self.machine_failed {
            return CallError::Host(why.clone());
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => {
                return CallError::Timeout {
                    limit: self.limits.batch_time,
                };
            }
            None if format!("{error:#}").contains("fuel allocated for hostcalls") => {
                return CallError::Output {
                    limit: self.limits.output_bytes,
                };
            }
            _ => {}
        }
        // A panic's message was logged by the SDK's hook; the trap itself only says "unreachable".
        let panic = self
            .logs
            .iter()
            .rev()
            .find(|line| line.level == LogLevel::Error)
            .map(|line| format!("{}; ", line.message))
            .unwrap_or_default();
        let place = backtrace::in_short(&backtrace::frames(error));
        CallError::Trap {
            // The cause comes before the functions, of which something may be cut.
            message: cut(
                format!("{panic}{}{place}", error.root_cause()),
                self.limits.message_bytes,
            ),
        }
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Beyond its own declared maximum a module fails by itself.
        let declared = maximum.unwrap_or(usize::MAX);
        let granted = desired <= self.limits.memory_bytes.min(declared);
        self.memory_refused |= !granted;
        Ok(granted)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        if !self.memory_refused {
            self.machine_failed = Some(format!("memory cannot grow: {error:#}"));
        }
        Ok(())
    }

    fn memories(&self) -> usize {
        MEMORIES
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES
    }

    fn tables(&self) -> usize {
        TABLES
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= 20_000)
    }
}

impl log::Host for Meter {
    fn write(&mut self, level: log::Level, message: String) {
        if self.logs.len() >= self.limits.log_lines {
            self.dropped += 1;
            return;
        }
        let level = match level {
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Error => LogLevel::Error,
        };
        let message = cut(message, self.limits.message_bytes);
        self.logs.push(LogLine { level, message });
    }
}
