//! A log in memory that tests append to, to measure a table without a broker.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, pending};
use ktables::log::{
    Ack, Appended, Delivery, Headers, Health, Isolation, Log, LogError, NewRecord, NewTopic, Offset,
    OffsetRange, Partition, PartitionStream, RecordBatch, StreamItem, TopicDescription, TopicEvent,
    TopicStream, Unacknowledged,
};
use tokio::sync::mpsc;

type Item = Result<StreamItem, LogError>;

/// A log with one topic of one partition. One table can read it.
#[derive(Debug)]
pub struct MemoryLog {
    /// The number of records that a table reads before it is loaded.
    loaded_records: Offset,
    next_offset: AtomicI64,
    items: mpsc::Sender<Item>,
    stream: Mutex<Option<mpsc::Receiver<Item>>>,
}

impl MemoryLog {
    /// Creates a log whose topic is loaded once a table has read this many records.
    #[must_use]
    pub fn new(records: usize) -> Arc<Self> {
        let (items, stream) = mpsc::channel(4);
        let loaded_records = Offset::try_from(records).expect("not that many");
        let (next_offset, stream) = (AtomicI64::new(0), Mutex::new(Some(stream)));
        Arc::new(Self { loaded_records, next_offset, items, stream })
    }

    /// Appends records. Blocks while the table's stream is full, so it must not be called on a thread of a
    /// runtime.
    ///
    /// # Panics
    ///
    /// If no table reads the log any more.
    pub fn append<'a>(&self, records: impl Iterator<Item = (&'a str, &'a [u8])>) {
        let mut batch = RecordBatch::new(0);
        for (key, value) in records {
            let offset = self.next_offset.fetch_add(1, Ordering::Relaxed);
            batch.push(offset, Some(offset), Some(key.as_bytes()), Some(value), Vec::new());
            if batch.is_full() {
                self.send(std::mem::replace(&mut batch, RecordBatch::new(0)));
            }
        }
        if !batch.is_empty() {
            self.send(batch);
        }
    }

    fn send(&self, batch: RecordBatch) {
        let batch = Ok(StreamItem::Records(Box::new(batch)));
        self.items.blocking_send(batch).expect("a table reads");
    }

    /// Returns the end offset: the offset of the next record.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.next_offset.load(Ordering::Relaxed)
    }
}

#[async_trait::async_trait]
impl Log for MemoryLog {
    fn url(&self) -> &str {
        "memory:"
    }

    fn isolation(&self) -> Isolation {
        Isolation::ReadCommitted
    }

    fn stale_after(&self) -> Duration {
        ktables::log::DEFAULT_STALE_AFTER
    }

    fn health(&self) -> Health {
        Health::always()
    }

    async fn describe(&self, topic: &str) -> Result<TopicDescription, LogError> {
        Ok(TopicDescription { name: topic.to_owned(), id: "1".to_owned(), partitions: 1 })
    }

    async fn create(&self, topic: &str, _: NewTopic) -> Result<TopicDescription, LogError> {
        self.describe(topic).await
    }

    async fn topics(&self) -> Result<Vec<String>, LogError> {
        Err(LogError::Closed)
    }

    async fn delete(&self, topic: &str) -> Result<(), LogError> {
        Err(LogError::UnknownTopic { log: self.url().to_owned(), topic: topic.to_owned() })
    }

    async fn setting(&self, _: &str, _: &str) -> Result<String, LogError> {
        Err(LogError::Closed)
    }

    async fn set_cleanup_policy(&self, _: &str, _: &str) -> Result<(), LogError> {
        Err(LogError::Closed)
    }

    async fn offsets(&self, _: &TopicDescription) -> Result<Vec<OffsetRange>, LogError> {
        Ok(vec![OffsetRange { partition: 0, start: 0, end: self.loaded_records }])
    }

    async fn end_offsets(&self, _: &TopicDescription) -> Result<Vec<(Partition, Offset)>, LogError> {
        Ok(vec![(0, self.end())])
    }

    async fn read(
        &self,
        _: &TopicDescription,
        from: &[OffsetRange],
        _: Headers,
    ) -> Result<TopicStream, LogError> {
        let stream = self.stream.lock().expect("not poisoned").take().ok_or(LogError::Closed)?;
        let items = stream::poll_fn({
            let mut stream = stream;
            move |context| stream.poll_recv(context)
        });
        let stream = TopicEvent::Partition(PartitionStream::new(from[0], items));
        Ok(stream::iter([Ok(stream)]).chain(pending()).boxed())
    }

    async fn send(&self, _: &TopicDescription, _: NewRecord) -> Result<Delivery, LogError> {
        Err(LogError::Closed)
    }

    async fn send_atomically(&self, _: &TopicDescription, _: Vec<NewRecord>) -> Result<Vec<Ack>, LogError> {
        Err(LogError::Closed)
    }

    async fn append_at(
        &self,
        _: &TopicDescription,
        _: Partition,
        _: Offset,
        _: Vec<NewRecord>,
    ) -> Result<Option<Appended>, LogError> {
        Err(LogError::Closed)
    }

    async fn flush(&self, _: Duration) -> bool {
        true
    }

    async fn close(&self, _: Duration) -> Vec<Unacknowledged> {
        Vec::new()
    }
}
