//! The threads that codecs run on.
//!
//! A process has two pools. Work of the host (built-in codecs, except for small batches, and sorting) runs on
//! the *host pool*, which has one thread for each core, and never waits for a guest. Components and native
//! codecs of users run on the
//! *fair pool*:
//!
//! - Jobs queue in *lanes*, one for each component (or native codec) and purpose. Within a lane, tables take
//!   turns.
//! - While a job of a lane has been running for longer than [`TICK`], the lane starts no other job. A guest
//!   call that becomes that slow pauses while another call of its component and purpose is slow, so the
//!   slow calls of a component use one core for each purpose, after the first ticks. After a slow job, a lane whose other jobs wait
//!   runs one job at a time until a job is quick again.
//! - As many quick jobs run at once as there are cores. Slow jobs do not count: the pool adds a thread for
//!   each of them, up to 64 threads, and the operating system shares the cores between them.
//!
//! Callers bound the number of waiting jobs: a table has two batches in flight for each partition, and each
//! call of a writer has one.

mod fair_pool;
mod purpose;
mod run;
#[cfg_attr(not(feature = "wasm"), allow(dead_code, reason = "only components make slow calls"))]
mod slow_calls;

pub(crate) use fair_pool::{Lane, TICK};
pub(crate) use purpose::Purpose;
pub(crate) use run::{run_codecs, run_host};
#[cfg(feature = "wasm")]
pub(crate) use slow_calls::{SlowCall, SlowCalls};
