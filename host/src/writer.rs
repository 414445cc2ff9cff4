//! Writing to a topic that tables read: encode through the codecs, decode again
//! to see that readers will get what was meant, publish, wait for the
//! acknowledgement. What does not verify is not published.

mod error;
mod prepare;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use error::WriteError;

use crate::codec::{Codecs, workers};
use crate::log::{Ack, Delivery, Log, LogError, NewRecord, TopicDescription};
use prepare::prepare;

/// How many writes are encoded in one go, and how many bytes of values (but for a
/// last one).
const CHUNK: usize = 1024;
const CHUNK_BYTES: usize = 4 << 20;

/// What is checked of an encoded value before it is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// It decodes to the same JSON: the same structure, the order of object
    /// members ignored, numbers by value.
    #[default]
    Equal,
    /// It decodes to something.
    Decodes,
    /// Nothing.
    Off,
}

/// Writes to one topic. A clone is a handle to the same writer.
#[derive(Debug, Clone)]
pub struct Writer {
    log: Arc<dyn Log>,
    topic: Arc<TopicDescription>,
    codecs: Codecs,
    verify: Verify,
}

/// Which entry is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The one of this key.
    Key(String),
    /// The one of this member of a group.
    Member {
        /// The group.
        group: String,
        /// The member.
        member: String,
    },
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Which entry.
    pub target: Target,
    /// Its new value, JSON text; `None` deletes it.
    pub value: Option<String>,
}

impl Writer {
    /// A writer to a topic, through these codecs.
    ///
    /// # Errors
    ///
    /// [`LogError`] if there is no such topic or the log cannot be asked.
    pub async fn open(log: Arc<dyn Log>, topic: &str, codecs: Codecs) -> Result<Self, LogError> {
        let topic = Arc::new(log.describe(topic).await?);
        Ok(Self { log, topic, codecs, verify: Verify::default() })
    }

    /// What to check before publishing; [`Verify::Equal`] by default.
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }

    /// The topic that is written to.
    #[must_use]
    pub fn topic(&self) -> &TopicDescription {
        &self.topic
    }

    /// Sets a key's value (JSON text) and waits until it is durable.
    ///
    /// # Errors
    ///
    /// [`WriteError`] says why nothing was published, or what happened to the
    /// record.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the record may be written or not.
    pub async fn set(&self, key: impl Into<String>, value: impl Into<String>) -> Result<Ack, WriteError> {
        self.write(Write { target: Target::Key(key.into()), value: Some(value.into()) }).await
    }

    /// Deletes a key's entry (writes a tombstone) and waits until that is durable.
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

    /// Writes one entry and waits until that is durable.
    ///
    /// # Errors
    ///
    /// As [`Writer::set`].
    ///
    /// # Cancel safety
    ///
    /// As [`Writer::set`].
    pub async fn write(&self, write: Write) -> Result<Ack, WriteError> {
        // OK because there is an answer for each write.
        self.set_many([write]).await.pop().expect("one answer for one write")
    }

    /// Writes many entries, in order, and waits until all are durable. Each has
    /// its own answer; one that fails does not keep back the others.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, any number of the records may be written.
    pub async fn set_many(&self, writes: impl IntoIterator<Item = Write>) -> Vec<Result<Ack, WriteError>> {
        let mut deliveries = Vec::new();
        let mut writes = writes.into_iter().peekable();
        while writes.peek().is_some() {
            let (mut chunk, mut bytes) = (Vec::new(), 0);
            while chunk.len() < CHUNK
                && bytes < CHUNK_BYTES
                && let Some(write) = writes.next()
            {
                bytes += write.value.as_ref().map_or(0, String::len);
                chunk.push(write);
            }
            deliveries.extend(self.queue(chunk).await);
        }
        let mut answers = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            answers.push(match delivery {
                Ok(delivery) => delivery.await.map_err(WriteError::Log),
                Err(error) => Err(error),
            });
        }
        answers
    }

    /// Encodes the writes on a codec worker and queues what may be published.
    async fn queue(&self, writes: Vec<Write>) -> Vec<Result<Delivery, WriteError>> {
        let len = writes.len();
        let (codecs, verify) = (self.codecs.clone(), self.verify);
        let prepared = workers::run(move || prepare(&codecs, verify, writes)).await;
        let prepared = prepared.unwrap_or_else(|failure| vec![Err(WriteError::Codec(failure)); len]);
        let mut deliveries = Vec::with_capacity(len);
        for record in prepared {
            deliveries.push(match record {
                Ok((key, record)) => self.send(key, record).await,
                Err(error) => Err(error),
            });
        }
        deliveries
    }

    async fn send(&self, key: String, record: NewRecord) -> Result<Delivery, WriteError> {
        self.log.send(&self.topic, record).await.map_err(|error| match error {
            source @ (LogError::InvalidRecord { .. } | LogError::UnknownPartition { .. }) => {
                WriteError::InvalidRecord { key, source }
            }
            error => WriteError::Log(error),
        })
    }
}
