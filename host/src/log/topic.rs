//! Topics, partitions and offsets.

use std::collections::BTreeMap;

/// The number of a partition, from 0.
pub type Partition = i32;

/// The position of a record in its partition, from 0.
pub type Offset = i64;

/// What a log knows of a topic. A topic that was deleted and created again has another identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// The name.
    pub name: String,
    /// The identity, a UUID; empty if the log has no identities.
    pub id: String,
    /// The number of partitions.
    pub partitions: Partition,
}

/// The options of a topic that is to be created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// The number of partitions; `None` leaves it to the log (a directory creates one).
    pub partitions: Option<Partition>,
    /// The number of replicas; `None` leaves it to the log.
    pub replication_factor: Option<i16>,
    /// Settings, by the log's own names. Without `cleanup.policy`, the topic is compacted.
    pub settings: BTreeMap<String, String>,
}

/// The records a partition holds: from `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetRange {
    /// The partition.
    pub partition: Partition,
    /// The offset of its first record.
    pub start: Offset,
    /// The offset its next record will get (the high watermark).
    pub end: Offset,
}
