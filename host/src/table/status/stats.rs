//! Statistics: what a table has read and what it holds.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::codec::RejectKind;
use crate::log::{Offset, Partition};
use crate::table::status::anomaly::AnomalyCount;

/// How far a table has applied a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionProgress {
    /// The partition.
    pub partition: Partition,
    /// The next offset to apply.
    pub position: Offset,
    /// The offset at which loading began.
    pub start: Offset,
    /// The offset that loading had to reach: the end offset when loading began.
    pub target: Offset,
}

/// The progress of loading a generation, in offsets. Offsets that compaction and transactions left empty
/// count, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadProgress {
    /// Offsets that were applied.
    pub done: u64,
    /// Offsets that were to be applied when loading began.
    pub total: u64,
    /// The time since loading began.
    pub elapsed: Duration,
}

impl LoadProgress {
    /// Returns the part that is done, from 0 to 1.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        if self.total == 0 { 1.0 } else { self.done as f64 / self.total as f64 }
    }

    /// Returns the estimated time until loading is done; `None` before anything was applied.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let fraction = self.fraction();
        let whole = self.elapsed.div_f64(fraction.max(f64::MIN_POSITIVE).max(1e-9));
        (fraction > 0.0).then(|| whole.saturating_sub(self.elapsed))
    }
}

impl fmt::Display for LoadProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} offsets, {:.0} %", self.done, self.total, self.fraction() * 100.0)?;
        self.remaining().map_or(Ok(()), |left| write!(f, ", {} s to go", left.as_secs()))
    }
}

/// The state of a table's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointStats {
    /// The folder of the checkpoint.
    pub folder: PathBuf,
    /// How many records the table loaded from it.
    pub loaded: u64,
    /// Why it was not used, so that the whole topic was replayed; `None` if it was used.
    pub unused: Option<Arc<str>>,
    /// The time as of which the checkpoint on the disk is complete; `None` if there is none yet.
    pub as_of: Option<SystemTime>,
    /// Its size on the disk, in bytes.
    pub bytes: u64,
    /// Why it is no longer written; `None` if it is.
    pub failed: Option<Arc<str>>,
}

/// The rejected records of a table with a dead-letter topic, since the table was started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterStats {
    /// The dead-letter topic.
    pub topic: String,
    /// Records that were written to it.
    pub written: u64,
    /// Records that were rejected, and that it held already.
    pub already_written: u64,
    /// Records that wait to be written.
    pub waiting: u64,
    /// Records that are lost, because the topic could not be written, or refused them.
    pub lost: u64,
}

/// What a table has read since the served generation began, and what it holds. While no generation is
/// served, these are the numbers of the one that is being loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The time since which the table has had its status.
    pub status_since: SystemTime,
    /// Since when the table has not been caught up; `None` while it is.
    pub stale_since: Option<SystemTime>,
    /// The number of the generation, from 1. Another generation is loaded when the topic is
    /// re-created or the codecs are swapped.
    pub generation: u64,
    /// Entries in the table.
    pub entries: u64,
    /// Groups that have members; 0 while the table is loaded for the first time.
    pub groups: u64,
    /// Records read.
    pub records: u64,
    /// Records with a null value.
    pub tombstones: u64,
    /// Records with a null key.
    pub keyless: u64,
    /// Records rejected, by kind.
    pub rejects: BTreeMap<RejectKind, u64>,
    /// Records with a key that is foreign to the group scheme.
    pub foreign: AnomalyCount,
    /// Records that replaced one in another partition:
    /// [`WriterAnomaly::CrossPartition`](crate::table::WriterAnomaly::CrossPartition).
    pub cross_partition: AnomalyCount,
    /// Records that replaced one with a later timestamp:
    /// [`WriterAnomaly::OlderTimestamp`](crate::table::WriterAnomaly::OlderTimestamp).
    pub older: AnomalyCount,
    /// Records that another partitioner placed:
    /// [`WriterAnomaly::OtherPartitioner`](crate::table::WriterAnomaly::OtherPartitioner).
    pub other_partitioner: AnomalyCount,
    /// The bytes of all keys and values in the table.
    pub payload_bytes: u64,
    /// The progress of the generation that is being loaded, either the first one or one that will replace
    /// the served one; `None` if none is being loaded.
    pub loading: Option<LoadProgress>,
    /// How long loading took; `None` until it is done.
    pub catch_up: Option<Duration>,
    /// How many of the records were read while loading.
    pub replayed: u64,
    /// The state of the checkpoint, if the table has one.
    pub checkpoint: Option<CheckpointStats>,
    /// What became of rejected records, if the table has a dead-letter topic.
    pub dead_letters: Option<DeadLetterStats>,
    /// How far each partition was applied.
    pub partitions: Vec<PartitionProgress>,
}
