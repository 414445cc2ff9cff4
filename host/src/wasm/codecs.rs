//! Codecs that are components. They use an idle instance for each call, and check that keys round-trip.

use std::sync::Arc;
use std::time::Instant;

use crate::codec::{
    Answers, Codec, CodecFailure, ComponentId, Encoded, GroupKey, GroupScheme, HostFailure, KeyCodec,
    PackedAnswers, RejectKind, RejectReason, ValueCodec, checked_text,
};
use crate::escape::{escape_name, one_line};
use crate::log::Header;
use crate::packed::Packed;
use crate::sync::lock;
use crate::wasm::bindings::v0_1::exports::ktables::codec::plugin::{Context, Role};
use crate::wasm::component::Component;
use crate::wasm::digest::digest_of;
use crate::wasm::engine::IdleInstances;
use crate::wasm::error::WasmError;
use crate::wasm::fault::{CallError, Fault};
use crate::wasm::instance::{Instance, Template, with_guest_stack};
use crate::wasm::interfaces::Interface;
use crate::wasm::usage::{Answered, DropCause, Passed, UsageCounter};

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
    /// The instances that no call uses now; never more than there were concurrent calls.
    idle: Arc<IdleInstances>,
    /// Whether instances that have grown are replaced.
    pub(super) recycles: bool,
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
        Self { component, setup, idle, recycles: true }
    }

    /// Starts the first instance, to find out whether the component accepts the configuration.
    pub(super) fn warm_up(&self) -> Result<(), WasmError> {
        let name = || self.component.template.id.name.clone();
        let failed = |error| self.component.to_wasm_error("configured", error);
        let accepted = self.start().map_err(failed)?;
        let instance =
            accepted.map_err(|message| WasmError::InvalidConfiguration { name: name(), message })?;
        self.put_back(instance);
        Ok(())
    }

    /// Calls an instance once for all items. An instance that faults is dropped.
    pub(super) fn call<T: Default + Answered>(
        &self,
        items: &(impl Passed + ?Sized),
        call: impl Fn(&mut Instance) -> Result<T, CallError>,
    ) -> Result<T, CodecFailure> {
        if items.count() == 0 {
            return Ok(T::default());
        }
        let (usage, began) = (self.usage(), Instant::now());
        match self.call_or_retry(call) {
            Ok(answers) => {
                usage.add_call(items, &answers, began.elapsed());
                Ok(answers)
            }
            Err(CallError::Host(failure)) => Err(CodecFailure::Host(failure)),
            Err(CallError::Fault(fault)) => {
                usage.add_fault(items, &fault, began.elapsed());
                Err(CodecFailure::Fault(self.reject_reason(fault)))
            }
        }
    }

    fn usage(&self) -> &UsageCounter {
        &self.component.template.shared.usage
    }

    /// Runs a call on an idle instance, or on a new one. If the host fails, drops all idle instances of the
    /// engine, which may hold the memory that it lacked, and tries again.
    fn call_or_retry<T>(&self, call: impl Fn(&mut Instance) -> Result<T, CallError>) -> Result<T, CallError> {
        match self.call_once(&call) {
            Err(CallError::Host(failure)) if failure.need.is_none() => {
                self.component.shared.drop_idle_instances();
                self.call_once(&call)
            }
            result => result,
        }
    }

    /// Runs a call once. The instance becomes idle again only if it kept to the contract, and needs no replacement.
    fn call_once<T>(&self, call: impl Fn(&mut Instance) -> Result<T, CallError>) -> Result<T, CallError> {
        let mut instance = match self.take_idle() {
            Some(instance) => instance,
            None => self.start_another().map_err(CallError::Host)?,
        };
        let answers = with_guest_stack(|| call(&mut instance));
        instance.end_call();
        self.usage().note_memory(instance.memory_used());
        if let Some(need) = instance.take_need() {
            // Whatever it answered, it answered without what it needs.
            if answers.is_ok() && !instance.is_broken() {
                self.put_back(instance);
            }
            return Err(CallError::Host(HostFailure::needs(need)));
        }
        let is_faulty = matches!(answers, Err(CallError::Fault(_))) || instance.is_broken();
        if is_faulty {
            self.usage().add_drop(DropCause::Fault);
        }
        let answers = answers?;
        if let Some(failure) = instance.budget_failure() {
            return Err(CallError::Host(failure));
        }
        if self.recycles && instance.needs_recycling() {
            if !is_faulty {
                self.usage().add_drop(DropCause::Recycled);
            }
        } else if !is_faulty {
            self.put_back(instance);
        }
        Ok(answers)
    }

    /// Starts another instance than the first. A failure counts as the host's: the first instance accepted the
    /// configuration, and this one has not received any record yet, so no record is to blame.
    fn start_another(&self) -> Result<Instance, HostFailure> {
        let id = &self.component.template.id;
        let reason = match self.start() {
            Ok(Ok(instance)) => return Ok(instance),
            Ok(Err(message)) => {
                format!("component {id} no longer accepts its configuration: {}", one_line(&message))
            }
            Err(CallError::Host(failure)) => return Err(failure),
            Err(CallError::Fault(fault)) => {
                format!("cannot start another instance of component {id}: {}", one_line(&fault.message))
            }
        };
        Err(HostFailure::cannot_start(reason))
    }

    /// Starts and configures an instance. The inner error is the component's message if it refuses its
    /// configuration.
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

    /// Drops the instances that no call uses now.
    #[cfg(feature = "cli")]
    pub(super) fn drop_idle(&self) {
        lock(&self.idle).clear();
    }

    /// Returns the memory that an idle instance uses, in bytes. `None` if there is no idle instance.
    #[cfg(feature = "cli")]
    pub(super) fn memory_used(&self) -> Option<usize> {
        lock(&self.idle).last().map(Instance::memory_used)
    }

    fn take_idle(&self) -> Option<Instance> {
        lock(&self.idle).pop()
    }

    fn put_back(&self, instance: Instance) {
        lock(&self.idle).push(instance);
    }

    fn reject_reason(&self, fault: Fault) -> RejectReason {
        RejectReason::new(fault.kind, fault.message, Some(self.component.template.id.clone()))
            .with_trap(fault.trap)
    }
}

impl Component {
    /// Creates a value codec from this component, for the records of a topic, with the user's configuration
    /// (JSON text). Blocks while the component configures itself.
    ///
    /// # Errors
    ///
    /// If the component does not export `value-codec`, refuses the configuration, or fails.
    pub fn value_codec(&self, topic: &str, config: &str) -> Result<Arc<dyn ValueCodec>, WasmError> {
        self.require("value codec", &[Interface::ValueCodec, Interface::ValueCodecBatch])?;
        Ok(Arc::new(self.create_codec(topic, Role::Value, config)?))
    }

    /// Measures the fuel that a value codec of this component needs to decode these values. Counts the guest
    /// only, and the second of two calls, when the guest's memory has already grown.
    ///
    /// # Errors
    ///
    /// As [`Component::value_codec`]; if decoding faults; if the engine does not count fuel
    /// ([`Metering::Fuel`](crate::wasm::Metering::Fuel)).
    pub fn decode_fuel(&self, config: &str, raw: &Packed) -> Result<u64, WasmError> {
        self.require("value codec", &[Interface::ValueCodec, Interface::ValueCodecBatch])?;
        let failed = |error| self.to_wasm_error("measured", error);
        let mut instance = self.instantiate().map_err(failed)?;
        let context = Context { topic: "", role: Role::Value, config };
        instance.configure(context).map_err(failed)?.map_err(|message| WasmError::InvalidConfiguration {
            name: self.template.id.name.clone(),
            message,
        })?;
        let mut used = [0; 2];
        for used in &mut used {
            instance.decode_values(raw, &[]).map_err(failed)?;
            *used = instance.fuel_used().ok_or_else(|| WasmError::Engine {
                reason: "the engine does not count fuel: create it with Metering::Fuel".to_owned(),
            })?;
        }
        Ok(used[1] - used[0])
    }

    /// Creates a key codec from this component; see [`Component::value_codec`].
    ///
    /// # Errors
    ///
    /// As [`Component::value_codec`], for `key-codec`.
    pub fn key_codec(&self, topic: &str, config: &str) -> Result<Arc<dyn KeyCodec>, WasmError> {
        self.require("key codec", &[Interface::KeyCodec, Interface::KeyCodecBatch])?;
        Ok(Arc::new(self.create_codec(topic, Role::Key, config)?))
    }

    /// Creates a group scheme from this component; see [`Component::value_codec`].
    ///
    /// # Errors
    ///
    /// As [`Component::value_codec`], for `group-scheme`.
    pub fn group_scheme(&self, topic: &str, config: &str) -> Result<Arc<dyn GroupScheme>, WasmError> {
        self.require("group scheme", &[Interface::GroupScheme, Interface::GroupSchemeBatch])?;
        Ok(Arc::new(self.create_codec(topic, Role::Group, config)?))
    }

    pub(super) fn create_codec(
        &self,
        topic: &str,
        role: Role,
        config: &str,
    ) -> Result<ComponentCodec, WasmError> {
        let takes_config = self.template.interfaces.contains(&Interface::Plugin);
        if !takes_config && config.trim() != "{}" {
            let message = "it exports no `plugin`, so it takes no configuration: remove it".to_owned();
            return Err(WasmError::InvalidConfiguration { name: self.template.id.name.clone(), message });
        }
        let setup = Setup { topic: topic.to_owned(), role, config: config.to_owned() };
        let codec = ComponentCodec::new(self.clone(), setup);
        codec.warm_up()?;
        Ok(codec)
    }

    pub(super) fn require(&self, wanted: &'static str, any: &[Interface]) -> Result<(), WasmError> {
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
        // A digest of the configuration, which may hold secrets.
        let config = digest_of(self.setup.config.as_bytes());
        let Template { id, schema_source, .. } = &self.component.template;
        // The ids of schemas in records are those of one registry.
        match schema_source {
            Some(source) => format!("{} {config} {}", id.digest, digest_of(source.identity().as_bytes())),
            None => format!("{} {config}", id.digest),
        }
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
        self.call(raw, |instance| instance.decode_values(raw, headers))
    }

    fn encode_values(&self, values: &[&str]) -> Answers<Encoded> {
        self.call(values, |instance| instance.encode_values(values))
    }
}

impl KeyCodec for ComponentCodec {
    fn decode_keys<'a>(&self, raw: &'a Packed) -> Result<PackedAnswers<'a>, CodecFailure> {
        let mut keys: PackedAnswers<'_> = self.call(raw, |instance| instance.decode_keys(raw))?;
        let texts: Vec<&str> = keys.iter().flatten().map(checked_text).collect();
        let encoded = self.encode_keys(&texts)?;
        let mut encoded = encoded.iter();
        keys.check(|index, key| {
            // OK because `encode_keys` returns one answer for each key.
            match encoded.next().expect("one answer for each key") {
                Ok(back) if back == raw.get(index) => Ok(()),
                Ok(_) => Err(self.non_canonical(checked_text(key), "other bytes")),
                Err(reason) if reason.kind.is_fault() => Err(reason.clone()),
                Err(reason) => Err(self.non_canonical(checked_text(key), &reason.to_string())),
            }
        });
        Ok(keys)
    }

    fn encode_keys(&self, keys: &[&str]) -> Result<PackedAnswers<'static>, CodecFailure> {
        self.call(keys, |instance| instance.encode_keys(keys))
    }
}

impl ComponentCodec {
    fn non_canonical(&self, key: &str, got: &str) -> RejectReason {
        let key = escape_name(key);
        RejectReason::new(
            RejectKind::NonCanonicalKey,
            format!("the key decodes to `{key}`, but that encodes to {got}"),
            Some(self.component.template.id.clone()),
        )
    }
}

impl GroupScheme for ComponentCodec {
    fn split_keys(&self, keys: &[&str]) -> Answers<Option<GroupKey>> {
        let pairs = self.call(keys, |instance| instance.split(keys))?;
        let found: Vec<(&str, &str)> =
            pairs.iter().flatten().flatten().map(|pair| (&*pair.group, &*pair.member)).collect();
        let mut joined = self.join_keys(&found)?.into_iter();
        let check = |(index, pair): (usize, Result<Option<GroupKey>, RejectReason>)| {
            let Some(pair) = pair? else { return Ok(None) };
            // OK because `join_keys` returns one answer for each pair.
            let joined = joined.next().expect("one answer for each pair");
            match joined {
                Ok(joined) if *joined == *keys[index] => Ok(Some(pair)),
                Err(reason) if reason.kind.is_fault() => Err(reason),
                // The pair belongs to another key, so this key is foreign.
                _ => Ok(None),
            }
        };
        Ok(pairs.into_iter().enumerate().map(check).collect())
    }

    fn join_keys(&self, pairs: &[(&str, &str)]) -> Answers<Box<str>> {
        self.call(pairs, |instance| instance.join(pairs))
    }
}
