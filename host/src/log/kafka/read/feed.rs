//! From a client's queue into partition streams. Records are gathered into batches;
//! news of a partition's end travel behind the records they speak of.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::timeout;

use crate::log::kafka::ffi::event::Fetched;
use crate::log::{
    Applied, Headers, LogError, Offset, OffsetRange, Partition, PartitionStream, RecordBatch, StreamItem,
};
use crate::sync::lock;

/// How many items wait between a client and a table: enough that decoding never
/// waits for the network.
const STREAM_ITEMS: usize = 4;

/// One partition's way to its table.
#[derive(Debug)]
pub(in crate::log::kafka) struct Feed {
    pub(in crate::log::kafka) partition: Partition,
    /// Where the partition ended when the stream was asked for.
    pub(in crate::log::kafka) target: Offset,
    /// Everything before this is in the stream, in `batch` or in `pending`.
    position: Offset,
    /// The leader epoch of the last record, by which a broker tells a log that was
    /// truncated from the one that was read; -1 if there is none.
    epoch: i32,
    /// What was last said of the position.
    told: Offset,
    /// What was last said of the log's start.
    started: Offset,
    progress: Arc<Progress>,
    batch: RecordBatch,
    /// What the stream has no room for.
    pending: VecDeque<Result<StreamItem, LogError>>,
    items: mpsc::Sender<Result<StreamItem, LogError>>,
    /// No more is fetched until there is room.
    pub(in crate::log::kafka) paused: bool,
    /// The partition's end was seen, at whatever offset.
    pub(in crate::log::kafka) seen_end: bool,
    /// Shared by all feeds of one reading of a topic.
    pub(in crate::log::kafka) reading: Arc<Reading>,
}

/// One reading of a topic, by one table: lives as long as any of its feeds.
#[derive(Debug)]
pub(in crate::log::kafka) struct Reading {
    pub(in crate::log::kafka) topic: Arc<str>,
    /// The topic's identity.
    pub(in crate::log::kafka) id: String,
    pub(in crate::log::kafka) headers: Headers,
    /// How far its partitions are. A std lock: held to look or to add one.
    progress: Mutex<Vec<Arc<Progress>>>,
    /// It is loaded, and the tail client follows it.
    pub(in crate::log::kafka) is_followed: AtomicBool,
}

/// How far a partition's feed is, for whoever watches over it.
#[derive(Debug)]
pub(in crate::log::kafka) struct Progress {
    pub(in crate::log::kafka) partition: Partition,
    /// Everything below this was handed on.
    pub(in crate::log::kafka) position: AtomicI64,
    /// How far of that was applied.
    pub(in crate::log::kafka) applied: Applied,
    /// Where the partition begins; -1 before anybody asked.
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

    /// How far each partition is.
    pub(in crate::log::kafka) fn progress(&self) -> Vec<Arc<Progress>> {
        lock(&self.progress).clone()
    }

    fn add(&self, stream: &PartitionStream) -> Arc<Progress> {
        let OffsetRange { partition, start, .. } = stream.range();
        let (position, start) = (AtomicI64::new(start), AtomicI64::new(-1));
        let progress = Arc::new(Progress { partition, position, applied: stream.applied(), start });
        // OK as above.
        lock(&self.progress).push(progress.clone());
        progress
    }
}

impl Feed {
    /// A partition's feed from the start of its range, and the stream it fills.
    pub(in crate::log::kafka) fn new(reading: &Arc<Reading>, range: OffsetRange) -> (Self, PartitionStream) {
        let (items, stream) = mpsc::channel(STREAM_ITEMS);
        let stream = PartitionStream::new(range, stream);
        let feed = Self {
            partition: range.partition,
            target: range.end,
            position: range.start,
            epoch: -1,
            told: range.start,
            // Where the reading begins need not be where the log does.
            started: -1,
            progress: reading.add(&stream),
            batch: RecordBatch::new(range.partition),
            pending: VecDeque::new(),
            items,
            paused: false,
            seen_end: false,
            reading: reading.clone(),
        };
        (feed, stream)
    }

    /// The offset to go on from.
    pub(in crate::log::kafka) fn position(&self) -> Offset {
        self.position
    }

    /// The leader epoch of what was read last.
    pub(in crate::log::kafka) fn epoch(&self) -> i32 {
        self.epoch
    }

    /// Whether nobody reads the stream any more.
    pub(in crate::log::kafka) fn is_closed(&self) -> bool {
        self.items.is_closed()
    }

    pub(in crate::log::kafka) fn push(&mut self, record: &Fetched) {
        // A record may come twice after a client was replaced.
        if record.offset() < self.position {
            return;
        }
        let headers = match self.reading.headers {
            Headers::Wanted => record.headers(),
            Headers::Unwanted => Vec::new(),
        };
        self.batch.push(record.offset(), record.timestamp(), record.key(), record.value(), headers);
        self.position = record.offset() + 1;
        self.epoch = record.leader_epoch();
        if self.batch.is_full() {
            self.flush();
        }
    }

    /// Everything below this offset was handed out, records or not.
    pub(in crate::log::kafka) fn advance(&mut self, offset: Offset) {
        if offset > self.position {
            self.flush();
            self.position = offset;
        }
    }

    /// Sends what was gathered, the position where it is not told by it, and the log's
    /// start if it moved.
    pub(in crate::log::kafka) fn flush(&mut self) {
        if let Some(next) = self.batch.next_offset() {
            let batch = std::mem::replace(&mut self.batch, RecordBatch::new(self.partition));
            self.told = next;
            self.send(Ok(StreamItem::Records(Box::new(batch))));
        }
        if self.position > self.told {
            self.told = self.position;
            self.send(Ok(StreamItem::Position(self.position)));
        }
        let start = self.progress.start.load(Ordering::Relaxed);
        // What it has lost and we have not read yet would come behind.
        if start > self.started && self.told >= start {
            self.started = start;
            self.send(Ok(StreamItem::Start(start)));
        }
        self.progress.position.store(self.told, Ordering::Relaxed);
    }

    /// Ends the stream.
    pub(in crate::log::kafka) fn fail(&mut self, error: LogError) {
        self.flush();
        self.send(Err(error));
    }

    fn send(&mut self, item: Result<StreamItem, LogError>) {
        self.pending.push_back(item);
        self.settle();
    }

    /// Sends what the stream has room for; true if nothing is left over.
    pub(in crate::log::kafka) fn settle(&mut self) -> bool {
        while let Some(item) = self.pending.pop_front() {
            match self.items.try_send(item) {
                Ok(()) => {}
                Err(TrySendError::Full(item)) => {
                    self.pending.push_front(item);
                    return false;
                }
                // Nobody wants to know.
                Err(TrySendError::Closed(_)) => self.pending.clear(),
            }
        }
        true
    }

    /// Waits until the stream has taken everything; false if it takes nothing for so
    /// long. Not for threads of a runtime.
    pub(in crate::log::kafka) fn settle_within(&mut self, patience: Duration, runtime: &Handle) -> bool {
        while !self.settle() {
            let room = async { timeout(patience, self.items.reserve()).await.is_ok() };
            if !runtime.block_on(room) {
                return false;
            }
        }
        true
    }
}

/// The feeds of one client, found by record or by place.
#[derive(Debug, Default)]
pub(in crate::log::kafka) struct Feeds {
    feeds: Vec<Feed>,
    by_place: HashMap<(Arc<str>, Partition), usize>,
    /// By what a record tells without its topic's name.
    by_source: HashMap<(usize, Partition), usize>,
}

impl Feeds {
    pub(in crate::log::kafka) fn extend(&mut self, feeds: Vec<Feed>) {
        self.feeds.extend(feeds);
        self.index();
    }

    /// Takes out the feeds that nobody reads any more.
    pub(in crate::log::kafka) fn take_closed(&mut self) -> Vec<Feed> {
        let (closed, open) = std::mem::take(&mut self.feeds).into_iter().partition(Feed::is_closed);
        self.feeds = open;
        self.index();
        closed
    }

    fn index(&mut self) {
        let places = self.feeds.iter().enumerate();
        self.by_place =
            places.map(|(index, feed)| ((feed.reading.topic.clone(), feed.partition), index)).collect();
        self.by_source.clear();
    }

    /// The feed of a record.
    pub(in crate::log::kafka) fn of(&mut self, record: &Fetched) -> Option<&mut Feed> {
        let index = match self.by_source.get(&record.source()) {
            Some(&index) => index,
            None => {
                let index = *self.by_place.get(&(record.topic().into(), record.partition()))?;
                self.by_source.insert(record.source(), index);
                index
            }
        };
        self.feeds.get_mut(index)
    }

    pub(in crate::log::kafka) fn at(&mut self, topic: &str, partition: Partition) -> Option<&mut Feed> {
        let index = *self.by_place.get(&(topic.into(), partition))?;
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
