//! Reading a checkpoint instead of a topic.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::sync::{Semaphore, mpsc};

use crate::checkpoint::CheckpointError;
use crate::checkpoint::manifest::{LastRecord, Manifest, PartitionState};
use crate::checkpoint::segment::{batches, verified};
use crate::log::{Headers, Isolation, Offset, OffsetRange, Partition, RecordBatch, TopicDescription, batch};

/// How many segments a table reads at once: each is held as a whole.
const SEGMENTS_AT_ONCE: usize = 4;

/// How many batches wait between the disk and a table.
const BATCHES: usize = 4;

/// What a table wants of a checkpoint.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) topic: &'a TopicDescription,
    /// Where the topic begins and ends now.
    pub(crate) ranges: &'a [OffsetRange],
    pub(crate) headers: Headers,
    pub(crate) isolation: Isolation,
    /// How long the log keeps tombstones.
    pub(crate) max_age: Duration,
    /// Milliseconds since 1970.
    pub(crate) now: i64,
}

/// A checkpoint that can be read.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    folder: PathBuf,
    pub(super) manifest: Arc<Manifest>,
    reading: Arc<Semaphore>,
}

impl Loaded {
    pub(super) fn new(
        folder: &Path,
        manifest: Manifest,
        wanted: &Wanted<'_>,
    ) -> Result<Self, CheckpointError> {
        match unfit(&manifest, wanted) {
            Some(reason) => Err(CheckpointError::Unfit { reason }),
            None => {
                let reading = Arc::new(Semaphore::new(SEGMENTS_AT_ONCE));
                Ok(Self { folder: folder.to_owned(), manifest: Arc::new(manifest), reading })
            }
        }
    }

    /// As of when it is complete: milliseconds since 1970.
    pub(crate) fn as_of(&self) -> i64 {
        self.manifest.as_of
    }

    /// How many records it has.
    pub(crate) fn records(&self) -> u64 {
        self.manifest.partitions.iter().flat_map(|state| &state.segments).map(|segment| segment.records).sum()
    }

    fn state(&self, partition: Partition) -> Option<&PartitionState> {
        self.manifest.partitions.iter().find(|state| state.partition == partition)
    }

    /// From where on the log is to be read: from the last record that the checkpoint has, to
    /// see that it is the same.
    pub(crate) fn remaining(&self, range: OffsetRange) -> OffsetRange {
        let Some(state) = self.state(range.partition) else { return range };
        let last = state.last.map_or(state.position, |last| last.offset);
        OffsetRange { start: last.max(range.start), ..range }
    }

    /// What to do with what the log has from there on.
    pub(crate) fn overlap(&self, partition: Partition) -> Overlap {
        let state = self.state(partition);
        Overlap {
            last: state.and_then(|state| state.last),
            position: state.map_or(0, |state| state.position),
        }
    }

    /// The records of a partition that the log has still, in order.
    pub(crate) fn stream(
        &self,
        range: OffsetRange,
        headers: Headers,
    ) -> impl Stream<Item = Result<RecordBatch, CheckpointError>> + Send + use<> {
        let (sink, mut receiver) = mpsc::channel(BATCHES);
        let this = self.clone();
        tokio::spawn(async move {
            // Of a partition that is empty now, nobody waits for what it had.
            let state = this.state(range.partition).filter(|_| range.start < range.end);
            let segments = state.map(|state| state.segments.clone());
            for segment in segments.unwrap_or_default() {
                // OK because it is never closed.
                let permit = this.reading.acquire().await.expect("never closed");
                let (folder, sender) = (this.folder.clone(), sink.clone());
                let read = move || {
                    let bytes = verified(&folder, &segment)?;
                    send(&folder.join(&segment.file), &bytes, range, headers, &sender)
                };
                let read = tokio::task::spawn_blocking(read).await;
                drop(permit);
                match read {
                    Ok(Ok(true)) => {}
                    // Nobody wants more.
                    Ok(Ok(false)) => return,
                    Err(error) => {
                        let error = CheckpointError::damaged(&this.folder, error.to_string());
                        return drop(sink.send(Err(error)).await);
                    }
                    Ok(Err(error)) => return drop(sink.send(Err(error)).await),
                }
            }
        });
        futures_util::stream::poll_fn(move |context| receiver.poll_recv(context)).fuse()
    }
}

/// Sends the records of a segment; false if nobody wants them.
fn send(
    path: &Path,
    bytes: &[u8],
    range: OffsetRange,
    headers: Headers,
    sender: &mpsc::Sender<Result<RecordBatch, CheckpointError>>,
) -> Result<bool, CheckpointError> {
    for batch in batches(path, bytes) {
        let mut records = RecordBatch::new(range.partition);
        let read = batch::read_into(batch?, range.start, headers, &mut records);
        read.map_err(|reason| CheckpointError::damaged(path, reason))?;
        if !records.is_empty() && sender.blocking_send(Ok(records)).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Why a checkpoint does not fit, if so.
fn unfit(manifest: &Manifest, wanted: &Wanted<'_>) -> Option<String> {
    let Wanted { topic, ranges, headers, isolation, max_age, now } = wanted;
    if (&manifest.topic, &manifest.topic_id) != (&topic.name, &topic.id) {
        return Some(format!("it is of topic `{}` with the identity {}", manifest.topic, manifest.topic_id));
    }
    if *headers == Headers::Wanted && !manifest.headers {
        return Some("it has no headers, and the codec wants them".to_owned());
    }
    if topic.id.is_empty() {
        return Some("the cluster gives topics no identity".to_owned());
    }
    if *isolation != manifest.isolation {
        return Some("it was read with another isolation".to_owned());
    }
    if *now < manifest.as_of {
        return Some("it was made later than now: a clock was set".to_owned());
    }
    let age = now.saturating_sub(manifest.as_of).max(manifest.max_away);
    let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
    if age >= *max_age {
        return Some(format!(
            "it is {age:?} old, or once was, and the log keeps tombstones for {max_age:?} \
             (delete.retention.ms): some may be missed"
        ));
    }
    manifest.partitions.iter().find_map(|state| {
        let PartitionState { partition, position, .. } = state;
        let range = ranges.iter().find(|range| range.partition == *partition);
        match range {
            None => Some(format!("the topic has no partition {partition}")),
            Some(range) if *position > range.end => {
                Some(format!("partition {partition} ends at {}, and it was read up to {position}", range.end))
            }
            Some(range) if *position < range.start => Some(format!(
                "partition {partition} begins at {}, and it was read up to {position}",
                range.start
            )),
            Some(_) => None,
        }
    })
}

/// The place where the log goes on behind a checkpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Overlap {
    last: Option<LastRecord>,
    position: Offset,
}

impl Overlap {
    /// The offset behind what the checkpoint has.
    pub(crate) fn position(&self) -> Offset {
        self.position
    }

    /// Whether there is nothing to be compared.
    pub(crate) fn is_known(&self) -> bool {
        self.last.is_none()
    }

    /// What of a batch of the log is new. The first may begin with the record that the
    /// checkpoint has last; if that is another one, the log is not the same.
    pub(crate) fn remove_from(&mut self, batch: RecordBatch) -> Result<RecordBatch, CheckpointError> {
        let last = self.last;
        // Where the checkpoint saw no record, there is none, but in another log.
        let between = |offset| last.is_some_and(|last| offset > last.offset && offset < self.position);
        let other = (0..batch.len()).map(|index| batch.get(index).offset).find(|&offset| between(offset));
        let other = other.or(last.filter(|last| !last.fits(&batch)).map(|last| last.offset));
        if let Some(offset) = other {
            let partition = batch.partition();
            let reason =
                format!("partition {partition} has another record at offset {offset}: it was truncated");
            return Err(CheckpointError::Unfit { reason });
        }
        if batch.next_offset().is_some_and(|next| next >= self.position) {
            self.last = None;
        }
        Ok(batch.from_offset(self.position))
    }
}
