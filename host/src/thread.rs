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

/// Runs what may take long, or block, on a thread for that; outside of a runtime, here. Returns at
/// once.
pub(crate) fn run_aside(work: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        // Nobody waits for the result.
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}

/// Runs long work of a task. On a runtime with several threads, other tasks continue on another
/// thread meanwhile, and this thread is not one of the runtime's while the work runs.
pub(crate) fn long<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    #[cfg(test)]
    LONG_CALLS.set(LONG_CALLS.get() + 1);
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
thread_local! {
    static LONG_CALLS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How often this thread has called [`long`].
#[cfg(test)]
pub(crate) fn long_calls() -> usize {
    LONG_CALLS.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    #[test]
    fn other_tasks_go_on_during_long_work() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let went_on = Arc::new(AtomicBool::new(false));
        let told = went_on.clone();
        let working = runtime.spawn(async move {
            tokio::spawn(async move { told.store(true, Ordering::Release) });
            long(|| {
                let until = Instant::now() + Duration::from_secs(60);
                while !went_on.load(Ordering::Acquire) && Instant::now() < until {
                    std::thread::yield_now();
                }
                went_on.load(Ordering::Acquire)
            })
        });
        assert!(runtime.block_on(working).unwrap(), "the only thread of the runtime was held up");
        assert_eq!(long(|| 1), 1, "outside of a runtime");
    }
}
