//! A decoded batch of records: decoding returns it, and a view applies it.

use crate::codec::RejectReason;
use crate::log::{Offset, Partition};
use crate::table::entry::Entry;
use crate::table::key_hash::KeyHash;
use crate::table::reject::RejectedRecord;

/// The decoded records of a batch, or of a part of one.
#[derive(Debug)]
pub(super) struct DecodedRecords {
    pub(super) partition: Partition,
    /// The offset after the last record.
    pub(super) next: Offset,
    /// The offset and the partitioner's hash of the first record that has a key.
    pub(super) first: Option<(Offset, i32)>,
    pub(super) outcomes: Vec<Outcome>,
    /// The bytes of all outcomes.
    bytes: usize,
}

/// The effect of a decoded record on a table.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Sets the value of a key.
    Set(Entry, KeyHash),
    /// Deletes a key. The tombstone is an entry without a value.
    Delete(Entry, KeyHash),
    /// No effect: the key is foreign to the group scheme.
    Foreign(Offset),
    /// The record is rejected.
    Reject(Box<RejectedRecord>),
}

impl DecodedRecords {
    pub(super) fn new(
        partition: Partition,
        next: Offset,
        first: Option<(Offset, i32)>,
        outcomes: Vec<Outcome>,
    ) -> Self {
        let bytes = outcomes.iter().map(Outcome::byte_len).sum();
        Self { partition, next, first, outcomes, bytes }
    }

    /// The bytes of the entries and rejects in it.
    pub(super) fn byte_len(&self) -> usize {
        self.bytes
    }

    /// Whether a codec faulted on the last record.
    pub(super) fn ends_with_fault(&self) -> bool {
        matches!(self.outcomes.last(), Some(Outcome::Reject(reject)) if reject.reason.kind.is_fault())
    }

    /// How many of the records a codec faulted over, and the last fault.
    pub(super) fn faults(&self) -> (u64, Option<&RejectReason>) {
        let faults = self.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Reject(reject) if reject.reason.kind.is_fault() => Some(&reject.reason),
            _ => None,
        });
        faults.fold((0, None), |(count, _), fault| (count + 1, Some(fault)))
    }

    /// Appends the records that directly follow in the partition.
    pub(super) fn append(&mut self, mut next: Self) {
        self.next = next.next;
        self.first = self.first.or(next.first);
        self.outcomes.append(&mut next.outcomes);
        self.bytes += next.bytes;
    }

    /// The offsets of the rejected records.
    pub(super) fn rejected_offsets(&self) -> Vec<Offset> {
        let rejected = self.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Reject(reject) => Some(reject.offset),
            _ => None,
        });
        rejected.collect()
    }
}

impl Outcome {
    fn byte_len(&self) -> usize {
        match self {
            Self::Set(entry, _) | Self::Delete(entry, _) => entry.byte_len(),
            Self::Foreign(_) => 0,
            Self::Reject(reject) => reject.byte_len(),
        }
    }

    /// The row that the record sets, or the entry that stands for the row it deletes.
    pub(super) fn row(&self) -> Option<(&Entry, KeyHash)> {
        match self {
            Self::Set(row, hash) | Self::Delete(row, hash) => Some((row, *hash)),
            Self::Foreign(_) | Self::Reject(_) => None,
        }
    }
}
