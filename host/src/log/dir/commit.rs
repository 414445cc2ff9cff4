//! Group commit: one thread appends for all writers of a process. What is queued
//! while it syncs goes into its next append.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::log::dir::append::Appender;
use crate::log::dir::topic;
use crate::log::{Ack, Delivery, LogError, NewRecord, Offset, Partition, TopicDescription, murmur};

/// How many records may wait to be written; more wait in `send`.
const QUEUE: usize = 2 * 1024;

/// How many KiB of records may wait; more wait in `send`.
const QUEUE_KIB: u32 = 64 * 1024;

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

/// The sending end of the queue. The thread ends when it is dropped, after all
/// that was queued is written.
#[derive(Debug)]
pub(super) struct Committer {
    queue: mpsc::Sender<Job>,
    /// Keyless records go round the partitions.
    keyless: AtomicU32,
    room: Arc<Semaphore>,
}

impl Committer {
    pub(super) fn start(root: &Path, url: &str) -> Result<Self, LogError> {
        let (queue, pending) = mpsc::channel(QUEUE);
        let thread = Thread { root: root.to_owned(), url: url.to_owned(), appenders: HashMap::new() };
        crate::thread::spawn("ktables-commit", move || thread.run(pending))
            .map_err(LogError::io("start a thread to write", root))?;
        let room = Arc::new(Semaphore::new(QUEUE_KIB as usize));
        Ok(Self { queue, keyless: AtomicU32::new(0), room })
    }

    pub(super) async fn send(
        &self,
        topic: &TopicDescription,
        record: NewRecord,
    ) -> Result<Delivery, LogError> {
        self.check(topic, &record)?;
        let partition = self.partition(topic, &record)?;
        let place = Place { topic: topic.name.clone(), partition, partitions: topic.partitions };
        let room = self.room(size(&record)).await?;
        let (answer, delivery) = oneshot::channel();
        let pending = Pending { place, record, answer, _room: room };
        self.queue.send(Job::Write(pending)).await.map_err(|_| LogError::Closed)?;
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
            bytes += size(record);
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
        let room = self.room(bytes).await?;
        let (answer, answered) = oneshot::channel();
        let pending = PendingAll { place, records, answer, _room: room };
        self.queue.send(Job::WriteAll(pending)).await.map_err(|_| LogError::Closed)?;
        let base = answered.await.unwrap_or(Err(LogError::Closed))?;
        Ok((base..base + count).map(|offset| Ack { partition, offset }).collect())
    }

    /// Waits until there is room for so many bytes.
    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, LogError> {
        let kib = u32::try_from(bytes / 1024).unwrap_or(QUEUE_KIB).clamp(1, QUEUE_KIB);
        self.room.clone().acquire_many_owned(kib).await.map_err(|_| LogError::Closed)
    }

    /// Fails if no directory can keep the record.
    fn check(&self, topic: &TopicDescription, record: &NewRecord) -> Result<(), LogError> {
        let bytes = size(record);
        if bytes <= RECORD_BYTES {
            return Ok(());
        }
        let reason = format!("it has {bytes} bytes, at most {RECORD_BYTES} are allowed");
        Err(LogError::InvalidRecord { topic: topic.name.clone(), reason })
    }

    /// Waits until everything that was queued is written, or cannot be.
    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        // The thread ends only when the queue is dropped.
        if self.queue.send(Job::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
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
    appenders: HashMap<Place, Appender>,
}

impl Thread {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = queue.blocking_recv() {
            let (mut group, mut bytes, mut next) = (Vec::new(), 0, Some(job));
            while let Some(Job::Write(pending)) = next {
                bytes += size(&pending.record);
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
        let mut result = self.appender(place)?.append(records);
        if let Err(LogError::Replaced { .. }) = result {
            self.appenders.remove(place);
            result = self.appender(place)?.append(records);
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

fn size(record: &NewRecord) -> usize {
    let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let headers: usize = record.headers.iter().map(|header| header.name.len() + len(&header.value)).sum();
    len(&record.key) + len(&record.value) + headers
}
