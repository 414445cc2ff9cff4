//! Writing to a topic that tables read: encode through the codecs, decode again
//! to see that readers will get what was meant, publish, wait for the
//! acknowledgement. What does not verify is not published.

mod error;
mod prepare;
mod set_many;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use error::WriteError;
pub use set_many::SetMany;

use crate::codec::Codecs;
use crate::codec::workers::{Lane, Purpose};
use crate::log::{Ack, Log, LogError, TopicDescription};
use crate::table::{Freshness, Table};

/// What is checked of an encoded value before it is published.
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
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
#[derive(Clone)]
pub struct Writer {
    log: Arc<dyn Log>,
    topic: Arc<TopicDescription>,
    codecs: Codecs,
    /// Where encoding queues.
    lane: Lane,
    verify: Verify,
    visible_in: Option<(Table, Duration)>,
}

/// Its topic and log: how it writes is not for logs.
impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (topic, log) = (&self.topic.name, self.log.url());
        f.debug_struct("Writer").field("topic", topic).field("log", &log).finish_non_exhaustive()
    }
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
        let lane = Lane::new(&codecs, Purpose::Write);
        Ok(Self { log, topic, codecs, lane, verify: Verify::default(), visible_in: None })
    }

    /// What to check before publishing; [`Verify::Equal`] by default.
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }

    /// Makes each write wait, when it is durable, until it is visible in a table of the
    /// topic, for so long at most. Asks the log nothing.
    #[must_use]
    pub fn visible_in(mut self, table: &Table, timeout: Duration) -> Self {
        self.visible_in = Some((table.clone(), timeout));
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

    /// Writes many entries, in order, and waits until all are durable: await it. Each has
    /// its own answer; one that fails does not keep back the others. With
    /// [`SetMany::atomic`], all are written, or none.
    pub fn set_many<W>(&self, writes: W) -> SetMany<'_, W::IntoIter>
    where
        W: IntoIterator<Item = Write>,
    {
        SetMany::new(self, writes.into_iter())
    }

    /// Waits until what is durable is visible, if that is wanted; why it is not.
    async fn wait_visible(&self, acks: &[Ack]) -> Result<(), String> {
        let Some((table, timeout)) = &self.visible_in else { return Ok(()) };
        match table.wait_for(acks, *timeout).await {
            Freshness::Fresh => Ok(()),
            Freshness::Stale(reason) => Err(reason),
        }
    }
}
