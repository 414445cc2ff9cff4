//! Loading a component: read, check, compile, and make codecs of it.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::InstancePre;

use crate::codec::{ComponentId, GroupScheme, KeyCodec, RejectKind, ValueCodec};
use crate::escape::one_line_within;
use crate::file::read_bounded;
use crate::packed::Packed;
use crate::wasm::bindings::v0_1::exports::ktables::codec::plugin::{Context, Role};
use crate::wasm::cache::deserialize;
use crate::wasm::codecs::{ComponentCodec, Setup};
use crate::wasm::compile::Compiled;
use crate::wasm::engine::{Common, Engine, Shared};
use crate::wasm::fault::{CallError, Fault};
use crate::wasm::inspect::{Interface, inspect};
use crate::wasm::instance::Instance;
use crate::wasm::scan::MAX_BYTES;
use crate::wasm::state::State;
use crate::wasm::{Limits, WasmError};

/// How often a new instance that is too slow to start is tried before that is a failure: a machine
/// that is busy for a moment is none.
const STARTS: usize = 3;

/// A component's name and version are cut at this many bytes.
pub(super) const NAME_BYTES: usize = 100;

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
    /// What the host keeps for an instance, besides memories and table elements.
    pub(super) host_bytes: usize,
    /// What all that are loaded of this digest share.
    pub(super) common: Common,
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
    /// Loads a component from a file. Blocks while it compiles, unless the cache has it, and runs
    /// an instance once, within its limits: call it where blocking is allowed.
    ///
    /// # Errors
    ///
    /// [`WasmError`] says everything that is wrong with the file.
    pub fn load(&self, path: impl AsRef<Path>, options: LoadOptions) -> Result<Component, WasmError> {
        let path = path.as_ref();
        let bytes = read_bounded(path, MAX_BYTES).map_err(WasmError::io("read the component", path))?;
        let name =
            path.file_stem().map_or_else(|| path.display().to_string(), |stem| stem.display().to_string());
        self.load_bytes(&name, bytes, options)
    }

    /// Loads a component from its bytes; `name` is what messages call it until it says its own.
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
                return Err(WasmError::Digest { name, expected, actual: digest });
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
        let compiled = self.compiled(bytes, &digest, &name)?;
        let pre = self.shared.linker.instantiate_pre(&compiled).map_err(refused)?;
        let mut component = Component {
            shared: self.shared.clone(),
            pre,
            id: Arc::new(ComponentId { name, digest: digest.clone() }),
            interfaces: inspection.interfaces,
            limits: options.limits,
            host_bytes: usize::try_from(inspection.needs.bytes).unwrap_or(usize::MAX),
            common: self.shared.common(&digest),
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
        let Shared { engine, cache, compiler, compile_deadline, metering, .. } = &*self.shared;
        if let Some(component) = cache.as_ref().and_then(|cache| cache.load(engine, digest)) {
            return Ok(component);
        }
        let keep = |code: &[u8]| {
            if let Some(cache) = cache {
                cache.store(engine, digest, code);
            }
        };
        let failed = |error: wasmtime::Error| WasmError::Engine {
            reason: format!("component {name}: its compiled code cannot be used: {error:#}"),
        };
        match compiler.compile(engine, *metering, *compile_deadline, name, bytes)? {
            Compiled::Component(component) => {
                keep(&component.serialize().map_err(failed)?);
                Ok(component)
            }
            Compiled::Code(code) => {
                let component = deserialize(engine, &code).map_err(failed)?;
                keep(&code);
                Ok(component)
            }
        }
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
        let info = self.retried(|| self.instantiate()?.describe());
        let info = info.map_err(|error| self.failed("started and described", error))?;
        if let Some(info) = info {
            let (name, version) = (cut(info.name), cut(info.version));
            self.id = Arc::new(ComponentId { name: name.clone(), digest: self.id.digest.clone() });
            self.description = Some(Description { name, version, wants_headers: info.wants_headers });
        }
        Ok(())
    }

    /// Tries something that an instance does before its first record; again if it takes too long.
    pub(super) fn retried<T>(&self, mut start: impl FnMut() -> Result<T, CallError>) -> Result<T, CallError> {
        let mut tries = 1;
        loop {
            match start() {
                Err(CallError::Fault(Fault { kind: RejectKind::Deadline, .. })) if tries < STARTS => {
                    tries += 1
                }
                done => return done,
            }
        }
    }

    /// A new instance. If there is no room for it, those that nobody uses make room.
    pub(super) fn instantiate(&self) -> Result<Instance, CallError> {
        match Instance::new(self) {
            Err(CallError::Host(_)) => {
                self.shared.drop_idle_instances();
                Instance::new(self)
            }
            result => result,
        }
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

/// Fails if this is no digest as [`digest_of`] makes it, in upper or lower case.
fn check_digest(digest: &str) -> Result<(), WasmError> {
    let is_digest = digest.split_once(':').is_some_and(|(kind, hex)| {
        kind.eq_ignore_ascii_case("sha256")
            && hex.len() == 64
            && hex.bytes().all(|digit| digit.is_ascii_hexdigit())
    });
    if is_digest {
        return Ok(());
    }
    Err(WasmError::InvalidDigest { digest: one_line_within(digest, NAME_BYTES).to_string() })
}

/// The digest of a component's bytes, as configurations name it.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
