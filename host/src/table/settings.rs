//! The options of a table.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::table::clock::{Clock, SystemClock};

/// How long `start` waits, by default, for a table to be complete before it returns a degraded one.
pub const DEFAULT_CATCHUP_TIMEOUT: Duration = Duration::from_secs(30);

/// What a rejected record does to the entry of its key. A record with a null key, a foreign key, or a
/// key that cannot be decoded affects no entry; the last one halts a table with [`OnReject::Halt`].
#[cfg_attr(feature = "cli", derive(clap::ValueEnum, schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnReject {
    /// The entry stays as it was, with a notice that a newer record was rejected.
    #[default]
    Keep,
    /// The entry is removed, as if it had been deleted; the notice stays. Then the contents of a
    /// table never depend on whether the log was compacted.
    Remove,
    /// The table fails, and does not apply the record or any record after it.
    Halt,
}

/// What happens when a component keeps faulting: when more of the last 1,000 records than allowed made it fault, or when
/// its faulting calls of the last ten seconds, at least eight, took more than 5 s and more than half of the time of all
/// calls.
#[cfg_attr(feature = "cli", derive(clap::ValueEnum, schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnQuarantine {
    /// One record at a time is decoded or rejected, after a pause of a second, which doubles with each fault up to a
    /// minute, until 20 records in a row have passed. The table is degraded meanwhile.
    #[default]
    Probe,
    /// The table is degraded, and decodes nothing until its codecs are swapped.
    Wait,
    /// The table goes on decoding and rejecting records at full speed.
    Reject,
}

/// How many of the last 1,000 records may make a component fault, by default.
pub(crate) const DEFAULT_QUARANTINE_FAULTS: u32 = 100;

/// When a component is quarantined, and what happens then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QuarantineSettings {
    pub(super) on_quarantine: OnQuarantine,
    /// How many of the last 1,000 records may make a component fault.
    pub(super) quarantine_faults: u32,
}

impl Default for QuarantineSettings {
    fn default() -> Self {
        Self { on_quarantine: OnQuarantine::default(), quarantine_faults: DEFAULT_QUARANTINE_FAULTS }
    }
}

/// What happens when the dead-letter topic cannot be written.
#[cfg_attr(feature = "cli", derive(clap::ValueEnum, schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeadLetterOnError {
    /// The table is degraded, and applies no more records until the rejected ones are written.
    #[default]
    Wait,
    /// The table goes on, and counts the rejected records that were not kept.
    Continue,
}

/// The dead-letter topic of a table.
#[derive(Debug, Clone)]
pub(super) struct DeadLetterSettings {
    pub(super) topic: String,
    pub(super) on_error: DeadLetterOnError,
}

/// How long to wait before an operation that failed in the host is tried again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The options of a table.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) catchup_timeout: Duration,
    pub(super) on_reject: OnReject,
    pub(super) quarantine: QuarantineSettings,
    /// The dead-letter topic, if there is one.
    pub(super) dead_letters: Option<DeadLetterSettings>,
    /// The time to live: entries whose records are older are expired.
    pub(super) ttl: Option<Duration>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) checkpoint: CheckpointSettings,
    /// How many bytes the table may use.
    pub(super) memory_limit: Option<u64>,
}

impl Settings {
    /// Describes the settings that decide what the table holds, besides its codecs.
    pub(super) fn describe_contents(&self) -> String {
        format!("{:?} {:?}", self.on_reject, self.ttl)
    }
}

/// The checkpoint of a table.
#[derive(Debug, Clone, Default)]
pub(super) struct CheckpointSettings {
    /// Its folder; without one, there is no checkpoint.
    pub(super) folder: Option<PathBuf>,
    /// How old it may be; by default, the topic's `delete.retention.ms`.
    pub(super) max_age: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            catchup_timeout: DEFAULT_CATCHUP_TIMEOUT,
            on_reject: OnReject::default(),
            quarantine: QuarantineSettings::default(),
            dead_letters: None,
            ttl: None,
            clock: Arc::new(SystemClock),
            checkpoint: CheckpointSettings::default(),
            memory_limit: None,
        }
    }
}
