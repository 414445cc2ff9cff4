//! Runs jobs on the worker threads.

use std::sync::OnceLock;

use rayon::ThreadPool;
use tokio::sync::oneshot;

use crate::codec::HostFailure;
use crate::codec::workers::fair_pool::{self, Lane};
use crate::thread;

/// Runs work of the host on the host pool, and waits for its result.
pub(crate) async fn run_host<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HostFailure> {
    let (sender, result) = oneshot::channel();
    host_pool()?.spawn(move || {
        // OK to ignore: the caller may have stopped waiting.
        let _ = sender.send(work());
    });
    result.await.map_err(|_| worker_panicked())
}

/// Runs work in a lane, and waits for its result. It runs on the fair pool, or on the host pool if all codecs
/// are built in.
pub(crate) async fn run<T: Send + 'static>(
    lane: &Lane,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HostFailure> {
    if lane.is_host() {
        return run_host(work).await;
    }
    let (sender, result) = oneshot::channel();
    let job = move || {
        // A job does not start if its caller has stopped waiting.
        if !sender.is_closed() {
            let _ = sender.send(work());
        }
    };
    fair_pool::submit(lane, Box::new(job))?;
    result.await.map_err(|_| worker_panicked())
}

fn worker_panicked() -> HostFailure {
    HostFailure::new("a worker thread panicked: please report this defect of ktables")
}

fn host_pool() -> Result<&'static ThreadPool, HostFailure> {
    static POOL: OnceLock<Result<ThreadPool, HostFailure>> = OnceLock::new();
    let start = || {
        rayon::ThreadPoolBuilder::new()
            .stack_size(thread::STACK_BYTES)
            .thread_name(|index| format!("ktables-host-{index}"))
            // OK because the panic was printed, and `run` returns an error when it receives no result.
            .panic_handler(|_| {})
            .build()
            .map_err(|error| HostFailure::new(format!("cannot start host worker threads: {error}")))
    };
    POOL.get_or_init(start).as_ref().map_err(Clone::clone)
}
