//! Retries dead letters: decodes them with the present codecs, and publishes those that are accepted.
//!
//! A dead letter is skipped if its key is null, or if its key has a newer record in the topic of the table. Otherwise it
//! is decoded, and published if the codecs accept it. If somebody writes to its partition meanwhile, the new records are
//! read, and it is tried again.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::codec::{Codecs, HostFailure, RejectReason};
use crate::log::{
    Headers, Log, LogError, Offset, OffsetRange, Partition, RecordBatch, TopicDescription, read_ranges,
    with_timeout,
};
use crate::table::dead_letters::stored::{REQUEST_TIMEOUT, StoredLetter, describe, offsets, read_chunk};
use crate::table::dead_letters::topic::open_topic;
use crate::table::decoded::Outcome;
use crate::table::error::TableError;

/// How many times a dead letter is tried while others write to its partition, and the longest pause between two tries.
const MAX_CONFLICTS: usize = 50;
const MAX_CONFLICT_PAUSE: Duration = Duration::from_millis(500);

/// Which dead letters are retried, and how.
#[derive(Debug)]
pub(crate) struct RetryOptions {
    pub(crate) log: Arc<dyn Log>,
    /// The topic of the table.
    pub(crate) topic: String,
    /// The dead-letter topic.
    pub(crate) dead_letter: String,
    pub(crate) codecs: Codecs,
    /// Whether a record is published although its key has a newer one.
    pub(crate) force: bool,
    /// Stops while it reads, or between two dead letters, once the number is not 0.
    pub(crate) stop_requests: watch::Receiver<u8>,
}

impl RetryOptions {
    /// Waits for a result. Fails with [`RetryError::Interrupted`] once a stop is requested.
    async fn unless_stopped<T>(
        &self,
        result: impl Future<Output = Result<T, LogError>>,
    ) -> Result<T, RetryError> {
        let mut stop_requests = self.stop_requests.clone();
        let stopped = async {
            if stop_requests.wait_for(|&requests| requests > 0).await.is_err() {
                // Nobody can request it any more.
                std::future::pending().await
            }
        };
        tokio::select! {
            biased;
            () = stopped => Err(RetryError::Interrupted),
            result = result => Ok(result?),
        }
    }
}

/// The result of one dead letter.
#[derive(Debug)]
pub(crate) struct RetryResult {
    /// The partition and the offset of the rejected record.
    pub(crate) partition: Partition,
    pub(crate) offset: Offset,
    /// Its raw key; `None` if it is null.
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) outcome: RetryOutcome,
}

/// The outcome of a retry.
#[derive(Debug)]
pub(crate) enum RetryOutcome {
    /// It was published, to this offset of its partition.
    Published(Offset),
    /// The codecs still reject it.
    Rejected(RejectReason),
    /// The topic refuses it, for this reason.
    Refused(String),
    /// Its key has a record at this partition and offset, which is newer, or in another partition.
    Newer(Partition, Offset),
    /// The topic has compacted it away, so its key had a newer record.
    Compacted,
    /// Its key is null.
    NoKey,
    /// Its key is foreign to the group scheme.
    Foreign,
    /// It comes from a topic of the same name that was deleted.
    EarlierTopic,
    /// The topic no longer has its partition.
    NoPartition,
    /// Others write to its partition all the time.
    Busy,
}

/// Why dead letters could not be retried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RetryError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(
        "cannot decode the dead letter of the record at partition {partition}, offset {offset}: {failure}"
    )]
    Codec { partition: Partition, offset: Offset, failure: HostFailure },
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Output(#[from] std::io::Error),
}

impl From<LogError> for RetryError {
    fn from(error: LogError) -> Self {
        Self::Table(error.into())
    }
}

/// Retries all dead letters of a topic. Passes each result to `on_result`.
pub(crate) async fn retry(
    options: &RetryOptions,
    mut on_result: impl FnMut(RetryResult) -> std::io::Result<()>,
) -> Result<(), RetryError> {
    let (log, name) = (&*options.log, &*options.dead_letter);
    let topic = describe(log, &options.topic).await?;
    let opened = async { Ok(open_topic(log, &topic, name, false).await) };
    with_timeout(log, name, "describe", REQUEST_TIMEOUT, opened).await??;
    let dead_letters = describe(log, name).await?;
    let mut remaining = offsets(log, &dead_letters).await?;
    let mut retrier =
        Retrier { options, topic, newest: HashMap::new(), ranges: BTreeMap::new(), sources: HashMap::new() };
    loop {
        let chunk = read_chunk(log, &dead_letters, &retrier.topic.name, &mut remaining);
        let letters = options.unless_stopped(chunk).await?;
        if letters.is_empty() {
            return Ok(());
        }
        retrier.begin_chunk(&letters);
        for letter in letters {
            let (partition, offset, key) = (letter.partition, letter.offset, letter.record.key.clone());
            if *options.stop_requests.borrow() > 0 {
                return Err(RetryError::Interrupted);
            }
            let outcome = retrier.retry(letter).await?;
            on_result(RetryResult { partition, offset, key, outcome })?;
        }
    }
}

struct Retrier<'a> {
    options: &'a RetryOptions,
    topic: TopicDescription,
    /// For each key of the chunk, the offset of its newest record in each partition.
    newest: HashMap<Vec<u8>, BTreeMap<Partition, Offset>>,
    /// The part of each partition that was searched for them.
    ranges: BTreeMap<Partition, OffsetRange>,
    /// For each record that was published here, the offset of the rejected record that it repeats.
    sources: HashMap<(Partition, Offset), Offset>,
}

impl Retrier<'_> {
    /// Forgets what is known of the topic of the table, and remembers the keys of these dead letters.
    fn begin_chunk(&mut self, letters: &[StoredLetter]) {
        let keys = letters.iter().filter_map(|letter| letter.record.key.clone());
        self.newest = keys.map(|key| (key, BTreeMap::new())).collect();
        self.ranges.clear();
    }

    /// Retries one dead letter.
    async fn retry(&mut self, letter: StoredLetter) -> Result<RetryOutcome, RetryError> {
        if letter.topic_id != self.topic.id {
            return Ok(RetryOutcome::EarlierTopic);
        }
        let Some(key) = &letter.record.key else { return Ok(RetryOutcome::NoKey) };
        if self.ranges.is_empty() {
            self.read_newest().await?;
        }
        let mut is_accepted = false;
        for pause in pauses() {
            let Some(range) = self.ranges.get(&letter.partition).copied() else {
                return Ok(RetryOutcome::NoPartition);
            };
            if !self.options.force
                && let Some(skipped) = self.find_newer(key, &letter, range)
            {
                return Ok(skipped);
            }
            if !std::mem::replace(&mut is_accepted, true) {
                let StoredLetter { partition, offset, .. } = letter;
                let failed = |failure| RetryError::Codec { partition, offset, failure };
                match letter.decode(&self.options.codecs).await.map_err(failed)? {
                    Outcome::Reject(reject) => return Ok(RetryOutcome::Rejected(reject.reason)),
                    Outcome::Foreign(_) => return Ok(RetryOutcome::Foreign),
                    Outcome::Set(..) | Outcome::Delete(..) => {}
                }
            }
            let log = &*self.options.log;
            let record = letter.record.clone();
            let append = log.append_at(&self.topic, letter.partition, range.end, vec![record]);
            match with_timeout(log, &self.topic.name, "write to", REQUEST_TIMEOUT, append).await {
                Ok(Some(_)) => {
                    let offset = range.end;
                    self.sources.insert((letter.partition, offset), letter.offset);
                    self.add_newest(key, letter.partition, offset);
                    // If the partition has grown beyond this, the next append to it fails, and what was written is
                    // read first. On a cluster that is always so, because of the marker of the transaction.
                    self.ranges.insert(letter.partition, OffsetRange { end: offset + 1, ..range });
                    return Ok(RetryOutcome::Published(offset));
                }
                Err(LogError::InvalidRecord { reason, .. }) => return Ok(RetryOutcome::Refused(reason)),
                // The topic has grown: the new records may be of this key.
                Ok(None) => {}
                Err(error) => return Err(error.into()),
            }
            sleep(pause).await;
            self.read_newest().await?;
        }
        Ok(RetryOutcome::Busy)
    }

    /// Returns why a dead letter is skipped: its key has, or had, a newer record. A record in another partition counts
    /// as newer, because their order is unknown.
    fn find_newer(&self, key: &[u8], letter: &StoredLetter, searched: OffsetRange) -> Option<RetryOutcome> {
        let newest = self.newest.get(key)?;
        for (&partition, &offset) in newest {
            let is_newer = match self.sources.get(&(partition, offset)) {
                Some(&source) => source >= letter.offset,
                None => partition != letter.partition || offset > letter.offset,
            };
            if is_newer {
                return Some(RetryOutcome::Newer(partition, offset));
            }
        }
        // Compaction removes only what has a newer record, which it may have removed since.
        let is_missing = newest.get(&letter.partition).is_none_or(|&newest| newest < letter.offset);
        (is_missing && searched.start <= letter.offset).then_some(RetryOutcome::Compacted)
    }

    fn add_newest(&mut self, key: &[u8], partition: Partition, offset: Offset) {
        if let Some(newest) = self.newest.get_mut(key) {
            newest.insert(partition, offset);
        }
    }

    /// Reads what was written to the topic of the table since it was read last.
    async fn read_newest(&mut self) -> Result<(), RetryError> {
        let options = self.options;
        let log = &*options.log;
        let mut unread = Vec::new();
        for range in offsets(log, &self.topic).await? {
            let searched = self.ranges.get(&range.partition);
            let start = searched.map_or(range.start, |searched| searched.end.max(range.start));
            unread.push(OffsetRange { start, ..range });
            let start = searched.map_or(range.start, |searched| searched.start);
            self.ranges.insert(range.partition, OffsetRange { start, ..range });
        }
        let newest = &mut self.newest;
        let add = |batch: RecordBatch| {
            for record in (0..batch.len()).map(|index| batch.get(index)) {
                if let Some(newest) = record.key.and_then(|key| newest.get_mut(key)) {
                    newest.insert(record.partition, record.offset);
                }
            }
            ControlFlow::Continue(())
        };
        options.unless_stopped(read_ranges(log, &self.topic, &unread, Headers::Unwanted, add)).await
    }
}

/// The pauses after attempts that failed because somebody else wrote to the partition.
fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(1))
        .with_max_delay(MAX_CONFLICT_PAUSE)
        .with_jitter()
        .with_max_times(MAX_CONFLICTS)
        .build()
}
