//! `dir:PATH`, the embedded log: topics as folders, partitions as segment files
//! in Kafka's own record-batch format.
//!
//! ```text
//! PATH/TOPIC/topic.json                        identity, partitions
//! PATH/TOPIC/PARTITION/00000000000000000000.log  segments, named by first offset
//! PATH/TOPIC/PARTITION/lock                    held by whoever appends
//! ```
//!
//! Several processes may write and read at once. An append holds the partition's
//! lock and is synced before it is acknowledged; what others queue meanwhile goes
//! into the next append (group commit). Readers take no lock: they read whole,
//! checked batches and wait for a file notification at the first one that is not
//! there yet. Only an appender, under the lock, cuts a torn tail.
//!
//! Segments are never compacted or deleted. Needs a local file system: file
//! notifications and locks of network file systems are not relied on.

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

use crate::log::lag::{Pace, Seen, now};
use crate::log::{
    Ack, Applied, Delivery, Headers, Health, Isolation, Log, LogError, NewRecord, NewTopic, Offset,
    OffsetRange, Partition, PartitionStream, STALE_AFTER, TopicDescription, TopicEvent, TopicStream,
    Unacknowledged,
};
use crate::sync::lock;
use commit::Committer;
use cursor::Cursor;
use watch::Notifications;

/// How often to look how far a table is behind.
const LAG_EVERY: Duration = Duration::from_secs(3);

/// The shortest wait between two looks.
const SHORTEST: Duration = Duration::from_millis(10);

/// A directory of topics.
#[derive(Debug)]
pub struct DirLog {
    url: String,
    root: PathBuf,
    stale_after: Duration,
    committer: Committer,
    notifications: Notifications,
    /// A std lock: held for reads of the page cache, on blocking threads only.
    ends: Arc<Mutex<Ends>>,
}

/// How far the end of each partition of a topic is known, so that end offsets
/// cost only what was appended since.
type Ends = HashMap<(String, Partition), Cursor>;

impl DirLog {
    /// The log in this directory, which is made when a topic is.
    ///
    pub fn open(path: impl Into<PathBuf>) -> Self {
        Self::open_with(path, STALE_AFTER)
    }

    /// The same; tables that are behind for longer than this say so.
    pub fn open_with(path: impl Into<PathBuf>, stale_after: Duration) -> Self {
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

    /// What a reading that applies this lags behind, whenever that is news.
    fn lags(
        &self,
        topic: TopicDescription,
        applied: Vec<(Partition, Applied)>,
    ) -> impl Stream<Item = Result<TopicEvent, LogError>> + Send + use<> {
        let (root, ends, stale_after) = (self.root.clone(), self.ends.clone(), self.stale_after);
        let every = LAG_EVERY.min(stale_after / 3);
        stream::unfold((Pace::since(now()), topic, applied), move |(mut pace, topic, applied)| {
            let (root, ends) = (root.clone(), ends.clone());
            async move {
                loop {
                    // What is due is told in time.
                    let due = pace.due(stale_after).map(|due| due.saturating_duration_since(Instant::now()));
                    tokio::time::sleep(due.map_or(every, |due| due.clamp(SHORTEST, every))).await;
                    let asked = now();
                    let positions: Vec<(Partition, Offset)> =
                        applied.iter().map(|(partition, applied)| (*partition, applied.get())).collect();
                    let (root, ends, topic_asked) = (root.clone(), ends.clone(), topic.clone());
                    let seen = Self::blocking(move || {
                        let mut ends = lock(&ends);
                        let seen = |(partition, position)| {
                            let end = end_offset(&mut ends, &root, &topic_asked, partition)?;
                            // A directory always hands on what it has.
                            Ok(Seen { read: end, position, end: Some(end), ..Seen::unread(partition) })
                        };
                        positions.into_iter().map(seen).collect::<Result<Vec<_>, LogError>>()
                    });
                    // What is wrong with the files their readers find, too.
                    let Ok(mut seen) = seen.await else { continue };
                    if let Some(lags) = pace.look(&mut seen, asked, stale_after) {
                        return Some((Ok(TopicEvent::Lags(lags)), (pace, topic, applied)));
                    }
                }
            }
        })
    }

    /// Runs file operations where they may block.
    async fn blocking<T: Send + 'static>(
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

    /// There are no transactions.
    fn isolation(&self) -> Isolation {
        Isolation::ReadCommitted
    }

    fn health(&self) -> Health {
        Health::always()
    }

    async fn describe(&self, name: &str) -> Result<TopicDescription, LogError> {
        let (root, url, name) = (self.root.clone(), self.url.clone(), name.to_owned());
        Self::blocking(move || topic::describe(&root, &url, &name)).await
    }

    async fn create(&self, name: &str, settings: NewTopic) -> Result<TopicDescription, LogError> {
        let (root, url, name) = (self.root.clone(), self.url.clone(), name.to_owned());
        Self::blocking(move || topic::create(&root, &url, &name, settings)).await
    }

    /// Nothing here is deleted, and a table sees the newest record of a key: what Kafka
    /// calls compacted.
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
        let reason = format!("a directory deletes nothing, so that cleanup.policy={policy} is none of its");
        Err(LogError::InvalidTopic { topic: topic.to_owned(), reason })
    }

    async fn offsets(&self, topic: &TopicDescription) -> Result<Vec<OffsetRange>, LogError> {
        let (root, url, topic, ends) =
            (self.root.clone(), self.url.clone(), topic.clone(), self.ends.clone());
        Self::blocking(move || {
            if topic::describe(&root, &url, &topic.name)?.id != topic.id {
                let (topic, reason) = (topic.name, "the topic was deleted and created again".to_owned());
                return Err(LogError::Replaced { topic, partition: 0, reason });
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
        let (changes, cursors) = Self::blocking(open).await?;
        let streams: Vec<PartitionStream> = cursors
            .into_iter()
            .map(|(range, cursor)| tail::stream(cursor, range, headers, changes.clone()))
            .collect();
        let applied = streams.iter().map(|stream| (stream.range().partition, stream.applied())).collect();
        let lags = self.lags(described, applied);
        let streams = streams.into_iter().map(TopicEvent::Partition).map(Ok);
        // A directory's topic gets no more partitions.
        Ok(stream::iter(streams).chain(lags).boxed())
    }

    async fn send(&self, topic: &TopicDescription, record: NewRecord) -> Result<Delivery, LogError> {
        self.committer.send(topic, record).await
    }

    /// What goes to one partition is one batch, so that a crash leaves all of it or none.
    async fn send_atomically(
        &self,
        topic: &TopicDescription,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Ack>, LogError> {
        self.committer.send_atomically(topic, records).await
    }

    async fn flush(&self, patience: Duration) -> bool {
        self.committer.flush(patience).await
    }

    async fn close(&self, patience: Duration) -> Vec<Unacknowledged> {
        self.committer.close(patience).await
    }
}

/// The offset behind the last record of a partition.
fn end_offset(
    ends: &mut Ends,
    root: &Path,
    topic: &TopicDescription,
    partition: Partition,
) -> Result<Offset, LogError> {
    let place = (topic.name.clone(), partition);
    // What is known of files that were replaced is of no use.
    let known = ends.remove(&place).filter(|cursor| cursor.check_identity().is_ok());
    let mut cursor = known.map_or_else(|| Cursor::open_last(root, topic, partition), Ok)?;
    while cursor.next_batch()?.is_some() {}
    let end = cursor.next_offset();
    ends.insert(place, cursor);
    Ok(end)
}
