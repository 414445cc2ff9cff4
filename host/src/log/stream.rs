//! What a log returns to readers and writers: partition streams, samples of end offsets, acknowledgements.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, poll_fn};
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};

use crate::log::{LogError, Offset, OffsetRange, Partition, RecordBatch};

/// An item of a [`PartitionStream`], in the order of the log.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum StreamItem {
    /// Consecutive records.
    Records(Box<RecordBatch>),
    /// Everything below this offset has come through the stream, even if the last offsets belong to no record
    /// (control records, compaction).
    Position(Offset),
    /// The log no longer holds records below this offset: retention, or somebody, deleted them. Comes after
    /// the records that were read before.
    Start(Offset),
}

/// The records of one partition, in order, without end.
pub struct PartitionStream {
    range: OffsetRange,
    items: BoxStream<'static, Result<StreamItem, LogError>>,
}

impl fmt::Debug for PartitionStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionStream").field("range", &self.range).finish_non_exhaustive()
    }
}

impl PartitionStream {
    /// Creates a stream of the records in a range of a partition and of those after it.
    #[must_use]
    pub fn new(
        range: OffsetRange,
        items: impl Stream<Item = Result<StreamItem, LogError>> + Send + 'static,
    ) -> Self {
        Self { range, items: items.boxed() }
    }

    /// Creates a stream of the items that are sent through a channel.
    pub(in crate::log) fn from_channel(
        range: OffsetRange,
        mut items: mpsc::Receiver<Result<StreamItem, LogError>>,
    ) -> Self {
        Self::new(range, poll_fn(move |context| items.poll_recv(context)))
    }

    /// The partition, the offset at which the stream begins, and the end offset when reading began.
    #[must_use]
    pub fn range(&self) -> OffsetRange {
        self.range
    }
}

/// The events of a topic that is read. After an error, its partition streams are of no use, although they may
/// still deliver records.
pub type TopicStream = BoxStream<'static, Result<TopicEvent, LogError>>;

/// An event of a topic that is read.
#[derive(Debug)]
#[non_exhaustive]
pub enum TopicEvent {
    /// A partition, when reading begins or when the partition is added.
    Partition(PartitionStream),
    /// The end offsets of the partitions that are read. A reader that is busy may miss all but the newest
    /// sample.
    Sample(TopicSample),
}

/// What a log reports of all partitions that are read, about three times in
/// [`Log::stale_after`](crate::log::Log::stale_after) or more often; less often while no broker answers,
/// because each sample waits for its request. A table compares it with what it has applied.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TopicSample {
    /// When the end offsets were requested.
    pub requested_at: Instant,
    /// All partitions that are read, in any order.
    pub partitions: Vec<PartitionSample>,
}

impl TopicSample {
    /// Creates a sample.
    #[must_use]
    pub fn new(requested_at: Instant, partitions: Vec<PartitionSample>) -> Self {
        Self { requested_at, partitions }
    }
}

/// What a log reports of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionSample {
    /// The partition.
    pub partition: Partition,
    /// The offset below which all records had been read for the stream when the end offset was requested. A log
    /// in which reading never stalls may report the end offset.
    pub read: Offset,
    /// The end offset; `None` if no broker answered.
    pub end: Option<Offset>,
    /// The last stable offset, up to which open transactions let readers go; `None` if it was not
    /// requested or not answered.
    pub stable: Option<Offset>,
}

impl PartitionSample {
    /// Creates a sample of a partition about which nothing is known.
    #[must_use]
    pub fn unknown(partition: Partition) -> Self {
        Self { partition, read: 0, end: None, stable: None }
    }
}

impl Stream for PartitionStream {
    type Item = Result<StreamItem, LogError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.poll_next_unpin(context)
    }
}

/// The acknowledgement of a record, with the partition and the offset that it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ack {
    /// Its partition.
    pub partition: Partition,
    /// Its offset; `None` if the log did not return it, which happens if the record was sent twice.
    pub offset: Option<Offset>,
}

/// The result of [`Log::append_at`](crate::log::Log::append_at).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The acknowledgements of the records.
    pub acks: Vec<Ack>,
    /// The offset at which the partition ends now, unless somebody else has written since. On a cluster, this is not
    /// the offset after the last record, because the marker that ends a transaction has an offset, too.
    pub end: Offset,
}

impl Appended {
    /// Creates the result of an append.
    #[must_use]
    pub fn new(acks: Vec<Ack>, end: Offset) -> Self {
        Self { acks, end }
    }
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
#[must_use = "the outcome of a write is known only when its delivery is awaited"]
pub struct Delivery(DeliverySource);

/// Where the outcome of a record comes from.
enum DeliverySource {
    Channel(oneshot::Receiver<Result<Ack, LogError>>),
    Future(BoxFuture<'static, Result<Ack, LogError>>),
}

impl Delivery {
    /// Creates a delivery that resolves to the output of a future.
    pub fn new(outcome: impl Future<Output = Result<Ack, LogError>> + Send + 'static) -> Self {
        Self(DeliverySource::Future(outcome.boxed()))
    }

    /// Creates a delivery that resolves to the result that is sent through a channel.
    pub(in crate::log) fn from_channel(outcome: oneshot::Receiver<Result<Ack, LogError>>) -> Self {
        Self(DeliverySource::Channel(outcome))
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").finish_non_exhaustive()
    }
}

impl Future for Delivery {
    type Output = Result<Ack, LogError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            DeliverySource::Channel(outcome) => {
                outcome.poll_unpin(context).map(|outcome| outcome.unwrap_or(Err(LogError::Closed)))
            }
            DeliverySource::Future(outcome) => outcome.poll_unpin(context),
        }
    }
}
