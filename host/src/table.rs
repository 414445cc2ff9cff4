//! The table: a topic's newest value of each key, in memory.
//!
//! A `Generation` reads the partition streams of a log, has their batches decoded by
//! the codec workers (several at once, applied in the order of each partition), applies them to its
//! `View`, and publishes a clone of it, which shares everything that did not change. A read
//! takes the newest view, so it never waits, never sees half a batch, and can keep the view as a
//! [`Snapshot`] at no cost. The `supervisor` decides which generation is served.
//!
//! Progress counts what was applied: positions are part of the published view. This module names neither
//! Kafka nor wasmtime.
//!
//! The files, from the bottom up: what a table holds (`entry`, `reject`, `change`), the view and the
//! status, watching, what handles and tasks share, generations, the supervisor, the handle.

mod barrier;
mod builder;
mod change;
mod checkpointing;
mod clock;
mod dead_letters;
mod decoded;
#[cfg(feature = "cli")]
mod difference;
mod end_offsets;
mod entry;
mod error;
mod generation;
mod generation_state;
mod handle;
mod key_hash;
#[cfg(test)]
mod model;
mod place;
mod positions;
mod quarantine;
mod record_place;
mod reject;
mod resumer;
mod settings;
mod shared;
mod snapshot;
mod status;
mod supervisor;
mod swap;
mod swap_gate;
mod view;
mod watch;

pub use barrier::{Freshness, StaleReason};
pub use builder::TableBuilder;
pub use change::{Cause, Change};
pub use clock::{Clock, SystemClock};
#[cfg(feature = "cli")]
pub(crate) use dead_letters::{
    CompareLettersError, DeadLetterComparison, RetryError, RetryOptions, RetryOutcome, RetryResult, retry,
};
#[cfg(feature = "cli")]
pub(crate) use difference::Difference;
pub use entry::Entry;
pub use error::{ParseError, TableError};
pub use handle::Table;
pub use reject::{RecordPart, RejectNotice, RejectedRecord};
#[cfg(feature = "cli")]
pub(crate) use settings::DEFAULT_QUARANTINE_FAULTS;
pub use settings::{DEFAULT_CATCHUP_TIMEOUT, DeadLetterOnError, OnQuarantine, OnReject};
#[cfg(feature = "cli")]
pub(crate) use shared::CodecRevocation;
pub use snapshot::Snapshot;
pub use status::{
    AnomalyCount, CheckpointStats, DeadLetterStats, Latencies, Latency, LoadProgress, PartitionProgress,
    Stats, Status, WriterAnomaly,
};
pub use swap::PreparedSwap;
pub use watch::{
    InvalidToken, MAX_HISTORY_EFFECTS, WatchEvent, WatchFilter, WatchStart, WatchToken, Watcher,
};
