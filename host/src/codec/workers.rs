//! The threads that codecs run on.
//!
//! A process has two pools. Work of the host (built-in codecs, sorting) runs on the *host pool*, one
//! thread for each core, and never waits for a guest. Components and native codecs of users run on the
//! *fair pool*:
//!
//! - Jobs queue in *lanes*, one for each component (or native codec) and purpose. Within a lane, tables
//!   take turns.
//! - While a job of a lane has run for longer than [`TICK`], the lane starts no other job. A guest call
//!   that becomes that slow waits while another call of its component and purpose is slow, so a component
//!   never uses more than one core for longer. After a slow job, a lane runs one job at a time until one
//!   is quick again.
//! - As many quick jobs run at once as there are cores. Slow jobs do not count: for each there is another
//!   thread, up to 64, and the operating system shares the cores between them.
//!
//! Callers bound the number of waiting jobs: a table has a fixed number of batches in flight, a writer
//! one.

mod fair_pool;
mod purpose;
mod run;
#[cfg_attr(not(feature = "wasm"), allow(dead_code, reason = "only guests are slow"))]
mod slow_calls;

pub(crate) use fair_pool::{Lane, TICK};
pub(crate) use purpose::Purpose;
pub(crate) use run::{run, run_host};
#[cfg(feature = "wasm")]
pub(crate) use slow_calls::{SlowCall, SlowCalls};
