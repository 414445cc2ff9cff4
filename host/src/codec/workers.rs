//! The threads that codecs run on.
//!
//! There are two pools in a process, on purpose. What is ours (built-in codecs, sorting) runs on
//! the *host pool*, a thread for each core, and never waits behind a guest. Codecs of others,
//! components and native ones, run on the *guest pool*, which is fair:
//!
//! - Work queues in *lanes*, one for each component (or native codec) and purpose, and within a
//!   lane each table has its turn.
//! - While a job of a lane has run for longer than [`TICK`], the lane starts no other. A guest
//!   call that gets there while another call of its component and purpose is there waits, so
//!   that a component never holds more than one core for longer. After a slow job, a lane runs one
//!   job at a time until one is quick again.
//! - As many quick jobs run at once as there are cores. Jobs that turn out to be slow do not count:
//!   for each there is another thread, up to [`MAX_THREADS`], and the operating system shares the
//!   cores between them.
//!
//! What waits in front is bounded by whoever submits: a table has a fixed number of batches under
//! way, a writer one.

mod guest;
#[cfg_attr(not(feature = "wasm"), allow(dead_code, reason = "only guests are slow"))]
mod slow;

use std::sync::OnceLock;

use rayon::ThreadPool;
use tokio::sync::oneshot;

pub(crate) use guest::{Lane, TICK};
#[cfg(feature = "wasm")]
pub(crate) use slow::{Slow, SlowCalls};

use crate::codec::HostFailure;
use crate::thread;

/// The most threads of the guest pool: enough that dozens of components may loop at once beside
/// one that does not.
const MAX_THREADS: usize = 64;

/// What a job is for. Writers do not wait behind tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Decoding records for a table.
    Read,
    /// Encoding and checking writes.
    Write,
}

/// Runs work of ours on the host pool.
pub(crate) async fn run_host<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HostFailure> {
    let (answer, result) = oneshot::channel();
    host_pool()?.spawn(move || {
        // Nobody may be waiting any more.
        let _ = answer.send(work());
    });
    result.await.map_err(|_| panicked())
}

/// Runs work in a lane: on the guest pool, or on the host pool if all codecs are built in.
pub(crate) async fn run<T: Send + 'static>(
    lane: &Lane,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HostFailure> {
    if lane.is_host() {
        return run_host(work).await;
    }
    let (answer, result) = oneshot::channel();
    let job = move || {
        // A job that nobody waits for any more is not begun.
        if !answer.is_closed() {
            let _ = answer.send(work());
        }
    };
    guest::submit(lane, Box::new(job))?;
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
            // The panic was printed, and the job's answer is gone: `run` says so.
            .panic_handler(|_| {})
            .build()
            .map_err(|error| HostFailure { reason: format!("no worker threads: {error}") })
    };
    POOL.get_or_init(start).as_ref().map_err(Clone::clone)
}
