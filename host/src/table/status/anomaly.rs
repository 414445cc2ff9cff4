//! Anomalies of a topic's writers that a table notices.

use std::fmt;

use crate::log::{Offset, Partition};
use crate::table::entry::Entry;
use crate::table::record_place::RecordPlace;

/// How far apart, in milliseconds, the clocks of writers may be. Clocks that NTP keeps differ by
/// less.
const CLOCK_SKEW_MILLIS: i64 = 1000;

/// Something about a record that suggests that a writer of its topic is misconfigured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriterAnomaly {
    /// The key is foreign to the group scheme: somebody else writes to the topic, too.
    ForeignKey,
    /// The record replaced one of the same key in another partition. Writers use different partitioners,
    /// or partitions were added. Which of the records is applied last is a matter of chance.
    CrossPartition,
    /// The record replaced one whose timestamp is later by more than a second: the clocks of
    /// writers differ.
    OlderTimestamp,
    /// The record is in another partition than Java's default partitioner (murmur2) chooses. A
    /// table checks only the first record with a key of each batch that it decodes (up to 1,024 records), so
    /// the count is a sample.
    OtherPartitioner,
}

/// How often an anomaly was seen, and where first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnomalyCount {
    /// How often it was seen.
    pub count: u64,
    /// Partition and offset of the first record.
    pub first: Option<(Partition, Offset)>,
}

/// The counts of all anomalies.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::table) struct AnomalyCounts {
    pub(in crate::table) foreign: AnomalyCount,
    pub(in crate::table) cross_partition: AnomalyCount,
    pub(in crate::table) older: AnomalyCount,
    pub(in crate::table) other_partitioner: AnomalyCount,
}

impl WriterAnomaly {
    /// Returns the anomalies that the record at `place` shows, which replaces or deletes `old`.
    pub(in crate::table) fn of_replacement(old: &Entry, place: RecordPlace) -> impl Iterator<Item = Self> {
        let is_cross_partition = old.partition() != place.partition;
        let is_older = match (old.timestamp(), place.timestamp) {
            (Some(old), Some(new)) => old > new.saturating_add(CLOCK_SKEW_MILLIS),
            _ => false,
        };
        let cross_partition = is_cross_partition.then_some(Self::CrossPartition);
        cross_partition.into_iter().chain(is_older.then_some(Self::OlderTimestamp))
    }
}

impl fmt::Display for WriterAnomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ForeignKey => "its key is foreign to the group scheme, so it is skipped",
            Self::CrossPartition => {
                "its key was in another partition before: writers use different partitioners, or partitions \
                 were added. Which record is applied last is a matter of chance"
            }
            Self::OlderTimestamp => {
                "it replaces a record with a later timestamp: the clocks of writers differ"
            }
            Self::OtherPartitioner => {
                "Java's default partitioner (murmur2) would put its key into another partition: writers may \
                 use different partitioners, or partitions were added"
            }
        })
    }
}

impl AnomalyCounts {
    /// Counts an anomaly; true if it is the first of its kind.
    pub(in crate::table) fn add(
        &mut self,
        anomaly: WriterAnomaly,
        partition: Partition,
        offset: Offset,
    ) -> bool {
        let count = match anomaly {
            WriterAnomaly::ForeignKey => &mut self.foreign,
            WriterAnomaly::CrossPartition => &mut self.cross_partition,
            WriterAnomaly::OlderTimestamp => &mut self.older,
            WriterAnomaly::OtherPartitioner => &mut self.other_partitioner,
        };
        count.count += 1;
        let is_first = count.first.is_none();
        count.first.get_or_insert((partition, offset));
        is_first
    }
}
