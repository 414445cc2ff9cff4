//! Moves records from a client's queue into partition streams. A feed collects records into batches.
//! Positions travel through the same stream, after the records that precede them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::log::kafka::ffi::event::FetchedRecord;
use crate::log::{
    Headers, LogError, Offset, OffsetRange, Partition, PartitionStream, RecordBatch, StreamItem,
};
use crate::sync::lock;

/// How many items a stream buffers between a client and a table: enough that decoding never waits for the
/// network.
const STREAM_ITEMS: usize = 4;

/// Sends the records and positions of one partition to its table.
#[derive(Debug)]
pub(in crate::log::kafka) struct Feed {
    pub(in crate::log::kafka) partition: Partition,
    /// The end offset of the partition when the stream was requested.
    pub(in crate::log::kafka) target: Offset,
    /// The next offset to read: every record below it is in the stream, in `batch` or in `pending`.
    position: Offset,
    /// The leader epoch of the last record, by which librdkafka finds out from the broker whether the log was
    /// truncated since; -1 if unknown.
    epoch: i32,
    /// The position that was last sent to the stream or put into `pending`, with records or alone.
    reported: Offset,
    /// The first offset of the log that was last sent to the stream; -1 if none was.
    reported_start: Offset,
    progress: Arc<PartitionProgress>,
    batch: RecordBatch,
    /// Items that did not fit into the stream yet.
    pending: VecDeque<Result<StreamItem, LogError>>,
    items: mpsc::Sender<Result<StreamItem, LogError>>,
    /// Whether fetching is paused until the stream has room.
    pub(in crate::log::kafka) is_paused: bool,
    /// Whether the client has reported an end of the partition, at any offset.
    pub(in crate::log::kafka) has_reached_end: bool,
    /// The reading of the topic that this feed belongs to.
    pub(in crate::log::kafka) reading: Arc<Reading>,
}

/// One reading of a topic, by a generation of a table or for a watcher that resumes. It lives as long as any of
/// its feeds.
#[derive(Debug)]
pub(in crate::log::kafka) struct Reading {
    pub(in crate::log::kafka) topic: Arc<str>,
    /// The identity of the topic. A re-created topic has another one.
    pub(in crate::log::kafka) id: String,
    pub(in crate::log::kafka) headers: Headers,
    /// The progress of its partitions. A std lock, held only to read or to add one.
    progress: Mutex<Vec<Arc<PartitionProgress>>>,
    /// Whether loading has ended, and a tail client follows the topic.
    pub(in crate::log::kafka) is_followed: AtomicBool,
}

/// The progress of a partition's feed, which the monitor reads.
#[derive(Debug)]
pub(in crate::log::kafka) struct PartitionProgress {
    pub(in crate::log::kafka) partition: Partition,
    /// Every record below this offset was sent to the stream, or is in `pending`.
    pub(in crate::log::kafka) position: AtomicI64,
    items: mpsc::WeakSender<Result<StreamItem, LogError>>,
    /// The first offset of the partition; -1 until it was requested.
    pub(in crate::log::kafka) start: AtomicI64,
}

impl Reading {
    pub(in crate::log::kafka) fn new(topic: &str, id: &str, headers: Headers) -> Self {
        Self {
            topic: topic.into(),
            id: id.to_owned(),
            headers,
            progress: Mutex::default(),
            is_followed: AtomicBool::new(false),
        }
    }

    /// Returns the progress of each partition.
    pub(in crate::log::kafka) fn progress(&self) -> Vec<Arc<PartitionProgress>> {
        lock(&self.progress).clone()
    }

    fn add(
        &self,
        range: OffsetRange,
        items: mpsc::WeakSender<Result<StreamItem, LogError>>,
    ) -> Arc<PartitionProgress> {
        let (position, start) = (AtomicI64::new(range.start), AtomicI64::new(-1));
        let progress = Arc::new(PartitionProgress { partition: range.partition, position, items, start });
        lock(&self.progress).push(progress.clone());
        progress
    }
}

impl PartitionProgress {
    /// Whether the reader has taken everything from the stream.
    pub(in crate::log::kafka) fn is_drained(&self) -> bool {
        self.items.upgrade().is_some_and(|items| items.capacity() == items.max_capacity())
    }
}

impl Feed {
    /// Creates the feed of a partition, from the start of the range, and the stream that it fills.
    pub(in crate::log::kafka) fn new(reading: &Arc<Reading>, range: OffsetRange) -> (Self, PartitionStream) {
        let (items, stream) = mpsc::channel(STREAM_ITEMS);
        let progress = reading.add(range, items.downgrade());
        let feed = Self {
            partition: range.partition,
            target: range.end,
            position: range.start,
            epoch: -1,
            reported: range.start,
            // The range may begin after the first offset of the log.
            reported_start: -1,
            progress,
            batch: RecordBatch::new(range.partition),
            pending: VecDeque::new(),
            items,
            is_paused: false,
            has_reached_end: false,
            reading: reading.clone(),
        };
        (feed, PartitionStream::from_channel(range, stream))
    }

    /// The next offset to read.
    pub(in crate::log::kafka) fn position(&self) -> Offset {
        self.position
    }

    /// The leader epoch of the last record; -1 if unknown.
    pub(in crate::log::kafka) fn epoch(&self) -> i32 {
        self.epoch
    }

    /// Whether the reader of the stream has dropped it.
    pub(in crate::log::kafka) fn is_closed(&self) -> bool {
        self.items.is_closed()
    }

    /// Adds a record to the batch, and sends the batch if it is full.
    pub(in crate::log::kafka) fn push(&mut self, record: &FetchedRecord) {
        // A record may arrive twice after a client was replaced.
        if record.offset() < self.position {
            return;
        }
        let headers = match self.reading.headers {
            Headers::Wanted => record.headers(),
            Headers::Unwanted => Vec::new(),
        };
        self.batch.push(record.offset(), Some(record.timestamp()), record.key(), record.value(), headers);
        self.position = record.offset() + 1;
        self.epoch = record.leader_epoch();
        if self.batch.is_full() {
            self.flush();
        }
    }

    /// Advances the position: the client has passed everything below this offset, also offsets without a
    /// record (control records, and holes that compaction left).
    pub(in crate::log::kafka) fn advance(&mut self, offset: Offset) {
        if offset > self.position {
            self.flush();
            self.position = offset;
        }
    }

    /// Sends the collected records, then the position if it is after them, then the first offset of the log
    /// if that has changed.
    pub(in crate::log::kafka) fn flush(&mut self) {
        if let Some(next) = self.batch.next_offset() {
            let batch = std::mem::replace(&mut self.batch, RecordBatch::new(self.partition));
            self.reported = next;
            self.send(Ok(StreamItem::Records(Box::new(batch))));
        }
        if self.position > self.reported {
            self.reported = self.position;
            self.send(Ok(StreamItem::Position(self.position)));
        }
        let start = self.progress.start.load(Ordering::Relaxed);
        // Not before the position has reached it: records below it may still follow in the stream.
        if start > self.reported_start && self.reported >= start {
            self.reported_start = start;
            self.send(Ok(StreamItem::Start(start)));
        }
        self.progress.position.store(self.reported, Ordering::Relaxed);
    }

    /// Ends the stream with an error, after the collected records.
    pub(in crate::log::kafka) fn fail(&mut self, error: LogError) {
        self.flush();
        self.send(Err(error));
    }

    fn send(&mut self, item: Result<StreamItem, LogError>) {
        self.pending.push_back(item);
        self.send_pending();
    }

    /// Sends pending items while the stream has room. Returns whether all were sent.
    pub(in crate::log::kafka) fn send_pending(&mut self) -> bool {
        while let Some(item) = self.pending.pop_front() {
            match self.items.try_send(item) {
                Ok(()) => {}
                Err(TrySendError::Full(item)) => {
                    self.pending.push_front(item);
                    return false;
                }
                // Nobody reads the stream any more.
                Err(TrySendError::Closed(_)) => self.pending.clear(),
            }
        }
        true
    }

    /// Sends all pending items, and blocks while the stream is full. Returns false if the stream accepted no
    /// item for this long. Must not be called on a thread of a runtime.
    pub(in crate::log::kafka) fn send_pending_within(&mut self, timeout: Duration, runtime: &Handle) -> bool {
        while !self.send_pending() {
            let has_room = async { tokio::time::timeout(timeout, self.items.reserve()).await.is_ok() };
            if !runtime.block_on(has_room) {
                return false;
            }
        }
        true
    }
}

/// The feeds of one client, found by record or by partition.
#[derive(Debug, Default)]
pub(in crate::log::kafka) struct Feeds {
    feeds: Vec<Feed>,
    by_partition: HashMap<(Arc<str>, Partition), usize>,
    /// A cache of `by_partition` whose keys can be read from a record without its topic's name.
    by_source: HashMap<(usize, Partition), usize>,
}

impl Feeds {
    /// Adds feeds.
    pub(in crate::log::kafka) fn extend(&mut self, feeds: Vec<Feed>) {
        self.feeds.extend(feeds);
        self.rebuild_index();
    }

    /// Removes and returns the feeds whose streams nobody reads any more.
    pub(in crate::log::kafka) fn take_closed(&mut self) -> Vec<Feed> {
        let (closed, open) = std::mem::take(&mut self.feeds).into_iter().partition(Feed::is_closed);
        self.feeds = open;
        self.rebuild_index();
        closed
    }

    fn rebuild_index(&mut self) {
        let feeds = self.feeds.iter().enumerate();
        self.by_partition =
            feeds.map(|(index, feed)| ((feed.reading.topic.clone(), feed.partition), index)).collect();
        self.by_source.clear();
    }

    /// Returns the feed of a record's partition.
    pub(in crate::log::kafka) fn for_record(&mut self, record: &FetchedRecord) -> Option<&mut Feed> {
        let index = match self.by_source.get(&record.source()) {
            Some(&index) => index,
            None => {
                let index = *self.by_partition.get(&(record.topic().into(), record.partition()))?;
                self.by_source.insert(record.source(), index);
                index
            }
        };
        self.feeds.get_mut(index)
    }

    /// Returns the feed of a partition.
    pub(in crate::log::kafka) fn get_mut(&mut self, topic: &str, partition: Partition) -> Option<&mut Feed> {
        let index = *self.by_partition.get(&(topic.into(), partition))?;
        self.feeds.get_mut(index)
    }

    pub(in crate::log::kafka) fn iter(&self) -> impl Iterator<Item = &Feed> {
        self.feeds.iter()
    }

    pub(in crate::log::kafka) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Feed> {
        self.feeds.iter_mut()
    }

    pub(in crate::log::kafka) fn into_feeds(self) -> Vec<Feed> {
        self.feeds
    }
}
