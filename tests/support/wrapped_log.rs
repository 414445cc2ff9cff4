//! A log that forwards to another one, with faults that a test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use ktables::log::{
    Ack, Appended, Delivery, Headers, Health, Isolation, Log, LogError, NewRecord, NewTopic, Offset,
    OffsetRange, Partition, TopicDescription, TopicStream, Unacknowledged,
};
use tokio::sync::watch;

/// What happens to appends at an expected offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appends {
    /// They are forwarded.
    Forwarded,
    /// They fail, as if the log could not be reached.
    Failing,
    /// They are not answered.
    Blocked,
}

/// Forwards to another log, and counts requests for end offsets. It can fail requests for offsets, report end
/// offsets that are too high, refuse to return settings, and fail or block appends at an expected offset.
#[derive(Debug)]
pub struct WrappedLog {
    inner: Arc<dyn Log>,
    failures: AtomicU32,
    claimed_records: Offset,
    end_offset_requests: AtomicU32,
    setting_error: Option<LogError>,
    appends: watch::Sender<Appends>,
}

impl WrappedLog {
    /// Wraps a log, without faults.
    #[must_use]
    pub fn new(inner: Arc<dyn Log>) -> Self {
        let (failures, end_offset_requests) = (AtomicU32::new(0), AtomicU32::new(0));
        let appends = watch::channel(Appends::Forwarded).0;
        Self { inner, failures, claimed_records: 0, end_offset_requests, setting_error: None, appends }
    }

    /// Sets what happens to appends at an expected offset.
    pub fn set_appends(&self, appends: Appends) {
        self.appends.send_replace(appends);
    }

    /// Fails this many of the next requests for offsets.
    pub fn fail_requests(&self, times: u32) {
        self.failures.store(times, Relaxed);
    }

    fn fail_if_set(&self, topic: &TopicDescription) -> Result<(), LogError> {
        if self.failures.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err() {
            return Ok(());
        }
        let (log, topic) = (self.url().to_owned(), topic.name.clone());
        Err(LogError::Unreachable { log, topic, action: "find", reason: "a test fault".to_owned() })
    }

    /// Adds this many records to the end offset of the first partition that a table receives when it begins
    /// to load, so that the table waits for records that do not exist.
    #[must_use]
    pub fn with_claimed_records(self, records: Offset) -> Self {
        Self { claimed_records: records, ..self }
    }

    /// Fails requests for settings with this error.
    #[must_use]
    pub fn with_setting_error(self, error: LogError) -> Self {
        Self { setting_error: Some(error), ..self }
    }

    /// Returns how often end offsets were requested.
    #[must_use]
    pub fn end_offset_requests(&self) -> u32 {
        self.end_offset_requests.load(Relaxed)
    }
}

#[async_trait]
impl Log for WrappedLog {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn isolation(&self) -> Isolation {
        self.inner.isolation()
    }

    fn stale_after(&self) -> Duration {
        self.inner.stale_after()
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

    async fn topics(&self) -> Result<Vec<String>, LogError> {
        self.inner.topics().await
    }

    async fn delete(&self, topic: &str) -> Result<(), LogError> {
        self.inner.delete(topic).await
    }

    async fn setting(&self, topic: &str, name: &str) -> Result<String, LogError> {
        match &self.setting_error {
            Some(error) => Err(error.clone()),
            None => self.inner.setting(topic, name).await,
        }
    }

    async fn set_cleanup_policy(&self, topic: &str, policy: &str) -> Result<(), LogError> {
        self.inner.set_cleanup_policy(topic, policy).await
    }

    async fn offsets(&self, topic: &TopicDescription) -> Result<Vec<OffsetRange>, LogError> {
        self.fail_if_set(topic)?;
        let mut ranges = self.inner.offsets(topic).await?;
        ranges[0].end += self.claimed_records;
        Ok(ranges)
    }

    async fn end_offsets(&self, topic: &TopicDescription) -> Result<Vec<(Partition, Offset)>, LogError> {
        self.end_offset_requests.fetch_add(1, Relaxed);
        // Lets concurrent callers send their requests before the first answer, however fast the log is.
        tokio::task::yield_now().await;
        self.fail_if_set(topic)?;
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

    async fn append_at(
        &self,
        topic: &TopicDescription,
        partition: Partition,
        end: Offset,
        records: Vec<NewRecord>,
    ) -> Result<Option<Appended>, LogError> {
        let mut appends = self.appends.subscribe();
        let appends =
            *appends.wait_for(|appends| *appends != Appends::Blocked).await.expect("it has a sender");
        if appends == Appends::Failing {
            let (log, topic) = (self.url().to_owned(), topic.name.clone());
            let reason = "a test fault".to_owned();
            return Err(LogError::Unreachable { log, topic, action: "write to", reason });
        }
        self.inner.append_at(topic, partition, end, records).await
    }

    async fn flush(&self, timeout: Duration) -> bool {
        self.inner.flush(timeout).await
    }

    async fn close(&self, timeout: Duration) -> Vec<Unacknowledged> {
        self.inner.close(timeout).await
    }
}
