//! Logs: where records live. [`Log`] is shaped for Kafka and says nothing of
//! codecs or tables; how many clients and threads stand behind a log is its
//! private matter.
//!
//! A log hands out one ordered stream per partition. End-of-log news travel in
//! it as [`StreamItem::Position`], between the records they speak of, so that
//! whoever reads a stream in order counts what it has *applied*, never what was
//! only handed out.

pub(crate) mod batch;
mod dir;
mod ensure;
mod error;
mod health;
#[cfg(feature = "kafka")]
mod kafka;
mod lag;
mod murmur;
mod options;
mod record;
mod stream;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use dir::DirLog;
#[cfg(feature = "kafka")]
pub(crate) use ensure::CLEANUP_POLICY;
pub use ensure::{EnsureOutcome, EnsureTopic, Ensured, OnPolicyMismatch, compacts, ensure_topic};
pub use error::LogError;
pub use health::{Health, Trouble};
#[cfg(feature = "kafka")]
pub use kafka::KafkaLog;
pub(crate) use murmur::{key_hash, partition_of_hash};
pub use options::{Acks, Isolation, LogOptions, STALE_AFTER};
pub use record::{Header, Headers, NewRecord, Record, RecordBatch};
pub use stream::{
    Ack, Applied, Delivery, Lag, LagCause, PartitionStream, StreamItem, TopicNews, TopicStream,
    Unacknowledged,
};

/// A partition's number, from 0.
pub type Partition = i32;

/// A record's place in its partition, from 0.
pub type Offset = i64;

/// Where records live.
#[async_trait]
pub trait Log: Debug + Send + Sync {
    /// How a user names this log.
    fn url(&self) -> &str;

    /// Which records of transactions its readers see.
    fn isolation(&self) -> Isolation;

    /// Whether the log can be reached, now and from now on.
    fn health(&self) -> Health;

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

    /// One of a topic's settings, by Kafka's name for it: `cleanup.policy`,
    /// `delete.retention.ms`.
    ///
    /// # Errors
    ///
    /// If the log does not tell: on Kafka that takes a right of its own.
    async fn setting(&self, topic: &str, name: &str) -> Result<String, LogError>;

    /// Changes a topic's `cleanup.policy`, and nothing else of it.
    ///
    /// # Errors
    ///
    /// If the log does not do it.
    async fn set_cleanup_policy(&self, topic: &str, policy: &str) -> Result<(), LogError>;

    /// The first and the end offset of each partition, as of now; of partitions that
    /// were added since the topic was described, too.
    ///
    /// # Errors
    ///
    /// [`LogError::Replaced`] if the topic of this name is another one now, or if
    /// the log cannot be asked.
    async fn offsets(&self, topic: &TopicDescription) -> Result<Vec<OffsetRange>, LogError>;

    /// The end offset of each partition, as of now, for somebody who waits for it:
    /// the streams of the topic tell their positions without delay for a while.
    ///
    /// # Errors
    ///
    /// As [`Log::offsets`], and if the topic ends before what was read of it.
    async fn end_offsets(&self, topic: &TopicDescription) -> Result<Vec<(Partition, Offset)>, LogError>;

    /// One stream for each partition of the topic: at once for each of these ranges,
    /// which are all of its partitions, from the start of the range; later for each
    /// partition that is added. A stream goes on with what is appended and ends with
    /// an error, or when it is dropped. Records come with their headers if these are
    /// wanted.
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

    /// Writes records as one: all of them are durable, or none is, and readers of committed
    /// records see none of a try that failed.
    ///
    /// # Errors
    ///
    /// Why none was written; [`LogError::Undelivered`] if that is unknown.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, all records may be written, or none.
    async fn send_atomically(
        &self,
        topic: &TopicDescription,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Ack>, LogError>;

    /// Waits until everything that was queued is acknowledged, or refused; false if that takes
    /// longer than this. Gives nothing up.
    async fn flush(&self, patience: Duration) -> bool;

    /// Waits as [`Log::flush`] does. What is outstanding after this time is given up and listed:
    /// it will not be sent again, but may have been written. To be called before a process that
    /// writes ends: it speaks for all writers of the log.
    async fn close(&self, patience: Duration) -> Vec<Unacknowledged>;
}

/// Opens the log that a URL names: `kafka://HOST:PORT,…` or `dir:PATH`.
///
/// # Errors
///
/// As [`open_with`].
pub fn open(url: &str) -> Result<Arc<dyn Log>, LogError> {
    open_with(url, LogOptions::default())
}

/// Opens the log that a URL names, to be used in a certain way.
///
/// # Errors
///
/// [`LogError::Url`] if the URL names no kind of log, [`LogError::Property`] if an
/// option is of no use, [`LogError::Client`] or [`LogError::Io`] if it cannot be
/// opened. That a cluster cannot be reached shows when it is asked.
pub fn open_with(url: &str, options: LogOptions) -> Result<Arc<dyn Log>, LogError> {
    let no_log = |reason: &str| {
        // What stands before an @ may be a password.
        let shown = url.rsplit_once('@').map_or_else(|| url.to_owned(), |(_, host)| format!("…@{host}"));
        Err(LogError::Url { url: shown, reason: reason.to_owned() })
    };
    match url.split_once(':') {
        Some(("dir", "")) => no_log("it names no folder"),
        Some(("dir", path)) => {
            options.validate()?;
            match options.properties.keys().next().cloned() {
                None => Ok(Arc::new(DirLog::open_with(path, options.stale_after))),
                Some(name) => {
                    let reason = "a directory log has no such properties".to_owned();
                    Err(LogError::Property { name, reason })
                }
            }
        }
        #[cfg(feature = "kafka")]
        Some(("kafka", brokers)) => match brokers.strip_prefix("//") {
            None => no_log("behind kafka: there are no two slashes"),
            Some(brokers) => {
                let brokers = brokers.trim_end_matches('/');
                match brokers.split(',').try_for_each(check_broker) {
                    Ok(()) => Ok(Arc::new(KafkaLog::open(brokers, options)?)),
                    Err(reason) => no_log(reason),
                }
            }
        },
        #[cfg(not(feature = "kafka"))]
        Some(("kafka", _)) => no_log("this program was built without ktables' feature `kafka`"),
        _ => no_log("it begins with neither kafka:// nor dir:"),
    }
}

/// Asks about a topic, for so long at most.
pub(crate) async fn within<T>(
    log: &dyn Log,
    topic: &str,
    patience: Duration,
    answer: impl Future<Output = Result<T, LogError>>,
) -> Result<T, LogError> {
    let late = |_| {
        let reason = match log.health().trouble() {
            Some(trouble) => trouble.to_string(),
            None => format!("no answer within {}", humantime::format_duration(patience)),
        };
        let (log, topic) = (log.url().to_owned(), topic.to_owned());
        Err(LogError::Unreachable { log, topic, action: "describe", reason })
    };
    tokio::time::timeout(patience, answer).await.unwrap_or_else(late)
}

/// Fails if this is not `HOST:PORT`.
#[cfg(feature = "kafka")]
fn check_broker(broker: &str) -> Result<(), &'static str> {
    if broker.contains('@') {
        return Err("it has a user or a password in it, which are properties (sasl.username, sasl.password)");
    }
    // The colons of an address of version 6 are within brackets.
    let behind = broker.rsplit_once(']').map_or(broker, |(_, behind)| behind);
    let port = behind.rsplit_once(':').map(|(_, port)| port);
    match port {
        None if broker.is_empty() => Err("an address is empty"),
        None => Err("an address has no port (brokers usually listen on 9092)"),
        Some(port) if port.parse::<u16>().ok().is_none_or(|port| port == 0) => Err("a port is no number"),
        Some(port) => {
            let host = &broker[..broker.len() - port.len() - 1];
            let is_host = !host.is_empty() && !host.contains(['/', ' ']);
            if is_host { Ok(()) } else { Err("a host is no name and no address") }
        }
    }
}

/// Which topic of a name: a topic that is deleted and created again has another
/// identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its identity, a UUID; empty if the log gives topics none.
    pub id: String,
    /// The number of its partitions.
    pub partitions: Partition,
}

/// How a topic is to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// The number of its partitions; `None` leaves it to the log (a directory makes
    /// one).
    pub partitions: Option<Partition>,
    /// The number of its replicas; `None` leaves it to the log.
    pub replication_factor: Option<i16>,
    /// Its settings, by the log's own names; compacted, if `cleanup.policy` is none of them.
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
