//! What a log hands out: partition streams and deliveries.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::{mpsc, oneshot};

use crate::log::{LogError, Offset, Partition, RecordBatch};

/// What comes through a [`PartitionStream`], in the order of the log.
#[derive(Debug, Clone)]
pub enum StreamItem {
    /// Consecutive records.
    Records(Box<RecordBatch>),
    /// Everything below this offset has come through the stream, although no
    /// record may have had the last offsets (control records, compaction).
    Position(Offset),
}

/// The records of one partition, in order, going on for ever.
#[derive(Debug)]
pub struct PartitionStream {
    partition: Partition,
    items: mpsc::Receiver<Result<StreamItem, LogError>>,
}

impl PartitionStream {
    /// A stream of what is sent on the other end of the channel.
    #[must_use]
    pub fn new(partition: Partition, items: mpsc::Receiver<Result<StreamItem, LogError>>) -> Self {
        Self { partition, items }
    }

    /// The partition the stream is of.
    #[must_use]
    pub fn partition(&self) -> Partition {
        self.partition
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
    /// Its offset.
    pub offset: Offset,
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
