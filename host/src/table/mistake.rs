//! Mistakes of a topic's writers that a table notices: counted, and the first of each
//! kind remembered and logged.

use std::fmt;

use crate::log::{Offset, Partition};
use crate::table::entry::{Entry, Origin};

/// How far apart, in milliseconds, the clocks of writers may be: those that are kept by
/// NTP differ by less.
const SKEW: i64 = 1000;

/// A kind of mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// A key that is foreign to the group scheme: the topic is shared with somebody.
    Foreign,
    /// A record replaced one of its key in another partition: writers disagree on the
    /// partitioner, and which of their records is last is chance. Or partitions were
    /// added.
    CrossPartition,
    /// A record replaced one whose timestamp is later by more than a second: the clocks
    /// of writers differ.
    Older,
    /// A record lies in another partition than Java's default partitioner (murmur2)
    /// chooses. Only the first record of each batch that is handed over is looked at.
    OtherPartitioner,
}

/// How often a mistake was seen, and where first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How often.
    pub count: u64,
    /// Partition and offset of the first record.
    pub first: Option<(Partition, Offset)>,
}

/// All that were seen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mistakes {
    pub(super) foreign: Tally,
    pub(super) cross_partition: Tally,
    pub(super) older: Tally,
    pub(super) other_partitioner: Tally,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Foreign => "its key is foreign to the group scheme, and is left out",
            Self::CrossPartition => {
                "its key was written to another partition before: writers disagree on the partitioner, or \
                 partitions were added, and which record is last is chance"
            }
            Self::Older => "it replaces a record with a later timestamp: the clocks of writers differ",
            Self::OtherPartitioner => {
                "Java's default partitioner (murmur2) puts its key elsewhere: writers with another one may \
                 disagree, or partitions were added"
            }
        })
    }
}

impl Mistakes {
    /// Looks at a record that replaced another one, or deleted it.
    pub(super) fn compare(&mut self, topic: &str, old: &Entry, by: Origin) {
        if old.partition() != by.partition {
            self.note(topic, Mistake::CrossPartition, by.partition, by.offset);
        }
        if old.timestamp() > by.timestamp.saturating_add(SKEW) && by.timestamp >= 0 {
            self.note(topic, Mistake::Older, by.partition, by.offset);
        }
    }

    pub(super) fn note(&mut self, topic: &str, mistake: Mistake, partition: Partition, offset: Offset) {
        let tally = match mistake {
            Mistake::Foreign => &mut self.foreign,
            Mistake::CrossPartition => &mut self.cross_partition,
            Mistake::Older => &mut self.older,
            Mistake::OtherPartitioner => &mut self.other_partitioner,
        };
        tally.count += 1;
        if tally.first.is_none() {
            tally.first = Some((partition, offset));
            tracing::warn!(
                topic,
                partition,
                offset,
                "{mistake}; more of these are counted in the statistics"
            );
        }
    }
}
