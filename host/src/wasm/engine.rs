//! The engine of a process: it loads components, and all its instances share one memory budget.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use wasmtime::component::Linker;

use crate::sync::lock;
use crate::wasm::cache::Cache;
use crate::wasm::compile::Compiler;
use crate::wasm::config::{config, start_clock};
use crate::wasm::error::WasmError;
use crate::wasm::imports;
use crate::wasm::instance::{ComponentShared, Instance};
use crate::wasm::metering::Metering;
use crate::wasm::state::{Budget, State};
#[cfg(feature = "cli")]
use crate::wasm::usage::Usage;

/// The options of an [`Engine`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// The compiler of components.
    pub compiler: Compiler,
    /// How many bytes all instances together may use; 2 GiB by default.
    pub memory_budget: usize,
    /// The folder for compiled components, to which other users must have no access. `None` compiles
    /// components at each load.
    pub cache: Option<PathBuf>,
    /// How long a compilation may take; a minute by default, ten times what a component with an
    /// interpreter takes. On Linux, a compiler's process to which other processes leave too little CPU time may take up to
    /// five times as long.
    pub compile_deadline: Duration,
    /// How the work of guests is limited and measured; by time by default.
    pub metering: Metering,
}

impl EngineOptions {
    /// Returns the default options, with the user's cache: `$KTABLES_CACHE_DIR` (empty: no cache), or else
    /// `$XDG_CACHE_HOME/ktables`, or else `~/.cache/ktables`.
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

/// Loads and runs components. A process needs one; a clone is a handle to the same engine.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(super) shared: Arc<EngineShared>,
}

/// Instances that no call uses now. A std lock: held to push and to pop.
pub(super) type IdleInstances = Mutex<Vec<Instance>>;

/// The state that all handles of an engine and its components share.
pub(super) struct EngineShared {
    pub(super) engine: wasmtime::Engine,
    linker: Linker<State>,
    /// The linker for components that use WASI. It has hundreds of functions, so it is created when it is needed.
    wasi_linker: OnceLock<Linker<State>>,
    pub(super) budget: Arc<Budget>,
    pub(super) cache: Option<Cache>,
    pub(super) compiler: Compiler,
    pub(super) compile_deadline: Duration,
    pub(super) metering: Metering,
    /// The idle instances of each codec. A std lock: held to iterate over them.
    idle: Mutex<Vec<Weak<IdleInstances>>>,
    /// What the instances of each component share, by digest: a component that is loaded twice is one
    /// component. A std lock: held for a lookup.
    components: Mutex<HashMap<String, ComponentShared>>,
}

impl EngineShared {
    /// Returns what all instances of the component with this digest share.
    pub(super) fn component_shared(&self, digest: &str) -> ComponentShared {
        lock(&self.components).entry(digest.to_owned()).or_default().clone()
    }

    /// Returns what the instances of the component with this digest have done; `None` if it was never loaded.
    #[cfg(feature = "cli")]
    pub(super) fn usage(&self, digest: &str) -> Option<Usage> {
        lock(&self.components).get(digest).map(|shared| shared.usage.usage())
    }

    /// Returns the linker for components that use WASI, or for others.
    pub(super) fn linker(&self, uses_wasi: bool) -> wasmtime::Result<&Linker<State>> {
        if !uses_wasi {
            return Ok(&self.linker);
        }
        if let Some(linker) = self.wasi_linker.get() {
            return Ok(linker);
        }
        let mut linker = self.linker.clone();
        imports::add_wasi_to_linker(&mut linker)?;
        Ok(self.wasi_linker.get_or_init(|| linker))
    }

    /// Registers the idle instances of a codec, to be dropped when memory is short.
    pub(super) fn register_idle(&self, instances: &Arc<IdleInstances>) {
        let mut idle = lock(&self.idle);
        idle.retain(|instances| instances.strong_count() > 0);
        idle.push(Arc::downgrade(instances));
    }

    /// Drops all idle instances, whose memory returns to the budget.
    pub(super) fn drop_idle_instances(&self) {
        for instances in lock(&self.idle).iter().filter_map(Weak::upgrade) {
            lock(&instances).clear();
        }
    }
}

impl std::fmt::Debug for EngineShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineShared")
            .field("budget", &self.budget)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Creates an engine.
    ///
    /// # Errors
    ///
    /// [`WasmError`] if this machine cannot run an engine, or if other users have access to the cache
    /// folder.
    pub fn new(options: EngineOptions) -> Result<Self, WasmError> {
        let failed = |error: wasmtime::Error| WasmError::Engine { reason: format!("{error:#}") };
        let engine = wasmtime::Engine::new(&config(options.metering, true)).or_else(|error| {
            tracing::warn!(
                "cannot reserve address space for a pool of instances ({error:#}); instances are allocated \
                 on demand, which is slower"
            );
            wasmtime::Engine::new(&config(options.metering, false)).map_err(failed)
        })?;
        let mut linker = Linker::new(&engine);
        imports::add_to_linker(&mut linker).map_err(failed)?;
        if options.metering == Metering::Deadline {
            start_clock(&engine)?;
        }
        let shared = EngineShared {
            engine,
            linker,
            wasi_linker: OnceLock::new(),
            budget: Arc::new(Budget::new(options.memory_budget)),
            cache: options.cache.as_deref().and_then(|folder| open_cache(folder).transpose()).transpose()?,
            compiler: options.compiler,
            compile_deadline: options.compile_deadline,
            metering: options.metering,
            idle: Mutex::default(),
            components: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether the cache has the compiled code of the component with this digest.
    #[cfg(feature = "cli")]
    pub(crate) fn is_cached(&self, digest: &str) -> bool {
        let EngineShared { engine, cache, .. } = &*self.shared;
        cache.as_ref().is_some_and(|cache| cache.load(engine, digest).is_some())
    }

    /// Returns what the instances of the component with this digest have done; `None` if it was never loaded.
    #[cfg(feature = "cli")]
    pub(crate) fn usage(&self, digest: &str) -> Option<Usage> {
        self.shared.usage(digest)
    }
}

/// Opens the cache. Returns `None` if its folder cannot be created, because without a cache, loading only
/// takes longer. A folder to which other users have access is an error.
fn open_cache(folder: &Path) -> Result<Option<Cache>, WasmError> {
    match Cache::open(folder) {
        Ok(cache) => Ok(Some(cache)),
        Err(error @ WasmError::Io(_)) => {
            tracing::warn!("compiled components are not cached: {error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
