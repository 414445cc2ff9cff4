//! The data of one instance: its share of the memory budget, and the state of its current call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use wasmtime::{ResourceLimiter, Result};

use crate::codec::ComponentId;
use crate::codec::workers::SlowCall;
use crate::registry::{MissingSchemas, SchemaSource};
use crate::wasm::guest_log::LogLimiter;
use crate::wasm::guest_output::GuestOutput;
use crate::wasm::scan::MAX_TABLE_ELEMENTS;
use crate::wasm::sealed_wasi::SealedWasi;

/// The bytes of a table element: a pointer, and wasmtime's own data for it.
const TABLE_ELEMENT_BYTES: usize = 16;

/// The memory budget that all instances of an engine share.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    /// Charges bytes to the budget. Returns false, and charges nothing, if they would exceed it.
    fn charge(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|&used| used <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The limit that a call would have exceeded with the memory it requested.
#[derive(Debug, Clone, Copy)]
pub(super) enum ExceededLimit {
    /// The limit of the instance; with the bytes that the instance would need.
    Instance(usize),
    /// The budget of the engine; with the bytes of the budget.
    Engine(usize),
    /// The elements of a table; with those that it would need.
    TableElements(usize),
}

/// The data of a store.
#[derive(Debug)]
pub(super) struct State {
    pub(super) id: Arc<ComponentId>,
    limit: usize,
    used: usize,
    budget: Arc<Budget>,
    /// The rate limit for the component's log messages.
    pub(super) log_limiter: Arc<LogLimiter>,
    /// How many ticks the current call may still take once it becomes slow; `None` if it is slow.
    pub(super) ticks_left: Option<u64>,
    /// Held while the current call is slow.
    pub(super) slow: Option<SlowCall>,
    /// The limit that the current call exceeded.
    pub(super) exceeded: Option<ExceededLimit>,
    /// What the guest wrote during the current call: its panic message, if it panicked.
    pub(super) output: GuestOutput,
    /// The state of WASI, if the guest has used it.
    pub(super) wasi: Option<Box<SealedWasi>>,
    /// Where the codec's schemas come from, if it has a schema registry.
    pub(super) schema_source: Option<Arc<dyn SchemaSource>>,
    /// The schemas that the current call asked for and the host does not have; `None` while no schema may be asked for.
    pub(super) missing_schemas: Option<MissingSchemas>,
    /// How long the host worked for the current call. The deadline does not count this time.
    host_time: Duration,
}

impl State {
    pub(super) fn new(
        id: Arc<ComponentId>,
        limit: usize,
        budget: Arc<Budget>,
        log_limiter: Arc<LogLimiter>,
        schema_source: Option<Arc<dyn SchemaSource>>,
    ) -> Self {
        Self {
            id,
            limit,
            used: 0,
            budget,
            log_limiter,
            ticks_left: None,
            slow: None,
            exceeded: None,
            output: GuestOutput::default(),
            wasi: None,
            schema_source,
            missing_schemas: None,
            host_time: Duration::ZERO,
        }
    }

    /// Returns the bytes that are charged to the instance.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Resets the state of the previous call. Once the new call becomes slow, it may take
    /// `ticks_left` more ticks.
    pub(super) fn begin_call(&mut self, ticks_left: Option<u64>) {
        self.ticks_left = ticks_left;
        self.slow = None;
        self.exceeded = None;
        self.output.clear();
        self.missing_schemas = None;
        self.host_time = Duration::ZERO;
    }

    /// Forgets that an earlier item of the call exceeded a limit of the instance. That the budget was exceeded is not
    /// forgotten: with that memory, the guest might have answered differently.
    pub(super) fn forget_own_limit(&mut self) {
        self.exceeded = self.exceeded.filter(|exceeded| matches!(exceeded, ExceededLimit::Engine(_)));
    }

    /// Runs the host's part of an import. The guest's deadline does not count this time.
    pub(super) fn run_import<T>(&mut self, import: impl FnOnce(&mut Self) -> T) -> T {
        let began = Instant::now();
        let result = import(self);
        self.host_time += began.elapsed();
        result
    }

    /// Returns how long the host has worked since the last call of this method, to extend the deadline by it.
    pub(super) fn take_host_time(&mut self) -> Duration {
        std::mem::take(&mut self.host_time)
    }

    /// Charges the bytes that the host keeps for the instance. Fails if they exceed a limit.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), ()> {
        if self.grow(bytes) { Ok(()) } else { Err(()) }
    }

    /// Charges bytes to the instance and to the engine's budget. Returns false, and remembers the limit, if
    /// they would exceed one.
    fn grow(&mut self, bytes: usize) -> bool {
        let need = self.used.saturating_add(bytes);
        if need > self.limit {
            self.exceeded = Some(ExceededLimit::Instance(need));
            return false;
        }
        if !self.budget.charge(bytes) {
            self.exceeded = Some(ExceededLimit::Engine(self.budget.limit));
            return false;
        }
        self.used = need;
        true
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.budget.release(self.used);
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        if desired as u64 > MAX_TABLE_ELEMENTS {
            self.exceeded = Some(ExceededLimit::TableElements(desired));
            return Ok(false);
        }
        let elements = desired.saturating_sub(current);
        Ok(self.grow(elements.saturating_mul(TABLE_ELEMENT_BYTES)))
    }
}
