//! Logs: where records live. [`Log`] is shaped for Kafka and says nothing of
//! codecs or tables; how many clients and threads stand behind a log is its
//! private matter.
//!
//! A log hands out one ordered stream per partition. End-of-log news travel in
//! it as [`StreamItem::Position`], between the records they speak of, so that
//! whoever reads a stream in order counts what it has *applied*, never what was
//! only handed out.

mod dir;
mod error;
mod murmur;
mod record;
mod stream;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

pub use dir::DirLog;
pub use error::LogError;
pub use record::{Header, NewRecord, Record, RecordBatch};
pub use stream::{Ack, Delivery, PartitionStream, StreamItem};

/// A partition's number, from 0.
pub type Partition = i32;

/// A record's place in its partition, from 0.
pub type Offset = i64;

/// Where records live.
#[async_trait]
pub trait Log: Debug + Send + Sync {
    /// How a user names this log.
    fn url(&self) -> &str;

    /// What the log knows of a topic.
    ///
    /// # Errors
    ///
    /// [`LogError::UnknownTopic`] if there is none of this name.
    async fn describe(&self, topic: &str) -> Result<TopicDescription, LogError>;

    /// Creates a topic.
    ///
    /// # Errors
    ///
    /// [`LogError::TopicExists`] if there is one of this name.
    async fn create(&self, topic: &str, settings: NewTopic) -> Result<TopicDescription, LogError>;

    /// The first and the end offset of each partition, as of now.
    ///
    /// # Errors
    ///
    /// [`LogError::Replaced`] if the topic of this name is another one now, or if
    /// the log cannot be asked.
    async fn offsets(&self, topic: &TopicDescription) -> Result<Vec<OffsetRange>, LogError>;

    /// One stream for each partition named, from the offset given with it. A
    /// stream goes on with what is appended later and ends with an error, or
    /// when it is dropped.
    ///
    /// # Errors
    ///
    /// If the log cannot be read. Later errors come through the streams.
    async fn read(
        &self,
        topic: &TopicDescription,
        from: &[(Partition, Offset)],
    ) -> Result<Vec<PartitionStream>, LogError>;

    /// Queues a record for writing, in the order of the calls. Waits while the
    /// queue is full.
    ///
    /// # Errors
    ///
    /// If the record can never be written. What happens to it later is the
    /// answer of the [`Delivery`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the record is not queued. A dropped
    /// [`Delivery`] does not take its record back.
    async fn send(&self, topic: &TopicDescription, record: NewRecord) -> Result<Delivery, LogError>;
}

/// Opens the log that a URL names: `dir:PATH`.
///
/// # Errors
///
/// [`LogError::Url`] if the URL names no kind of log.
pub fn open(url: &str) -> Result<Arc<dyn Log>, LogError> {
    match url.split_once(':') {
        Some(("dir", path)) if !path.is_empty() => Ok(Arc::new(DirLog::open(path)?)),
        _ => Err(LogError::Url { url: url.to_owned() }),
    }
}

/// Which topic of a name: a topic that is deleted and created again has another
/// identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its identity, a UUID.
    pub id: String,
    /// The number of its partitions.
    pub partitions: Partition,
    /// Its `cleanup.policy`.
    pub cleanup_policy: String,
}

/// How a topic is to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewTopic {
    /// The number of its partitions.
    pub partitions: Partition,
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
