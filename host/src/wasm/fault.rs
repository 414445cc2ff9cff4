//! The errors of a call to a guest.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use rustc_demangle::demangle;
use wasmtime::{FrameInfo, Trap, WasmBacktrace};

use crate::codec::workers::TICK;
use crate::codec::{HostFailure, RejectKind, TrapDetails};
use crate::escape::escape_name;
use crate::wasm::guest_output::LastWords;
use crate::wasm::imports::describe_error;
use crate::wasm::limits::Limits;
use crate::wasm::scan::MAX_TABLE_ELEMENTS;
use crate::wasm::state::{ExceededLimit, State};

/// The most functions of a backtrace that are kept, and the longest name of one, in bytes.
const MAX_FRAMES: usize = 20;
const MAX_FUNCTION_NAME: usize = 200;

/// Why a call failed.
#[derive(Debug)]
pub(super) enum CallError {
    /// The guest trapped or broke the contract. Its instance must not be used again.
    Fault(Fault),
    /// The host could not run the call.
    Host(HostFailure),
}

/// The fault of a guest.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) kind: RejectKind,
    pub(super) message: String,
    /// Where the guest was, if it trapped.
    pub(super) trap: Option<Arc<TrapDetails>>,
}

impl Fault {
    pub(super) fn new(kind: RejectKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), trap: None }
    }

    /// Creates the fault of a guest that broke the contract.
    pub(super) fn contract(message: impl Into<String>) -> Self {
        Self::new(RejectKind::Contract, message)
    }

    /// Creates the fault of a guest that answered with more bytes than one call may return.
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

/// Returns the failure of the host when all components together have used up the memory budget.
pub(super) fn budget_failure(budget: usize) -> HostFailure {
    let reason = format!(
        "all components together would use more than the memory budget of {budget} bytes (`component_memory` in \
         `[limits]`)"
    );
    HostFailure::new(reason)
}

/// Returns the error of a guest that requested more memory than its limit or the budget allows.
pub(super) fn limit_error(state: &State, limits: &Limits) -> CallError {
    match state.exceeded {
        Some(ExceededLimit::Instance(need)) => Fault::new(
            RejectKind::Memory,
            format!("needed {need} bytes of memory, at most {} are allowed (limits.memory)", limits.memory),
        )
        .into(),
        Some(ExceededLimit::Engine(budget)) => CallError::Host(budget_failure(budget)),
        Some(ExceededLimit::TableElements(need)) => Fault::new(
            RejectKind::Memory,
            format!("needed a table of {need} elements, at most {MAX_TABLE_ELEMENTS} are allowed"),
        )
        .into(),
        None => Fault::new(RejectKind::Memory, "needed more memory than the host can allocate").into(),
    }
}

/// Classifies an error of wasmtime.
///
/// The store's data says which memory limit was exceeded. Wasmtime has no public type for the error that an
/// answer is too large, so this function matches its text; a test fails if the text changes.
pub(super) fn classify(
    error: &wasmtime::Error,
    state: &State,
    limits: &Limits,
    deadline: Duration,
) -> CallError {
    match classify_error(error, state, limits, deadline) {
        CallError::Fault(fault) => Fault { trap: trap_details(error).map(Arc::new), ..fault }.into(),
        failure @ CallError::Host(_) => failure,
    }
}

/// Returns where a guest was when it trapped, or when its import failed.
fn trap_details(error: &wasmtime::Error) -> Option<TrapDetails> {
    let code = error.downcast_ref::<Trap>().map(|trap| format!("{trap:?}"));
    let frames = error.downcast_ref::<WasmBacktrace>().map_or(&[][..], WasmBacktrace::frames);
    let backtrace: Vec<String> = frames.iter().take(MAX_FRAMES).map(describe_frame).collect();
    (code.is_some() || !backtrace.is_empty()).then(|| {
        let mut details = TrapDetails::default();
        (details.code, details.backtrace) = (code, backtrace);
        details
    })
}

/// Describes a function that was running, with its name if the component has names.
fn describe_frame(frame: &FrameInfo) -> String {
    let name = match frame.func_name() {
        Some(name) => {
            let mut text = Bounded(String::new());
            // OK to ignore: it ends with an error when there is no more room.
            let _ = write!(text, "{:#}", demangle(truncate(name, 10 * MAX_FUNCTION_NAME)));
            truncate(&escape_name(&text.0).to_string(), MAX_FUNCTION_NAME).to_owned()
        }
        None => format!("function {}", frame.func_index()),
    };
    match frame.module_offset() {
        Some(offset) => format!("{name} at {offset:#x}"),
        None => name,
    }
}

/// A text of at most [`MAX_FUNCTION_NAME`] bytes. A name that a guest chooses can be demangled to megabytes.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX_FUNCTION_NAME - self.0.len();
        self.0.push_str(truncate(text, room));
        if text.len() > room { Err(fmt::Error) } else { Ok(()) }
    }
}

/// Returns the first bytes of a text, at most this many.
fn truncate(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// Whether an error can be the consequence of refused memory. Other faults have their own reason.
fn may_lack_memory(error: &wasmtime::Error) -> bool {
    match error.downcast_ref::<Trap>() {
        Some(trap) => matches!(trap, Trap::UnreachableCodeReached | Trap::MemoryOutOfBounds),
        // It called an import which failed, to exit for example, or `cabi_realloc` returned no address.
        None => {
            error.downcast_ref::<WasmBacktrace>().is_some()
                || error.root_cause().to_string().starts_with("realloc return")
        }
    }
}

/// Does what [`classify`] does, except for the details of the trap.
fn classify_error(error: &wasmtime::Error, state: &State, limits: &Limits, deadline: Duration) -> CallError {
    match state.exceeded {
        // With that memory, the guest might have answered differently.
        Some(ExceededLimit::Engine(_)) => return limit_error(state, limits),
        Some(_) if may_lack_memory(error) => return limit_error(state, limits),
        _ => {}
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
        Some(Trap::CannotLeaveComponent) => with_output(
            format!("{text}: `cabi_realloc` and the functions `cabi_post_…` cannot call imports, to print for example"),
            &state.output.take().text,
        ),
        Some(trap) => trap_fault(*trap, text, state.output.take()),
        // The error has a backtrace if an import failed, and none if the host could not read an answer.
        None if error.downcast_ref::<WasmBacktrace>().is_none()
            && error.downcast_ref::<std::str::Utf8Error>().is_some() =>
        {
            Fault::new(RejectKind::InvalidUtf8, format!("answered with text that is not UTF-8: {text}"))
        }
        None if error.downcast_ref::<WasmBacktrace>().is_some() => {
            let end = describe_error(error).unwrap_or_else(|| format!("called an import wrongly: {text}"));
            with_output(end, &state.output.take().text)
        }
        None if text.starts_with("too much data is being copied") => Fault::too_much_output(limits),
        None => Fault::contract(format!("answered with something that the host cannot read: {text}")),
    }
    .into()
}

/// Returns the fault of a guest that trapped after it wrote this.
fn trap_fault(trap: Trap, text: String, last_words: LastWords) -> Fault {
    // A panic or an exception ends with this trap, and its message says more.
    if trap == Trap::UnreachableCodeReached && last_words.ends_with_error && !last_words.text.is_empty() {
        return Fault::new(RejectKind::Trap, last_words.text);
    }
    with_output(text, &last_words.text)
}

/// Returns the fault of a guest that ended this way, with what it wrote.
fn with_output(end: String, output: &str) -> Fault {
    let message = if output.is_empty() { end } else { format!("{end}; it printed: {output}") };
    Fault::new(RejectKind::Trap, message)
}
