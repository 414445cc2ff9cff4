//! The memory limit and the cores of a child process.

use std::thread;

/// The address space of a child: more than twice what compiling a component with a Python interpreter
/// takes on two cores (854 MiB, of which 395 MiB are resident), and for each core the stack and the
/// allocator's reserve of one thread.
const MEMORY_BYTES: u64 = 2 << 30;
const MEMORY_BYTES_PER_CORE: u64 = 32 << 20;

/// Returns the address space of a child on this machine, in bytes.
pub(super) fn memory_bytes() -> u64 {
    MEMORY_BYTES + cores() * MEMORY_BYTES_PER_CORE
}

/// Returns the number of cores that this process may use.
pub(super) fn cores() -> u64 {
    thread::available_parallelism().map_or(1, usize::from) as u64
}
