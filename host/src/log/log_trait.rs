//! The interface of a log.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::log::{
    Ack, Appended, Delivery, Headers, Health, Isolation, LogError, NewRecord, NewTopic, Offset, OffsetRange,
    Partition, TopicDescription, TopicStream, Unacknowledged,
};

/// A log: stores the records of topics. The interface follows that of Kafka.
#[async_trait]
pub trait Log: Debug + Send + Sync {
    /// The URL of the log, as users write it.
    fn url(&self) -> &str;

    /// Which records of transactions are read.
    fn isolation(&self) -> Isolation;

    /// Reports whether the log can be reached, now and from now on.
    fn health(&self) -> Health;

    /// Returns how long records may stay unapplied before a table reports that a partition lags.
    fn stale_after(&self) -> Duration;

    /// Describes a topic.
    ///
    /// # Errors
    ///
    /// [`LogError::UnknownTopic`] if no topic has this name.
    async fn describe(&self, topic: &str) -> Result<TopicDescription, LogError>;

    /// Creates a topic.
    ///
    /// # Errors
    ///
    /// [`LogError::TopicExists`] if a topic has this name.
    async fn create(&self, topic: &str, settings: NewTopic) -> Result<TopicDescription, LogError>;

    /// Returns the names of all topics, in order, without those of a cluster that begin with
    /// `__`, as Kafka's internal ones do.
    ///
    /// # Errors
    ///
    /// If the log refuses, or does not answer.
    async fn topics(&self) -> Result<Vec<String>, LogError>;

    /// Deletes a topic with all of its records.
    ///
    /// # Errors
    ///
    /// [`LogError::UnknownTopic`] if no topic has this name; if the log refuses.
    async fn delete(&self, topic: &str) -> Result<(), LogError>;

    /// Returns a setting of a topic, by Kafka's name for it: `cleanup.policy`, `delete.retention.ms`.
    ///
    /// # Errors
    ///
    /// If the log refuses. Kafka requires the right DESCRIBE_CONFIGS.
    async fn setting(&self, topic: &str, name: &str) -> Result<String, LogError>;

    /// Sets the `cleanup.policy` of a topic, and nothing else. When this returns, the log returns the new one.
    ///
    /// # Errors
    ///
    /// If the log refuses. Kafka requires the rights ALTER_CONFIGS and DESCRIBE_CONFIGS.
    async fn set_cleanup_policy(&self, topic: &str, policy: &str) -> Result<(), LogError>;

    /// Returns the current start and end offsets of each partition, including partitions that were added
    /// since the topic was described.
    ///
    /// # Errors
    ///
    /// [`LogError::Replaced`] if the topic was re-created; other errors if the log cannot be reached.
    async fn offsets(&self, topic: &TopicDescription) -> Result<Vec<OffsetRange>, LogError>;

    /// Returns the current end offset of each partition, for a caller that waits until a reader has reached
    /// it. For that caller, the streams of the topic report their positions without delay for a while.
    ///
    /// # Errors
    ///
    /// As [`Log::offsets`], and if the topic ends below an offset that was read already.
    async fn end_offsets(&self, topic: &TopicDescription) -> Result<Vec<(Partition, Offset)>, LogError>;

    /// Reads a topic as one stream for each partition. The streams of these ranges come first, in any order;
    /// each begins at the start of its range. A partition that is added later gets a stream then. A stream
    /// continues with records that are appended. It ends with an error, or when it is dropped.
    ///
    /// # Errors
    ///
    /// If the log cannot be read. Later errors come through the streams.
    async fn read(
        &self,
        topic: &TopicDescription,
        from: &[OffsetRange],
        headers: Headers,
    ) -> Result<TopicStream, LogError>;

    /// Queues a record for writing, in the order of the calls. Waits while the queue is full.
    ///
    /// # Errors
    ///
    /// If the record can never be written. Later errors come through the [`Delivery`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the record is not queued. Dropping a [`Delivery`] does
    /// not remove its record from the queue.
    async fn send(&self, topic: &TopicDescription, record: NewRecord) -> Result<Delivery, LogError>;

    /// Writes records atomically: all of them become durable, or none does. After a failed attempt, readers
    /// of committed records see none of them.
    ///
    /// # Errors
    ///
    /// The reason why no record was written; [`LogError::Undelivered`] if it is unknown whether all or none
    /// were written.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, either all records are written or none.
    async fn send_atomically(
        &self,
        topic: &TopicDescription,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Ack>, LogError>;

    /// Appends records to one partition, atomically, if the partition ends at `end`. Writes nothing and returns `None` if
    /// it ends elsewhere, or if another caller of this method begins to append to the topic meanwhile. So callers in
    /// several processes that have read the partition up to `end` never write a record twice. Ignores
    /// [`NewRecord::partition`].
    ///
    /// Without records, only checks the end. On a cluster, this also ends a transaction that another caller of this method
    /// has left open, and other writers may write between the records.
    ///
    /// # Errors
    ///
    /// [`LogError::UnknownPartition`]; otherwise as [`Log::send_atomically`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, either all records are written or none.
    async fn append_at(
        &self,
        topic: &TopicDescription,
        partition: Partition,
        end: Offset,
        records: Vec<NewRecord>,
    ) -> Result<Option<Appended>, LogError>;

    /// Waits until every queued record is acknowledged or refused; false if that takes longer than
    /// `timeout`. Records that are still queued then stay queued.
    async fn flush(&self, timeout: Duration) -> bool;

    /// Waits as [`Log::flush`] does, then gives up the records that are still outstanding, and returns
    /// them. They will not be sent again, but may have been written. Affects all writers of the log; call
    /// it before the end of a process that writes.
    async fn close(&self, timeout: Duration) -> Vec<Unacknowledged>;
}

/// Waits for the answer to a request about a topic, for `timeout` at most. `action` is what was requested, as
/// errors say it.
///
/// # Errors
///
/// [`LogError::Unreachable`] after `timeout`, with the outage of the log if there is one.
pub(crate) async fn with_timeout<T>(
    log: &dyn Log,
    topic: &str,
    action: &'static str,
    timeout: Duration,
    answer: impl Future<Output = Result<T, LogError>>,
) -> Result<T, LogError> {
    let timed_out = |_| {
        let reason = match log.health().outage() {
            Some(outage) => outage.to_string(),
            None => format!("no answer within {}", humantime::format_duration(timeout)),
        };
        let (log, topic) = (log.url().to_owned(), topic.to_owned());
        Err(LogError::unanswered(log, topic, action, &reason))
    };
    tokio::time::timeout(timeout, answer).await.unwrap_or_else(timed_out)
}
