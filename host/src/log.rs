//! Logs, which store the records of topics, in a Kafka cluster or in a directory. A log knows neither codecs
//! nor tables. How many clients and threads it uses is internal to it.
//!
//! A log returns one ordered stream for each partition. How far the stream has come where no record shows it
//! (control records, compaction, the end of the partition) is an item of the same stream,
//! [`StreamItem::Position`]. So a reader that handles the items in order knows how far it has *applied* the
//! partition, not only how far it was received.

pub(crate) mod batch;
mod dir;
mod ensure;
mod error;
mod health;
#[cfg(feature = "kafka")]
mod kafka;
mod log_trait;
mod murmur;
mod open;
mod options;
mod read_ranges;
mod record;
mod stream;
mod topic;
mod topic_name;

#[cfg(feature = "kafka")]
pub(crate) use ensure::CLEANUP_POLICY;
pub(crate) use ensure::is_compacted;
pub use ensure::{EnsureOutcome, EnsureTopic, Ensured, OnPolicyMismatch, ensure_topic};
pub use error::LogError;
pub use health::{Health, Outage};
pub use log_trait::Log;
pub(crate) use log_trait::with_timeout;
pub(crate) use murmur::{key_hash, partition_of_hash};
pub use open::{open, open_with};
pub use options::{Acks, DEFAULT_STALE_AFTER, Isolation, LogOptions};
pub(crate) use read_ranges::read_ranges;
pub(crate) use record::NO_TIMESTAMP;
pub use record::{Header, Headers, NewRecord, Record, RecordBatch};
pub use stream::{
    Ack, Appended, Delivery, PartitionSample, PartitionStream, StreamItem, TopicEvent, TopicSample,
    TopicStream, Unacknowledged,
};
pub use topic::{NewTopic, Offset, OffsetRange, Partition, TopicDescription};
pub(crate) use topic_name::check_topic_name;
