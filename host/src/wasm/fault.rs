//! What a call into a guest can end with besides an answer.

use wasmtime::Trap;

use crate::codec::{HostFailure, RejectKind};
use crate::wasm::Limits;
use crate::wasm::engine::TICK;
use crate::wasm::state::{Exceeded, State};

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// The guest broke down or broke a rule; its instance is unusable.
    Fault(Fault),
    /// The host could not run it.
    Host(HostFailure),
}

/// How a guest broke down.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) kind: RejectKind,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(kind: RejectKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A guest that broke the contract.
    pub(super) fn contract(message: impl Into<String>) -> Self {
        Self::new(RejectKind::Contract, message)
    }
}

impl From<Fault> for CallError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// All components together use what they may.
pub(super) fn budget_spent(budget: usize) -> HostFailure {
    let reason = format!("all components together would use more than the memory budget of {budget} bytes");
    HostFailure { reason }
}

/// What an error of wasmtime says of a guest.
///
/// The limits are told apart by what the store remembers; of the errors of
/// lifting an answer, the one for its size has no public type, so its text is
/// looked at (a test holds it).
pub(super) fn classify(error: &wasmtime::Error, state: &State, limits: &Limits, records: usize) -> CallError {
    if let Some(Exceeded::Engine(budget)) = state.exceeded {
        return CallError::Host(budget_spent(budget));
    }
    if let Some(Exceeded::Instance(need)) = state.exceeded {
        return Fault::new(
            RejectKind::Memory,
            format!("needed {need} bytes of memory, allowed are {} (limits.memory)", limits.memory),
        )
        .into();
    }
    let text = format!("{:#}", error.root_cause());
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Fault::new(
            RejectKind::Deadline,
            format!(
                "ran for more than {:?} (limits.deadline, limits.deadline_per_record; checked every {TICK:?})",
                limits.deadline_for(records)
            ),
        ),
        Some(_) => match &state.last_error {
            // A panic's message, which says more than the trap behind it.
            Some(last) => Fault::new(RejectKind::Trap, last),
            None => Fault::new(RejectKind::Trap, text),
        },
        None if error.downcast_ref::<std::str::Utf8Error>().is_some() => {
            Fault::new(RejectKind::InvalidUtf8, format!("answered with text that is not UTF-8: {text}"))
        }
        None if text.starts_with("too much data is being copied") => Fault::new(
            RejectKind::Output,
            format!("answered with more than {} bytes in one call (four times limits.output)", limits.output_per_call()),
        ),
        None => Fault::contract(format!("answered with what cannot be read: {text}")),
    }
    .into()
}
