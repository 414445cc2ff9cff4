//! Threads of this library. Their stacks have a fixed size, whatever `RUST_MIN_STACK` says: a
//! guest may use a stack of its own size on any of them.

use std::io;
use std::thread::{Builder, JoinHandle};

/// The stack of a thread: Rust's default.
pub(crate) const STACK_BYTES: usize = 2 << 20;

/// Starts a thread with a name of at most 15 characters, which is what the system shows.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(work)
}

/// Does what may block: here, or beside the runtime that this thread belongs to.
#[cfg(feature = "kafka")]
pub(crate) fn aside(work: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        // Nobody waits for it.
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}
