//! Group commit: one thread for each topic appends for all writers that share an open log. Records that are
//! queued while it syncs go into its next append. Each topic has its own thread, so a topic that another
//! process has locked does not delay the others.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::log::dir::append::{Appender, LOCK_TIMEOUT};
use crate::log::dir::topic;
use crate::log::{
    Ack, Appended, Delivery, LogError, NewRecord, Offset, Partition, TopicDescription, Unacknowledged, murmur,
};
use crate::sync::lock;

/// The length of the queue of a topic, in jobs. While it is full, `send` waits.
const QUEUE_JOBS: usize = 2 * 1024;

/// The size of all queued records of a topic, in KiB. While it is reached, `send` waits.
const QUEUE_KIB: u32 = 32 * 1024;

/// How long `close` waits until the thread has listed the records that it gave up.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// The largest number of records in one append, except for those that are written atomically: as many as a
/// reader takes in one batch.
const APPEND_RECORDS: usize = 1024;

/// The largest size of one record (key, value and headers), in bytes: about the default of Kafka's
/// `message.max.bytes`. An append is closed when it reaches this size, too.
const RECORD_BYTES: usize = 1024 * 1024;

/// The largest size of records that are written atomically, in bytes: a few times that of one record.
const ATOMIC_BYTES: usize = 16 * RECORD_BYTES;

/// A queued record.
#[derive(Debug)]
struct PendingRecord {
    destination: Destination,
    record: NewRecord,
    answer: oneshot::Sender<Result<Ack, LogError>>,
    _permit: OwnedSemaphorePermit,
}

/// Queued records that are written atomically.
#[derive(Debug)]
struct PendingBatch {
    destination: Destination,
    records: Vec<NewRecord>,
    /// If it is set, nothing is written to a partition that ends elsewhere.
    expected_end: Option<Offset>,
    answer: oneshot::Sender<Result<Option<Offset>, LogError>>,
    _permit: OwnedSemaphorePermit,
}

/// A job of the thread. It does them in order.
#[derive(Debug)]
enum Job {
    Write(PendingRecord),
    WriteAtomically(PendingBatch),
    /// Reports that all jobs before are done.
    Flush(oneshot::Sender<()>),
}

/// The partition that a record is written to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Destination {
    topic: String,
    partition: Partition,
    /// The number of partitions of the topic when this one was chosen.
    partitions: Partition,
}

/// The sending end of the queue of a topic. When all clones are dropped, the thread writes the rest of the
/// queue, and ends.
#[derive(Debug, Clone)]
struct Queue {
    jobs: mpsc::Sender<Job>,
    /// One permit for each KiB that may still be queued.
    free_kib: Arc<Semaphore>,
    closing: Arc<Closing>,
    /// Counts records without a key, which are spread over the partitions in turn.
    keyless_count: Arc<AtomicU32>,
}

/// The state of closing a queue.
#[derive(Debug, Default)]
struct Closing {
    /// Whether the thread gives up queued records instead of writing them.
    is_giving_up: AtomicBool,
    /// The records that it gave up. A std lock: held to add or to take records.
    given_up: Mutex<Vec<Unacknowledged>>,
}

impl Closing {
    fn given_up(&self) -> std::sync::MutexGuard<'_, Vec<Unacknowledged>> {
        lock(&self.given_up)
    }
}

impl Queue {
    /// Starts the thread of a topic.
    fn start(root: &Path, url: &str) -> Result<Self, LogError> {
        let (jobs, pending) = mpsc::channel(QUEUE_JOBS);
        let closing = Arc::<Closing>::default();
        let (path, url) = (root.to_owned(), url.to_owned());
        let thread = CommitThread { root: path, url, closing: closing.clone(), appenders: HashMap::new() };
        crate::thread::spawn("ktables-commit", move || thread.run(pending))
            .map_err(LogError::io("start a thread that writes to", root))?;
        let free_kib = Arc::new(Semaphore::new(QUEUE_KIB as usize));
        Ok(Self { jobs, free_kib, closing, keyless_count: Arc::default() })
    }

    /// Returns the partition of the next record without a key: each partition in turn.
    fn next_partition(&self, topic: &TopicDescription) -> Partition {
        let count = self.keyless_count.fetch_add(1, Ordering::Relaxed) & 0x7fff_ffff;
        // OK because the sign bit is cleared.
        i32::try_from(count).expect("31 bits fit into an i32") % topic.partitions
    }

    /// Waits until records of this size, in bytes, can be queued, and reserves the space.
    async fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, LogError> {
        let kib = u32::try_from(bytes / 1024).unwrap_or(QUEUE_KIB).clamp(1, QUEUE_KIB);
        self.free_kib.clone().acquire_many_owned(kib).await.map_err(|_| LogError::Closed)
    }

    async fn push(&self, job: Job) -> Result<(), LogError> {
        self.jobs.send(job).await.map_err(|_| LogError::Closed)
    }

    /// Waits until every queued record is written or refused; false if that takes longer than `timeout`.
    async fn flush(&self, timeout: Duration) -> bool {
        let (done, flushed) = oneshot::channel();
        let flush = async {
            // The thread ends only when the queue is dropped.
            if self.push(Job::Flush(done)).await.is_ok() {
                let _ = flushed.await;
            }
        };
        tokio::time::timeout(timeout, flush).await.is_ok()
    }

    /// Waits until every queued record is written, for `timeout` at most. Then gives up the rest, and returns
    /// it.
    async fn close(&self, timeout: Duration) -> Vec<Unacknowledged> {
        if !self.flush(timeout).await {
            self.closing.is_giving_up.store(true, Ordering::Release);
            // If the disk is too slow for this, the thread goes on giving up records as it reaches them.
            if self.flush(GIVE_UP_TIMEOUT).await {
                self.closing.is_giving_up.store(false, Ordering::Release);
            }
        }
        std::mem::take(&mut *self.closing.given_up())
    }
}

/// Writes to the topics of a directory.
#[derive(Debug)]
pub(super) struct Committer {
    root: PathBuf,
    url: String,
    /// The queues by topic. A std lock: held to find a queue, or to start its thread.
    queues: Mutex<HashMap<String, Queue>>,
}

impl Committer {
    pub(super) fn new(root: &Path, url: &str) -> Self {
        let (root, url) = (root.to_owned(), url.to_owned());
        Self { root, url, queues: Mutex::default() }
    }

    /// Returns the queue of a topic. Starts its thread if there is none yet.
    fn queue(&self, topic: &str) -> Result<Queue, LogError> {
        let mut queues = self.queues();
        if let Some(queue) = queues.get(topic) {
            return Ok(queue.clone());
        }
        let queue = Queue::start(&self.root, &self.url)?;
        Ok(queues.entry(topic.to_owned()).or_insert(queue).clone())
    }

    fn queues(&self) -> std::sync::MutexGuard<'_, HashMap<String, Queue>> {
        lock(&self.queues)
    }

    /// Waits until every queued record is written or refused; false if that takes longer than `timeout`.
    pub(super) async fn flush(&self, timeout: Duration) -> bool {
        let queues: Vec<Queue> = self.queues().values().cloned().collect();
        join_all(queues.iter().map(|queue| queue.flush(timeout))).await.into_iter().all(|done| done)
    }

    /// Waits until every queued record is written, for `timeout` at most. Then gives up the rest, and returns
    /// it.
    pub(super) async fn close(&self, timeout: Duration) -> Vec<Unacknowledged> {
        let queues: Vec<Queue> = self.queues().values().cloned().collect();
        join_all(queues.iter().map(|queue| queue.close(timeout))).await.concat()
    }

    /// Queues a record. Waits while the queue is full.
    pub(super) async fn send(
        &self,
        topic: &TopicDescription,
        record: NewRecord,
    ) -> Result<Delivery, LogError> {
        self.check_size(topic, &record)?;
        let queue = self.queue(&topic.name)?;
        let partition = match chosen_partition(topic, &record)? {
            Some(partition) => partition,
            None => queue.next_partition(topic),
        };
        let destination = Destination { topic: topic.name.clone(), partition, partitions: topic.partitions };
        let permit = queue.reserve(record.byte_len()).await?;
        let (answer, delivery) = oneshot::channel();
        queue.push(Job::Write(PendingRecord { destination, record, answer, _permit: permit })).await?;
        Ok(Delivery::from_channel(delivery))
    }

    /// Writes records as one batch. All must belong to one partition.
    pub(super) async fn send_atomically(
        &self,
        topic: &TopicDescription,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Ack>, LogError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let (mut partition, mut bytes) = (None, 0);
        for record in &records {
            self.check_size(topic, record)?;
            bytes += record.byte_len();
            // A record without a key goes where the others go.
            let Some(other) = chosen_partition(topic, record)? else { continue };
            let partition = *partition.get_or_insert(other);
            if other != partition {
                let reason = format!(
                    "it belongs to partition {other}, and another record to partition {partition}: a \
                     directory can write records atomically only to one partition"
                );
                return Err(LogError::InvalidRecord { topic: topic.name.clone(), reason });
            }
        }
        let queue = self.queue(&topic.name)?;
        let partition = partition.unwrap_or_else(|| queue.next_partition(topic));
        let count = records.len() as Offset;
        let base = self.append_batch(topic, partition, None, records, bytes).await?;
        // OK because there was no expected end.
        let base = base.expect("an offset");
        Ok((base..base + count).map(|offset| Ack { partition, offset: Some(offset) }).collect())
    }

    /// Writes records as one batch to a partition, if it ends at `end`.
    pub(super) async fn append_at(
        &self,
        topic: &TopicDescription,
        partition: Partition,
        end: Offset,
        records: Vec<NewRecord>,
    ) -> Result<Option<Appended>, LogError> {
        let record = NewRecord { partition: Some(partition), ..NewRecord::default() };
        chosen_partition(topic, &record)?;
        let (count, bytes) = (records.len() as Offset, records.iter().map(NewRecord::byte_len).sum());
        let base = self.append_batch(topic, partition, Some(end), records, bytes).await?;
        Ok(base.map(|base| {
            let ack = |offset| Ack { partition, offset: Some(offset) };
            Appended::new((base..base + count).map(ack).collect(), base + count)
        }))
    }

    /// Writes records of this size as one batch to a partition. Returns the offset of the first one, or `None` if the
    /// partition does not end where it is expected to.
    async fn append_batch(
        &self,
        topic: &TopicDescription,
        partition: Partition,
        expected_end: Option<Offset>,
        records: Vec<NewRecord>,
        bytes: usize,
    ) -> Result<Option<Offset>, LogError> {
        if bytes > ATOMIC_BYTES {
            let reason = format!(
                "together with the others it has {bytes} bytes, and at most {ATOMIC_BYTES} can be written \
                 atomically"
            );
            return Err(LogError::InvalidRecord { topic: topic.name.clone(), reason });
        }
        let queue = self.queue(&topic.name)?;
        let destination = Destination { topic: topic.name.clone(), partition, partitions: topic.partitions };
        let permit = queue.reserve(bytes).await?;
        let (answer, result) = oneshot::channel();
        let pending = PendingBatch { destination, records, expected_end, answer, _permit: permit };
        queue.push(Job::WriteAtomically(pending)).await?;
        result.await.unwrap_or(Err(LogError::Closed))
    }

    /// Fails if the record is too large for a directory.
    fn check_size(&self, topic: &TopicDescription, record: &NewRecord) -> Result<(), LogError> {
        let bytes = record.byte_len();
        if bytes <= RECORD_BYTES {
            return Ok(());
        }
        let reason = format!("it has {bytes} bytes, and at most {RECORD_BYTES} are allowed");
        Err(LogError::InvalidRecord { topic: topic.name.clone(), reason })
    }
}

/// Returns the partition of a record: the one that it names, or that of its key. `None` for a record without a
/// key, which may go to any partition.
fn chosen_partition(topic: &TopicDescription, record: &NewRecord) -> Result<Option<Partition>, LogError> {
    let partitions = topic.partitions;
    match (record.partition, &record.key) {
        (Some(partition), _) if (0..partitions).contains(&partition) => Ok(Some(partition)),
        (Some(partition), _) => {
            Err(LogError::UnknownPartition { topic: topic.name.clone(), partition, partitions })
        }
        (None, key) => Ok(key.as_ref().map(|key| murmur::partition_for(key, partitions))),
    }
}

/// The work of the thread of a topic.
#[derive(Debug)]
struct CommitThread {
    root: PathBuf,
    url: String,
    closing: Arc<Closing>,
    appenders: HashMap<Destination, Appender>,
}

impl CommitThread {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = queue.blocking_recv() {
            let (mut group, mut bytes, mut next) = (Vec::new(), 0, Some(job));
            while let Some(Job::Write(pending)) = next {
                bytes += pending.record.byte_len();
                group.push(pending);
                let is_full = group.len() >= APPEND_RECORDS || bytes >= RECORD_BYTES;
                next = if is_full { None } else { queue.try_recv().ok() };
            }
            self.commit(group);
            // OK to ignore the results of `send`: the caller may have stopped waiting.
            match next {
                Some(Job::Flush(done)) => drop(done.send(())),
                Some(Job::WriteAtomically(batch)) => {
                    let PendingBatch { destination, records, expected_end, answer, _permit } = batch;
                    drop(answer.send(self.append(&destination, &records, expected_end)));
                }
                Some(Job::Write(_)) | None => {}
            }
        }
    }

    /// Appends a group of records, with one append for each partition. Keeps the order of the records of a
    /// partition.
    fn commit(&mut self, group: Vec<PendingRecord>) {
        let mut by_destination: BTreeMap<Destination, (Vec<NewRecord>, Vec<_>)> = BTreeMap::new();
        for PendingRecord { destination, record, answer, _permit } in group {
            let (records, answers) = by_destination.entry(destination).or_default();
            records.push(record);
            answers.push(answer);
        }
        for (destination, (records, answers)) in by_destination {
            let result = self.append(&destination, &records, None);
            for (index, answer) in (0..).zip(answers) {
                // OK because there was no expected end.
                let base = result.clone().map(|base| base.expect("an offset"));
                let ack = |base: Offset| Ack { partition: destination.partition, offset: Some(base + index) };
                // OK to ignore: the caller may have stopped waiting.
                let _ = answer.send(base.map(ack));
            }
        }
    }

    /// Appends to the current topic of this name, or gives the records up while the queue is being closed.
    fn append(
        &mut self,
        destination: &Destination,
        records: &[NewRecord],
        expected_end: Option<Offset>,
    ) -> Result<Option<Offset>, LogError> {
        let closing = self.closing.clone();
        let deadline = Instant::now() + LOCK_TIMEOUT;
        let keep_waiting = || !closing.is_giving_up.load(Ordering::Acquire) && Instant::now() < deadline;
        let mut result = match closing.is_giving_up.load(Ordering::Acquire) {
            true => Err(LogError::Closed),
            false => self.append_with_retry(destination, records, expected_end, &keep_waiting),
        };
        let is_unwritten = matches!(result, Err(LogError::Locked { .. } | LogError::Closed));
        if is_unwritten && closing.is_giving_up.load(Ordering::Acquire) {
            let (log, topic) = (self.url.clone(), destination.topic.clone());
            let given_up = records.iter().map(|record| {
                let (topic, key) = (topic.clone(), record.key.clone());
                Unacknowledged { topic, partition: Some(destination.partition), key }
            });
            closing.given_up().extend(given_up);
            let reason = "the log was closed while the record was queued".to_owned();
            result = Err(LogError::Undelivered { log, topic, reason });
        }
        result
    }

    /// Appends records. If the topic was replaced since its files were opened, opens them again and tries
    /// once more.
    fn append_with_retry(
        &mut self,
        destination: &Destination,
        records: &[NewRecord],
        expected_end: Option<Offset>,
        keep_waiting: &dyn Fn() -> bool,
    ) -> Result<Option<Offset>, LogError> {
        let mut result = self.appender(destination)?.append(records, expected_end, keep_waiting);
        if let Err(LogError::Replaced { .. }) = result {
            self.appenders.remove(destination);
            result = self.appender(destination)?.append(records, expected_end, keep_waiting);
        }
        if result.is_err() || self.appenders.get(destination).is_some_and(|appender| appender.is_stale) {
            // The next append opens the files again.
            self.appenders.remove(destination);
        }
        result
    }

    /// Returns the appender of a partition. Opens it if there is none.
    fn appender(&mut self, destination: &Destination) -> Result<&mut Appender, LogError> {
        match self.appenders.entry(destination.clone()) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let topic = topic::describe(&self.root, &self.url, &destination.topic)?;
                if topic.partitions != destination.partitions {
                    let reason = format!(
                        "the topic was re-created with {} partitions instead of {}: open the writer again",
                        topic.partitions, destination.partitions
                    );
                    return Err(LogError::Replaced { topic: topic.name, partition: None, reason });
                }
                Ok(entry.insert(Appender::open(&self.root, &self.url, &topic, destination.partition)?))
            }
        }
    }
}
