//! `dir:PATH`, the embedded log: topics as folders, partitions as segment files in Kafka's record-batch
//! format.
//!
//! ```text
//! PATH/TOPIC/topic.json                        identity, partitions
//! PATH/TOPIC/PARTITION/00000000000000000000.log  segments, named by first offset
//! PATH/TOPIC/PARTITION/lock                    held by whoever appends
//! ```
//!
//! Several processes may write and read at once. An append holds the lock of its partition, and is synced
//! before it is acknowledged; records that are queued meanwhile go into the next append (group commit).
//! Readers take no lock. They read whole batches, check them, and wait for a file notification at the end.
//! Only a writer that holds the lock cuts a torn tail.
//!
//! Segments are never compacted or deleted. Needs a local file system, because file notifications and locks
//! of network file systems are unreliable.

mod append;
mod commit;
mod cursor;
mod tail;
mod topic;
mod watch;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::{Stream, StreamExt, stream};

use crate::log::{
    Ack, Appended, Delivery, Headers, Health, Isolation, Log, LogError, NewRecord, NewTopic, Offset,
    OffsetRange, Partition, PartitionSample, PartitionStream, TopicDescription, TopicEvent, TopicSample,
    TopicStream, Unacknowledged,
};
use crate::sync::lock;
use commit::Committer;
use cursor::Cursor;
use watch::Notifications;

/// The longest time between two samples of the end offsets.
const SAMPLE_EVERY: Duration = Duration::from_secs(3);

/// The shortest time between two samples.
const MIN_SAMPLE_EVERY: Duration = Duration::from_millis(10);

/// A directory of topics.
#[derive(Debug)]
pub(in crate::log) struct DirLog {
    url: String,
    root: PathBuf,
    stale_after: Duration,
    committer: Committer,
    notifications: Notifications,
    /// A std lock: held while files are read, on blocking threads only.
    ends: Arc<Mutex<Ends>>,
}

/// A cursor at the known end of each partition, so that end offsets cost only what was appended since.
type Ends = HashMap<(String, Partition), Cursor>;

impl DirLog {
    /// Opens the log in this directory, which is created with the first topic. Tables report partitions that
    /// lag for longer than `stale_after`.
    pub(in crate::log) fn open(path: impl Into<PathBuf>, stale_after: Duration) -> Self {
        let root = path.into();
        let url = format!("dir:{}", root.display());
        Self {
            committer: Committer::new(&root, &url),
            url,
            notifications: Notifications::default(),
            ends: Arc::default(),
            root,
            stale_after,
        }
    }

    /// Returns a stream of samples of the end offsets of these partitions.
    fn samples(
        &self,
        topic: TopicDescription,
        partitions: Vec<Partition>,
    ) -> impl Stream<Item = Result<TopicEvent, LogError>> + Send + use<> {
        let (root, ends) = (self.root.clone(), self.ends.clone());
        let every = (self.stale_after / 3).clamp(MIN_SAMPLE_EVERY, SAMPLE_EVERY);
        stream::unfold((topic, partitions), move |(topic, partitions)| {
            let (root, ends) = (root.clone(), ends.clone());
            async move {
                loop {
                    tokio::time::sleep(every).await;
                    let requested_at = Instant::now();
                    let (root, ends) = (root.clone(), ends.clone());
                    let (sampled_topic, sampled_partitions) = (topic.clone(), partitions.clone());
                    let samples = Self::run_blocking(move || {
                        let mut ends = lock(&ends);
                        let sample = |partition| {
                            let end = end_offset(&mut ends, &root, &sampled_topic, partition)?;
                            // Reading a directory never stalls, so everything counts as read.
                            let unknown = PartitionSample::unknown(partition);
                            Ok(PartitionSample { read: end, end: Some(end), ..unknown })
                        };
                        sampled_partitions.into_iter().map(sample).collect::<Result<Vec<_>, LogError>>()
                    });
                    // The readers of the files report their errors.
                    let Ok(samples) = samples.await else { continue };
                    let event = TopicEvent::Sample(TopicSample::new(requested_at, samples));
                    return Some((Ok(event), (topic, partitions)));
                }
            }
        })
    }

    /// Runs file operations on a blocking thread.
    async fn run_blocking<T: Send + 'static>(
        work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(_) => Err(LogError::Closed),
        }
    }
}

#[async_trait]
impl Log for DirLog {
    fn url(&self) -> &str {
        &self.url
    }

    /// A directory has no transactions.
    fn isolation(&self) -> Isolation {
        Isolation::ReadCommitted
    }

    fn stale_after(&self) -> Duration {
        self.stale_after
    }

    fn health(&self) -> Health {
        Health::always()
    }

    async fn describe(&self, name: &str) -> Result<TopicDescription, LogError> {
        let (root, url, name) = (self.root.clone(), self.url.clone(), name.to_owned());
        Self::run_blocking(move || topic::describe(&root, &url, &name)).await
    }

    async fn create(&self, name: &str, settings: NewTopic) -> Result<TopicDescription, LogError> {
        let (root, url, name) = (self.root.clone(), self.url.clone(), name.to_owned());
        Self::run_blocking(move || topic::create(&root, &url, &name, settings)).await
    }

    async fn topics(&self) -> Result<Vec<String>, LogError> {
        let root = self.root.clone();
        Self::run_blocking(move || topic::list(&root)).await
    }

    async fn delete(&self, name: &str) -> Result<(), LogError> {
        let (root, url, name) = (self.root.clone(), self.url.clone(), name.to_owned());
        Self::run_blocking(move || topic::delete(&root, &url, &name)).await
    }

    /// A directory deletes nothing, and readers see the newest record of each key, so its topics count as
    /// compacted.
    async fn setting(&self, topic: &str, name: &str) -> Result<String, LogError> {
        self.describe(topic).await?;
        match name {
            "cleanup.policy" => Ok("compact".to_owned()),
            "delete.retention.ms" => Ok(u64::MAX.to_string()),
            _ => Err(LogError::InvalidTopic {
                topic: topic.to_owned(),
                reason: format!("a directory has no setting `{name}`"),
            }),
        }
    }

    async fn set_cleanup_policy(&self, topic: &str, policy: &str) -> Result<(), LogError> {
        if policy == self.setting(topic, "cleanup.policy").await? {
            return Ok(());
        }
        let reason = format!("a directory deletes nothing, so it cannot have cleanup.policy={policy}");
        Err(LogError::InvalidTopic { topic: topic.to_owned(), reason })
    }

    async fn offsets(&self, topic: &TopicDescription) -> Result<Vec<OffsetRange>, LogError> {
        let (root, url, topic, ends) =
            (self.root.clone(), self.url.clone(), topic.clone(), self.ends.clone());
        Self::run_blocking(move || {
            if topic::describe(&root, &url, &topic.name)?.id != topic.id {
                let (topic, reason) = (topic.name, "the topic was deleted and created again".to_owned());
                return Err(LogError::Replaced { topic, partition: None, reason });
            }
            let mut ends = lock(&ends);
            (0..topic.partitions)
                .map(|partition| {
                    let end = end_offset(&mut ends, &root, &topic, partition)?;
                    Ok(OffsetRange { partition, start: 0, end })
                })
                .collect()
        })
        .await
    }

    async fn end_offsets(&self, topic: &TopicDescription) -> Result<Vec<(Partition, Offset)>, LogError> {
        let ranges = self.offsets(topic).await?;
        Ok(ranges.into_iter().map(|range| (range.partition, range.end)).collect())
    }

    async fn read(
        &self,
        topic: &TopicDescription,
        from: &[OffsetRange],
        headers: Headers,
    ) -> Result<TopicStream, LogError> {
        let (root, topic, from) = (self.root.clone(), topic.clone(), from.to_vec());
        let (notifications, described) = (self.notifications.clone(), topic.clone());
        let open = move || {
            let folder = topic::folder(&root, &topic.name);
            let changes = notifications.watch(&folder, &topic.id)?;
            let cursor = |range: OffsetRange| {
                Ok((range, Cursor::open_at(&root, &topic, range.partition, range.start)?))
            };
            Ok((changes, from.into_iter().map(cursor).collect::<Result<Vec<_>, LogError>>()?))
        };
        let (changes, cursors) = Self::run_blocking(open).await?;
        let streams: Vec<PartitionStream> = cursors
            .into_iter()
            .map(|(range, cursor)| tail::start_stream(cursor, range, headers, changes.clone()))
            .collect();
        let partitions = streams.iter().map(|stream| stream.range().partition).collect();
        let samples = self.samples(described, partitions);
        let streams = streams.into_iter().map(TopicEvent::Partition).map(Ok);
        // The topics of a directory get no more partitions.
        Ok(stream::iter(streams).chain(samples).boxed())
    }

    async fn send(&self, topic: &TopicDescription, record: NewRecord) -> Result<Delivery, LogError> {
        self.committer.send(topic, record).await
    }

    /// The records of one partition are one batch, so a crash leaves all of them or none.
    async fn send_atomically(
        &self,
        topic: &TopicDescription,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Ack>, LogError> {
        self.committer.send_atomically(topic, records).await
    }

    async fn append_at(
        &self,
        topic: &TopicDescription,
        partition: Partition,
        end: Offset,
        records: Vec<NewRecord>,
    ) -> Result<Option<Appended>, LogError> {
        self.committer.append_at(topic, partition, end, records).await
    }

    async fn flush(&self, timeout: Duration) -> bool {
        self.committer.flush(timeout).await
    }

    async fn close(&self, timeout: Duration) -> Vec<Unacknowledged> {
        self.committer.close(timeout).await
    }
}

/// Returns the offset after the last record of a partition.
fn end_offset(
    ends: &mut Ends,
    root: &Path,
    topic: &TopicDescription,
    partition: Partition,
) -> Result<Offset, LogError> {
    let key = (topic.name.clone(), partition);
    // The files may have been replaced since.
    let known = ends.remove(&key).filter(|cursor| cursor.check_identity().is_ok());
    let mut cursor = known.map_or_else(|| Cursor::open_last(root, topic, partition), Ok)?;
    while cursor.next_batch()?.is_some() {}
    let end = cursor.next_offset();
    ends.insert(key, cursor);
    Ok(end)
}
