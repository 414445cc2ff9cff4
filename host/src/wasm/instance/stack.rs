//! Stack space for guests.

use crate::wasm::config::STACK_BYTES;

/// The stack that the host needs in addition to the guest's, in bytes.
const HOST_STACK_BYTES: usize = 512 << 10;

/// Runs a guest on the caller's stack, or on a new one if too little of the caller's is left.
pub(in crate::wasm) fn with_guest_stack<T>(call: impl FnOnce() -> T) -> T {
    let needed = STACK_BYTES + HOST_STACK_BYTES;
    stacker::maybe_grow(needed, 2 * needed, call)
}
