//! One instance of a component in its own store, and the calls to it.

mod answers;
mod calls;
mod exports;
mod recycling;
mod stack;

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::InstancePre;
use wasmtime::{Store, UpdateDeadline};

pub(super) use stack::with_guest_stack;

use crate::codec::workers::{SlowCalls, TICK};
use crate::codec::{ComponentId, HostFailure, Need};
use crate::registry::{MissingSchemas, SchemaSource};
use crate::wasm::bindings::v0_1::exports::ktables::codec as wit;
use crate::wasm::fault::{CallError, Fault, budget_failure, classify, limit_error};
use crate::wasm::guest_log::LogLimiter;
use crate::wasm::interfaces::Interface;
use crate::wasm::limits::Limits;
use crate::wasm::state::{Budget, ExceededLimit, State};
use crate::wasm::usage::UsageCounter;
use exports::Exports;
use recycling::RecyclingMarks;

/// The fuel of an instance, if its engine counts fuel: enough for some minutes of work.
const FUEL: u64 = 1 << 40;

/// What all instances of components with the same digest share.
#[derive(Debug, Clone, Default)]
pub(super) struct ComponentShared {
    /// The calls that are slow at present.
    pub(super) slow_calls: SlowCalls,
    /// The rate limit for log messages.
    pub(super) log_limiter: Arc<LogLimiter>,
    /// What the instances have done.
    pub(super) usage: Arc<UsageCounter>,
}

/// Everything that is needed to create instances of a component.
#[derive(Clone)]
pub(super) struct Template {
    pub(super) engine: wasmtime::Engine,
    pub(super) pre: InstancePre<State>,
    pub(super) id: Arc<ComponentId>,
    pub(super) interfaces: Vec<Interface>,
    pub(super) limits: Limits,
    /// The memory budget that all instances of the engine share.
    pub(super) budget: Arc<Budget>,
    pub(super) counts_fuel: bool,
    /// The bytes that the host keeps for an instance, besides memories and table elements.
    pub(super) host_bytes: usize,
    pub(super) shared: ComponentShared,
    /// Where its schemas come from, if its codec has a schema registry.
    pub(super) schema_source: Option<Arc<dyn SchemaSource>>,
}

/// An instance of a component. After a fault, it is dropped and never used again.
pub(super) struct Instance {
    store: Store<State>,
    exports: Exports,
    id: Arc<ComponentId>,
    limits: Limits,
    /// Whether an answer broke the contract, so that the instance must be dropped.
    is_broken: bool,
    /// How many calls have begun.
    calls: u64,
    /// When it is replaced by a new one.
    marks: RecyclingMarks,
}

impl Instance {
    /// Creates and starts an instance, within its start deadline.
    pub(super) fn new(template: &Template) -> Result<Self, CallError> {
        let Template { engine, pre, interfaces, id, limits, budget, counts_fuel, .. } = template;
        let Template { host_bytes, shared, schema_source, .. } = template;
        let (log_limiter, schema_source) = (shared.log_limiter.clone(), schema_source.clone());
        let mut state = State::new(id.clone(), limits.memory, budget.clone(), log_limiter, schema_source);
        state.charge(*host_bytes).map_err(|()| limit_error(&state, limits))?;
        let mut store = Store::new(engine, state);
        store.limiter(|state| state);
        let slow_calls = shared.slow_calls.clone();
        store.epoch_deadline_callback(move |mut store| {
            let state = store.data_mut();
            // The deadline does not count the time that the host worked: it is extended by that time.
            let host_ticks = state.take_host_time().as_nanos() / TICK.as_nanos();
            if let Some(ticks) = u64::try_from(host_ticks).ok().filter(|&ticks| ticks > 0) {
                return Ok(UpdateDeadline::Continue(ticks));
            }
            // A call with ticks left becomes a slow call: it waits until no other slow call of the component
            // for the same purpose runs, and then has the ticks that are left. A call without is interrupted.
            Ok(match state.ticks_left.take() {
                Some(left) => {
                    state.slow = Some(slow_calls.enter());
                    UpdateDeadline::Continue(left)
                }
                None => UpdateDeadline::Interrupt,
            })
        });
        // Bounds the bytes that the guest passes to the host in one call. Wasmtime calls this fuel, too.
        store.set_hostcall_fuel(limits.output_per_call());
        store.set_epoch_deadline(to_ticks(limits.start_deadline));
        if *counts_fuel {
            // OK because this engine counts fuel.
            store.set_fuel(FUEL).expect("an engine that counts fuel");
        }
        let instance = with_guest_stack(|| pre.instantiate(&mut store));
        let instance = instance.map_err(|error| start_error(&error, &store, limits))?;
        match Exports::load(pre, instance, &mut store, interfaces) {
            Ok(exports) => {
                let marks = RecyclingMarks::choose(limits, store.data().used(), Instant::now());
                let (id, limits) = (id.clone(), limits.clone());
                shared.usage.add_start();
                shared.usage.note_memory(store.data().used());
                Ok(Self { store, exports, id, limits, is_broken: false, calls: 0, marks })
            }
            Err(error) => {
                let message =
                    format!("its exports are not those of the WIT package ktables:codec: {error:#}");
                Err(Fault::contract(message).into())
            }
        }
    }

    /// Calls `describe`, which returns the component's description. Returns `None` if the component does not
    /// export the interface `plugin`.
    pub(super) fn describe(&mut self) -> Result<Option<wit::plugin::Info>, CallError> {
        self.begin_start_call();
        let Some(plugin) = &self.exports.plugin else { return Ok(None) };
        let info = with_guest_stack(|| plugin.call_describe(&mut self.store));
        info.map(Some).map_err(|error| self.start_call_error(&error))
    }

    /// Calls `configure`. The inner error is the component's message if it refuses its configuration. Does
    /// nothing if the component does not export the interface `plugin`.
    pub(super) fn configure(
        &mut self,
        context: wit::plugin::Context<'_>,
    ) -> Result<Result<(), String>, CallError> {
        self.begin_start_call();
        let Some(plugin) = &self.exports.plugin else { return Ok(Ok(())) };
        let answer = with_guest_stack(|| plugin.call_configure(&mut self.store, context));
        answer.map_err(|error| self.start_call_error(&error))
    }

    /// Returns the fuel that the instance has used since it was created, if its engine counts fuel.
    pub(super) fn fuel_used(&self) -> Option<u64> {
        self.store.get_fuel().ok().map(|left| FUEL - left)
    }

    /// Returns whether a new instance should replace this one.
    pub(super) fn needs_recycling(&self) -> bool {
        self.marks.are_reached(self.store.data().used(), self.calls, Instant::now())
    }

    /// Returns the memory that is charged to the instance, in bytes.
    pub(super) fn memory_used(&self) -> usize {
        self.store.data().used()
    }

    /// Returns whether an answer broke the contract, so that the instance must not be used again.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Returns a failure of the host if the engine's budget refused memory during the last call: with that
    /// memory, the guest might have answered differently.
    pub(super) fn budget_failure(&self) -> Option<HostFailure> {
        match self.store.data().exceeded {
            Some(ExceededLimit::Engine(budget)) => Some(budget_failure(budget)),
            _ => None,
        }
    }

    /// Sets the deadline for a call with this many records.
    fn begin_call(&mut self, records: usize) {
        self.calls += 1;
        let ticks = to_ticks(self.limits.deadline_for(records));
        let quick = ticks.min(QUICK_TICKS);
        self.store.set_epoch_deadline(quick);
        let state = self.store.data_mut();
        state.begin_call(Some(ticks - quick).filter(|&left| left > 0));
        state.missing_schemas = Some(MissingSchemas::default());
    }

    /// Takes what the last call needs before its answer counts: schemas that the host did not have.
    pub(super) fn take_need(&mut self) -> Option<Need> {
        let state = self.store.data_mut();
        let missing = state.missing_schemas.take().filter(|missing| !missing.is_empty())?;
        Some(state.schema_source.as_ref()?.clone().need(missing))
    }

    /// Ends a call, so that it no longer counts as a slow call of the component.
    pub(super) fn end_call(&mut self) {
        self.store.data_mut().slow = None;
    }

    /// Sets the deadline for `describe` or `configure`, which run once, before the first record.
    fn begin_start_call(&mut self) {
        self.store.set_epoch_deadline(to_ticks(self.limits.start_deadline));
        self.store.data_mut().begin_call(None);
    }

    fn call_error(&self, error: &wasmtime::Error, records: usize) -> CallError {
        classify(error, self.store.data(), &self.limits, self.limits.deadline_for(records))
    }

    fn start_call_error(&self, error: &wasmtime::Error) -> CallError {
        classify(error, self.store.data(), &self.limits, self.limits.start_deadline)
    }
}

/// Returns why an instance could not be created. This is a fault of the guest only if its code trapped or it
/// needs more memory than its limit. `classify` tells that limit from the engine's budget.
fn start_error(error: &wasmtime::Error, store: &Store<State>, limits: &Limits) -> CallError {
    let is_fault = error.downcast_ref::<wasmtime::Trap>().is_some()
        // The guest called an import, which failed.
        || error.downcast_ref::<wasmtime::WasmBacktrace>().is_some();
    if is_fault {
        return classify(error, store.data(), limits, limits.start_deadline);
    }
    if store.data().exceeded.is_some() {
        return limit_error(store.data(), limits);
    }
    CallError::Host(match error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>() {
        Some(_) => HostFailure::new(
            "cannot create an instance of the component now: this process already has the maximum number of \
             instances, try again later",
        ),
        None => HostFailure::cannot_start(format!("cannot create an instance of the component: {error:#}")),
    })
}

/// How many ticks a call may take before it counts as slow: the current one, and a whole one.
const QUICK_TICKS: u64 = 2;

/// The longest deadline, practically unlimited. Wasmtime adds it to the current tick, and the sum must not
/// overflow.
const MAX_TICKS: u64 = u64::MAX / 2;

/// Converts a deadline to ticks of the engine's epoch, rounded up.
fn to_ticks(deadline: Duration) -> u64 {
    let ticks = deadline.as_nanos().div_ceil(TICK.as_nanos());
    // One more, because a part of the current tick is already over.
    u64::try_from(ticks).unwrap_or(MAX_TICKS).min(MAX_TICKS) + 1
}
