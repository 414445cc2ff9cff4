//! How a table is to behave.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::table::clock::{Clock, SystemClock};

/// How long `start` waits for a table to be complete before it gives up and
/// returns a degraded one.
pub const CATCHUP_TIMEOUT: Duration = Duration::from_secs(30);

/// What a rejected record does to the entry of its key. A record without a key, and one
/// whose key is foreign or cannot be decoded, concerns no entry; the latter halts.
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnReject {
    /// The entry stays what it was, and says that a newer record was rejected.
    #[default]
    Keep,
    /// The entry goes, as if it had been deleted; its notice stays. What a table holds
    /// never depends on whether the log was compacted.
    Remove,
    /// The table fails, and stands still before the record.
    Halt,
}

/// How a table is to behave.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) catchup_timeout: Duration,
    pub(super) on_reject: OnReject,
    /// Entries whose records are older are expired.
    pub(super) ttl: Option<Duration>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) checkpoint: Option<CheckpointSettings>,
    /// How many bytes the table may take.
    pub(super) memory_limit: Option<u64>,
}

/// Where a checkpoint is kept.
#[derive(Debug, Clone)]
pub(super) struct CheckpointSettings {
    pub(super) folder: PathBuf,
    /// How old it may be; the topic's `delete.retention.ms` if not given.
    pub(super) max_age: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            catchup_timeout: CATCHUP_TIMEOUT,
            on_reject: OnReject::default(),
            ttl: None,
            clock: Arc::new(SystemClock),
            checkpoint: None,
            memory_limit: None,
        }
    }
}
