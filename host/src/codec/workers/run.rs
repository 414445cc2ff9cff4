//! Running jobs on the workers.

use std::sync::OnceLock;

use rayon::ThreadPool;
use tokio::sync::oneshot;

use crate::codec::HostFailure;
use crate::codec::workers::fair_pool::{self, Lane};
use crate::thread;

/// Runs work of the host on the host pool.
pub(crate) async fn run_host<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HostFailure> {
    let (answer, result) = oneshot::channel();
    host_pool()?.spawn(move || {
        // The caller may have stopped waiting.
        let _ = answer.send(work());
    });
    result.await.map_err(|_| panicked())
}

/// Runs work in a lane: on the fair pool, or on the host pool if all codecs are built in.
pub(crate) async fn run<T: Send + 'static>(
    lane: &Lane,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HostFailure> {
    if lane.is_host() {
        return run_host(work).await;
    }
    let (answer, result) = oneshot::channel();
    let job = move || {
        // A job whose caller has stopped waiting is not begun.
        if !answer.is_closed() {
            let _ = answer.send(work());
        }
    };
    fair_pool::submit(lane, Box::new(job))?;
    result.await.map_err(|_| panicked())
}

fn panicked() -> HostFailure {
    HostFailure { reason: "a worker thread panicked; this is a defect of ktables".to_owned() }
}

fn host_pool() -> Result<&'static ThreadPool, HostFailure> {
    static POOL: OnceLock<Result<ThreadPool, HostFailure>> = OnceLock::new();
    let start = || {
        rayon::ThreadPoolBuilder::new()
            .stack_size(thread::STACK_BYTES)
            .thread_name(|index| format!("ktables-host-{index}"))
            // The panic was printed, and `run` reports that there is no answer.
            .panic_handler(|_| {})
            .build()
            .map_err(|error| HostFailure { reason: format!("cannot start worker threads: {error}") })
    };
    POOL.get_or_init(start).as_ref().map_err(Clone::clone)
}
