//! What a child process may use.

use std::thread;

/// The address space of a child: more than twice what compiling a component with a Python
/// interpreter takes on two cores (854 MiB, of which it uses 395), and the stack and the
/// allocator's reserve of a thread for each core.
const MEMORY_BYTES: u64 = 2 << 30;
const MEMORY_BYTES_PER_CORE: u64 = 32 << 20;

/// The address space of a child on this machine, in bytes.
pub(super) fn memory_bytes() -> u64 {
    MEMORY_BYTES + cores() * MEMORY_BYTES_PER_CORE
}

/// The number of cores that this process may use.
pub(super) fn cores() -> u64 {
    thread::available_parallelism().map_or(1, usize::from) as u64
}
