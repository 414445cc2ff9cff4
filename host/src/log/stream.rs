//! What a log hands out: partition streams and deliveries.

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

/// What comes through a [`PartitionStream`], in the order of the log.
#[derive(Debug, Clone)]
pub enum StreamItem {
    /// Consecutive records.
    Records(Box<RecordBatch>),
    /// Everything below this offset has come through the stream, although no
    /// record may have had the last offsets (control records, compaction).
    Position(Offset),
    /// The log holds no record below this offset any more: retention or somebody
    /// deleted them. Told behind the records that were read before.
    Start(Offset),
}

/// The records of one partition, in order, going on for ever.
#[derive(Debug)]
pub struct PartitionStream {
    range: OffsetRange,
    applied: Applied,
    items: mpsc::Receiver<Result<StreamItem, LogError>>,
}

/// How far a partition stream was applied by whoever reads it: told to the log, so that it
/// sees what lags.
#[derive(Debug, Clone)]
pub struct Applied(Arc<AtomicI64>);

impl Applied {
    /// Everything below this is applied.
    pub fn set(&self, position: Offset) {
        // What is before the stream counts as applied, also while its reader gets there.
        self.0.fetch_max(position, Ordering::Relaxed);
    }

    /// Below this, everything is applied.
    #[must_use]
    pub fn get(&self) -> Offset {
        self.0.load(Ordering::Relaxed)
    }
}

impl PartitionStream {
    /// A stream of what is sent on the other end of the channel.
    #[must_use]
    pub fn new(range: OffsetRange, items: mpsc::Receiver<Result<StreamItem, LogError>>) -> Self {
        let applied = Applied(Arc::new(AtomicI64::new(range.start)));
        Self { range, applied, items }
    }

    /// How far it is applied, to be told and to be seen.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.applied.clone()
    }

    /// The partition, where the stream begins, and where the partition ended when
    /// it was asked for.
    #[must_use]
    pub fn range(&self) -> OffsetRange {
        self.range
    }
}

/// What comes of reading a topic. An error is about the topic: all of its streams are
/// of no use any more.
pub type TopicStream = BoxStream<'static, Result<TopicEvent, LogError>>;

/// What is told of a topic that is read.
#[derive(Debug)]
pub enum TopicEvent {
    /// A partition, when the reading begins or when it is added.
    Partition(PartitionStream),
    /// The partitions that lag: all there are now.
    Lags(Vec<Lag>),
}

/// That of a partition not everything was applied yet that was there some time ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// The partition.
    pub partition: Partition,
    /// How far it was applied.
    pub position: Offset,
    /// Its end offset; `None` if no broker tells.
    pub end: Option<Offset>,
    /// Since when it lags: everything that was there by then was applied.
    pub since: SystemTime,
    /// Why.
    pub cause: LagCause,
}

/// Why a partition lags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LagCause {
    /// A transaction is open there: what follows its first record waits for its end.
    OpenTransaction,
    /// It has no leader, or nobody tells where it ends because a leader does not answer.
    Silent,
    /// Nothing can be read of it, or whoever reads it takes nothing.
    Unread,
    /// It was silent until now, and what came meanwhile may be on its way.
    Recovering,
    /// Its records come, and are not decoded and applied as fast as they should.
    Slow,
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, position, end, since, cause } = self;
        let since = humantime::format_rfc3339_seconds(*since);
        let end = end.map_or_else(String::new, |end| format!(" of {end}"));
        let at = format!(" stands at {position}{end},");
        // How far one is that moves changes all the time.
        let (at, why) = match cause {
            LagCause::OpenTransaction => (at.as_str(), "a transaction is open there"),
            LagCause::Silent => (" may be", "no leader answers for it"),
            LagCause::Unread => (at.as_str(), "no more of it comes"),
            LagCause::Recovering => (" is", "what came while no broker told is on its way"),
            LagCause::Slow => (" is", "its records are decoded or applied too slowly"),
        };
        write!(f, "partition {partition}{at} behind since {since}: {why}")
    }
}

impl Stream for PartitionStream {
    type Item = Result<StreamItem, LogError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.poll_recv(context)
    }
}

/// Where an acknowledged record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Its partition.
    pub partition: Partition,
    /// Its offset; -1 if the log did not say, as may be of a record that was sent again.
    pub offset: Offset,
}

/// A record that was queued for writing and given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unacknowledged {
    /// Its topic.
    pub topic: String,
    /// Its partition; -1 if none was chosen yet.
    pub partition: Partition,
    /// Its raw key.
    pub key: Option<Vec<u8>>,
}

/// Resolves when a queued record is durable, or will never be.
#[derive(Debug)]
pub struct Delivery(oneshot::Receiver<Result<Ack, LogError>>);

impl Delivery {
    /// A delivery that resolves to what is sent on the other end.
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
