//! Topics, partitions and offsets.

use std::collections::BTreeMap;

/// The number of a partition, from 0.
pub type Partition = i32;

/// The position of a record in its partition, from 0.
pub type Offset = i64;

/// The description of a topic. A re-created topic has another identity than the one that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TopicDescription {
    /// The name.
    pub name: String,
    /// The identity, a UUID; empty if the log has no identities.
    pub id: String,
    /// The number of partitions.
    pub partitions: Partition,
}

/// The options for creating a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// The number of partitions; `None` uses the default of the log (1 in a directory).
    pub partitions: Option<Partition>,
    /// The number of replicas; `None` uses the default of the log.
    pub replication_factor: Option<i16>,
    /// Settings, by Kafka's names. Without `cleanup.policy`, the topic is compacted.
    pub settings: BTreeMap<String, String>,
}

/// The range of offsets that a partition holds, from `start` up to but not including `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OffsetRange {
    /// The partition.
    pub partition: Partition,
    /// The offset of the first record.
    pub start: Offset,
    /// The end offset: the offset that the next record will get (the high watermark).
    pub end: Offset,
}
