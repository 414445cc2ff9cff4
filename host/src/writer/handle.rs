//! The handle of a writer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::codec::Codecs;
use crate::codec::workers::{Lane, Purpose};
use crate::log::{Ack, Log, LogError, TopicDescription};
use crate::table::Table;
use crate::writer::error::WriteError;
use crate::writer::publisher::Publisher;
use crate::writer::set_many::SetMany;
use crate::writer::write::{Target, Verify, Write};

/// Writes to one topic. A clone is a handle to the same writer.
#[derive(Clone)]
pub struct Writer(Publisher);

/// Shows topic and log.
impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (topic, log) = (&self.0.topic.name, self.0.log.url());
        f.debug_struct("Writer").field("topic", topic).field("log", &log).finish_non_exhaustive()
    }
}

impl Writer {
    /// Opens a writer to a topic. Keys and values are encoded with these codecs.
    ///
    /// # Errors
    ///
    /// [`LogError`] if the topic does not exist, or if the log does not answer.
    pub async fn open(log: Arc<dyn Log>, topic: &str, codecs: Codecs) -> Result<Self, LogError> {
        let topic = Arc::new(log.describe(topic).await?);
        let lane = Lane::new(&codecs, Purpose::Write);
        let verify = Verify::default();
        Ok(Self(Publisher { log, topic, codecs, lane, verify, visible_in: None }))
    }

    /// Sets how values are verified before they are published; [`Verify::Equal`] by default.
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        self.0.verify = verify;
        self
    }

    /// Makes each write wait, after it is durable, until it is visible in a table of the topic, for `timeout`
    /// at most. This sends no requests to the log.
    #[must_use]
    pub fn visible_in(mut self, table: &Table, timeout: Duration) -> Self {
        self.0.visible_in = Some((table.clone(), timeout));
        self
    }

    /// Returns the topic, as it was described when the writer was opened.
    #[must_use]
    pub fn topic(&self) -> &TopicDescription {
        &self.0.topic
    }

    /// Sets the value of a key (JSON text), and waits until the record is durable.
    ///
    /// # Errors
    ///
    /// [`WriteError`], whose variants state whether the record was published.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it returns, the record may be written or not.
    pub async fn set(&self, key: impl Into<String>, value: impl Into<String>) -> Result<Ack, WriteError> {
        self.write(Write { target: Target::Key(key.into()), value: Some(value.into()) }).await
    }

    /// Sets the value of a key to any value that serializes to JSON, and waits until the record is durable.
    ///
    /// # Errors
    ///
    /// As [`Writer::set`]; [`WriteError::InvalidJson`] if the value cannot be serialized.
    ///
    /// # Cancel safety
    ///
    /// As [`Writer::set`].
    pub async fn set_json(
        &self,
        key: impl Into<String>,
        value: &(impl Serialize + Sync + ?Sized),
    ) -> Result<Ack, WriteError> {
        let key = key.into();
        match serde_json::to_string(value) {
            Ok(value) => self.set(key, value).await,
            Err(error) => Err(WriteError::InvalidJson { key, reason: error.to_string() }),
        }
    }

    /// Deletes the entry of a key (writes a tombstone), and waits until the record is durable.
    ///
    /// # Errors
    ///
    /// As [`Writer::set`].
    ///
    /// # Cancel safety
    ///
    /// As [`Writer::set`].
    pub async fn delete(&self, key: impl Into<String>) -> Result<Ack, WriteError> {
        self.write(Write { target: Target::Key(key.into()), value: None }).await
    }

    /// Writes one entry, and waits until the record is durable.
    ///
    /// # Errors
    ///
    /// As [`Writer::set`].
    ///
    /// # Cancel safety
    ///
    /// As [`Writer::set`].
    pub async fn write(&self, write: Write) -> Result<Ack, WriteError> {
        // OK because there is a result for each write.
        self.set_many([write]).await.pop().expect("one result for one write")
    }

    /// Writes many entries, in order, once the result is awaited, and waits until all records are durable.
    /// Each write has its own result; one that fails does not stop the others. With [`SetMany::atomic`], all
    /// are written, or none.
    pub fn set_many<W>(&self, writes: W) -> SetMany<'_, W::IntoIter>
    where
        W: IntoIterator<Item = Write>,
    {
        SetMany::new(&self.0, writes.into_iter())
    }
}
