//! The threads that codecs run on.
//!
//! One pool for the process, on purpose: decoding is bounded by the machine's
//! cores however many tables there are, and a guest that runs to its deadline
//! holds up a worker, never a thread of the caller's runtime. What waits in front
//! is bounded by whoever submits: a table has a fixed number of batches under way,
//! a writer one.

use std::sync::OnceLock;

use rayon::ThreadPool;
use tokio::sync::oneshot;

use crate::codec::HostFailure;

/// Runs codec work on a worker.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HostFailure> + Send + 'static,
) -> Result<T, HostFailure> {
    let (answer, result) = oneshot::channel();
    pool()?.spawn(move || {
        // Nobody may be waiting any more.
        let _ = answer.send(work());
    });
    let lost =
        |_| Err(HostFailure { reason: "a worker thread panicked; this is a defect of ktables".to_owned() });
    result.await.unwrap_or_else(lost)
}

fn pool() -> Result<&'static ThreadPool, HostFailure> {
    static POOL: OnceLock<Result<ThreadPool, HostFailure>> = OnceLock::new();
    let start = || {
        rayon::ThreadPoolBuilder::new()
            .thread_name(|index| format!("ktables-codec-{index}"))
            // The panic was printed, and the job's answer is gone: `run` says so.
            .panic_handler(|_| {})
            .build()
            .map_err(|error| HostFailure { reason: format!("no worker threads: {error}") })
    };
    POOL.get_or_init(start).as_ref().map_err(Clone::clone)
}
