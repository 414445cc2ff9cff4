//! Logs: where records live. A log knows neither codecs nor tables. How many clients and threads it uses
//! is its own affair.
//!
//! A log hands out one ordered stream for each partition. Positions at the end of the log travel in the
//! same stream, as [`StreamItem::Position`], between the records. So whoever reads a stream in order
//! counts what it has *applied*, never what was only handed out.

pub(crate) mod batch;
mod dir;
mod ensure;
mod error;
mod health;
#[cfg(feature = "kafka")]
mod kafka;
mod lag;
mod log_trait;
mod murmur;
mod open;
mod options;
mod record;
mod stream;
mod topic;

pub use dir::DirLog;
#[cfg(feature = "kafka")]
pub(crate) use ensure::CLEANUP_POLICY;
pub use ensure::{EnsureOutcome, EnsureTopic, Ensured, OnPolicyMismatch, compacts, ensure_topic};
pub use error::LogError;
pub use health::{Health, Outage};
#[cfg(feature = "kafka")]
pub use kafka::KafkaLog;
pub use log_trait::Log;
pub(crate) use log_trait::within;
pub(crate) use murmur::{key_hash, partition_of_hash};
pub use open::{open, open_with};
pub use options::{Acks, Isolation, LogOptions, STALE_AFTER};
pub use record::{Header, Headers, NewRecord, Record, RecordBatch};
pub use stream::{
    Ack, Applied, Delivery, Lag, LagCause, PartitionStream, StreamItem, TopicEvent, TopicStream,
    Unacknowledged,
};
pub use topic::{NewTopic, Offset, OffsetRange, Partition, TopicDescription};
