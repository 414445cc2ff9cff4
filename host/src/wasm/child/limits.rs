//! The limit of a child's address space, and the cores that it may use.

use std::thread;

/// The address space of a child, without [`ADDRESS_SPACE_BYTES_PER_CORE`]: more than twice what compiling a
/// component with a Python interpreter takes on two cores (854 MiB, of which 395 MiB are resident).
const ADDRESS_SPACE_BYTES: u64 = 2 << 30;

/// The additional address space of a child for each core: the stack of one thread, and the allocator's
/// reserve for it.
const ADDRESS_SPACE_BYTES_PER_CORE: u64 = 32 << 20;

/// Returns the largest address space of a child on this machine, in bytes.
pub(super) fn address_space_bytes() -> u64 {
    ADDRESS_SPACE_BYTES + cores() * ADDRESS_SPACE_BYTES_PER_CORE
}

/// Returns the number of cores that this process may use.
pub(super) fn cores() -> u64 {
    thread::available_parallelism().map_or(1, usize::from) as u64
}
