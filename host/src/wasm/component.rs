//! Loads a component: reads, checks and compiles it, and runs it once.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::codec::{ComponentId, ComponentOrigin, RejectKind};
use crate::file::read_bounded;
#[cfg(feature = "cli")]
use crate::registry::SchemaSource;
use crate::wasm::compile::Compiled;
use crate::wasm::compiled::deserialize;
use crate::wasm::digest::{check_digest, digest_of};
use crate::wasm::engine::{Engine, EngineShared};
use crate::wasm::error::WasmError;
use crate::wasm::fault::{CallError, Fault};
use crate::wasm::inspect::inspect;
use crate::wasm::instance::{Instance, Template};
use crate::wasm::interfaces::Interface;
use crate::wasm::limits::{Limits, MAX_NAME_BYTES};
use crate::wasm::metering::Metering;
use crate::wasm::scan::MAX_BYTES;
use crate::wasm::sealed_wasi::WASI_HOST_BYTES;
use crate::wasm::usage::UsageCounter;

/// How many times the host tries to start an instance that exceeds its start deadline: the machine may have
/// been busy.
const MAX_STARTS: usize = 3;

/// The options for loading a component.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The digest that the file must have, `sha256:…`; `None` accepts any file.
    pub digest: Option<String>,
    /// The limits of each instance.
    pub limits: Limits,
    /// Where the component came from; `None` if that is unknown. [`Engine::load`] sets it to the file.
    pub origin: Option<Arc<ComponentOrigin>>,
}

/// A component's description of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Description {
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
    /// Whether its value codec wants the headers of records.
    pub wants_headers: bool,
}

/// A component that was loaded. A clone is a handle to the same component.
#[derive(Clone)]
pub struct Component {
    pub(super) shared: Arc<EngineShared>,
    pub(super) template: Template,
    description: Option<Description>,
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Component")
            .field("id", &self.template.id)
            .field("interfaces", &self.template.interfaces)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Loads a component from a file. Blocks while the component is compiled, unless the cache has it, and
    /// while one instance runs, within its limits. Call it where blocking is allowed.
    ///
    /// # Errors
    ///
    /// [`WasmError`], with every reason if the component is refused.
    pub fn load(&self, path: impl AsRef<Path>, options: LoadOptions) -> Result<Component, WasmError> {
        let path = path.as_ref();
        let bytes = read_bounded(path, MAX_BYTES).map_err(WasmError::io("read the component", path))?;
        let name =
            path.file_stem().map_or_else(|| path.display().to_string(), |stem| stem.display().to_string());
        let file = || Arc::new(ComponentOrigin::new(path.display().to_string(), "file"));
        let origin = options.origin.or_else(|| Some(file()));
        self.load_bytes(&name, bytes, LoadOptions { origin, ..options })
    }

    /// Loads a component from its bytes. Messages use `name` until the component describes itself.
    ///
    /// # Errors
    ///
    /// As [`Engine::load`].
    pub fn load_bytes(
        &self,
        name: &str,
        bytes: Vec<u8>,
        options: LoadOptions,
    ) -> Result<Component, WasmError> {
        let (name, digest) = (name.to_owned(), digest_of(&bytes));
        if let Some(expected) = options.digest {
            check_digest(&expected)?;
            if !expected.eq_ignore_ascii_case(&digest) {
                return Err(WasmError::DigestMismatch { name, expected, actual: digest });
            }
        }
        let inspection = inspect(&bytes);
        if !inspection.refusals.is_empty() {
            return Err(WasmError::Refused { name, reasons: inspection.refusals });
        }
        let refused = |error: wasmtime::Error| WasmError::Refused {
            name: name.clone(),
            reasons: vec![format!("{error:#}")],
        };
        let shared = self.shared.component_shared(&digest);
        let compiled = self.compile(bytes, &digest, &name, &shared.usage)?;
        let linker = self.shared.linker(inspection.uses_wasi()).map_err(refused)?;
        let pre = linker.instantiate_pre(&compiled).map_err(refused)?;
        let mut host_bytes = usize::try_from(inspection.needs.bytes).unwrap_or(usize::MAX);
        if inspection.uses_wasi() {
            host_bytes = host_bytes.saturating_add(WASI_HOST_BYTES);
        }
        let template = Template {
            engine: self.shared.engine.clone(),
            pre,
            id: Arc::new(ComponentId { name, digest: digest.clone(), origin: options.origin }),
            interfaces: inspection.interfaces,
            limits: options.limits,
            budget: self.shared.budget.clone(),
            counts_fuel: self.shared.metering == Metering::Fuel,
            host_bytes,
            shared,
            schema_source: None,
        };
        let mut component = Component { shared: self.shared.clone(), template, description: None };
        component.read_description()?;
        Ok(component)
    }

    /// Loads the compiled component from the cache, or compiles it.
    fn compile(
        &self,
        bytes: Vec<u8>,
        digest: &str,
        name: &str,
        usage: &UsageCounter,
    ) -> Result<wasmtime::component::Component, WasmError> {
        let EngineShared { engine, cache, compiler, compile_deadline, metering, .. } = &*self.shared;
        if let Some(component) = cache.as_ref().and_then(|cache| cache.load(engine, digest)) {
            usage.add_cache_hit();
            return Ok(component);
        }
        let store = |code: &[u8]| {
            if let Some(cache) = cache {
                cache.store(engine, digest, code);
            }
        };
        let failed = |error: wasmtime::Error| WasmError::Engine {
            reason: format!("cannot use the compiled code of component {name}: {error:#}"),
        };
        let began = Instant::now();
        let compiled = compiler.compile(engine, *metering, *compile_deadline, name, bytes)?;
        usage.add_compilation(began.elapsed());
        match compiled {
            Compiled::Component(component) => {
                store(&component.serialize().map_err(failed)?);
                Ok(component)
            }
            Compiled::Code(code) => {
                let component = deserialize(engine, &code).map_err(|error| match format!("{error:#}") {
                    text if text.contains("pooling allocator") => WasmError::Refused {
                        name: name.to_owned(),
                        reasons: vec![format!(
                            "an instance of it does not fit into the pool of instances: {text}"
                        )],
                    },
                    _ => failed(error),
                })?;
                store(&code);
                Ok(component)
            }
        }
    }
}

impl Component {
    /// Returns the name and the digest of the component.
    #[must_use]
    pub fn id(&self) -> &ComponentId {
        &self.template.id
    }

    /// Returns the interfaces that the component exports.
    #[must_use]
    pub fn interfaces(&self) -> &[Interface] {
        &self.template.interfaces
    }

    /// Returns the component's description of itself, if it exports `plugin`.
    #[must_use]
    pub fn description(&self) -> Option<&Description> {
        self.description.as_ref()
    }

    /// Returns the component with a schema registry for the codecs that are created from it.
    #[cfg(feature = "cli")]
    pub(crate) fn with_schema_source(mut self, source: Arc<dyn SchemaSource>) -> Self {
        self.template.schema_source = Some(source);
        self
    }

    /// Starts an instance, which checks the types of its interfaces, and reads the component's description.
    fn read_description(&mut self) -> Result<(), WasmError> {
        let info = self.retry_start(|| self.instantiate()?.describe());
        let info = info.map_err(|error| self.to_wasm_error("started and described", error))?;
        if let Some(info) = info {
            let (mut name, version) = (truncate(info.name), truncate(info.version));
            if name.trim().is_empty() {
                name.clone_from(&self.template.id.name);
            }
            let ComponentId { digest, origin, .. } = (*self.template.id).clone();
            self.template.id = Arc::new(ComponentId { name: name.clone(), digest, origin });
            self.description = Some(Description { name, version, wants_headers: info.wants_headers });
        }
        Ok(())
    }

    /// Runs the start of an instance, with the calls before its first record. Tries again if it exceeds its
    /// deadline.
    pub(super) fn retry_start<T>(
        &self,
        mut start: impl FnMut() -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let mut tries = 1;
        loop {
            match start() {
                Err(CallError::Fault(Fault { kind: RejectKind::Deadline, .. })) if tries < MAX_STARTS => {
                    tries += 1
                }
                result => return result,
            }
        }
    }

    /// Creates an instance. If the host has no room for it, drops idle instances and tries again.
    pub(super) fn instantiate(&self) -> Result<Instance, CallError> {
        match Instance::new(&self.template) {
            Err(CallError::Host(_)) => {
                self.shared.drop_idle_instances();
                Instance::new(&self.template)
            }
            result => result,
        }
    }

    /// Converts the error of a component that failed while it was `action`, a participle.
    pub(super) fn to_wasm_error(&self, action: &'static str, error: CallError) -> WasmError {
        match error {
            CallError::Fault(fault) => WasmError::Faulted {
                name: self.template.id.name.clone(),
                action,
                message: format!("{}: {}", fault.kind, fault.message),
            },
            CallError::Host(failure) => WasmError::Engine { reason: failure.reason },
        }
    }
}

/// Truncates a guest's name or version, because it is part of every message.
fn truncate(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
    name
}
