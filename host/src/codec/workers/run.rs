//! Runs jobs on the worker threads.

use std::sync::OnceLock;

use rayon::ThreadPool;
use tokio::sync::oneshot;

use crate::codec::HostFailure;
use crate::codec::workers::fair_pool::{self, Lane};
use crate::thread;

/// How often work is run again because codecs need something else.
const MAX_RUNS: usize = 10;

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

/// Runs work that calls codecs, and waits for its result. If a codec needs something first, obtains it without keeping a
/// worker, and runs the work again.
pub(crate) async fn run_codecs<T: Send + 'static>(
    lane: &Lane,
    work: impl Fn() -> Result<T, HostFailure> + Clone + Send + 'static,
) -> Result<T, HostFailure> {
    for _ in 0..MAX_RUNS {
        let need = match run(lane, work.clone()).await.flatten() {
            Err(HostFailure { need: Some(need), .. }) => need,
            result => return result,
        };
        need.obtain().await.map_err(HostFailure::new)?;
    }
    Err(HostFailure::new(format!(
        "the codec asked for other schemas in each of {MAX_RUNS} calls with the same records, so they were not decoded"
    )))
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
