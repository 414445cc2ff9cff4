//! One instance of a component in its own store, and the calls into it.

mod answers;
mod byte_len;
mod calls;
mod exports;
mod stack;

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::InstancePre;
use wasmtime::{Store, UpdateDeadline};

pub(super) use stack::on_guest_stack;

use crate::codec::workers::{SlowCalls, TICK};
use crate::codec::{ComponentId, HostFailure};
use crate::wasm::bindings::v0_1::exports::ktables::codec as wit;
use crate::wasm::fault::{CallError, budget_exhausted, classify, limit_exceeded};
use crate::wasm::guest_log::GuestLog;
use crate::wasm::interfaces::Interface;
use crate::wasm::limits::Limits;
use crate::wasm::state::{Budget, Exceeded, State};
use exports::Exports;

/// What an instance may use where fuel is counted: some minutes of work.
const FUEL: u64 = 1 << 40;

/// What all instances of a component with the same digest share.
#[derive(Debug, Clone, Default)]
pub(super) struct ComponentShared {
    /// The calls that are slow at present.
    pub(super) slow_calls: SlowCalls,
    /// The rate limit for log messages.
    pub(super) log: Arc<GuestLog>,
}

/// Everything that instances of a component are made of.
#[derive(Clone)]
pub(super) struct Template {
    pub(super) engine: wasmtime::Engine,
    pub(super) pre: InstancePre<State>,
    pub(super) id: Arc<ComponentId>,
    pub(super) interfaces: Vec<Interface>,
    pub(super) limits: Limits,
    /// The memory that all instances of the engine share.
    pub(super) budget: Arc<Budget>,
    pub(super) counts_fuel: bool,
    /// The bytes that the host keeps for an instance, besides memories and table elements.
    pub(super) host_bytes: usize,
    pub(super) shared: ComponentShared,
}

/// An instance. After a fault it is dropped, and never used again.
pub(super) struct Instance {
    store: Store<State>,
    exports: Exports,
    id: Arc<ComponentId>,
    limits: Limits,
    /// Whether an answer broke a rule, so that the instance must be dropped.
    is_broken: bool,
}

impl Instance {
    pub(super) fn new(template: &Template) -> Result<Self, CallError> {
        let Template { engine, pre, interfaces, id, limits, budget, counts_fuel, host_bytes, shared } =
            template;
        let mut state = State::new(id.clone(), limits.memory, budget.clone(), shared.log.clone());
        state.charge(*host_bytes).map_err(|()| limit_exceeded(&state, limits))?;
        let mut store = Store::new(engine, state);
        store.limiter(|state| state);
        let slow_calls = shared.slow_calls.clone();
        store.epoch_deadline_callback(move |mut store| {
            let state = store.data_mut();
            let host_ticks = state.take_host_time().as_nanos() / TICK.as_nanos();
            if let Some(ticks) = u64::try_from(host_ticks).ok().filter(|&ticks| ticks > 0) {
                return Ok(UpdateDeadline::Continue(ticks));
            }
            // The first time, the call has become slow; the second time, its time is over.
            Ok(match state.ticks_left.take() {
                Some(left) => {
                    state.slow = Some(slow_calls.enter());
                    UpdateDeadline::Continue(left)
                }
                None => UpdateDeadline::Interrupt,
            })
        });
        store.set_hostcall_fuel(limits.output_per_call());
        store.set_epoch_deadline(ticks(limits.start_deadline));
        if *counts_fuel {
            // OK because this engine meters fuel.
            store.set_fuel(FUEL).expect("an engine that meters fuel");
        }
        let instance = on_guest_stack(|| pre.instantiate(&mut store));
        let instance = instance.map_err(|error| start_failed(&error, &store, limits))?;
        match Exports::load(pre, instance, &mut store, interfaces) {
            Ok(exports) => {
                Ok(Self { store, exports, id: id.clone(), limits: limits.clone(), is_broken: false })
            }
            Err(error) => Err(classify(&error, store.data(), limits, limits.start_deadline)),
        }
    }

    /// Asks the component for its name and version.
    pub(super) fn describe(&mut self) -> Result<Option<wit::plugin::Info>, CallError> {
        self.begin_start();
        let Some(plugin) = &self.exports.plugin else { return Ok(None) };
        let info = on_guest_stack(|| plugin.call_describe(&mut self.store));
        info.map(Some).map_err(|error| self.start_call_failed(&error))
    }

    /// Configures the component. The inner error is the message with which it refuses.
    pub(super) fn configure(
        &mut self,
        context: wit::plugin::Context<'_>,
    ) -> Result<Result<(), String>, CallError> {
        self.begin_start();
        let Some(plugin) = &self.exports.plugin else { return Ok(Ok(())) };
        let answer = on_guest_stack(|| plugin.call_configure(&mut self.store, context));
        answer.map_err(|error| self.start_call_failed(&error))
    }

    /// The fuel that the instance has used since it was made, if its engine counts fuel.
    pub(super) fn fuel_used(&self) -> Option<u64> {
        self.store.get_fuel().ok().map(|left| FUEL - left)
    }

    /// Whether an answer broke a rule, so that the instance must not be used again.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// The failure of the host, if the engine's budget refused memory during the last call: with that
    /// memory, the guest might have answered otherwise.
    pub(super) fn was_starved(&self) -> Option<HostFailure> {
        match self.store.data().exceeded {
            Some(Exceeded::Engine(budget)) => Some(budget_exhausted(budget)),
            _ => None,
        }
    }

    /// Sets the deadline for a call with this many records.
    fn begin(&mut self, records: usize) {
        let ticks = ticks(self.limits.deadline_for(records));
        let quick = ticks.min(QUICK_TICKS);
        self.store.set_epoch_deadline(quick);
        self.store.data_mut().begin_call(Some(ticks - quick).filter(|&left| left > 0));
    }

    /// Ends a call, so that other calls of the component may be slow.
    pub(super) fn end_call(&mut self) {
        self.store.data_mut().slow = None;
    }

    /// Sets the deadline for a call that an instance gets once, before its first record.
    fn begin_start(&mut self) {
        self.store.set_epoch_deadline(ticks(self.limits.start_deadline));
        self.store.data_mut().begin_call(None);
    }

    fn call_failed(&self, error: &wasmtime::Error, records: usize) -> CallError {
        classify(error, self.store.data(), &self.limits, self.limits.deadline_for(records))
    }

    fn start_call_failed(&self, error: &wasmtime::Error) -> CallError {
        classify(error, self.store.data(), &self.limits, self.limits.start_deadline)
    }
}

/// Why an instance could not be made. It is the guest's fault only if its code trapped or it needs more
/// memory than it may have.
fn start_failed(error: &wasmtime::Error, store: &Store<State>, limits: &Limits) -> CallError {
    if store.data().exceeded.is_some() || error.downcast_ref::<wasmtime::Trap>().is_some() {
        return classify(error, store.data(), limits, limits.start_deadline);
    }
    let reason = match error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>() {
        Some(_) => {
            "cannot make an instance of the component now: all instances that this process has room for are \
                    in use"
                .to_owned()
        }
        None => format!("cannot make an instance of the component: {error:#}"),
    };
    CallError::Host(HostFailure { reason })
}

/// How many ticks a call may take before it is slow: the current one, and a whole one.
const QUICK_TICKS: u64 = 2;

/// Practically for ever. Wasmtime adds it to the current tick, so it must not overflow.
const MAX_TICKS: u64 = u64::MAX / 2;

fn ticks(deadline: Duration) -> u64 {
    let ticks = deadline.as_nanos().div_ceil(TICK.as_nanos());
    // One more, because the current tick is shorter than a whole one.
    u64::try_from(ticks).unwrap_or(MAX_TICKS).min(MAX_TICKS) + 1
}
