//! What a table has read and holds, in numbers.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::codec::RejectKind;
use crate::log::{Offset, Partition};
use crate::table::view::View;

/// Counts that are published together with what they count.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    pub(super) records: u64,
    pub(super) tombstones: u64,
    pub(super) keyless: u64,
    pub(super) foreign: u64,
    pub(super) cross_partition: u64,
    pub(super) payload_bytes: u64,
    pub(super) rejects: BTreeMap<RejectKind, u64>,
}

impl Counters {
    pub(super) fn rejected(&mut self, kind: RejectKind) {
        match kind {
            RejectKind::Keyless => self.keyless += 1,
            kind => *self.rejects.entry(kind).or_default() += 1,
        }
    }
}

/// How far a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionProgress {
    /// The partition.
    pub partition: Partition,
    /// The next offset to be applied.
    pub position: Offset,
    /// Where loading began.
    pub start: Offset,
    /// The offset that loading had to reach: the end when it began.
    pub target: Offset,
}

/// How far a generation is: told apart from its rows, which nobody may see before it is
/// loaded.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    pub(super) generation: u64,
    pub(super) counters: Counters,
    /// For each partition the next offset to be applied.
    pub(super) positions: Vec<Offset>,
    pub(super) entries: usize,
    pub(super) groups: usize,
}

impl Progress {
    pub(super) fn of(view: &View) -> Self {
        let mut progress = Self::default();
        progress.tell(view);
        progress
    }

    /// Takes a moment's numbers.
    pub(super) fn tell(&mut self, view: &View) {
        self.generation = view.generation;
        self.counters.clone_from(&view.counters);
        self.positions.clear();
        self.positions.extend_from_slice(view.positions());
        self.entries = view.rows().len();
        self.groups = view.rows().group_count();
    }
}

/// What a table has read since its generation began, and holds. While another
/// generation is loaded, these are its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Since when the table's status is what it is.
    pub status_since: SystemTime,
    /// Counts from 1; another one begins when the topic is replaced.
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
    /// Records whose key is foreign to the group scheme.
    pub foreign: u64,
    /// Records rejected, by kind.
    pub rejects: BTreeMap<RejectKind, u64>,
    /// Records that replaced one in another partition: the topic's writers
    /// disagree on the partitioner, and which of their records is last is chance.
    pub cross_partition: u64,
    /// Bytes of all keys and values in the table.
    pub payload_bytes: u64,
    /// How long loading took; `None` while it goes on.
    pub catch_up: Option<Duration>,
    /// How many of the records were read while loading.
    pub replayed: u64,
    /// How far each partition is.
    pub partitions: Vec<PartitionProgress>,
}
