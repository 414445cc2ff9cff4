//! A component behind the codec traits: instances on loan, faults isolated, keys
//! checked.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::codec::{
    Answers, ComponentId, Encoded, GroupKey, GroupScheme, HostFailure, KeyCodec, PackedAnswers, RejectKind,
    Rejection, ValueCodec, checked_text,
};
use crate::log::Header;
use crate::packed::Packed;
use crate::wasm::bindings::v0_1::exports::ktables::codec::plugin::{Context, Role};
use crate::wasm::fault::{CallError, Fault};
use crate::wasm::instance::Instance;
use crate::wasm::{Component, WasmError};

/// What every instance of a codec is configured with.
#[derive(Debug)]
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
            .field("setup", &self.setup)
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
        let mut instance = self.component.instantiate().map_err(failed)?;
        let accepted = instance.configure(self.context()).map_err(failed)?;
        accepted.map_err(|message| WasmError::Configuration { name: name(), message })?;
        self.put_back(instance);
        Ok(())
    }

    /// Calls for all items at once; if that faults, the instance is dropped and
    /// each item called for alone, so that only the culprits are rejected.
    ///
    /// One by one and not by halves: a thousand calls cost a fraction of a
    /// millisecond more than one, while each halving with a culprit that loops
    /// costs a deadline.
    fn call<B: Batch>(
        &self,
        len: usize,
        call: impl Fn(&mut Instance, Range<usize>) -> Result<B, CallError>,
    ) -> Result<B, HostFailure> {
        if len == 0 {
            return Ok(B::from_iter([]));
        }
        match self.attempt(|instance| call(instance, 0..len)) {
            Ok(answers) => Ok(answers),
            Err(CallError::Host(failure)) => Err(failure),
            Err(CallError::Fault(fault)) if len == 1 => Ok(B::from_iter([Err(self.rejection(fault))])),
            Err(CallError::Fault(fault)) => {
                let (component, digest) = (&self.component.id.name, &self.component.id.digest);
                tracing::debug!(
                    component,
                    digest,
                    "a batch of {len} faulted ({}); going on one by one",
                    fault.message
                );
                (0..len).map(|index| self.call_one(index, &call)).collect()
            }
        }
    }

    fn call_one<B: Batch>(
        &self,
        index: usize,
        call: impl Fn(&mut Instance, Range<usize>) -> Result<B, CallError>,
    ) -> Result<Result<B::Item, Rejection>, HostFailure> {
        match self.attempt(|instance| call(instance, index..index + 1)) {
            Ok(answers) => Ok(answers.only()),
            Err(CallError::Host(failure)) => Err(failure),
            Err(CallError::Fault(fault)) => Ok(Err(self.rejection(fault))),
        }
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
        let answers = call(&mut instance)?;
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
        let failed = |error| match error {
            CallError::Host(failure) => failure,
            CallError::Fault(fault) => HostFailure {
                reason: format!("a new instance of {} does not start: {}", self.component.id, fault.message),
            },
        };
        let mut instance = self.component.instantiate().map_err(failed)?;
        match instance.configure(self.context()).map_err(failed)? {
            Ok(()) => Ok(instance),
            Err(message) => Err(HostFailure {
                reason: format!("{} no longer accepts its configuration: {message}", self.component.id),
            }),
        }
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
        Rejection { kind: fault.kind, message: fault.message, component: Some(self.component.id.clone()) }
    }
}

/// The answers of a call, made of one for each item.
trait Batch: FromIterator<Result<Self::Item, Rejection>> {
    type Item;

    /// The answer of a call for one item.
    fn only(self) -> Result<Self::Item, Rejection>;
}

impl<T> Batch for Vec<Result<T, Rejection>> {
    type Item = T;

    fn only(mut self) -> Result<T, Rejection> {
        // OK because a call answers with as many items as it was asked for.
        self.pop().expect("one answer")
    }
}

impl Batch for PackedAnswers<'_> {
    type Item = Vec<u8>;

    fn only(self) -> Result<Vec<u8>, Rejection> {
        self.into_one()
    }
}

impl ValueCodec for ComponentCodec {
    fn component(&self) -> Option<&ComponentId> {
        Some(&self.component.id)
    }

    fn wants_headers(&self) -> bool {
        self.component.description().is_some_and(|description| description.wants_headers)
    }

    fn decode<'a>(&self, raw: &'a Packed, headers: &[&[Header]]) -> Result<PackedAnswers<'a>, HostFailure> {
        self.call(raw.len(), |instance, range| {
            let headers = headers.get(range.clone()).unwrap_or_default();
            instance.decode_values(&raw.slice(range), headers)
        })
    }

    fn encode(&self, values: &[&str]) -> Answers<Encoded> {
        self.call(values.len(), |instance, range| instance.encode_values(&values[range]))
    }
}

impl KeyCodec for ComponentCodec {
    fn decode<'a>(&self, raw: &'a Packed) -> Result<PackedAnswers<'a>, HostFailure> {
        let mut keys: PackedAnswers<'_> =
            self.call(raw.len(), |instance, range| instance.decode_keys(&raw.slice(range)))?;
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

    fn encode(&self, keys: &[&str]) -> Result<PackedAnswers<'static>, HostFailure> {
        self.call(keys.len(), |instance, range| instance.encode_keys(&keys[range]))
    }
}

impl ComponentCodec {
    fn non_canonical(&self, key: &str, got: &str) -> Rejection {
        Rejection {
            kind: RejectKind::NonCanonicalKey,
            message: format!("this key decodes to {key:?}, but that encodes to {got}"),
            component: Some(self.component.id.clone()),
        }
    }
}

impl GroupScheme for ComponentCodec {
    fn split(&self, keys: &[&str]) -> Answers<Option<GroupKey>> {
        let pairs = self.call(keys.len(), |instance, range| instance.split(&keys[range]))?;
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
        self.call(pairs.len(), |instance, range| instance.join(&pairs[range]))
    }
}
