//! What a call into a guest can end with besides an answer.

use std::time::Duration;

use wasmtime::Trap;

use crate::codec::workers::TICK;
use crate::codec::{HostFailure, RejectKind};
use crate::wasm::Limits;
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

    /// A guest that answered with more than one call may return.
    pub(super) fn too_much_output(limits: &Limits) -> Self {
        let bytes = limits.output_per_call();
        let message = format!("answered with more than {bytes} bytes in one call (four times limits.output)");
        Self::new(RejectKind::Output, message)
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

/// What it means that a guest wanted more memory than there is for it.
pub(super) fn exceeded(state: &State, limits: &Limits) -> CallError {
    match state.exceeded {
        Some(Exceeded::Instance(need)) => Fault::new(
            RejectKind::Memory,
            format!("needed {need} bytes of memory, allowed are {} (limits.memory)", limits.memory),
        )
        .into(),
        Some(Exceeded::Engine(budget)) => CallError::Host(budget_spent(budget)),
        None => Fault::new(RejectKind::Memory, "needed more memory than there is").into(),
    }
}

/// What an error of wasmtime says of a guest.
///
/// The limits are told apart by what the store remembers; of the errors of
/// lifting an answer, the one for its size has no public type, so its text is
/// looked at (a test holds it).
pub(super) fn classify(
    error: &wasmtime::Error,
    state: &State,
    limits: &Limits,
    deadline: Duration,
) -> CallError {
    if state.exceeded.is_some() {
        return exceeded(state, limits);
    }
    let text = format!("{:#}", error.root_cause());
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Fault::new(
            RejectKind::Deadline,
            format!(
                "ran for more than {deadline:?} (limits.deadline, limits.deadline_per_record, \
                 limits.start_deadline; checked every {TICK:?})"
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
        None if text.starts_with("too much data is being copied") => Fault::too_much_output(limits),
        None => Fault::contract(format!("answered with what cannot be read: {text}")),
    }
    .into()
}
