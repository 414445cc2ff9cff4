//! Starts the threads of this library. Their stacks have a fixed size, independent of `RUST_MIN_STACK`,
//! because a guest may need the full size of its own stack on any of them.

use std::io;
use std::thread::{Builder, JoinHandle};

/// The size of a thread's stack: Rust's default.
pub(crate) const STACK_BYTES: usize = 2 << 20;

/// Starts a thread. The system shows at most 15 characters of its name.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(work)
}

/// Starts work that may block or take long, on one of the runtime's threads for blocking work, and returns
/// at once. Outside of a runtime, and on a runtime that shuts down, runs the work on this thread.
pub(crate) fn run_in_background(work: impl FnOnce() + Send + 'static) {
    let work = RunOnDrop(Some(work));
    match tokio::runtime::Handle::try_current() {
        // Nobody waits for the result.
        Ok(runtime) => drop(runtime.spawn_blocking(move || drop(work))),
        Err(_) => drop(work),
    }
}

/// Work that runs when this is dropped: a runtime that shuts down drops what it was to run.
struct RunOnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for RunOnDrop<F> {
    fn drop(&mut self) {
        if let Some(work) = self.0.take() {
            work();
        }
    }
}

/// Runs long work of a task on this thread. On a runtime with several threads, another thread takes over the
/// other tasks meanwhile, and this thread does not belong to the runtime while the work runs.
pub(crate) fn run_long<T>(work: impl FnOnce() -> T) -> T {
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

/// Returns how often this thread has called [`run_long`].
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
    fn work_in_the_background_also_runs_while_a_runtime_shuts_down() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let _context = handle.enter();
        let has_run = Arc::new(AtomicBool::new(false));
        let flag = has_run.clone();
        run_in_background(move || flag.store(true, Ordering::Release));
        assert!(has_run.load(Ordering::Acquire));
    }

    #[test]
    fn other_tasks_continue_during_long_work() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let other_ran = Arc::new(AtomicBool::new(false));
        let flag = other_ran.clone();
        let working = runtime.spawn(async move {
            tokio::spawn(async move { flag.store(true, Ordering::Release) });
            run_long(|| {
                let until = Instant::now() + Duration::from_secs(60);
                while !other_ran.load(Ordering::Acquire) && Instant::now() < until {
                    std::thread::yield_now();
                }
                other_ran.load(Ordering::Acquire)
            })
        });
        assert!(runtime.block_on(working).unwrap(), "long work blocked the only thread of the runtime");
        assert_eq!(run_long(|| 1), 1, "outside of a runtime");
    }
}
