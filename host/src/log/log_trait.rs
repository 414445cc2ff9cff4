//! The interface of a log.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::log::{
    Ack, Delivery, Headers, Health, Isolation, LogError, NewRecord, NewTopic, Offset, OffsetRange, Partition,
    TopicDescription, TopicStream, Unacknowledged,
};

/// A log: where records live. Shaped for Kafka.
#[async_trait]
pub trait Log: Debug + Send + Sync {
    /// The URL by which users name this log.
    fn url(&self) -> &str;

    /// Which records of transactions readers see.
    fn isolation(&self) -> Isolation;

    /// Reports whether the log can be reached, now and from now on.
    fn health(&self) -> Health;

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

    /// Returns a setting of a topic, by Kafka's name for it: `cleanup.policy`, `delete.retention.ms`.
    ///
    /// # Errors
    ///
    /// If the log refuses: on Kafka, that takes the right DESCRIBE_CONFIGS.
    async fn setting(&self, topic: &str, name: &str) -> Result<String, LogError>;

    /// Sets the `cleanup.policy` of a topic, and nothing else.
    ///
    /// # Errors
    ///
    /// If the log refuses.
    async fn set_cleanup_policy(&self, topic: &str, policy: &str) -> Result<(), LogError>;

    /// Returns the first and the end offset of each partition, as of now, also of partitions that were
    /// added since the topic was described.
    ///
    /// # Errors
    ///
    /// [`LogError::Replaced`] if the topic was re-created; other errors if the log cannot be asked.
    async fn offsets(&self, topic: &TopicDescription) -> Result<Vec<OffsetRange>, LogError>;

    /// Returns the end offset of each partition, as of now, for a caller that waits until a reader has
    /// reached it. So the streams of the topic report their positions without delay for a while.
    ///
    /// # Errors
    ///
    /// As [`Log::offsets`], and if the topic ends before what was read of it.
    async fn end_offsets(&self, topic: &TopicDescription) -> Result<Vec<(Partition, Offset)>, LogError>;

    /// Reads a topic, as one stream for each partition: at once for each of these ranges, from its
    /// start, in any order; later for each partition that is added. A stream continues with what is
    /// appended. It ends with an error, or when it is dropped.
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
    /// If the record can never be written. The [`Delivery`] tells what happens to it later.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the record is not queued. A dropped
    /// [`Delivery`] does not take its record back.
    async fn send(&self, topic: &TopicDescription, record: NewRecord) -> Result<Delivery, LogError>;

    /// Writes records atomically: all of them become durable, or none does. Readers of committed records
    /// see none of an attempt that failed.
    ///
    /// # Errors
    ///
    /// The reason why none was written; [`LogError::Undelivered`] if it is unknown whether they were.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, all records may be written, or none.
    async fn send_atomically(
        &self,
        topic: &TopicDescription,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Ack>, LogError>;

    /// Waits until every queued record is acknowledged or refused; false if that takes longer than
    /// `timeout`. Gives up no record.
    async fn flush(&self, timeout: Duration) -> bool;

    /// Waits as [`Log::flush`] does, then gives up the records that are still outstanding, and returns
    /// them. They will not be sent again, but may have been written. Affects all writers of the log; call
    /// it before a process that writes ends.
    async fn close(&self, timeout: Duration) -> Vec<Unacknowledged>;
}

/// Waits for an answer about a topic, for `timeout` at most.
pub(crate) async fn within<T>(
    log: &dyn Log,
    topic: &str,
    timeout: Duration,
    answer: impl Future<Output = Result<T, LogError>>,
) -> Result<T, LogError> {
    let late = |_| {
        let reason = match log.health().outage() {
            Some(outage) => outage.to_string(),
            None => format!("no answer within {}", humantime::format_duration(timeout)),
        };
        let (log, topic) = (log.url().to_owned(), topic.to_owned());
        Err(LogError::Unreachable { log, topic, action: "describe", reason })
    };
    tokio::time::timeout(timeout, answer).await.unwrap_or_else(late)
}
