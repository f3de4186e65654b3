//! Plugins: bytes -> [`Plugin`]; `begin` and `resume` over frames.
//!
//! This is the one module that imports wasmtime; it knows neither PostgreSQL nor HTTP. All calls block: they are made
//! on worker threads.

mod backtrace;
mod code_cache;
mod component;
pub mod limits;

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Store,
    WasmBacktraceDetails,
};

use crate::descriptor::{Descriptor, Refused};
pub use backtrace::Frame;
use code_cache::CodeCache;
pub use limits::Limits;
use limits::Meter;

mod bindings {
    wasmtime::component::bindgen!({ world: "projection", path: "../sdk/wit" });
}

/// The versions of the contract `gobo:projection` that this engine runs.
pub const CONTRACTS: [&str; 1] = ["0.1.0"];

/// Instances that only describe themselves, at the same time.
const DESCRIBING: u32 = 4;

/// sha256 of a plugin's bytes, as they were deployed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PluginHash(pub [u8; 32]);

impl PluginHash {
    /// Hashes a plugin's bytes.
    pub fn of(wasm: &[u8]) -> Self {
        Self(Sha256::digest(wasm).into())
    }
}

impl std::fmt::Display for PluginHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for PluginHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// Bytes that are no usable plugin. The text names the cause and the fix.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The module itself is not acceptable.
    #[error("{0}")]
    Module(String),
    /// It describes itself in a way that breaks a rule.
    #[error(transparent)]
    Descriptor(#[from] Refused),
    /// `describe` did not return.
    #[error("the plugin's describe() failed: {0}")]
    Describe(CallError),
    /// It says something else each time it is asked.
    #[error(
        "the plugin describes itself differently each time it is asked: its descriptor must be a constant"
    )]
    Unstable,
}

/// A call that did not lead to a step.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The plugin says that it cannot process an event.
    #[error("{message}")]
    Failure {
        /// The event's index in the batch.
        event: u32,
        /// The plugin's reason.
        message: String,
    },
    /// The plugin crashed.
    #[error("the plugin trapped: {message}")]
    Trap {
        /// The panic's message when one was logged, the trap, and the innermost functions.
        message: String,
    },
    /// The call took longer than the limit.
    #[error("the plugin ran longer than the limit of {} ms for one call (limits.batch_time_ms)", limit.as_millis())]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// The plugin asked for more memory than the limit.
    #[error("the plugin wanted more memory than the limit of {limit} bytes (limits.memory_bytes)")]
    Memory {
        /// The limit.
        limit: usize,
    },
    /// The plugin returned more than the limit.
    #[error("the plugin returned more than the limit of {limit} bytes (limits.output_bytes)")]
    Output {
        /// The limit.
        limit: usize,
    },
    /// The host itself lacks something; the plugin is not to blame.
    #[error("the host cannot run the plugin now: {0}")]
    Host(String),
}

/// What a call leads to.
#[derive(Debug)]
pub enum Step {
    /// Keys of the rows that are missing (FRAMES.md, "need").
    Need(Vec<u8>),
    /// The changes of the whole batch (FRAMES.md, "changes").
    Done(Vec<u8>),
}

/// How severe a plugin finds its log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the usual levels")]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    /// The level's name, as stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        }
    }
}

/// A line that a plugin logged.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// Its level.
    pub level: LogLevel,
    /// Its text, cut to the limit.
    pub message: String,
}

/// Compiles and runs plugins.
#[derive(Clone)]
pub struct Host {
    engine: Engine,
    linker: Arc<Linker<Meter>>,
    slots: Arc<Semaphore>,
    cache: CodeCache,
    limits: Arc<Limits>,
}

/// A compiled and described plugin, ready to be run any number of times at once.
#[derive(Clone)]
pub struct Plugin {
    compiled: Compiled,
    /// sha256 of its bytes.
    pub hash: PluginHash,
    /// What it says of itself.
    pub descriptor: Arc<Descriptor>,
    /// The same, as the JSON that it returned.
    pub described: Arc<str>,
}

#[derive(Clone)]
struct Compiled {
    pre: bindings::ProjectionPre<Meter>,
    slots: Arc<Semaphore>,
    limits: Arc<Limits>,
    engine: Engine,
}

/// A place for one instance among all that may exist at the same time.
pub struct Slot {
    _permit: Option<OwnedSemaphorePermit>,
}

/// One fresh instance in the middle of one batch. Thrown away afterwards: no state outlives a batch.
pub struct Instance {
    _slot: Slot,
    store: Store<Meter>,
    projection: bindings::Projection,
}

impl Host {
    /// Sets wasmtime up. `cache` is the folder for compiled code; `None` compiles anew each time.
    pub fn new(limits: Limits, cache: Option<std::path::PathBuf>) -> Result<Self, String> {
        let limits = Arc::new(limits);
        let engine = match Engine::new(&config(&limits, true)) {
            Ok(engine) => engine,
            // Pools reserve address space, which some machines restrict (`ulimit -v`, small virtual machines).
            Err(error) => {
                tracing::warn!(%error, "no memory pool could be reserved; plugins start slower");
                Engine::new(&config(&limits, false)).map_err(|e| format!("wasmtime: {e:#}"))?
            }
        };
        let mut linker = Linker::new(&engine);
        bindings::Projection::add_to_linker::<_, HasSelf<_>>(&mut linker, |meter| meter)
            .map_err(|e| format!("wasmtime: {e:#}"))?;
        limits::start_ticker(&engine);
        Ok(Self {
            cache: CodeCache::new(cache, &engine),
            engine,
            linker: Arc::new(linker),
            slots: Arc::new(Semaphore::new(limits.concurrent_instances as usize)),
            limits,
        })
    }

    /// Checks, compiles (or finds in the cache) and describes a plugin. Takes up to seconds.
    pub fn load(&self, wasm: &[u8]) -> Result<Plugin, LoadError> {
        if wasm.len() > self.limits.module_bytes {
            return Err(LoadError::Module(format!(
                "the module has {} bytes, more than the limit of {} (limits.module_bytes)",
                wasm.len(),
                self.limits.module_bytes
            )));
        }
        let hash = PluginHash::of(wasm);
        let compiled = match self.cache.get(&self.engine, &hash) {
            Some(compiled) => compiled,
            None => {
                let bytes = component::from_module(wasm).map_err(LoadError::Module)?;
                let compiled = Component::new(&self.engine, &bytes)
                    .map_err(|e| LoadError::Module(format!("it does not compile: {e:#}")))?;
                self.cache.put(&hash, &compiled);
                compiled
            }
        };
        let pre = self
            .linker
            .instantiate_pre(&compiled)
            .and_then(bindings::ProjectionPre::new)
            .map_err(|e| LoadError::Module(component::explain(&format!("{e:#}"))))?;
        let compiled = Compiled {
            pre,
            slots: self.slots.clone(),
            limits: self.limits.clone(),
            engine: self.engine.clone(),
        };
        let descriptor = compiled.describe().map_err(LoadError::Describe)?;
        if compiled.describe().map_err(LoadError::Describe)? != descriptor {
            return Err(LoadError::Unstable);
        }
        Ok(Plugin {
            compiled,
            hash,
            descriptor: Arc::new(Descriptor::parse(&descriptor)?),
            described: descriptor.into(),
        })
    }
}

impl Plugin {
    /// The limits that it runs under.
    pub fn limits(&self) -> &Limits {
        &self.compiled.limits
    }

    /// Waits for a place for an instance. Who has one needs no other to finish, so waiting cannot lock up.
    pub async fn slot(&self) -> Slot {
        // The semaphore is never closed.
        let permit = self.compiled.slots.clone().acquire_owned().await;
        Slot {
            _permit: permit.ok(),
        }
    }

    /// Starts a batch in a fresh instance, which holds the decoded events for `resume`, and the log lines that explain a
    /// failure. There is none when the host could not make it.
    pub fn begin(&self, slot: Slot, batch: &[u8]) -> (Option<Instance>, Result<Step, CallError>) {
        let mut instance = match self.compiled.instantiate(slot) {
            Ok(instance) => instance,
            Err(error) => return (None, Err(error)),
        };
        let step = instance.call(|projection, store| projection.call_begin(store, batch));
        (Some(instance), step)
    }
}

impl Compiled {
    fn instantiate(&self, slot: Slot) -> Result<Instance, CallError> {
        let mut store = Store::new(&self.engine, Meter::new(self.limits.clone()));
        store.limiter(|meter| meter);
        store.set_hostcall_fuel(self.limits.output_bytes);
        store.set_epoch_deadline(limits::ticks(self.limits.batch_time));
        match self.pre.instantiate(&mut store) {
            Ok(projection) => Ok(Instance {
                _slot: slot,
                store,
                projection,
            }),
            Err(error) => Err(match store.data().explain(&error) {
                // Instantiation runs no code of the plugin's but its start function; what fails here otherwise is
                // the pool or the machine.
                CallError::Trap { message } if error.downcast_ref::<wasmtime::Trap>().is_none() => {
                    CallError::Host(message)
                }
                other => other,
            }),
        }
    }

    fn describe(&self) -> Result<String, CallError> {
        // Describing happens while a plugin is loaded, for which the pool has room apart from the slots.
        let mut instance = self.instantiate(Slot { _permit: None })?;
        instance
            .projection
            .call_describe(&mut instance.store)
            .map_err(|error| instance.store.data().explain(&error))
    }
}

impl Instance {
    /// Answers the last `Need` with rows (FRAMES.md, "resume").
    pub fn resume(&mut self, rows: &[u8]) -> Result<Step, CallError> {
        self.call(|projection, store| projection.call_resume(store, rows))
    }

    /// The lines that were logged so far, and how many more were dropped at the limit.
    pub fn take_logs(&mut self) -> (Vec<LogLine>, u64) {
        self.store.data_mut().take_logs()
    }

    /// Where the plugin was when the last call failed, the innermost function first.
    pub fn take_backtrace(&mut self) -> Vec<Frame> {
        self.store.data_mut().take_backtrace()
    }

    fn call(
        &mut self,
        call: impl FnOnce(
            &bindings::Projection,
            &mut Store<Meter>,
        ) -> wasmtime::Result<Result<bindings::Step, bindings::Failure>>,
    ) -> Result<Step, CallError> {
        let limits = self.store.data().limits.clone();
        self.store
            .set_epoch_deadline(limits::ticks(limits.batch_time));
        match call(&self.projection, &mut self.store) {
            Ok(Ok(bindings::Step::Need(keys))) => Ok(Step::Need(keys)),
            Ok(Ok(bindings::Step::Done(changes))) => Ok(Step::Done(changes)),
            Ok(Err(failure)) => Err(CallError::Failure {
                event: failure.event,
                message: limits::cut(failure.message, limits.message_bytes),
            }),
            Err(error) => Err(self.store.data_mut().failed(&error)),
        }
    }
}

/// Deterministic by construction: no threads, no relaxed SIMD, canonical NaNs; what is not used is switched off.
fn config(limits: &Limits, pooling: bool) -> Config {
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .max_wasm_stack(1 << 20);
    if pooling {
        let mut pool = PoolingAllocationConfig::default();
        let instances = limits.concurrent_instances + DESCRIBING;
        pool.total_component_instances(instances)
            .total_core_instances(instances * limits::CORE_INSTANCES as u32)
            .max_core_instances_per_component(limits::CORE_INSTANCES as u32)
            .total_memories(instances * limits::MEMORIES as u32)
            .max_memories_per_component(limits::MEMORIES as u32)
            .total_tables(instances * limits::TABLES as u32)
            .max_tables_per_component(limits::TABLES as u32)
            .max_memory_size(limits.memory_bytes)
            .linear_memory_keep_resident(32 << 20)
            .table_keep_resident(1 << 16);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}
