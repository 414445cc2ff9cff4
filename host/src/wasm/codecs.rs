//! A component behind the codec traits: instances on loan, keys checked.

use std::sync::{Arc, Mutex};

use crate::codec::{
    Answers, CodecFailure, ComponentId, Encoded, GroupKey, GroupScheme, HostFailure, KeyCodec, PackedAnswers,
    RejectKind, Rejection, ValueCodec, checked_text,
};
use crate::escape::{name, one_line};
use crate::log::Header;
use crate::packed::Packed;
use crate::wasm::bindings::v0_1::exports::ktables::codec::plugin::{Context, Role};
use crate::wasm::fault::{CallError, Fault};
use crate::wasm::instance::{Instance, on_guest_stack};
use crate::wasm::{Component, WasmError};

/// What every instance of a codec is configured with.
pub(super) struct Setup {
    pub(super) topic: String,
    pub(super) role: Role,
    pub(super) config: String,
}

/// One configuration of one component.
pub(super) struct ComponentCodec {
    component: Component,
    setup: Setup,
    /// There are never more than run at once.
    idle: Arc<IdleInstances>,
}

/// Instances that nobody runs now. A std lock: held to push and pop.
pub(super) type IdleInstances = Mutex<Vec<Instance>>;

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
        component.shared.remember_idle(&idle);
        Self { component, setup, idle }
    }

    /// Makes the first instance.
    pub(super) fn warm_up(&self) -> Result<(), WasmError> {
        let name = || self.component.id.name.clone();
        let failed = |error| self.component.failed("configured", error);
        let accepted = self.start().map_err(failed)?;
        let instance = accepted.map_err(|message| WasmError::Configuration { name: name(), message })?;
        self.put_back(instance);
        Ok(())
    }

    /// Calls for all items at once. After a fault the instance is dropped.
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
            CallError::Fault(fault) => CodecFailure::Fault(self.rejection(fault)),
        })
    }

    /// Runs a call on an idle instance, or a new one. What the host cannot do may be
    /// for want of memory that idle instances hold, so it is tried again without
    /// them.
    fn attempt<T>(&self, call: impl Fn(&mut Instance) -> Result<T, CallError>) -> Result<T, CallError> {
        match self.attempt_once(&call) {
            Err(CallError::Host(_)) => {
                self.component.shared.drop_idle_instances();
                self.attempt_once(&call)
            }
            result => result,
        }
    }

    /// The instance comes back only if it did nothing wrong.
    fn attempt_once<T>(&self, call: impl Fn(&mut Instance) -> Result<T, CallError>) -> Result<T, CallError> {
        let mut instance = match self.take() {
            Some(instance) => instance,
            None => self.configured().map_err(CallError::Host)?,
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

    /// A new instance. The first one was accepted, and this one has seen no record
    /// yet, so no record is to blame if it fails.
    fn configured(&self) -> Result<Instance, HostFailure> {
        let id = &self.component.id;
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

    /// Starts and configures an instance; its own words if it does not accept its configuration.
    fn start(&self) -> Result<Result<Instance, String>, CallError> {
        self.component.retried(|| {
            let mut instance = self.component.instantiate()?;
            let accepted = instance.configure(self.context())?;
            Ok(accepted.map(|()| instance))
        })
    }

    fn context(&self) -> Context<'_> {
        Context { topic: &self.setup.topic, role: self.setup.role, config: &self.setup.config }
    }

    fn take(&self) -> Option<Instance> {
        // OK because nothing panics while it holds the lock.
        self.idle.lock().expect("not poisoned").pop()
    }

    fn put_back(&self, instance: Instance) {
        // OK because nothing panics while it holds the lock.
        self.idle.lock().expect("not poisoned").push(instance);
    }

    fn rejection(&self, fault: Fault) -> Rejection {
        Rejection::new(fault.kind, fault.message, Some(self.component.id.clone()))
    }
}

impl ValueCodec for ComponentCodec {
    fn component(&self) -> Option<&ComponentId> {
        Some(&self.component.id)
    }

    fn wants_headers(&self) -> bool {
        self.component.description().is_some_and(|description| description.wants_headers)
    }

    fn decode<'a>(&self, raw: &'a Packed, headers: &[&[Header]]) -> Result<PackedAnswers<'a>, CodecFailure> {
        self.call(raw.len(), |instance| instance.decode_values(raw, headers))
    }

    fn encode(&self, values: &[&str]) -> Answers<Encoded> {
        self.call(values.len(), |instance| instance.encode_values(values))
    }
}

impl KeyCodec for ComponentCodec {
    fn component(&self) -> Option<&ComponentId> {
        Some(&self.component.id)
    }

    fn decode<'a>(&self, raw: &'a Packed) -> Result<PackedAnswers<'a>, CodecFailure> {
        let mut keys: PackedAnswers<'_> = self.call(raw.len(), |instance| instance.decode_keys(raw))?;
        let texts: Vec<&str> = keys.iter().flatten().map(checked_text).collect();
        let encoded = KeyCodec::encode(self, &texts)?;
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

    fn encode(&self, keys: &[&str]) -> Result<PackedAnswers<'static>, CodecFailure> {
        self.call(keys.len(), |instance| instance.encode_keys(keys))
    }
}

impl ComponentCodec {
    fn non_canonical(&self, key: &str, got: &str) -> Rejection {
        let key = name(key);
        Rejection::new(
            RejectKind::NonCanonicalKey,
            format!("this key decodes to `{key}`, but that encodes to {got}"),
            Some(self.component.id.clone()),
        )
    }
}

impl GroupScheme for ComponentCodec {
    fn component(&self) -> Option<&ComponentId> {
        Some(&self.component.id)
    }

    fn split(&self, keys: &[&str]) -> Answers<Option<GroupKey>> {
        let pairs = self.call(keys.len(), |instance| instance.split(keys))?;
        let found: Vec<(&str, &str)> =
            pairs.iter().flatten().flatten().map(|pair| (&*pair.group, &*pair.member)).collect();
        let mut joined = self.join(&found)?.into_iter();
        let own = |(index, pair): (usize, Result<Option<GroupKey>, Rejection>)| {
            let Some(pair) = pair? else { return Ok(None) };
            // OK because `join` answers for each pair.
            let back = joined.next().expect("one answer for each pair");
            match back {
                Ok(back) if *back == *keys[index] => Ok(Some(pair)),
                Err(rejection) if rejection.kind.is_fault() => Err(rejection),
                // A pair that does not give the key back is not this key's.
                _ => Ok(None),
            }
        };
        Ok(pairs.into_iter().enumerate().map(own).collect())
    }

    fn join(&self, pairs: &[(&str, &str)]) -> Answers<Box<str>> {
        self.call(pairs.len(), |instance| instance.join(pairs))
    }
}
