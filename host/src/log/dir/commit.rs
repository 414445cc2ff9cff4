//! Group commit: one thread for each topic appends for all writers of a process. What is
//! queued while it syncs goes into its next append. A topic that somebody else has locked holds
//! up no other.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::log::dir::append::{Appender, LOCK_PATIENCE};
use crate::log::dir::topic;
use crate::log::{
    Ack, Delivery, LogError, NewRecord, Offset, Partition, TopicDescription, Unacknowledged, murmur,
};
use crate::sync::lock;

/// How many records of a topic may wait to be written; more wait in `send`.
const QUEUE: usize = 2 * 1024;

/// How many KiB of records of a topic may wait; more wait in `send`.
const QUEUE_KIB: u32 = 32 * 1024;

/// How long to wait for what is given up to be listed.
const GIVING_UP: Duration = Duration::from_secs(2);

/// The most records of one append: as many as a reader takes at once.
const APPEND_RECORDS: usize = 1024;

/// The most bytes of one record's key, value and headers, as Kafka's default
/// `message.max.bytes`, and of one append (but for a last record).
const RECORD_BYTES: usize = 1024 * 1024;

/// The most bytes of records that are written as one: some times what one may have.
const ATOMIC_BYTES: usize = 16 * RECORD_BYTES;

/// A record on its way to a partition.
#[derive(Debug)]
struct Pending {
    place: Place,
    record: NewRecord,
    answer: oneshot::Sender<Result<Ack, LogError>>,
    _room: OwnedSemaphorePermit,
}

/// Records on their way to a partition, as one.
#[derive(Debug)]
struct PendingAll {
    place: Place,
    records: Vec<NewRecord>,
    answer: oneshot::Sender<Result<Offset, LogError>>,
    _room: OwnedSemaphorePermit,
}

/// What the thread is asked to do, in order.
#[derive(Debug)]
enum Job {
    Write(Pending),
    WriteAll(PendingAll),
    /// Say when everything before is done.
    Flush(oneshot::Sender<()>),
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Place {
    topic: String,
    partition: Partition,
    /// How many the topic had when the partition was chosen.
    partitions: Partition,
}

/// The sending end of a topic's queue. The thread ends when it is dropped, after all that was
/// queued is written.
#[derive(Debug, Clone)]
struct Queue {
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    giving_up: Arc<GivingUp>,
}

/// Whether what is queued is to be given up, and what was.
#[derive(Debug, Default)]
struct GivingUp {
    is_on: AtomicBool,
    /// A std lock: held to add or to take.
    given_up: Mutex<Vec<Unacknowledged>>,
}

impl GivingUp {
    fn given_up(&self) -> std::sync::MutexGuard<'_, Vec<Unacknowledged>> {
        lock(&self.given_up)
    }
}

impl Queue {
    fn start(root: &Path, url: &str) -> Result<Self, LogError> {
        let (jobs, pending) = mpsc::channel(QUEUE);
        let giving_up = Arc::<GivingUp>::default();
        let (path, url) = (root.to_owned(), url.to_owned());
        let thread = Thread { root: path, url, giving_up: giving_up.clone(), appenders: HashMap::new() };
        crate::thread::spawn("ktables-commit", move || thread.run(pending))
            .map_err(LogError::io("start a thread to write", root))?;
        let room = Arc::new(Semaphore::new(QUEUE_KIB as usize));
        Ok(Self { jobs, room, giving_up })
    }

    /// Waits until there is room for so many bytes.
    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, LogError> {
        let kib = u32::try_from(bytes / 1024).unwrap_or(QUEUE_KIB).clamp(1, QUEUE_KIB);
        self.room.clone().acquire_many_owned(kib).await.map_err(|_| LogError::Closed)
    }

    async fn push(&self, job: Job) -> Result<(), LogError> {
        self.jobs.send(job).await.map_err(|_| LogError::Closed)
    }

    /// Whether everything that was queued is written, or cannot be, within this time.
    async fn flush(&self, patience: Duration) -> bool {
        let (done, flushed) = oneshot::channel();
        let flush = async {
            // The thread ends only when the queue is dropped.
            if self.push(Job::Flush(done)).await.is_ok() {
                let _ = flushed.await;
            }
        };
        tokio::time::timeout(patience, flush).await.is_ok()
    }

    /// Waits until everything is written; gives up what is not after this time.
    async fn close(&self, patience: Duration) -> Vec<Unacknowledged> {
        if !self.flush(patience).await {
            self.giving_up.is_on.store(true, Ordering::Release);
            // What a disk does not get done is given up as soon as it is its turn.
            if self.flush(GIVING_UP).await {
                self.giving_up.is_on.store(false, Ordering::Release);
            }
        }
        std::mem::take(&mut *self.giving_up.given_up())
    }
}

/// What appends to the topics of a directory.
#[derive(Debug)]
pub(super) struct Committer {
    root: PathBuf,
    url: String,
    /// By topic. A std lock: held to look, or to start a thread.
    queues: Mutex<HashMap<String, Queue>>,
    /// Keyless records go round the partitions.
    keyless: AtomicU32,
}

impl Committer {
    pub(super) fn new(root: &Path, url: &str) -> Self {
        let (root, url) = (root.to_owned(), url.to_owned());
        Self { root, url, queues: Mutex::default(), keyless: AtomicU32::new(0) }
    }

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

    /// Whether everything that was queued is written, or cannot be, within this time.
    pub(super) async fn flush(&self, patience: Duration) -> bool {
        let queues: Vec<Queue> = self.queues().values().cloned().collect();
        join_all(queues.iter().map(|queue| queue.flush(patience))).await.into_iter().all(|done| done)
    }

    /// Waits until everything is written; gives up what is not after this time.
    pub(super) async fn close(&self, patience: Duration) -> Vec<Unacknowledged> {
        let queues: Vec<Queue> = self.queues().values().cloned().collect();
        join_all(queues.iter().map(|queue| queue.close(patience))).await.concat()
    }

    pub(super) async fn send(
        &self,
        topic: &TopicDescription,
        record: NewRecord,
    ) -> Result<Delivery, LogError> {
        self.check(topic, &record)?;
        let partition = self.partition(topic, &record)?;
        let place = Place { topic: topic.name.clone(), partition, partitions: topic.partitions };
        let queue = self.queue(&topic.name)?;
        let room = queue.room(record.byte_len()).await?;
        let (answer, delivery) = oneshot::channel();
        queue.push(Job::Write(Pending { place, record, answer, _room: room })).await?;
        Ok(Delivery::new(delivery))
    }

    /// Writes records as one batch, which must belong to one partition.
    pub(super) async fn send_atomically(
        &self,
        topic: &TopicDescription,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Ack>, LogError> {
        let Some(first) = records.first() else { return Ok(Vec::new()) };
        let partition = self.partition(topic, first)?;
        let mut bytes = 0;
        for record in &records {
            self.check(topic, record)?;
            bytes += record.byte_len();
            let other = self.partition(topic, record)?;
            if other != partition {
                let reason = format!(
                    "it belongs to partition {other}, and another to {partition}: a directory writes as one \
                     what belongs to one partition"
                );
                return Err(LogError::InvalidRecord { topic: topic.name.clone(), reason });
            }
        }
        if bytes > ATOMIC_BYTES {
            let reason = format!(
                "with the others it has {bytes} bytes, and at most {ATOMIC_BYTES} are written as one"
            );
            return Err(LogError::InvalidRecord { topic: topic.name.clone(), reason });
        }
        let count = records.len() as Offset;
        let place = Place { topic: topic.name.clone(), partition, partitions: topic.partitions };
        let queue = self.queue(&topic.name)?;
        let room = queue.room(bytes).await?;
        let (answer, answered) = oneshot::channel();
        queue.push(Job::WriteAll(PendingAll { place, records, answer, _room: room })).await?;
        let base = answered.await.unwrap_or(Err(LogError::Closed))?;
        Ok((base..base + count).map(|offset| Ack { partition, offset }).collect())
    }

    /// Fails if no directory can keep the record.
    fn check(&self, topic: &TopicDescription, record: &NewRecord) -> Result<(), LogError> {
        let bytes = record.byte_len();
        if bytes <= RECORD_BYTES {
            return Ok(());
        }
        let reason = format!("it has {bytes} bytes, at most {RECORD_BYTES} are allowed");
        Err(LogError::InvalidRecord { topic: topic.name.clone(), reason })
    }

    fn partition(&self, topic: &TopicDescription, record: &NewRecord) -> Result<Partition, LogError> {
        let partitions = topic.partitions;
        match (record.partition, &record.key) {
            (Some(partition), _) if (0..partitions).contains(&partition) => Ok(partition),
            (Some(partition), _) => {
                Err(LogError::UnknownPartition { topic: topic.name.clone(), partition, partitions })
            }
            (None, Some(key)) => Ok(murmur::partition_for(key, partitions)),
            (None, None) => {
                let turn = self.keyless.fetch_add(1, Ordering::Relaxed) & 0x7fff_ffff;
                // OK because the sign bit is clear.
                Ok(i32::try_from(turn).expect("31 bits fit") % partitions)
            }
        }
    }
}

#[derive(Debug)]
struct Thread {
    root: PathBuf,
    url: String,
    giving_up: Arc<GivingUp>,
    appenders: HashMap<Place, Appender>,
}

impl Thread {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = queue.blocking_recv() {
            let (mut group, mut bytes, mut next) = (Vec::new(), 0, Some(job));
            while let Some(Job::Write(pending)) = next {
                bytes += pending.record.byte_len();
                group.push(pending);
                let full = group.len() >= APPEND_RECORDS || bytes >= RECORD_BYTES;
                next = if full { None } else { queue.try_recv().ok() };
            }
            self.commit(group);
            // Nobody may be waiting any more.
            match next {
                Some(Job::Flush(done)) => drop(done.send(())),
                Some(Job::WriteAll(PendingAll { place, records, answer, _room })) => {
                    drop(answer.send(self.append(&place, &records)));
                }
                Some(Job::Write(_)) | None => {}
            }
        }
    }

    /// One append for each partition in the group; the order of a partition's
    /// records is kept.
    fn commit(&mut self, group: Vec<Pending>) {
        let mut places: BTreeMap<Place, (Vec<NewRecord>, Vec<_>)> = BTreeMap::new();
        for Pending { place, record, answer, _room } in group {
            let (records, answers) = places.entry(place).or_default();
            records.push(record);
            answers.push(answer);
        }
        for (place, (records, answers)) in places {
            let result = self.append(&place, &records);
            for (index, answer) in (0..).zip(answers) {
                let ack = |base: Offset| Ack { partition: place.partition, offset: base + index };
                // Nobody may be waiting any more.
                let _ = answer.send(result.clone().map(ack));
            }
        }
    }

    /// Appends, to the topic that has the name now.
    fn append(&mut self, place: &Place, records: &[NewRecord]) -> Result<Offset, LogError> {
        let giving_up = self.giving_up.clone();
        let until = Instant::now() + LOCK_PATIENCE;
        let wait = || !giving_up.is_on.load(Ordering::Acquire) && Instant::now() < until;
        let mut result = match giving_up.is_on.load(Ordering::Acquire) {
            true => Err(LogError::Closed),
            false => self.append_waiting(place, records, &wait),
        };
        let is_unwritten = matches!(result, Err(LogError::Locked { .. } | LogError::Closed));
        if is_unwritten && giving_up.is_on.load(Ordering::Acquire) {
            let (log, topic) = (self.url.clone(), place.topic.clone());
            let lost = records.iter().map(|record| {
                let (topic, key) = (topic.clone(), record.key.clone());
                Unacknowledged { topic, partition: place.partition, key }
            });
            giving_up.given_up().extend(lost);
            let reason = "it was given up before it was its turn".to_owned();
            result = Err(LogError::Undelivered { log, topic, reason });
        }
        result
    }

    fn append_waiting(
        &mut self,
        place: &Place,
        records: &[NewRecord],
        wait: &dyn Fn() -> bool,
    ) -> Result<Offset, LogError> {
        let mut result = self.appender(place)?.append(records, wait);
        if let Err(LogError::Replaced { .. }) = result {
            self.appenders.remove(place);
            result = self.appender(place)?.append(records, wait);
        }
        if result.is_err() || self.appenders.get(place).is_some_and(|appender| appender.is_stale) {
            // Start afresh from the files next time.
            self.appenders.remove(place);
        }
        result
    }

    fn appender(&mut self, place: &Place) -> Result<&mut Appender, LogError> {
        match self.appenders.entry(place.clone()) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let topic = topic::describe(&self.root, &self.url, &place.topic)?;
                if topic.partitions != place.partitions {
                    let reason = format!(
                        "the topic was created again, with {} partitions instead of {}: open it again to write",
                        topic.partitions, place.partitions
                    );
                    let (topic, partition) = (topic.name, place.partition);
                    return Err(LogError::Replaced { topic, partition, reason });
                }
                Ok(entry.insert(Appender::open(&self.root, &self.url, &topic, place.partition)?))
            }
        }
    }
}
