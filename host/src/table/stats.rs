//! What a table has read and holds, in numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use crate::codec::RejectKind;
use crate::log::{Offset, Partition};
use crate::table::mistake::{Mistakes, Tally};
use crate::table::resume::CheckpointStats;
use crate::table::view::View;

/// Counts that are published together with what they count.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    pub(super) records: u64,
    pub(super) tombstones: u64,
    pub(super) keyless: u64,
    pub(super) mistakes: Mistakes,
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

/// How far the loading of a generation is, in offsets: of those that compaction or
/// transactions left empty, no records come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    /// Offsets that were passed.
    pub done: u64,
    /// All of them, as of when loading began.
    pub of: u64,
    /// Since when it goes on.
    pub elapsed: Duration,
}

impl LoadProgress {
    /// The part that is done, from 0 to 1.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        if self.of == 0 { 1.0 } else { self.done as f64 / self.of as f64 }
    }

    /// How long it will take if it goes on like this; `None` before anything is done.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let fraction = self.fraction();
        let whole = self.elapsed.div_f64(fraction.max(f64::MIN_POSITIVE).max(1e-9));
        (fraction > 0.0).then(|| whole.saturating_sub(self.elapsed))
    }
}

impl fmt::Display for LoadProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} records, {:.0} %", self.done, self.of, self.fraction() * 100.0)?;
        self.remaining().map_or(Ok(()), |left| write!(f, ", {} s to go", left.as_secs()))
    }
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

    /// Takes a moment's numbers, but not those of a generation before: it is only served.
    pub(super) fn tell(&mut self, view: &View) {
        if view.generation < self.generation {
            return;
        }
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
    pub foreign: Tally,
    /// Records rejected, by kind.
    pub rejects: BTreeMap<RejectKind, u64>,
    /// Records that replaced one in another partition: [`Mistake::CrossPartition`](crate::table::Mistake::CrossPartition).
    pub cross_partition: Tally,
    /// Records that replaced one with a later timestamp: [`Mistake::Older`](crate::table::Mistake::Older).
    pub older: Tally,
    /// Records that another partitioner placed: [`Mistake::OtherPartitioner`](crate::table::Mistake::OtherPartitioner).
    pub other_partitioner: Tally,
    /// Bytes of all keys and values in the table.
    pub payload_bytes: u64,
    /// How far loading is; `None` when it is done.
    pub loading: Option<LoadProgress>,
    /// How long loading took; `None` while it goes on.
    pub catch_up: Option<Duration>,
    /// How many of the records were read while loading.
    pub replayed: u64,
    /// How the checkpoint fares, if one is kept.
    pub checkpoint: Option<CheckpointStats>,
    /// How far each partition is.
    pub partitions: Vec<PartitionProgress>,
}
