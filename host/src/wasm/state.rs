//! What belongs to one instance: its share of the memory budget, what it may
//! still use, and its messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use wasmtime::{ResourceLimiter, Result};

use crate::codec::workers::Slow;
use crate::codec::{ComponentId, Rejection};
use crate::escape::{one_line, one_line_within};
use crate::wasm::bindings::v0_1::ktables::codec::{logging, types};
use crate::wasm::component::NAME_BYTES;
use crate::wasm::messages::{Admission, GuestMessages};

/// Bytes a table takes for each element: a pointer and what wasmtime keeps by it.
const TABLE_ELEMENT_BYTES: usize = 16;

/// Memory that all instances of an engine share.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    fn charge(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|&used| used <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Which bound a growth of memory ran into.
#[derive(Debug, Clone, Copy)]
pub(super) enum Exceeded {
    /// The instance's own limit: it would need this many bytes.
    Instance(usize),
    /// The engine's budget: this many bytes in all.
    Engine(usize),
}

/// The data of a store.
#[derive(Debug)]
pub(super) struct State {
    id: Arc<ComponentId>,
    limit: usize,
    used: usize,
    budget: Arc<Budget>,
    /// How many messages the component may still log.
    messages: Arc<GuestMessages>,
    /// The ticks that the current call may take once it is slow; `None` if it is slow already.
    pub(super) ticks_left: Option<u64>,
    /// That the current call is slow.
    pub(super) slow: Option<Slow>,
    /// The bound that the current call ran into.
    pub(super) exceeded: Option<Exceeded>,
    /// The last error the guest logged: its panic message, when it panics.
    pub(super) last_error: Option<String>,
}

impl State {
    pub(super) fn new(
        id: Arc<ComponentId>,
        limit: usize,
        budget: Arc<Budget>,
        messages: Arc<GuestMessages>,
    ) -> Self {
        Self {
            id,
            limit,
            used: 0,
            budget,
            messages,
            ticks_left: None,
            slow: None,
            exceeded: None,
            last_error: None,
        }
    }

    /// Forgets what the call before left. One that turns slow may take so many more ticks.
    pub(super) fn begin_call(&mut self, ticks_left: Option<u64>) {
        self.ticks_left = ticks_left;
        self.slow = None;
        self.exceeded = None;
        self.last_error = None;
    }

    /// Charges what the host keeps for the instance.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), ()> {
        if self.grow(bytes) { Ok(()) } else { Err(()) }
    }

    fn grow(&mut self, bytes: usize) -> bool {
        let need = self.used.saturating_add(bytes);
        if need > self.limit {
            self.exceeded = Some(Exceeded::Instance(need));
            return false;
        }
        if !self.budget.charge(bytes) {
            self.exceeded = Some(Exceeded::Engine(self.budget.limit));
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
        let elements = desired.saturating_sub(current);
        Ok(self.grow(elements.saturating_mul(TABLE_ELEMENT_BYTES)))
    }
}

impl types::Host for State {}

impl logging::Host for State {
    fn log(&mut self, level: logging::Level, message: String) {
        if level == logging::Level::Error {
            // No more of it is ever shown.
            let end = message.floor_char_boundary(Rejection::MESSAGE_BYTES);
            self.last_error = Some(message[..end].to_owned());
        }
        let component = one_line_within(&self.id.name, NAME_BYTES);
        let digest = &self.id.digest;
        let dropped = match self.messages.admit(Instant::now(), message.len()) {
            Admission::Dropped => return,
            Admission::Admitted { dropped } => dropped,
        };
        if dropped > 0 {
            tracing::warn!(
                target: "ktables::guest",
                %component,
                digest,
                "{dropped} messages of the component were dropped: they came too fast"
            );
        }
        let message = one_line(&message);
        match level {
            logging::Level::Trace => {
                tracing::trace!(target: "ktables::guest", %component, digest, "{message}")
            }
            logging::Level::Debug => {
                tracing::debug!(target: "ktables::guest", %component, digest, "{message}")
            }
            logging::Level::Info => tracing::info!(target: "ktables::guest", %component, digest, "{message}"),
            logging::Level::Warn => tracing::warn!(target: "ktables::guest", %component, digest, "{message}"),
            logging::Level::Error => {
                tracing::error!(target: "ktables::guest", %component, digest, "{message}")
            }
        }
    }
}
