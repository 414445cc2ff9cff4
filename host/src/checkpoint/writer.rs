//! Keeping a checkpoint: a thread of its own appends what streams past, and replaces the
//! manifest now and then.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use crate::checkpoint::compact::{Compacted, Compaction};
use crate::checkpoint::manifest::{LastRecord, Manifest, PartitionState};
use crate::checkpoint::segment::{SegmentWriter, files};
use crate::checkpoint::{Checkpoint, CheckpointError, Loaded, clear};
use crate::log::batch::BatchWriter;
use crate::log::{Headers, Isolation, Offset, OffsetRange, Partition, RecordBatch, TopicDescription};
use crate::sync::lock;

/// How many KiB wait for the disk.
const QUEUE_KIB: u32 = 32 * 1024;

/// How long a table waits for the disk before it gives its checkpoint up.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long whoever waits for the end of it waits for a compaction, and then for the rest.
const ENDING: Duration = Duration::from_secs(10);

/// How often the manifest is replaced, if there is something new.
const EVERY: Duration = Duration::from_secs(10);

/// How often to look whether a compaction is done.
const LOOK: Duration = Duration::from_millis(20);

/// Segments are compacted when they have grown to twice what the last compaction left, and
/// this.
const GROWTH: u64 = 16 * 1024 * 1024;

/// Something that was applied.
#[derive(Debug)]
pub(crate) enum CheckpointRecord {
    /// Records of the log, and the offsets of those that were rejected.
    Records(Arc<RecordBatch>, Vec<Offset>),
    /// Records that are in the checkpoint already: only what was rejected is news.
    Rejected(Partition, Vec<Offset>),
    /// Everything of a partition below this offset.
    Position(Partition, Offset),
    /// The log has lost what a partition held below this offset.
    Start(Partition, Offset),
}

/// What the thread is told.
#[derive(Debug)]
enum Message {
    /// Dropped, what was kept gives its room to others.
    Record(CheckpointRecord, OwnedSemaphorePermit),
    /// Everything of before this time is in it, as was known at that one: milliseconds since
    /// 1970.
    Complete(i64, i64),
    /// Come to an end, and drop this then.
    Finish(oneshot::Sender<()>),
}

/// What has become of a checkpoint, for people.
#[derive(Debug, Clone, Default)]
pub(crate) struct CheckpointWriterState {
    pub(crate) bytes: u64,
    pub(crate) as_of: Option<i64>,
    pub(crate) failed: Option<CheckpointError>,
}

/// The way to the thread that keeps a checkpoint.
#[derive(Debug)]
pub(crate) struct CheckpointWriter {
    messages: Sender<Message>,
    room: Arc<Semaphore>,
    state: Arc<Mutex<CheckpointWriterState>>,
    /// Set when nobody waits for a compaction any more.
    stopped: Arc<AtomicBool>,
}

impl CheckpointWriter {
    /// Begins to keep what comes: behind what was loaded, or, if nothing was, from the first
    /// record on. `ranges` says where the topic begins now.
    pub(crate) fn start(
        checkpoint: Arc<Checkpoint>,
        topic: &TopicDescription,
        ranges: &[OffsetRange],
        headers: Headers,
        isolation: Isolation,
        loaded: Option<&Loaded>,
    ) -> Result<Self, CheckpointError> {
        let manifest = match loaded {
            Some(loaded) => {
                let mut manifest = (*loaded.manifest).clone();
                // What comes now has none, if nobody wants them.
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
        let stopped = Arc::new(AtomicBool::new(false));
        // Each start would leave a small one. What is wrong with it shows when it is read.
        let last = |state: &PartitionState| {
            let segment = SegmentWriter::reopen(&checkpoint.folder, state.segments.last()?).ok()?;
            (!segment.is_full()).then_some((state.partition, segment))
        };
        let open = manifest.partitions.iter().filter_map(last).collect();
        let keeping = Keeping {
            folder: checkpoint.folder.clone(),
            checkpoint,
            is_complete: loaded.is_some(),
            manifest,
            open,
            starts: ranges.iter().map(|range| (range.partition, range.start)).collect(),
            rejected: HashMap::new(),
            may_compact: false,
            compacting: None,
            stopped: stopped.clone(),
            dirty: false,
            state: state.clone(),
        };
        keeping.remove_strangers()?;
        let folder = keeping.folder.clone();
        crate::thread::spawn("ktables-checkpoint", move || keeping.run(&received))
            .map_err(CheckpointError::io("start a thread for", &folder))?;
        Ok(Self { messages, room: Arc::new(Semaphore::new(QUEUE_KIB as usize)), state, stopped })
    }

    pub(crate) fn state(&self) -> CheckpointWriterState {
        lock(&self.state).clone()
    }

    /// Keeps what is about to be applied. Fails if the disk does not take it; the checkpoint
    /// stays as it was then.
    pub(crate) async fn append(&self, kept: CheckpointRecord) -> Result<(), CheckpointError> {
        let bytes = match &kept {
            CheckpointRecord::Records(batch, _) => batch.byte_len(),
            CheckpointRecord::Rejected(..) | CheckpointRecord::Position(..) | CheckpointRecord::Start(..) => {
                0
            }
        };
        let kib = u32::try_from(bytes / 1024).unwrap_or(QUEUE_KIB).clamp(1, QUEUE_KIB);
        match timeout(PATIENCE, self.room.clone().acquire_many_owned(kib)).await {
            Ok(Ok(room)) => self.send(Message::Record(kept, room)),
            _ => Err(CheckpointError::Slow),
        }
    }

    /// All records of before this time are applied, as is known now.
    pub(crate) fn complete(&self, as_of: i64, now: i64) -> Result<(), CheckpointError> {
        self.send(Message::Complete(as_of, now))
    }

    /// Waits until everything is on the disk, and the folder free; false if that takes too
    /// long.
    pub(crate) async fn finish(&self) -> bool {
        let (done, mut finished) = oneshot::channel();
        // An error means that it has come to its end, here and below.
        if self.send(Message::Finish(done)).is_err() || timeout(ENDING, &mut finished).await.is_ok() {
            return true;
        }
        self.stopped.store(true, Ordering::Relaxed);
        timeout(ENDING, finished).await.is_ok()
    }

    fn send(&self, message: Message) -> Result<(), CheckpointError> {
        let gone = |_| self.state().failed.unwrap_or(CheckpointError::Slow);
        self.messages.send(message).map_err(gone)
    }
}

/// What the thread has.
#[derive(Debug)]
struct Keeping {
    folder: PathBuf,
    /// Nobody else may use the folder.
    checkpoint: Arc<Checkpoint>,
    manifest: Manifest,
    /// The last segment of a partition, if it may be appended to.
    open: HashMap<Partition, SegmentWriter>,
    /// Where the log begins.
    starts: HashMap<Partition, Offset>,
    rejected: HashMap<Partition, HashSet<Offset>>,
    /// Before the table is complete, segments may still be read, and it is not known what
    /// was rejected of them.
    may_compact: bool,
    compacting: Option<Compacting>,
    stopped: Arc<AtomicBool>,
    /// Before the first table was complete, there is no manifest.
    is_complete: bool,
    dirty: bool,
    state: Arc<Mutex<CheckpointWriterState>>,
}

/// A compaction under way.
#[derive(Debug)]
struct Compacting {
    partition: Partition,
    /// How many segments it reads.
    count: usize,
    /// The offset behind them.
    next: Offset,
    thread: JoinHandle<Result<Option<Compacted>, CheckpointError>>,
}

impl Keeping {
    fn run(mut self, messages: &Receiver<Message>) {
        let mut finishing = None;
        if let Err(error) = self.follow(messages, &mut finishing) {
            tracing::warn!(topic = self.manifest.topic, "the checkpoint is not kept any more: {error}");
            lock(&self.state).failed = Some(error);
            self.stopped.store(true, Ordering::Relaxed);
            if let Some(compacting) = self.compacting.take() {
                // What it has written nobody will know.
                let _ = compacting.thread.join();
            }
        }
        // Whoever waits for the end may open the folder then.
        drop(self);
        drop(finishing);
    }

    fn follow(
        &mut self,
        messages: &Receiver<Message>,
        finishing: &mut Option<oneshot::Sender<()>>,
    ) -> Result<(), CheckpointError> {
        let mut written = Instant::now();
        while finishing.is_none() {
            let left = EVERY.saturating_sub(written.elapsed());
            match messages.recv_timeout(if self.compacting.is_some() { LOOK } else { left }) {
                Ok(Message::Record(kept, _room)) => self.take(kept)?,
                Ok(Message::Complete(as_of, now)) => {
                    if self.is_complete {
                        let away = now.saturating_sub(self.manifest.as_of);
                        self.manifest.max_away = away.max(self.manifest.max_away);
                    }
                    self.manifest.as_of = as_of;
                    (self.is_complete, self.may_compact, self.dirty) = (true, true, true);
                    self.write()?;
                    self.compact_one();
                }
                Ok(Message::Finish(done)) => *finishing = Some(done),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.compacting.as_ref().is_some_and(|compacting| compacting.thread.is_finished()) {
                self.replace()?;
                self.compact_one();
            }
            if written.elapsed() >= EVERY {
                self.write()?;
                self.compact_one();
                written = Instant::now();
            }
        }
        self.replace()?;
        self.write()
    }

    fn take(&mut self, kept: CheckpointRecord) -> Result<(), CheckpointError> {
        match kept {
            CheckpointRecord::Records(batch, rejected) => {
                self.append(&batch)?;
                self.rejected.entry(batch.partition()).or_default().extend(rejected);
            }
            CheckpointRecord::Rejected(partition, offsets) => {
                self.rejected.entry(partition).or_default().extend(offsets);
            }
            CheckpointRecord::Position(partition, offset) => {
                let state = self.manifest.partition(partition);
                state.position = offset.max(state.position);
                self.dirty = true;
            }
            CheckpointRecord::Start(partition, offset) => drop(self.starts.insert(partition, offset)),
        }
        Ok(())
    }

    fn append(&mut self, batch: &RecordBatch) -> Result<(), CheckpointError> {
        let (Some(next), partition) = (batch.next_offset(), batch.partition()) else { return Ok(()) };
        let mut written: Option<BatchWriter> = None;
        for index in 0..batch.len() {
            let record = batch.get(index);
            if written.as_ref().is_some_and(|written| !written.reaches(record.offset))
                && let Some(written) = written.take()
            {
                self.append_written(partition, written)?;
            }
            let written = written.get_or_insert_with(|| BatchWriter::new(record.offset, record.timestamp));
            written.push(record.offset, record.timestamp, record.key, record.value, record.headers);
        }
        if let Some(written) = written {
            self.append_written(partition, written)?;
        }
        let state = self.manifest.partition(partition);
        (state.position, state.last) = (next.max(state.position), LastRecord::of(batch));
        Ok(())
    }

    fn append_written(&mut self, partition: Partition, batch: BatchWriter) -> Result<(), CheckpointError> {
        if !self.open.contains_key(&partition) {
            let number = self.next_number();
            let segment = SegmentWriter::create(&self.folder, partition, batch.base(), number)?;
            self.manifest.partition(partition).segments.push(segment.info.clone());
            self.open.insert(partition, segment);
        }
        // OK because it was put there.
        let segment = self.open.get_mut(&partition).expect("an open segment");
        segment.append(batch)?;
        let (info, is_full) = (segment.info.clone(), segment.is_full());
        // OK as above.
        *self.manifest.partition(partition).segments.last_mut().expect("an open segment") = info;
        self.dirty = true;
        if is_full && let Some(full) = self.open.remove(&partition) {
            full.sync()?;
        }
        Ok(())
    }

    fn next_number(&mut self) -> u64 {
        self.manifest.next += 1;
        self.manifest.next
    }

    /// Makes what there is the checkpoint, if it is complete.
    fn write(&mut self) -> Result<(), CheckpointError> {
        if !self.is_complete || !self.dirty {
            return Ok(());
        }
        self.checkpoint.check_lock()?;
        self.open.values().try_for_each(SegmentWriter::sync)?;
        self.manifest.write(&self.folder)?;
        self.dirty = false;
        let mut state = lock(&self.state);
        (state.as_of, state.bytes) = (Some(self.manifest.as_of), self.manifest.bytes());
        Ok(())
    }

    /// Begins to compact a partition that has grown, on a thread of its own.
    fn compact_one(&mut self) {
        if self.compacting.is_some() || !self.may_compact {
            return;
        }
        let has_grown = |state: &&PartitionState| state.bytes() > 2 * state.compacted + GROWTH;
        let Some(state) = self.manifest.partitions.iter().find(has_grown) else { return };
        let (partition, segments, next) = (state.partition, state.segments.clone(), state.position);
        // What comes from now on goes into another segment.
        if let Some(open) = self.open.remove(&partition)
            && let Err(error) = open.sync()
        {
            return tracing::warn!("the checkpoint is not compacted: {error}");
        }
        let count = segments.len();
        let compaction = Compaction {
            folder: self.folder.clone(),
            partition,
            segments,
            rejected: self.rejected.get(&partition).cloned().unwrap_or_default(),
            start: self.starts.get(&partition).copied().unwrap_or(0),
            number: self.next_number(),
            stopped: self.stopped.clone(),
        };
        let work = move || compaction.run();
        match crate::thread::spawn("ktables-compact", work) {
            Ok(thread) => self.compacting = Some(Compacting { partition, count, next, thread }),
            Err(error) => tracing::warn!("no thread to compact a checkpoint: {error}"),
        }
    }

    /// Puts what a compaction has written in the place of what it has read; waits for it. One
    /// that fails leaves everything as it is.
    fn replace(&mut self) -> Result<(), CheckpointError> {
        let Some(Compacting { partition, count, next, thread }) = self.compacting.take() else {
            return Ok(());
        };
        let state = self.manifest.partition(partition);
        let Compacted { segments, rejected } = match thread.join() {
            Ok(Ok(Some(compacted))) => compacted,
            Ok(Ok(None)) => return self.remove_strangers(),
            failed => {
                let why = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => "the thread panicked".to_owned(),
                };
                tracing::warn!(topic = self.manifest.topic, "the checkpoint is not compacted: {why}");
                // It is tried again when there is as much more.
                let state = self.manifest.partition(partition);
                state.compacted = state.bytes();
                return self.remove_strangers();
            }
        };
        state.compacted = segments.iter().map(|segment| segment.bytes).sum();
        state.segments.splice(..count, segments);
        // Of those that are gone, nobody will ask.
        let known = self.rejected.entry(partition).or_default();
        known.retain(|offset| *offset >= next || rejected.contains(offset));
        self.dirty = true;
        self.write()?;
        self.remove_strangers()
    }

    /// Removes the segments that the manifest does not name: what a compaction has replaced,
    /// and what a process left that was killed.
    fn remove_strangers(&self) -> Result<(), CheckpointError> {
        let segments = self.manifest.partitions.iter().flat_map(|state| &state.segments);
        let known: HashSet<&str> = segments.map(|segment| &*segment.file).collect();
        for path in files(&self.folder)? {
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_none_or(|name| !known.contains(name)) {
                std::fs::remove_file(&path).map_err(CheckpointError::io("remove", &path))?;
            }
        }
        Ok(())
    }
}
