//! Loading a component: read, check, compile, and make codecs of it.

use std::path::Path;
use std::sync::{Arc, mpsc};

use sha2::{Digest, Sha256};
use wasmtime::component::InstancePre;

use crate::codec::{ComponentId, GroupScheme, KeyCodec, ValueCodec};
use crate::packed::Packed;
use crate::wasm::bindings::v0_1::exports::ktables::codec::plugin::{Context, Role};
use crate::wasm::codecs::{ComponentCodec, Setup};
use crate::wasm::engine::{Engine, Shared};
use crate::wasm::fault::CallError;
use crate::wasm::inspect::{Interface, MAX_BYTES, inspect};
use crate::wasm::instance::Instance;
use crate::wasm::state::State;
use crate::wasm::{Limits, WasmError};

/// A component's name and version are cut at this many bytes.
const NAME_BYTES: usize = 100;

/// How a component is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// `sha256:…`: the only file that is accepted.
    pub digest: Option<String>,
    /// What each instance may use.
    pub limits: Limits,
}

/// What a component says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether it asks for the records' headers.
    pub wants_headers: bool,
}

/// A component that is compiled and accepted.
#[derive(Clone)]
pub struct Component {
    pub(super) shared: Arc<Shared>,
    pub(super) pre: InstancePre<State>,
    pub(super) id: Arc<ComponentId>,
    pub(super) interfaces: Vec<Interface>,
    pub(super) limits: Limits,
    description: Option<Description>,
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Component")
            .field("id", &self.id)
            .field("interfaces", &self.interfaces)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Loads a component. Blocks while it compiles, unless the cache has it, and runs
    /// an instance once, within its limits: call it where blocking is allowed.
    ///
    /// # Errors
    ///
    /// [`WasmError`] says everything that is wrong with the file.
    pub fn load(&self, path: impl AsRef<Path>, options: LoadOptions) -> Result<Component, WasmError> {
        let path = path.as_ref();
        let bytes = read(path)?;
        let digest = digest_of(&bytes);
        if let Some(expected) = options.digest.filter(|expected| *expected != digest) {
            return Err(WasmError::Digest { path: path.to_owned(), expected, actual: digest });
        }
        let name =
            path.file_stem().map_or_else(|| path.display().to_string(), |stem| stem.display().to_string());
        let inspection = inspect(&bytes);
        if !inspection.refusals.is_empty() {
            return Err(WasmError::Refused { name, reasons: inspection.refusals });
        }
        let refused = |error: wasmtime::Error| WasmError::Refused {
            name: name.clone(),
            reasons: vec![format!("{error:#}")],
        };
        let compiled = self.compiled(bytes, &digest, &name)?;
        let pre = self.shared.linker.instantiate_pre(&compiled).map_err(refused)?;
        let mut component = Component {
            shared: self.shared.clone(),
            pre,
            id: Arc::new(ComponentId { name, digest }),
            interfaces: inspection.interfaces,
            limits: options.limits,
            description: None,
        };
        component.introduce()?;
        Ok(component)
    }

    fn compiled(
        &self,
        bytes: Vec<u8>,
        digest: &str,
        name: &str,
    ) -> Result<wasmtime::component::Component, WasmError> {
        let engine = &self.shared.engine;
        if let Some(component) = self.shared.cache.as_ref().and_then(|cache| cache.load(engine, digest)) {
            return Ok(component);
        }
        // A compilation cannot be interrupted, but it can be left alone.
        let (answer, compiled) = mpsc::sync_channel(1);
        let thread_engine = engine.clone();
        let compile = move || {
            // Nobody may be waiting any more.
            let _ = answer.send(wasmtime::component::Component::from_binary(&thread_engine, &bytes));
        };
        std::thread::Builder::new()
            .name("ktables-compile".to_owned())
            .spawn(compile)
            .map_err(|error| WasmError::Engine { reason: format!("no thread to compile on: {error}") })?;
        let deadline = self.shared.compile_deadline;
        let component = match compiled.recv_timeout(deadline) {
            Ok(result) => result.map_err(|error| format!("it cannot be compiled: {error:#}")),
            Err(_) => Err(format!("it did not compile within {deadline:?}")),
        };
        let component = component
            .map_err(|reason| WasmError::Refused { name: name.to_owned(), reasons: vec![reason] })?;
        if let Some(cache) = &self.shared.cache {
            cache.store(engine, digest, &component);
        }
        Ok(component)
    }
}

impl Component {
    /// The component's name and digest.
    #[must_use]
    pub fn id(&self) -> &ComponentId {
        &self.id
    }

    /// The interfaces it has.
    #[must_use]
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// What it says of itself, if it has `plugin`.
    #[must_use]
    pub fn description(&self) -> Option<&Description> {
        self.description.as_ref()
    }

    /// A value codec made of this component, for the records of a topic, with the
    /// user's configuration (JSON text). Blocks while the component configures
    /// itself.
    ///
    /// # Errors
    ///
    /// If the component has no `value-codec`, does not accept the configuration,
    /// or breaks down over it.
    pub fn value_codec(&self, topic: &str, config: &str) -> Result<Arc<dyn ValueCodec>, WasmError> {
        self.require("value codec", &[Interface::ValueCodec, Interface::ValueCodecBatch])?;
        Ok(Arc::new(self.codec(topic, Role::Value, config)?))
    }

    /// What it takes a value codec of this component to decode these values, in fuel: the
    /// guest's part only, and the second time, when its memory has grown.
    ///
    /// # Errors
    ///
    /// As [`Component::value_codec`]; if decoding faults; if the engine does not count
    /// fuel ([`Metering::Fuel`](crate::wasm::Metering::Fuel)).
    pub fn decode_fuel(&self, config: &str, raw: &Packed) -> Result<u64, WasmError> {
        self.require("value codec", &[Interface::ValueCodec, Interface::ValueCodecBatch])?;
        let failed = |error| self.failed("measured", error);
        let mut instance = self.instantiate().map_err(failed)?;
        let context = Context { topic: "", role: Role::Value, config };
        instance
            .configure(context)
            .map_err(failed)?
            .map_err(|message| WasmError::Configuration { name: self.id.name.clone(), message })?;
        let mut used = [0; 2];
        for used in &mut used {
            instance.decode_values(raw, &[]).map_err(failed)?;
            *used = instance.fuel_used().ok_or_else(|| WasmError::Engine {
                reason: "it does not count fuel: make it with Metering::Fuel".to_owned(),
            })?;
        }
        Ok(used[1] - used[0])
    }

    /// A key codec made of this component; see [`Component::value_codec`].
    ///
    /// # Errors
    ///
    /// As [`Component::value_codec`], for `key-codec`.
    pub fn key_codec(&self, topic: &str, config: &str) -> Result<Arc<dyn KeyCodec>, WasmError> {
        self.require("key codec", &[Interface::KeyCodec, Interface::KeyCodecBatch])?;
        Ok(Arc::new(self.codec(topic, Role::Key, config)?))
    }

    /// A group scheme made of this component; see [`Component::value_codec`].
    ///
    /// # Errors
    ///
    /// As [`Component::value_codec`], for `group-scheme`.
    pub fn group_scheme(&self, topic: &str, config: &str) -> Result<Arc<dyn GroupScheme>, WasmError> {
        self.require("group scheme", &[Interface::GroupScheme, Interface::GroupSchemeBatch])?;
        Ok(Arc::new(self.codec(topic, Role::Group, config)?))
    }

    fn codec(&self, topic: &str, role: Role, config: &str) -> Result<ComponentCodec, WasmError> {
        let takes_config = self.interfaces.contains(&Interface::Plugin);
        if !takes_config && config.trim() != "{}" {
            let message = "it takes none: it exports no `plugin`".to_owned();
            return Err(WasmError::Configuration { name: self.id.name.clone(), message });
        }
        let setup = Setup { topic: topic.to_owned(), role, config: config.to_owned() };
        let codec = ComponentCodec::new(self.clone(), setup);
        // The first instance shows whether the configuration is accepted.
        codec.warm_up()?;
        Ok(codec)
    }

    fn require(&self, wanted: &'static str, any: &[Interface]) -> Result<(), WasmError> {
        if any.iter().any(|interface| self.interfaces.contains(interface)) {
            return Ok(());
        }
        let names = |list: &[Interface]| list.iter().map(|i| i.name()).collect::<Vec<_>>().join(", ");
        Err(WasmError::MissingExport {
            name: self.id.name.clone(),
            wanted,
            expected: names(any),
            has: names(&self.interfaces),
        })
    }

    /// Runs an instance once: its interfaces must have the right types, and it
    /// may tell its name.
    fn introduce(&mut self) -> Result<(), WasmError> {
        let mut instance = self.instantiate().map_err(|error| self.failed("started", error))?;
        let info = instance.describe().map_err(|error| self.failed("described", error))?;
        if let Some(info) = info {
            let (name, version) = (cut(info.name), cut(info.version));
            self.id = Arc::new(ComponentId { name: name.clone(), digest: self.id.digest.clone() });
            self.description = Some(Description { name, version, wants_headers: info.wants_headers });
        }
        Ok(())
    }

    pub(super) fn instantiate(&self) -> Result<Instance, CallError> {
        Instance::new(&self.shared, &self.pre, &self.interfaces, &self.id, &self.limits)
    }

    pub(super) fn failed(&self, action: &'static str, error: CallError) -> WasmError {
        match error {
            CallError::Fault(fault) => WasmError::Failed {
                name: self.id.name.clone(),
                action,
                message: format!("{}: {}", fault.kind, fault.message),
            },
            CallError::Host(failure) => WasmError::Engine { reason: failure.reason },
        }
    }
}

/// A guest's name for itself, no longer than a name need be: it stands in every
/// message.
fn cut(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(NAME_BYTES));
    name
}

/// The digest of a component's bytes, as configurations name it.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Reads a file no further than a component may be long.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, WasmError> {
    use std::io::Read;
    let failed = |error| WasmError::io("read the component", path)(error);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
