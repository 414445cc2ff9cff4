//! Keeping a checkpoint: a thread of its own appends what streams past, and replaces the
//! manifest now and then.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::checkpoint::compact::{Compacted, compact};
use crate::checkpoint::manifest::{LastRecord, Manifest, SegmentInfo};
use crate::checkpoint::segment::{SegmentWriter, files};
use crate::checkpoint::{Checkpoint, CheckpointError, Loaded, clear};
use crate::log::batch::BatchWriter;
use crate::log::{Headers, Isolation, Offset, Partition, RecordBatch, TopicDescription};

/// How many batches wait for the disk: 32 MiB.
const QUEUE: usize = 256;

/// How long a table waits for the disk before it gives its checkpoint up.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often the manifest is replaced, if there is something new.
const EVERY: Duration = Duration::from_secs(10);

/// Segments are compacted when they have grown to twice what the last compaction left, and
/// this.
const GROWTH: u64 = 16 * 1024 * 1024;

/// Something that was applied.
#[derive(Debug)]
pub(crate) enum Kept {
    /// Records of the log, and the offsets of those that were rejected.
    Records(Arc<RecordBatch>, Vec<Offset>),
    /// Records that are in the checkpoint already: only what was rejected is news.
    Rejected(Partition, Vec<Offset>),
    /// Everything of a partition below this offset.
    Position(Partition, Offset),
}

/// What the thread is told.
#[derive(Debug)]
enum Message {
    Kept(Kept),
    /// Everything of before this time (milliseconds since 1970) is in it.
    Complete(i64),
    Compacted(Partition, usize, Offset, Result<Compacted, CheckpointError>),
    /// Come to an end, and drop this then.
    Finish(oneshot::Sender<()>),
}

/// What has become of a checkpoint, for people.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeeperState {
    pub(crate) bytes: u64,
    pub(crate) as_of: Option<i64>,
    pub(crate) failed: Option<CheckpointError>,
}

/// The way to the thread that keeps a checkpoint.
#[derive(Debug)]
pub(crate) struct Keeper {
    messages: mpsc::Sender<Message>,
    state: Arc<Mutex<KeeperState>>,
}

impl Keeper {
    /// Begins to keep what comes: behind what was loaded, or, if nothing was, from the first
    /// record on.
    pub(crate) fn start(
        checkpoint: Arc<Checkpoint>,
        topic: &TopicDescription,
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
        let (messages, received) = mpsc::channel(QUEUE);
        let as_of = loaded.map(|loaded| loaded.manifest.as_of);
        let bytes = manifest.bytes();
        let state = Arc::new(Mutex::new(KeeperState { bytes, as_of, failed: None }));
        let keeping = Keeping {
            folder: checkpoint.folder.clone(),
            checkpoint,
            is_complete: loaded.is_some(),
            manifest,
            open: HashMap::new(),
            rejected: HashMap::new(),
            compacted: HashMap::new(),
            compacting: None,
            dirty: false,
            messages: messages.downgrade(),
            state: state.clone(),
        };
        keeping.remove_strangers()?;
        let runtime = Handle::current();
        let thread = std::thread::Builder::new().name("ktables-checkpoint".to_owned());
        let folder = keeping.folder.clone();
        thread
            .spawn(move || keeping.run(received, &runtime))
            .map_err(CheckpointError::io("start a thread for", &folder))?;
        Ok(Self { messages, state })
    }

    pub(crate) fn state(&self) -> KeeperState {
        // OK because nothing panics while it holds the lock.
        self.state.lock().expect("not poisoned").clone()
    }

    /// Keeps what is about to be applied. Fails if the disk does not take it; the checkpoint
    /// stays as it was then.
    pub(crate) async fn keep(&self, kept: Kept) -> Result<(), CheckpointError> {
        self.send(Message::Kept(kept)).await
    }

    /// All records of before this time are applied.
    pub(crate) async fn complete(&self, as_of: i64) -> Result<(), CheckpointError> {
        self.send(Message::Complete(as_of)).await
    }

    /// Waits until everything is on the disk.
    pub(crate) async fn finish(&self) {
        let (done, finished) = oneshot::channel();
        if self.send(Message::Finish(done)).await.is_ok() {
            // An error means that it is dropped.
            let _ = finished.await;
        }
    }

    async fn send(&self, message: Message) -> Result<(), CheckpointError> {
        match timeout(PATIENCE, self.messages.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.state().failed.unwrap_or(CheckpointError::Slow)),
            Err(_) => Err(CheckpointError::Slow),
        }
    }
}

/// What the thread has.
#[derive(Debug)]
struct Keeping {
    folder: PathBuf,
    /// Nobody else may use the folder.
    #[allow(dead_code, reason = "locked while it lives")]
    checkpoint: Arc<Checkpoint>,
    manifest: Manifest,
    /// The last segment of a partition, if it may be appended to.
    open: HashMap<Partition, SegmentWriter>,
    rejected: HashMap<Partition, HashSet<Offset>>,
    /// How many bytes the last compaction left.
    compacted: HashMap<Partition, u64>,
    compacting: Option<Partition>,
    /// Before the table is complete, there is no manifest.
    is_complete: bool,
    dirty: bool,
    messages: mpsc::WeakSender<Message>,
    state: Arc<Mutex<KeeperState>>,
}

impl Keeping {
    fn run(mut self, mut messages: mpsc::Receiver<Message>, runtime: &Handle) {
        let mut finishing = None;
        if let Err(error) = self.follow(&mut messages, &mut finishing, runtime) {
            tracing::warn!(topic = self.manifest.topic, "the checkpoint is not kept any more: {error}");
            // OK because nothing panics while it holds the lock.
            self.state.lock().expect("not poisoned").failed = Some(error);
        }
        // Whoever waits for the end may open the folder then.
        drop(self);
        drop(finishing);
    }

    fn follow(
        &mut self,
        messages: &mut mpsc::Receiver<Message>,
        finishing: &mut Option<oneshot::Sender<()>>,
        runtime: &Handle,
    ) -> Result<(), CheckpointError> {
        let mut written = Instant::now();
        loop {
            if self.compacting.is_none() && finishing.is_some() {
                return self.write();
            }
            let left = EVERY.saturating_sub(written.elapsed());
            match runtime.block_on(async { timeout(left, messages.recv()).await }) {
                Ok(None) => return self.write(),
                Ok(Some(Message::Kept(kept))) => self.take(kept)?,
                Ok(Some(Message::Complete(as_of))) => {
                    (self.manifest.as_of, self.is_complete, self.dirty) = (as_of, true, true);
                    self.write()?;
                    self.compact_one();
                }
                Ok(Some(Message::Compacted(partition, count, next, compacted))) => {
                    self.replace(partition, count, next, compacted?)?;
                    if finishing.is_none() {
                        self.compact_one();
                    }
                }
                Ok(Some(Message::Finish(done))) => *finishing = Some(done),
                Err(_) => {}
            }
            if written.elapsed() >= EVERY {
                self.write()?;
                self.compact_one();
                written = Instant::now();
            }
        }
    }

    fn take(&mut self, kept: Kept) -> Result<(), CheckpointError> {
        match kept {
            Kept::Records(batch, rejected) => {
                self.append(&batch)?;
                self.rejected.entry(batch.partition()).or_default().extend(rejected);
            }
            Kept::Rejected(partition, offsets) => {
                self.rejected.entry(partition).or_default().extend(offsets);
            }
            Kept::Position(partition, offset) => {
                let state = self.manifest.partition(partition);
                state.position = offset.max(state.position);
                self.dirty = true;
            }
        }
        Ok(())
    }

    fn append(&mut self, batch: &RecordBatch) -> Result<(), CheckpointError> {
        let (Some(next), partition) = (batch.next_offset(), batch.partition()) else { return Ok(()) };
        let first = batch.get(0);
        if !self.open.contains_key(&partition) {
            let number = self.next_number();
            let segment = SegmentWriter::create(&self.folder, partition, first.offset, number)?;
            self.manifest.partition(partition).segments.push(segment.info.clone());
            self.open.insert(partition, segment);
        }
        let mut written = BatchWriter::new(first.offset, first.timestamp);
        for index in 0..batch.len() {
            let record = batch.get(index);
            written.push(record.offset, record.timestamp, record.key, record.value, record.headers);
        }
        // OK because it was put there.
        let segment = self.open.get_mut(&partition).expect("an open segment");
        segment.append(written)?;
        let (info, is_full) = (segment.info.clone(), segment.is_full());
        let state = self.manifest.partition(partition);
        (state.position, state.last) = (next.max(state.position), LastRecord::of(batch));
        // OK as above.
        *state.segments.last_mut().expect("an open segment") = info;
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
        self.open.values().try_for_each(SegmentWriter::sync)?;
        self.manifest.write(&self.folder)?;
        self.dirty = false;
        // OK because nothing panics while it holds the lock.
        let mut state = self.state.lock().expect("not poisoned");
        state.as_of = Some(self.manifest.as_of);
        state.bytes = self.manifest.bytes();
        Ok(())
    }

    /// Begins to compact a partition that has grown, on a thread of its own.
    fn compact_one(&mut self) {
        if self.compacting.is_some() || !self.is_complete {
            return;
        }
        let compacted = &self.compacted;
        let has_grown = self.manifest.partitions.iter().find(|state| {
            let bytes: u64 = state.segments.iter().map(|segment| segment.bytes).sum();
            bytes > 2 * compacted.get(&state.partition).copied().unwrap_or(0) + GROWTH
        });
        let Some((partition, segments, next)) =
            has_grown.map(|state| (state.partition, state.segments.clone(), state.position))
        else {
            return;
        };
        let Some(messages) = self.messages.upgrade() else { return };
        // What comes from now on goes into another segment.
        if let Some(open) = self.open.remove(&partition)
            && let Err(error) = open.sync()
        {
            return tracing::warn!("the checkpoint is not compacted: {error}");
        }
        let number = self.next_number();
        let (folder, rejected) =
            (self.folder.clone(), self.rejected.get(&partition).cloned().unwrap_or_default());
        let work = move || {
            let compacted = compact(&folder, partition, &segments, &rejected, number);
            // The table may be gone.
            let _ = messages.blocking_send(Message::Compacted(partition, segments.len(), next, compacted));
        };
        match std::thread::Builder::new().name("ktables-compact".to_owned()).spawn(work) {
            Ok(_) => self.compacting = Some(partition),
            Err(error) => tracing::warn!("no thread to compact a checkpoint: {error}"),
        }
    }

    /// Puts what a compaction has written in the place of what it has read.
    fn replace(
        &mut self,
        partition: Partition,
        count: usize,
        next: Offset,
        Compacted { segments, rejected }: Compacted,
    ) -> Result<(), CheckpointError> {
        self.compacting = None;
        // Of those that are gone, nobody will ask.
        let known = self.rejected.entry(partition).or_default();
        known.retain(|offset| *offset >= next || rejected.contains(offset));
        self.compacted.insert(partition, segments.iter().map(|segment| segment.bytes).sum());
        let state = self.manifest.partition(partition);
        let old: Vec<SegmentInfo> = state.segments.splice(..count, segments).collect();
        self.dirty = true;
        self.write()?;
        for segment in old {
            // What stays is removed when the next table starts.
            let _ = std::fs::remove_file(self.folder.join(segment.file));
        }
        Ok(())
    }

    /// Removes the segments that the manifest does not name: a process was killed before it
    /// could.
    fn remove_strangers(&self) -> Result<(), CheckpointError> {
        let known: HashSet<&str> = self
            .manifest
            .partitions
            .iter()
            .flat_map(|state| &state.segments)
            .map(|segment| &*segment.file)
            .collect();
        for path in files(&self.folder)? {
            if !path.file_name().and_then(|name| name.to_str()).is_some_and(|name| known.contains(name)) {
                std::fs::remove_file(&path).map_err(CheckpointError::io("remove", &path))?;
            }
        }
        Ok(())
    }
}
