//! A log that behaves as a test wants it to, where it does not do what another one does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use ktables::log::{
    Ack, Delivery, Headers, Health, Isolation, Log, LogError, NewRecord, NewTopic, Offset, OffsetRange,
    Partition, TopicDescription, TopicStream, Unacknowledged,
};

/// Another log, that counts requests, may be out of reach some times, may claim to end later
/// than it does, and may not tell the settings of its topics.
#[derive(Debug)]
pub struct Wrapped {
    inner: Arc<dyn Log>,
    out_of_reach: AtomicU32,
    claimed: Offset,
    barriers: AtomicU32,
    no_settings: Option<LogError>,
}

impl Wrapped {
    /// The same log.
    #[must_use]
    pub fn new(inner: Arc<dyn Log>) -> Self {
        let (out_of_reach, barriers) = (AtomicU32::new(0), AtomicU32::new(0));
        Self { inner, out_of_reach, claimed: 0, barriers, no_settings: None }
    }

    /// Answers no question for offsets, so many times.
    pub fn out_of_reach(&self, times: u32) {
        self.out_of_reach.store(times, Relaxed);
    }

    fn reach(&self, topic: &TopicDescription) -> Result<(), LogError> {
        if self.out_of_reach.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err() {
            return Ok(());
        }
        let (log, topic) = (self.url().to_owned(), topic.name.clone());
        Err(LogError::Unreachable { log, topic, action: "find", reason: "for once".to_owned() })
    }

    /// One whose first partition claims, when loading begins, to have so many records more
    /// than it has.
    #[must_use]
    pub fn claiming(self, records: Offset) -> Self {
        Self { claimed: records, ..self }
    }

    /// One that says this when it is asked for a setting.
    #[must_use]
    pub fn without_settings(self, error: LogError) -> Self {
        Self { no_settings: Some(error), ..self }
    }

    /// How often end offsets were asked for.
    #[must_use]
    pub fn barriers(&self) -> u32 {
        self.barriers.load(Relaxed)
    }
}

#[async_trait]
impl Log for Wrapped {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn isolation(&self) -> Isolation {
        self.inner.isolation()
    }

    fn health(&self) -> Health {
        self.inner.health()
    }

    async fn describe(&self, topic: &str) -> Result<TopicDescription, LogError> {
        self.inner.describe(topic).await
    }

    async fn create(&self, topic: &str, settings: NewTopic) -> Result<TopicDescription, LogError> {
        self.inner.create(topic, settings).await
    }

    async fn setting(&self, topic: &str, name: &str) -> Result<String, LogError> {
        match &self.no_settings {
            Some(error) => Err(error.clone()),
            None => self.inner.setting(topic, name).await,
        }
    }

    async fn set_cleanup_policy(&self, topic: &str, policy: &str) -> Result<(), LogError> {
        self.inner.set_cleanup_policy(topic, policy).await
    }

    async fn offsets(&self, topic: &TopicDescription) -> Result<Vec<OffsetRange>, LogError> {
        self.reach(topic)?;
        let mut ranges = self.inner.offsets(topic).await?;
        ranges[0].end += self.claimed;
        Ok(ranges)
    }

    async fn end_offsets(&self, topic: &TopicDescription) -> Result<Vec<(Partition, Offset)>, LogError> {
        self.barriers.fetch_add(1, Relaxed);
        // However fast the log is, who asks at the same time asks before there is an answer.
        tokio::task::yield_now().await;
        self.reach(topic)?;
        self.inner.end_offsets(topic).await
    }

    async fn read(
        &self,
        topic: &TopicDescription,
        from: &[OffsetRange],
        headers: Headers,
    ) -> Result<TopicStream, LogError> {
        self.inner.read(topic, from, headers).await
    }

    async fn send(&self, topic: &TopicDescription, record: NewRecord) -> Result<Delivery, LogError> {
        self.inner.send(topic, record).await
    }

    async fn send_atomically(
        &self,
        topic: &TopicDescription,
        records: Vec<NewRecord>,
    ) -> Result<Vec<Ack>, LogError> {
        self.inner.send_atomically(topic, records).await
    }

    async fn flush(&self, patience: Duration) -> bool {
        self.inner.flush(patience).await
    }

    async fn close(&self, patience: Duration) -> Vec<Unacknowledged> {
        self.inner.close(patience).await
    }
}
