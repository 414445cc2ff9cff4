//! Codecs that are components: they borrow an instance for each call, and check keys.

use std::sync::Arc;

use crate::codec::{
    Answers, Codec, CodecFailure, ComponentId, Encoded, GroupKey, GroupScheme, HostFailure, KeyCodec,
    PackedAnswers, RejectKind, RejectReason, ValueCodec, checked_text,
};
use crate::escape::{name, one_line};
use crate::log::Header;
use crate::packed::Packed;
use crate::sync::lock;
use crate::wasm::bindings::v0_1::exports::ktables::codec::plugin::{Context, Role};
use crate::wasm::component::Component;
use crate::wasm::digest::digest_of;
use crate::wasm::engine::IdleInstances;
use crate::wasm::error::WasmError;
use crate::wasm::fault::{CallError, Fault};
use crate::wasm::instance::{Instance, on_guest_stack};
use crate::wasm::interfaces::Interface;

/// The configuration of all instances of a codec.
pub(super) struct Setup {
    pub(super) topic: String,
    pub(super) role: Role,
    pub(super) config: String,
}

/// A codec: one component with one configuration.
pub(super) struct ComponentCodec {
    component: Component,
    setup: Setup,
    /// There are never more than the number of calls that ran at once.
    idle: Arc<IdleInstances>,
}

impl std::fmt::Debug for ComponentCodec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ComponentCodec")
            .field("component", &self.component)
            .field("topic", &self.setup.topic)
            .field("role", &self.setup.role)
            // The configuration may hold secrets.
            .finish_non_exhaustive()
    }
}

impl ComponentCodec {
    pub(super) fn new(component: Component, setup: Setup) -> Self {
        let idle = Arc::default();
        component.shared.register_idle(&idle);
        Self { component, setup, idle }
    }

    /// Makes the first instance.
    pub(super) fn warm_up(&self) -> Result<(), WasmError> {
        let name = || self.component.template.id.name.clone();
        let failed = |error| self.component.failed("configured", error);
        let accepted = self.start().map_err(failed)?;
        let instance = accepted.map_err(|message| WasmError::Configuration { name: name(), message })?;
        self.put_back(instance);
        Ok(())
    }

    /// Calls an instance for all items at once. After a fault the instance is dropped.
    fn call<T: Default>(
        &self,
        len: usize,
        call: impl Fn(&mut Instance) -> Result<T, CallError>,
    ) -> Result<T, CodecFailure> {
        if len == 0 {
            return Ok(T::default());
        }
        self.attempt(call).map_err(|error| match error {
            CallError::Host(failure) => CodecFailure::Host(failure),
            CallError::Fault(fault) => CodecFailure::Fault(self.reject_reason(fault)),
        })
    }

    /// Runs a call on an idle instance, or on a new one. If the host fails, it may lack memory that
    /// idle instances hold, so it drops them and tries again.
    fn attempt<T>(&self, call: impl Fn(&mut Instance) -> Result<T, CallError>) -> Result<T, CallError> {
        match self.attempt_once(&call) {
            Err(CallError::Host(_)) => {
                self.component.shared.drop_idle_instances();
                self.attempt_once(&call)
            }
            result => result,
        }
    }

    /// Runs a call once. The instance becomes idle again only if it broke no rule.
    fn attempt_once<T>(&self, call: impl Fn(&mut Instance) -> Result<T, CallError>) -> Result<T, CallError> {
        let mut instance = match self.take() {
            Some(instance) => instance,
            None => self.make_instance().map_err(CallError::Host)?,
        };
        let answers = on_guest_stack(|| call(&mut instance))?;
        instance.end_call();
        if let Some(failure) = instance.was_starved() {
            return Err(CallError::Host(failure));
        }
        if !instance.is_broken() {
            self.put_back(instance);
        }
        Ok(answers)
    }

    /// Makes another instance. The first one was accepted, and this one has not seen any record yet, so
    /// no record is to blame if it fails.
    fn make_instance(&self) -> Result<Instance, HostFailure> {
        let id = &self.component.template.id;
        let reason = match self.start() {
            Ok(Ok(instance)) => return Ok(instance),
            Ok(Err(message)) => format!("{id} no longer accepts its configuration: {}", one_line(&message)),
            Err(CallError::Host(failure)) => return Err(failure),
            Err(CallError::Fault(fault)) => {
                format!("a new instance of {id} does not start: {}", one_line(&fault.message))
            }
        };
        Err(HostFailure { reason })
    }

    /// Starts and configures an instance. The inner error is the message with which the component refuses
    /// its configuration.
    fn start(&self) -> Result<Result<Instance, String>, CallError> {
        self.component.retry_start(|| {
            let mut instance = self.component.instantiate()?;
            let accepted = instance.configure(self.context())?;
            Ok(accepted.map(|()| instance))
        })
    }

    fn context(&self) -> Context<'_> {
        Context { topic: &self.setup.topic, role: self.setup.role, config: &self.setup.config }
    }

    fn take(&self) -> Option<Instance> {
        lock(&self.idle).pop()
    }

    fn put_back(&self, instance: Instance) {
        lock(&self.idle).push(instance);
    }

    fn reject_reason(&self, fault: Fault) -> RejectReason {
        RejectReason::new(fault.kind, fault.message, Some(self.component.template.id.clone()))
    }
}

impl Component {
    /// Makes a value codec of this component, for the records of a topic, with the user's
    /// configuration (JSON text). Blocks while the component configures itself.
    ///
    /// # Errors
    ///
    /// If the component has no `value-codec`, refuses the configuration, or fails.
    pub fn value_codec(&self, topic: &str, config: &str) -> Result<Arc<dyn ValueCodec>, WasmError> {
        self.require("value codec", &[Interface::ValueCodec, Interface::ValueCodecBatch])?;
        Ok(Arc::new(self.codec(topic, Role::Value, config)?))
    }

    /// Measures the fuel that a value codec of this component needs to decode these values: of the
    /// guest only, and at the second time, when its memory has grown.
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
            .map_err(|message| WasmError::Configuration { name: self.template.id.name.clone(), message })?;
        let mut used = [0; 2];
        for used in &mut used {
            instance.decode_values(raw, &[]).map_err(failed)?;
            *used = instance.fuel_used().ok_or_else(|| WasmError::Engine {
                reason: "the engine does not count fuel: create it with Metering::Fuel".to_owned(),
            })?;
        }
        Ok(used[1] - used[0])
    }

    /// Makes a key codec of this component; see [`Component::value_codec`].
    ///
    /// # Errors
    ///
    /// As [`Component::value_codec`], for `key-codec`.
    pub fn key_codec(&self, topic: &str, config: &str) -> Result<Arc<dyn KeyCodec>, WasmError> {
        self.require("key codec", &[Interface::KeyCodec, Interface::KeyCodecBatch])?;
        Ok(Arc::new(self.codec(topic, Role::Key, config)?))
    }

    /// Makes a group scheme of this component; see [`Component::value_codec`].
    ///
    /// # Errors
    ///
    /// As [`Component::value_codec`], for `group-scheme`.
    pub fn group_scheme(&self, topic: &str, config: &str) -> Result<Arc<dyn GroupScheme>, WasmError> {
        self.require("group scheme", &[Interface::GroupScheme, Interface::GroupSchemeBatch])?;
        Ok(Arc::new(self.codec(topic, Role::Group, config)?))
    }

    fn codec(&self, topic: &str, role: Role, config: &str) -> Result<ComponentCodec, WasmError> {
        let takes_config = self.template.interfaces.contains(&Interface::Plugin);
        if !takes_config && config.trim() != "{}" {
            let message = "it takes no configuration: it exports no `plugin`".to_owned();
            return Err(WasmError::Configuration { name: self.template.id.name.clone(), message });
        }
        let setup = Setup { topic: topic.to_owned(), role, config: config.to_owned() };
        let codec = ComponentCodec::new(self.clone(), setup);
        // The first instance shows whether the component accepts the configuration.
        codec.warm_up()?;
        Ok(codec)
    }

    fn require(&self, wanted: &'static str, any: &[Interface]) -> Result<(), WasmError> {
        if any.iter().any(|interface| self.template.interfaces.contains(interface)) {
            return Ok(());
        }
        let names = |list: &[Interface]| list.iter().map(|i| i.name()).collect::<Vec<_>>().join(", ");
        Err(WasmError::MissingExport {
            name: self.template.id.name.clone(),
            wanted,
            expected: names(any),
            has: names(&self.template.interfaces),
        })
    }
}

impl Codec for ComponentCodec {
    fn component(&self) -> Option<&ComponentId> {
        Some(&self.component.template.id)
    }

    fn identity(&self) -> String {
        // Of the configuration, a digest: it may hold secrets.
        let config = digest_of(self.setup.config.as_bytes());
        format!("{} {config}", self.component.template.id.digest)
    }
}

impl ValueCodec for ComponentCodec {
    fn wants_headers(&self) -> bool {
        self.component.description().is_some_and(|description| description.wants_headers)
    }

    fn decode_values<'a>(
        &self,
        raw: &'a Packed,
        headers: &[&[Header]],
    ) -> Result<PackedAnswers<'a>, CodecFailure> {
        self.call(raw.len(), |instance| instance.decode_values(raw, headers))
    }

    fn encode_values(&self, values: &[&str]) -> Answers<Encoded> {
        self.call(values.len(), |instance| instance.encode_values(values))
    }
}

impl KeyCodec for ComponentCodec {
    fn decode_keys<'a>(&self, raw: &'a Packed) -> Result<PackedAnswers<'a>, CodecFailure> {
        let mut keys: PackedAnswers<'_> = self.call(raw.len(), |instance| instance.decode_keys(raw))?;
        let texts: Vec<&str> = keys.iter().flatten().map(checked_text).collect();
        let encoded = self.encode_keys(&texts)?;
        let mut encoded = encoded.iter();
        keys.check(|index, key| {
            // OK because `encode` answers for each key.
            match encoded.next().expect("one answer for each key") {
                Ok(back) if back == raw.get(index) => Ok(()),
                Ok(_) => Err(self.non_canonical(checked_text(key), "other bytes")),
                Err(rejection) if rejection.kind.is_fault() => Err(rejection.clone()),
                Err(rejection) => Err(self.non_canonical(checked_text(key), &rejection.to_string())),
            }
        });
        Ok(keys)
    }

    fn encode_keys(&self, keys: &[&str]) -> Result<PackedAnswers<'static>, CodecFailure> {
        self.call(keys.len(), |instance| instance.encode_keys(keys))
    }
}

impl ComponentCodec {
    fn non_canonical(&self, key: &str, got: &str) -> RejectReason {
        let key = name(key);
        RejectReason::new(
            RejectKind::NonCanonicalKey,
            format!("this key decodes to `{key}`, but that encodes to {got}"),
            Some(self.component.template.id.clone()),
        )
    }
}

impl GroupScheme for ComponentCodec {
    fn split_keys(&self, keys: &[&str]) -> Answers<Option<GroupKey>> {
        let pairs = self.call(keys.len(), |instance| instance.split(keys))?;
        let found: Vec<(&str, &str)> =
            pairs.iter().flatten().flatten().map(|pair| (&*pair.group, &*pair.member)).collect();
        let mut joined = self.join_keys(&found)?.into_iter();
        let own = |(index, pair): (usize, Result<Option<GroupKey>, RejectReason>)| {
            let Some(pair) = pair? else { return Ok(None) };
            // OK because `join` answers for each pair.
            let back = joined.next().expect("one answer for each pair");
            match back {
                Ok(back) if *back == *keys[index] => Ok(Some(pair)),
                Err(rejection) if rejection.kind.is_fault() => Err(rejection),
                // Another key has this pair, so this key has none.
                _ => Ok(None),
            }
        };
        Ok(pairs.into_iter().enumerate().map(own).collect())
    }

    fn join_keys(&self, pairs: &[(&str, &str)]) -> Answers<Box<str>> {
        self.call(pairs.len(), |instance| instance.join(pairs))
    }
}
