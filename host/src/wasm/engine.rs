//! The one engine of a process: wasmtime's configuration, the clock behind the
//! deadlines, the memory budget, the cache.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::codec::workers::{SlowCalls, TICK};
use crate::thread;
use crate::wasm::WasmError;
use crate::wasm::bindings::v0_1::ktables::codec::{logging, types};
use crate::wasm::cache::Cache;
use crate::wasm::codecs::IdleInstances;
use crate::wasm::compile::Compiler;
use crate::wasm::messages::GuestMessages;
use crate::wasm::scan::{MAX_MEMORIES, MAX_MODULE_INSTANCES, MAX_TABLES};
use crate::wasm::state::{Budget, State};

/// The stack of a guest. Wasmtime's default; the threads it runs on have more.
pub(super) const STACK_BYTES: usize = 512 << 10;

/// How many instances there may be at once. Each takes 4 GiB of address space, of
/// 128 TiB.
const INSTANCES: u32 = 2000;

/// How many core modules a component is made of: the guest's own, and two that
/// `wit-component` adds for its imports.
const MODULES: u32 = 3;

/// How the work of guests is bounded and measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Metering {
    /// By time: [`Limits::deadline`](crate::wasm::Limits::deadline). For production.
    #[default]
    Deadline,
    /// By fuel, of which an instruction takes one, as a rule: the same number on every
    /// machine, and slower. For reports; there are no deadlines.
    Fuel,
}

impl Metering {
    #[cfg(feature = "cli")]
    pub(super) const ALL: [Self; 2] = [Self::Deadline, Self::Fuel];

    /// Its name, for a compiler in another process.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Fuel => "fuel",
        }
    }
}

/// How an [`Engine`] is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// What compiles components.
    pub compiler: Compiler,
    /// The bytes that all instances together may use. 2 GiB by default.
    pub memory_budget: usize,
    /// Where compiled components are kept: a folder closed to other users.
    /// `None` compiles each time.
    pub cache: Option<PathBuf>,
    /// A compilation that takes longer is given up. A minute by default: ten
    /// times what a component with an interpreter in it takes.
    pub compile_deadline: Duration,
    /// How guests are bounded and measured; by time by default.
    pub metering: Metering,
}

impl EngineOptions {
    /// With the cache of the user: `$KTABLES_CACHE_DIR` (empty: none), else
    /// `$XDG_CACHE_HOME/ktables`, else `~/.cache/ktables`.
    #[must_use]
    pub fn new(compiler: Compiler) -> Self {
        let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = match std::env::var_os("KTABLES_CACHE_DIR") {
            Some(_) => folder("KTABLES_CACHE_DIR"),
            None => folder("XDG_CACHE_HOME")
                .map(|folder| folder.join("ktables"))
                .or_else(|| Some(folder("HOME")?.join(".cache/ktables"))),
        };
        Self {
            compiler,
            memory_budget: 2 << 30,
            cache,
            compile_deadline: Duration::from_secs(60),
            metering: Metering::Deadline,
        }
    }
}

/// Loads and runs components. One for the life of a process; a clone is a handle
/// to the same engine.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(super) shared: Arc<Shared>,
}

/// What all that are loaded of one component share.
#[derive(Debug, Clone, Default)]
pub(super) struct Common {
    /// Its calls that take long.
    pub(super) slow_calls: SlowCalls,
    /// What it may still log.
    pub(super) messages: Arc<GuestMessages>,
}

pub(super) struct Shared {
    pub(super) engine: wasmtime::Engine,
    pub(super) linker: Linker<State>,
    pub(super) budget: Arc<Budget>,
    pub(super) cache: Option<Cache>,
    pub(super) compiler: Compiler,
    pub(super) compile_deadline: Duration,
    pub(super) metering: Metering,
    /// The idle instances of every codec. A std lock: held to look through.
    idle: Mutex<Vec<Weak<IdleInstances>>>,
    /// By digest. A component that is loaded twice is one. A std lock: held to look.
    common: Mutex<HashMap<String, Common>>,
}

impl Shared {
    /// What is shared by all that are loaded of the component with this digest.
    pub(super) fn common(&self, digest: &str) -> Common {
        // OK because nothing panics while it holds the lock.
        self.common.lock().expect("not poisoned").entry(digest.to_owned()).or_default().clone()
    }

    /// A codec's idle instances, to be dropped when memory is short.
    pub(super) fn remember_idle(&self, instances: &Arc<IdleInstances>) {
        // OK because nothing panics while it holds the lock.
        let mut idle = self.idle.lock().expect("not poisoned");
        idle.retain(|instances| instances.strong_count() > 0);
        idle.push(Arc::downgrade(instances));
    }

    /// Gives the memory of all idle instances back to the budget.
    pub(super) fn drop_idle_instances(&self) {
        // OK because nothing panics while it holds either lock.
        let idle = self.idle.lock().expect("not poisoned");
        for instances in idle.iter().filter_map(Weak::upgrade) {
            instances.lock().expect("not poisoned").clear();
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("budget", &self.budget)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine.
    ///
    /// # Errors
    ///
    /// [`WasmError`] if this machine cannot run one, or the cache's folder is not
    /// private.
    pub fn new(options: EngineOptions) -> Result<Self, WasmError> {
        let failed = |error: wasmtime::Error| WasmError::Engine { reason: format!("{error:#}") };
        let engine = wasmtime::Engine::new(&config(options.metering, true)).or_else(|error| {
            tracing::warn!(
                "no room for pooled instances ({error:#}); each is allocated on demand, which is slower"
            );
            wasmtime::Engine::new(&config(options.metering, false)).map_err(failed)
        })?;
        let mut linker = Linker::new(&engine);
        logging::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state).map_err(failed)?;
        types::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state).map_err(failed)?;
        if options.metering == Metering::Deadline {
            start_clock(&engine)?;
        }
        let shared = Shared {
            engine,
            linker,
            budget: Arc::new(Budget::new(options.memory_budget)),
            cache: options.cache.as_deref().and_then(|folder| open_cache(folder).transpose()).transpose()?,
            compiler: options.compiler,
            compile_deadline: options.compile_deadline,
            metering: options.metering,
            idle: Mutex::default(),
            common: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

/// The cache, or none where its folder cannot be made: then compiling takes longer,
/// no more. A folder that is open to others is an error.
fn open_cache(folder: &Path) -> Result<Option<Cache>, WasmError> {
    match Cache::open(folder) {
        Ok(cache) => Ok(Some(cache)),
        Err(error @ WasmError::Io { .. }) => {
            tracing::warn!("compiled components are not kept: {error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// wasmtime's configuration. Where instances are allocated makes no difference to code.
pub(super) fn config(metering: Metering, pooled: bool) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(metering == Metering::Deadline)
        .consume_fuel(metering == Metering::Fuel)
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .max_wasm_stack(STACK_BYTES);
    if pooled {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(INSTANCES)
            .total_core_instances(INSTANCES * MODULES)
            .total_memories(INSTANCES)
            .total_tables(INSTANCES * MODULES)
            .max_core_instances_per_component(MAX_MODULE_INSTANCES as u32)
            .max_memories_per_component(MAX_MEMORIES as u32)
            .max_tables_per_component(MAX_TABLES as u32)
            .max_memories_per_module(MAX_MEMORIES as u32)
            .max_tables_per_module(MAX_TABLES as u32);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

/// Ticks for as long as the engine lives.
fn start_clock(engine: &wasmtime::Engine) -> Result<(), WasmError> {
    let engine = engine.weak();
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    thread::spawn("ktables-epoch", tick)
        .map(drop)
        .map_err(|error| WasmError::Engine { reason: format!("no thread for the clock: {error}") })
}
