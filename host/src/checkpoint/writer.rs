//! Writes a checkpoint: a thread of its own appends the records that the table applies, and regularly
//! replaces the manifest.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use crate::checkpoint::compact::{Compaction, CompactionResult};
use crate::checkpoint::manifest::{LastRecord, Manifest, PartitionState};
use crate::checkpoint::record::{CheckpointRecord, QUEUE_KIB};
use crate::checkpoint::segment::{SegmentWriter, list_files};
use crate::checkpoint::{Checkpoint, CheckpointError, LoadedCheckpoint, clear};
use crate::log::batch::BatchWriter;
use crate::log::{
    Headers, Isolation, NO_TIMESTAMP, Offset, OffsetRange, Partition, RecordBatch, TopicDescription,
};
use crate::sync::{Counter, lock};

/// How long a table waits for the disk before it gives up its checkpoint.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);

/// How long [`CheckpointWriter::finish`] waits before it cancels a running compaction, and then once more.
const FINISH_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a thread that waits checks whether somebody waits for its end, and how long it waits nevertheless.
const CHECK_FINISH_EVERY: Duration = Duration::from_millis(100);
const FINISH_GRACE: Duration = Duration::from_secs(2);

/// How often the manifest is replaced, if anything has changed.
const WRITE_MANIFEST_EVERY: Duration = Duration::from_secs(10);

/// How often to check whether a compaction is done.
const CHECK_COMPACTION_EVERY: Duration = Duration::from_millis(20);

/// A partition is compacted when its segments exceed twice their size after the last compaction by this many
/// bytes.
const COMPACTION_THRESHOLD: u64 = 16 * 1024 * 1024;

/// A message to the writing thread.
#[derive(Debug)]
enum Message {
    /// Something to append. Dropping the permit afterwards frees its space in the queue.
    Record(CheckpointRecord, OwnedSemaphorePermit),
    /// What follows must not be in the checkpoint before a count has reached a number.
    WaitFor(Arc<Counter>, u64),
    /// The checkpoint has all records of the topic as of a time. Both times are in milliseconds since 1970.
    Complete { as_of: i64, now: i64 },
    /// Asks the thread to write the manifest and to end; it drops the sender last.
    Finish(oneshot::Sender<()>),
}

/// The state of a checkpoint, as users see it.
#[derive(Debug, Clone, Default)]
pub(crate) struct CheckpointWriterState {
    /// The size on the disk.
    pub(crate) bytes: u64,
    /// The time as of which the checkpoint on the disk is complete; `None` if there is none yet.
    pub(crate) as_of: Option<i64>,
    /// Why it is no longer written.
    pub(crate) failed: Option<CheckpointError>,
}

/// A handle to the thread that writes a checkpoint.
#[derive(Debug)]
pub(crate) struct CheckpointWriter {
    messages: Sender<Message>,
    /// One permit for each KiB that fits into the queue.
    queue_permits: Arc<Semaphore>,
    state: Arc<Mutex<CheckpointWriterState>>,
    /// Set when nobody waits for a compaction any more.
    is_cancelled: Arc<AtomicBool>,
    /// Whether the thread was asked to end.
    is_finished: Arc<AtomicBool>,
    /// Whether the thread waits for a count.
    is_waiting: Arc<AtomicBool>,
}

impl CheckpointWriter {
    /// Starts the thread. It continues the checkpoint that was loaded or, without one, begins another with
    /// the first record. `ranges` are the offsets at which the partitions begin and end now.
    pub(crate) fn start(
        checkpoint: Arc<Checkpoint>,
        topic: &TopicDescription,
        ranges: &[OffsetRange],
        headers: Headers,
        isolation: Isolation,
        loaded: Option<&LoadedCheckpoint>,
    ) -> Result<Self, CheckpointError> {
        let manifest = match loaded {
            Some(loaded) => {
                let mut manifest = (*loaded.manifest).clone();
                // New records have no headers unless the codec needs them.
                manifest.headers &= headers == Headers::Wanted;
                manifest
            }
            None => {
                clear(&checkpoint.folder)?;
                Manifest::new(&topic.name, &topic.id, headers == Headers::Wanted, isolation)
            }
        };
        let (messages, received) = channel();
        let as_of = loaded.map(|loaded| loaded.manifest.as_of);
        let bytes = manifest.bytes();
        let state = Arc::new(Mutex::new(CheckpointWriterState { bytes, as_of, failed: None }));
        let is_cancelled = Arc::new(AtomicBool::new(false));
        let is_finished = Arc::new(AtomicBool::new(false));
        let is_waiting = Arc::new(AtomicBool::new(false));
        // Continues the last segments; otherwise each start would leave small ones. One that cannot be opened
        // stays as it is: reading it reports the error.
        let reopen = |state: &PartitionState| {
            let segment = SegmentWriter::reopen(&checkpoint.folder, state.segments.last()?).ok()?;
            (!segment.is_full()).then_some((state.partition, segment))
        };
        let open_segments = manifest.partitions.iter().filter_map(reopen).collect();
        let thread = WriterThread {
            folder: checkpoint.folder.clone(),
            checkpoint,
            is_complete: loaded.is_some(),
            manifest,
            open_segments,
            starts: ranges.iter().map(|range| (range.partition, range.start)).collect(),
            rejected: HashMap::new(),
            may_compact: false,
            compaction: None,
            has_unnamed_segments: false,
            is_cancelled: is_cancelled.clone(),
            is_finished: is_finished.clone(),
            is_waiting: is_waiting.clone(),
            is_dirty: false,
            state: state.clone(),
        };
        // Whoever was reading another manifest was given up.
        thread.remove_unnamed_segments()?;
        let folder = thread.folder.clone();
        crate::thread::spawn("ktables-checkpoint", move || thread.run(&received))
            .map_err(CheckpointError::io("start a thread for", &folder))?;
        let queue_permits = Arc::new(Semaphore::new(QUEUE_KIB as usize));
        Ok(Self { messages, queue_permits, state, is_cancelled, is_finished, is_waiting })
    }

    pub(crate) fn state(&self) -> CheckpointWriterState {
        lock(&self.state).clone()
    }

    /// Appends something that is about to be applied. Fails if writing has failed; then the checkpoint on the
    /// disk stays as it was. Also fails if the disk is too slow; then what is queued is still written.
    pub(crate) async fn append(&self, record: CheckpointRecord) -> Result<(), CheckpointError> {
        let kib = record.queue_kib();
        loop {
            match timeout(APPEND_TIMEOUT, self.queue_permits.clone().acquire_many_owned(kib)).await {
                Ok(Ok(permits)) => return self.send(Message::Record(record, permits)),
                // It is not the disk that is slow.
                Err(_) if self.is_waiting.load(Ordering::Relaxed) => {}
                _ => return Err(CheckpointError::TooSlow),
            }
        }
    }

    /// Keeps what is appended from now on out of the checkpoint until a count has reached a number. If the count is
    /// closed before, the checkpoint ends here.
    pub(crate) fn wait_for(&self, count: Arc<Counter>, number: u64) -> Result<(), CheckpointError> {
        self.send(Message::WaitFor(count, number))
    }

    /// Reports that, by the time `now`, the table had applied everything that the topic held at `as_of`.
    pub(crate) fn complete(&self, as_of: i64, now: i64) -> Result<(), CheckpointError> {
        self.send(Message::Complete { as_of, now })
    }

    /// Waits until everything is on the disk and the folder is unlocked. Returns false if that takes too
    /// long.
    pub(crate) async fn finish(&self) -> bool {
        self.is_finished.store(true, Ordering::Relaxed);
        let (done, mut finished) = oneshot::channel();
        // An error means that the thread has ended, here and below.
        if self.send(Message::Finish(done)).is_err() || timeout(FINISH_TIMEOUT, &mut finished).await.is_ok() {
            return true;
        }
        self.is_cancelled.store(true, Ordering::Relaxed);
        timeout(FINISH_TIMEOUT, finished).await.is_ok()
    }

    fn send(&self, message: Message) -> Result<(), CheckpointError> {
        self.messages.send(message).map_err(|_| match self.state().failed {
            Some(error) => error,
            None if self.is_finished.load(Ordering::Relaxed) => CheckpointError::Finished,
            None => CheckpointError::Panicked,
        })
    }
}

/// The state of the writing thread.
#[derive(Debug)]
struct WriterThread {
    folder: PathBuf,
    /// Holds the lock of the folder.
    checkpoint: Arc<Checkpoint>,
    manifest: Manifest,
    /// The last segment of each partition, if it may be appended to.
    open_segments: HashMap<Partition, SegmentWriter>,
    /// The offset at which the log begins, by partition.
    starts: HashMap<Partition, Offset>,
    /// The offsets of rejected records in the checkpoint, by partition.
    rejected: HashMap<Partition, HashSet<Offset>>,
    /// Whether the table is complete. Before that, segments may still be read, and it is unknown which of
    /// their records are rejected.
    may_compact: bool,
    compaction: Option<RunningCompaction>,
    /// Whether segments that the manifest does not name are left to be removed, because they may be read.
    has_unnamed_segments: bool,
    is_cancelled: Arc<AtomicBool>,
    /// Whether the thread was asked to end.
    is_finished: Arc<AtomicBool>,
    /// Whether it waits for a count.
    is_waiting: Arc<AtomicBool>,
    /// Whether a table was complete with this checkpoint once. Before that, no manifest is written.
    is_complete: bool,
    /// Whether anything has changed since the manifest was written.
    is_dirty: bool,
    state: Arc<Mutex<CheckpointWriterState>>,
}

/// A compaction that is running.
#[derive(Debug)]
struct RunningCompaction {
    partition: Partition,
    /// How many segments it reads.
    count: usize,
    /// The offset after them.
    next: Offset,
    thread: JoinHandle<Result<Option<CompactionResult>, CheckpointError>>,
}

impl WriterThread {
    fn run(mut self, messages: &Receiver<Message>) {
        let mut done = None;
        if let Err(error) = self.process_messages(messages, &mut done) {
            tracing::warn!(topic = self.manifest.topic, "the checkpoint is no longer written: {error}");
            lock(&self.state).failed = Some(error);
            self.is_cancelled.store(true, Ordering::Relaxed);
            if let Some(compaction) = self.compaction.take() {
                // OK to ignore: no manifest will name the segments that it has written.
                let _ = compaction.thread.join();
            }
        }
        // In this order: a caller of `finish` may open the folder as soon as `done` is dropped.
        drop(self);
        drop(done);
    }

    fn process_messages(
        &mut self,
        messages: &Receiver<Message>,
        done: &mut Option<oneshot::Sender<()>>,
    ) -> Result<(), CheckpointError> {
        let mut written = Instant::now();
        while done.is_none() {
            let left = WRITE_MANIFEST_EVERY.saturating_sub(written.elapsed());
            let wait = if self.compaction.is_some() { CHECK_COMPACTION_EVERY } else { left };
            match messages.recv_timeout(wait) {
                Ok(Message::Record(record, _permits)) => self.apply(record)?,
                Ok(Message::WaitFor(count, number)) => {
                    self.is_waiting.store(true, Ordering::Relaxed);
                    let is_reached = self.wait_for(&count, number)?;
                    self.is_waiting.store(false, Ordering::Relaxed);
                    if !is_reached {
                        break;
                    }
                }
                Ok(Message::Complete { as_of, now }) => {
                    if self.is_complete {
                        let age = now.saturating_sub(self.manifest.as_of);
                        self.manifest.max_away = age.max(self.manifest.max_away);
                    }
                    self.manifest.as_of = as_of;
                    (self.is_complete, self.may_compact, self.is_dirty) = (true, true, true);
                    self.write_manifest()?;
                    self.start_compaction();
                }
                Ok(Message::Finish(sender)) => *done = Some(sender),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.compaction.as_ref().is_some_and(|compaction| compaction.thread.is_finished()) {
                self.finish_compaction()?;
                self.start_compaction();
            }
            if written.elapsed() >= WRITE_MANIFEST_EVERY {
                self.write_manifest()?;
                if self.has_unnamed_segments {
                    self.remove_unread_segments()?;
                }
                self.start_compaction();
                written = Instant::now();
            }
        }
        self.finish_compaction()?;
        self.write_manifest()
    }

    /// Waits until a count has reached a number. Returns false if the checkpoint ends before: the count is closed, or
    /// somebody waits for the end of the thread.
    fn wait_for(&mut self, count: &Counter, number: u64) -> Result<bool, CheckpointError> {
        if count.wait_until(number, Duration::ZERO) {
            return Ok(true);
        }
        // What was appended so far is in the checkpoint meanwhile.
        self.write_manifest()?;
        let mut finish_by = None;
        while !count.wait_until(number, CHECK_FINISH_EVERY) {
            if self.is_finished.load(Ordering::Relaxed) {
                finish_by.get_or_insert_with(|| Instant::now() + FINISH_GRACE);
            }
            if count.is_closed() || finish_by.is_some_and(|finish_by| Instant::now() >= finish_by) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn apply(&mut self, record: CheckpointRecord) -> Result<(), CheckpointError> {
        match record {
            CheckpointRecord::Records(batch, rejected) => {
                self.append_records(&batch)?;
                self.rejected.entry(batch.partition()).or_default().extend(rejected);
            }
            CheckpointRecord::Rejected(partition, offsets) => {
                self.rejected.entry(partition).or_default().extend(offsets);
            }
            CheckpointRecord::Position(partition, offset) => {
                let state = self.manifest.partition_mut(partition);
                state.position = offset.max(state.position);
                self.is_dirty = true;
            }
            CheckpointRecord::Start(partition, offset) => drop(self.starts.insert(partition, offset)),
        }
        Ok(())
    }

    fn append_records(&mut self, batch: &RecordBatch) -> Result<(), CheckpointError> {
        let (Some(next), partition) = (batch.next_offset(), batch.partition()) else { return Ok(()) };
        let mut writer: Option<BatchWriter> = None;
        for index in 0..batch.len() {
            let record = batch.get(index);
            if writer.as_ref().is_some_and(|writer| !writer.is_in_reach(record.offset))
                && let Some(writer) = writer.take()
            {
                self.append_batch(partition, writer)?;
            }
            let timestamp = record.timestamp.unwrap_or(NO_TIMESTAMP);
            let writer = writer.get_or_insert_with(|| BatchWriter::new(record.offset, timestamp));
            writer.push(record.offset, timestamp, record.key, record.value, record.headers);
        }
        if let Some(writer) = writer {
            self.append_batch(partition, writer)?;
        }
        let state = self.manifest.partition_mut(partition);
        (state.position, state.last) = (next.max(state.position), LastRecord::of(batch));
        Ok(())
    }

    fn append_batch(&mut self, partition: Partition, batch: BatchWriter) -> Result<(), CheckpointError> {
        if !self.open_segments.contains_key(&partition) {
            let number = self.next_number();
            let segment = SegmentWriter::create(&self.folder, partition, batch.base(), number)?;
            self.manifest.partition_mut(partition).segments.push(segment.info.clone());
            self.open_segments.insert(partition, segment);
        }
        // OK because it was inserted above if it did not exist.
        let segment = self.open_segments.get_mut(&partition).expect("an open segment");
        segment.append(batch)?;
        let (info, is_full) = (segment.info.clone(), segment.is_full());
        // OK because each open segment is the last one in the manifest.
        *self.manifest.partition_mut(partition).segments.last_mut().expect("an open segment") = info;
        self.is_dirty = true;
        if is_full && let Some(full) = self.open_segments.remove(&partition) {
            full.sync()?;
        }
        Ok(())
    }

    fn next_number(&mut self) -> u64 {
        self.manifest.last_number += 1;
        self.manifest.last_number
    }

    /// Writes all segments to the disk, then the manifest, if the checkpoint is complete and has changed.
    fn write_manifest(&mut self) -> Result<(), CheckpointError> {
        if !self.is_complete || !self.is_dirty {
            return Ok(());
        }
        self.checkpoint.check_lock()?;
        self.open_segments.values().try_for_each(SegmentWriter::sync)?;
        self.manifest.write(&self.folder)?;
        self.is_dirty = false;
        let mut state = lock(&self.state);
        (state.as_of, state.bytes) = (Some(self.manifest.as_of), self.manifest.bytes());
        Ok(())
    }

    /// Starts to compact a partition that has grown enough, on a thread of its own. Only one compaction runs
    /// at a time.
    fn start_compaction(&mut self) {
        if self.compaction.is_some() || !self.may_compact {
            return;
        }
        let has_grown = |state: &&PartitionState| state.bytes() > 2 * state.compacted + COMPACTION_THRESHOLD;
        let Some(state) = self.manifest.partitions.iter().find(has_grown) else { return };
        let (partition, segments, next) = (state.partition, state.segments.clone(), state.position);
        // Records that come from now on go into another segment.
        if let Some(segment) = self.open_segments.get_mut(&partition)
            && let Err(error) = segment.sync()
        {
            // It stays open, so that the next manifest syncs it.
            return tracing::warn!("could not compact the checkpoint: {error}");
        }
        self.open_segments.remove(&partition);
        let count = segments.len();
        let compaction = Compaction {
            folder: self.folder.clone(),
            partition,
            segments,
            rejected: self.rejected.get(&partition).cloned().unwrap_or_default(),
            start: self.starts.get(&partition).copied().unwrap_or(0),
            number: self.next_number(),
            is_cancelled: self.is_cancelled.clone(),
        };
        match crate::thread::spawn("ktables-compact", move || compaction.run()) {
            Ok(thread) => self.compaction = Some(RunningCompaction { partition, count, next, thread }),
            Err(error) => tracing::warn!("could not start a thread to compact the checkpoint: {error}"),
        }
    }

    /// Waits for the running compaction, and replaces the segments that it read by those that it wrote. If
    /// it failed, all segments stay.
    fn finish_compaction(&mut self) -> Result<(), CheckpointError> {
        let Some(RunningCompaction { partition, count, next, thread }) = self.compaction.take() else {
            return Ok(());
        };
        let state = self.manifest.partition_mut(partition);
        let CompactionResult { segments, rejected } = match thread.join() {
            Ok(Ok(Some(result))) => result,
            Ok(Ok(None)) => return self.remove_unread_segments(),
            failed => {
                let reason = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => "its thread panicked".to_owned(),
                };
                tracing::warn!(topic = self.manifest.topic, "could not compact the checkpoint: {reason}");
                // The next attempt is due when the partition has grown as after a compaction.
                let state = self.manifest.partition_mut(partition);
                state.compacted = state.bytes();
                return self.remove_unread_segments();
            }
        };
        state.compacted = segments.iter().map(|segment| segment.bytes).sum();
        state.segments.splice(..count, segments);
        // Forgets the rejected records that the compaction dropped.
        let known = self.rejected.entry(partition).or_default();
        known.retain(|offset| *offset >= next || rejected.contains(offset));
        self.is_dirty = true;
        self.write_manifest()?;
        self.remove_unread_segments()
    }

    /// Removes the segments that the manifest does not name, as soon as no other generation is reading the checkpoint.
    fn remove_unread_segments(&mut self) -> Result<(), CheckpointError> {
        self.has_unnamed_segments = !self.checkpoint.readers.is_empty();
        if self.has_unnamed_segments { Ok(()) } else { self.remove_unnamed_segments() }
    }

    /// Removes the segments that the manifest does not name: those that a compaction replaced, and those
    /// that a killed process left.
    fn remove_unnamed_segments(&self) -> Result<(), CheckpointError> {
        let segments = self.manifest.partitions.iter().flat_map(|state| &state.segments);
        let known: HashSet<&str> = segments.map(|segment| &*segment.file).collect();
        for path in list_files(&self.folder)? {
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_none_or(|name| !known.contains(name)) {
                std::fs::remove_file(&path).map_err(CheckpointError::io("remove", &path))?;
            }
        }
        Ok(())
    }
}
