//! Stack space for guests.

use crate::wasm::config::STACK_BYTES;

/// The stack that the host needs besides the guest's.
const HOST_STACK_BYTES: usize = 512 << 10;

/// Runs a guest on the caller's stack, or on another one if the caller's has too little room.
pub(in crate::wasm) fn on_guest_stack<T>(call: impl FnOnce() -> T) -> T {
    let needed = STACK_BYTES + HOST_STACK_BYTES;
    stacker::maybe_grow(needed, 2 * needed, call)
}
