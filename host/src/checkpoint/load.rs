//! Reading a checkpoint instead of a topic, and continuing in the log where the checkpoint ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::sync::{Semaphore, mpsc};

use crate::checkpoint::CheckpointError;
use crate::checkpoint::manifest::{LastRecord, Manifest, PartitionState};
use crate::checkpoint::readers::Reader;
use crate::checkpoint::segment::{batches, read_verified};
use crate::log::{Headers, Isolation, Offset, OffsetRange, Partition, RecordBatch, TopicDescription, batch};

/// How many segments a table reads at once, each as a whole into memory.
const SEGMENTS_AT_ONCE: usize = 4;

/// How many batches of a partition wait between the disk and a table.
const BATCHES: usize = 4;

/// What a table requires of a checkpoint.
#[derive(Debug)]
pub(crate) struct LoadRequirements<'a> {
    pub(crate) topic: &'a TopicDescription,
    /// The offsets at which the partitions begin and end now.
    pub(crate) ranges: &'a [OffsetRange],
    pub(crate) headers: Headers,
    pub(crate) isolation: Isolation,
    /// From which age on a checkpoint is not used: how long the log keeps tombstones, or what the user has set.
    pub(crate) max_age: Duration,
    /// The time now, in milliseconds since 1970.
    pub(crate) now: i64,
}

/// A checkpoint that matches the topic. Its segments are not verified yet, and stay as long as this value or a stream
/// of it exists.
#[derive(Debug, Clone)]
pub(crate) struct LoadedCheckpoint {
    folder: PathBuf,
    pub(super) manifest: Arc<Manifest>,
    read_permits: Arc<Semaphore>,
    _reader: Arc<Reader>,
}

impl LoadedCheckpoint {
    pub(super) fn new(
        folder: &Path,
        manifest: Manifest,
        requirements: &LoadRequirements<'_>,
        reader: Reader,
    ) -> Result<Self, CheckpointError> {
        match find_mismatch(&manifest, requirements) {
            Some(reason) => Err(CheckpointError::Unusable { reason }),
            None => {
                let read_permits = Arc::new(Semaphore::new(SEGMENTS_AT_ONCE));
                let (folder, manifest) = (folder.to_owned(), Arc::new(manifest));
                Ok(Self { folder, manifest, read_permits, _reader: Arc::new(reader) })
            }
        }
    }

    /// The time as of which it is complete, in milliseconds since 1970.
    pub(crate) fn as_of(&self) -> i64 {
        self.manifest.as_of
    }

    /// The number of records in it.
    pub(crate) fn records(&self) -> u64 {
        self.manifest.partitions.iter().flat_map(|state| &state.segments).map(|segment| segment.records).sum()
    }

    fn state(&self, partition: Partition) -> Option<&PartitionState> {
        self.manifest.partitions.iter().find(|state| state.partition == partition)
    }

    /// Returns the part of a partition that must be read from the log. It begins with the last record of the
    /// checkpoint, so that [`Overlap::remove_from`] can compare that record.
    pub(crate) fn remaining(&self, range: OffsetRange) -> OffsetRange {
        let Some(state) = self.state(range.partition) else { return range };
        let last = state.last.map_or(state.position, |last| last.offset);
        OffsetRange { start: last.max(range.start), ..range }
    }

    /// Returns the [`Overlap`] that joins the records of the checkpoint and those of the log, which is read
    /// from [`LoadedCheckpoint::remaining`] on.
    pub(crate) fn overlap(&self, partition: Partition) -> Overlap {
        let state = self.state(partition);
        Overlap {
            last: state.and_then(|state| state.last),
            position: state.map_or(0, |state| state.position),
        }
    }

    /// Streams the records of a partition that the log still holds, in order.
    pub(crate) fn stream(
        &self,
        range: OffsetRange,
        headers: Headers,
    ) -> impl Stream<Item = Result<RecordBatch, CheckpointError>> + Send + use<> {
        let (sink, mut receiver) = mpsc::channel(BATCHES);
        let this = self.clone();
        tokio::spawn(async move {
            // If the partition is empty now, the log no longer holds any record of the checkpoint.
            let state = this.state(range.partition).filter(|_| range.start < range.end);
            let segments = state.map(|state| state.segments.clone());
            for segment in segments.unwrap_or_default() {
                // OK because the semaphore is never closed.
                let permit = this.read_permits.acquire().await.expect("never closed");
                let (folder, sender) = (this.folder.clone(), sink.clone());
                let read = move || {
                    let bytes = read_verified(&folder, &segment)?;
                    send(&folder.join(&segment.file), &bytes, range, headers, &sender)
                };
                let read = tokio::task::spawn_blocking(read).await;
                drop(permit);
                match read {
                    Ok(Ok(true)) => {}
                    // The receiver was dropped.
                    Ok(Ok(false)) => return,
                    Err(_) => return drop(sink.send(Err(CheckpointError::Panicked)).await),
                    Ok(Err(error)) => return drop(sink.send(Err(error)).await),
                }
            }
        });
        futures_util::stream::poll_fn(move |context| receiver.poll_recv(context)).fuse()
    }
}

/// Sends the records of a segment. Returns false if the receiver was dropped.
fn send(
    path: &Path,
    bytes: &[u8],
    range: OffsetRange,
    headers: Headers,
    sender: &mpsc::Sender<Result<RecordBatch, CheckpointError>>,
) -> Result<bool, CheckpointError> {
    for batch in batches(path, bytes) {
        let mut records = RecordBatch::new(range.partition);
        let parsed = batch::read_into(batch?, range.start, headers, &mut records);
        parsed.map_err(|reason| CheckpointError::damaged(path, reason))?;
        if !records.is_empty() && sender.blocking_send(Ok(records)).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the reason why a checkpoint is not usable, if there is one.
fn find_mismatch(manifest: &Manifest, requirements: &LoadRequirements<'_>) -> Option<String> {
    let LoadRequirements { topic, ranges, headers, isolation, max_age, now } = requirements;
    if (&manifest.topic, &manifest.topic_id) != (&topic.name, &topic.id) {
        let Manifest { topic, topic_id, .. } = manifest;
        return Some(format!("it belongs to topic `{topic}` with the identity {topic_id}"));
    }
    if *headers == Headers::Wanted && !manifest.headers {
        return Some("its records have no headers, and the codec needs them".to_owned());
    }
    if topic.id.is_empty() {
        return Some("the cluster does not give topics an identity".to_owned());
    }
    if *isolation != manifest.isolation {
        return Some("it was written with another isolation level".to_owned());
    }
    if *now < manifest.as_of {
        return Some("it was written at a time in the future: a clock was set".to_owned());
    }
    let age = now.saturating_sub(manifest.as_of).max(manifest.max_away);
    let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
    if age >= *max_age {
        return Some(format!(
            "it is {age:?} old, or was when a table continued it, and the limit is {max_age:?} \
             (checkpoint_max_age, or else the topic's delete.retention.ms): some tombstones may be missing"
        ));
    }
    manifest.partitions.iter().find_map(|state| {
        let PartitionState { partition, position, .. } = state;
        let range = ranges.iter().find(|range| range.partition == *partition);
        match range {
            None => Some(format!("the topic has no partition {partition}")),
            Some(range) if *position > range.end => {
                let end = range.end;
                Some(format!("it reaches offset {position} of partition {partition}, which ends at {end}"))
            }
            Some(range) if *position < range.start => Some(format!(
                "it reaches offset {position} of partition {partition}, which begins at {}",
                range.start
            )),
            Some(_) => None,
        }
    })
}

/// Joins the records of a checkpoint and those of the log, for one partition: verifies that the log still
/// has the last record of the checkpoint, and drops records that the checkpoint has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Overlap {
    /// The last record of the checkpoint, until it was compared with the log's.
    last: Option<LastRecord>,
    /// The offset after everything that the checkpoint covers.
    position: Offset,
}

impl Overlap {
    /// The offset after everything that the checkpoint covers.
    pub(crate) fn position(&self) -> Offset {
        self.position
    }

    /// Whether nothing is left to compare: the checkpoint has no record of the partition, or its last record
    /// was compared.
    pub(crate) fn is_verified(&self) -> bool {
        self.last.is_none()
    }

    /// Returns the records of a batch of the log that the checkpoint does not have. The first batch may begin
    /// with the last record of the checkpoint. If the log has another record there, it was truncated since,
    /// and this is an error.
    pub(crate) fn remove_from(&mut self, batch: RecordBatch) -> Result<RecordBatch, CheckpointError> {
        let last = self.last;
        // The same log has no records where the checkpoint read none.
        let is_between = |offset| last.is_some_and(|last| offset > last.offset && offset < self.position);
        let mut offsets = (0..batch.len()).map(|index| batch.get(index).offset);
        let mismatch = offsets.find(|&offset| is_between(offset));
        let mismatch =
            mismatch.or(last.filter(|last| !last.is_consistent_with(&batch)).map(|last| last.offset));
        if let Some(offset) = mismatch {
            let partition = batch.partition();
            let reason = format!(
                "the log has another record at offset {offset} of partition {partition}: it was truncated"
            );
            return Err(CheckpointError::Unusable { reason });
        }
        if batch.next_offset().is_some_and(|next| next >= self.position) {
            self.last = None;
        }
        Ok(batch.starting_at(self.position))
    }
}
