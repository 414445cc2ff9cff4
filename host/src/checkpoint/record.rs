//! What a table records in its checkpoint.

use std::sync::Arc;

use crate::log::{Offset, Partition, RecordBatch};

/// How many KiB of records may wait for the disk.
pub(super) const QUEUE_KIB: u32 = 32 * 1024;

/// Something that the table applies, and that the checkpoint records.
#[derive(Debug)]
pub(crate) enum CheckpointRecord {
    /// Records of the log, and the offsets of those that were rejected.
    Records(Arc<RecordBatch>, Vec<Offset>),
    /// The offsets of rejected records that are in the checkpoint already.
    Rejected(Partition, Vec<Offset>),
    /// All records of a partition below this offset were applied.
    Position(Partition, Offset),
    /// The log no longer holds the records of a partition below this offset.
    Start(Partition, Offset),
}

impl CheckpointRecord {
    /// The share of the queue that it takes, in KiB.
    pub(crate) fn queue_kib(&self) -> u32 {
        let bytes = match self {
            Self::Records(batch, _) => batch.byte_len(),
            Self::Rejected(..) | Self::Position(..) | Self::Start(..) => 0,
        };
        u32::try_from(bytes / 1024).unwrap_or(QUEUE_KIB).clamp(1, QUEUE_KIB)
    }
}
