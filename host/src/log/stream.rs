//! What a log returns to readers and writers: partition streams, lags, acknowledgements.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::SystemTime;

use futures_util::Stream;
use futures_util::stream::BoxStream;
use tokio::sync::{mpsc, oneshot};

use crate::log::{LogError, Offset, OffsetRange, Partition, RecordBatch};

/// An item of a [`PartitionStream`], in the order of the log.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum StreamItem {
    /// Consecutive records.
    Records(Box<RecordBatch>),
    /// Everything below this offset has come through the stream, although no record may have the last
    /// offsets (control records, compaction).
    Position(Offset),
    /// The log no longer holds records below this offset: retention, or somebody, deleted them. Comes after
    /// the records that were read before.
    Start(Offset),
}

/// The records of one partition, in order, without end.
#[derive(Debug)]
pub struct PartitionStream {
    range: OffsetRange,
    applied: Applied,
    items: mpsc::Receiver<Result<StreamItem, LogError>>,
}

/// The offset up to which the reader of a partition stream has applied it. The log compares it with the
/// end offset to find lagging partitions.
#[derive(Debug, Clone)]
pub struct Applied(Arc<AtomicI64>);

impl Applied {
    /// Records that everything below this offset was applied.
    pub fn set(&self, position: Offset) {
        // Never falls below the start of the stream, because what comes before it counts as applied.
        self.0.fetch_max(position, Ordering::Relaxed);
    }

    /// The offset below which everything was applied.
    #[must_use]
    pub fn get(&self) -> Offset {
        self.0.load(Ordering::Relaxed)
    }
}

impl PartitionStream {
    /// Creates a stream of the items that are sent through the channel.
    #[must_use]
    pub fn new(range: OffsetRange, items: mpsc::Receiver<Result<StreamItem, LogError>>) -> Self {
        let applied = Applied(Arc::new(AtomicI64::new(range.start)));
        Self { range, applied, items }
    }

    /// The handle through which the reader of the stream reports what it has applied.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.applied.clone()
    }

    /// The partition, the offset at which the stream begins, and the end offset when reading began.
    #[must_use]
    pub fn range(&self) -> OffsetRange {
        self.range
    }
}

/// The events of a topic that is read. An error ends all of its partition streams.
pub type TopicStream = BoxStream<'static, Result<TopicEvent, LogError>>;

/// An event of a topic that is read.
#[derive(Debug)]
#[non_exhaustive]
pub enum TopicEvent {
    /// A partition, when reading begins or when the partition is added.
    Partition(PartitionStream),
    /// All partitions that lag now.
    Lags(Vec<Lag>),
}

/// A partition whose reader is behind: records older than `stale_after` have not been applied yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lag {
    /// The partition.
    pub partition: Partition,
    /// The next offset to apply.
    pub position: Offset,
    /// The end offset; `None` if no broker answers.
    pub end: Option<Offset>,
    /// The start time of the lag: everything that the partition held then was applied.
    pub since: SystemTime,
    /// The cause.
    pub cause: LagCause,
}

/// Why a partition lags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LagCause {
    /// A transaction is open: records after its first one wait for its end.
    OpenTransaction,
    /// The partition has no leader, or the leader does not answer.
    Silent,
    /// No data arrives, or the reader takes none.
    Unread,
    /// The leader answers again, and the records written meanwhile may be on their way.
    Recovering,
    /// Data arrives, but is decoded or applied too slowly.
    Slow,
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, position, end, since, cause } = self;
        let since = humantime::format_rfc3339_seconds(*since);
        let end = end.map_or_else(String::new, |end| format!(" of {end}"));
        let at = format!(" is stuck at {position}{end}");
        // The position of a partition that moves is left out: the text would change all the time.
        let (state, why) = match cause {
            LagCause::OpenTransaction => (at.as_str(), "a transaction is open"),
            LagCause::Silent => (" may be behind", "no leader answers"),
            LagCause::Unread => (at.as_str(), "no data arrives"),
            LagCause::Recovering => (" is behind", "records written during an outage are arriving"),
            LagCause::Slow => (" is behind", "records are decoded or applied too slowly"),
        };
        write!(f, "partition {partition}{state} since {since}: {why}")
    }
}

impl Stream for PartitionStream {
    type Item = Result<StreamItem, LogError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.poll_recv(context)
    }
}

/// The acknowledgement of a record, with the partition and the offset that it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Its partition.
    pub partition: Partition,
    /// Its offset; `None` if the log did not return it, which happens if the record was sent twice.
    pub offset: Option<Offset>,
}

/// A record that was queued for writing, and was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unacknowledged {
    /// Its topic.
    pub topic: String,
    /// Its partition; `None` if none was chosen yet.
    pub partition: Option<Partition>,
    /// Its raw key.
    pub key: Option<Vec<u8>>,
}

/// The outcome of a queued record, as a future. Resolves when the record is durable, when it has failed for
/// good, or when it was given up and may or may not be durable.
#[derive(Debug)]
pub struct Delivery(oneshot::Receiver<Result<Ack, LogError>>);

impl Delivery {
    /// Creates a delivery that resolves to the result that is sent through the channel.
    #[must_use]
    pub fn new(answer: oneshot::Receiver<Result<Ack, LogError>>) -> Self {
        Self(answer)
    }
}

impl Future for Delivery {
    type Output = Result<Ack, LogError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(LogError::Closed)))
    }
}
