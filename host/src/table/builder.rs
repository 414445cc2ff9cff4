//! The options of a table, and its start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::codec::Codecs;
use crate::log::{EnsureTopic, Log, ensure_topic, with_timeout};
use crate::table::clock::Clock;
use crate::table::dead_letters::open_topic;
use crate::table::error::TableError;
use crate::table::handle::Table;
use crate::table::settings::{DeadLetterOnError, DeadLetterSettings, OnQuarantine, OnReject, Settings};
use crate::table::shared::Shared;
use crate::table::supervisor;

/// How long a table looks for its topic, however short its catch-up timeout is.
const MIN_DESCRIBE_TIMEOUT: Duration = Duration::from_secs(1);

/// How many requests to swap codecs may wait.
const SWAP_REQUESTS: usize = 4;

/// The options of a table, before it is started. See [`Table::builder`].
#[derive(Debug)]
pub struct TableBuilder {
    log: Arc<dyn Log>,
    topic: String,
    codecs: Codecs,
    ensure: Option<EnsureTopic>,
    settings: Settings,
}

impl Table {
    /// Returns the options of a table of this topic, decoded by these codecs.
    pub fn builder(log: Arc<dyn Log>, topic: impl Into<String>, codecs: Codecs) -> TableBuilder {
        TableBuilder { log, topic: topic.into(), codecs, ensure: None, settings: Settings::default() }
    }
}

impl TableBuilder {
    /// How long [`TableBuilder::start`] and [`Table::wait_until_ready`] wait for the table to be complete;
    /// [`DEFAULT_CATCHUP_TIMEOUT`](crate::table::DEFAULT_CATCHUP_TIMEOUT) by default.
    #[must_use]
    pub fn catchup_timeout(mut self, timeout: Duration) -> Self {
        self.settings.catchup_timeout = timeout;
        self
    }

    /// Creates the topic if it does not exist, and checks its cleanup policy, before it is read. By
    /// default, a missing topic is an error, and the table needs no right except to read. Writers
    /// and deployments can call [`ensure_topic`](crate::log::ensure_topic()) instead.
    #[must_use]
    pub fn ensure_topic(mut self, how: EnsureTopic) -> Self {
        self.ensure = Some(how);
        self
    }

    /// What happens when a component keeps faulting; [`OnQuarantine::Probe`] by default.
    #[must_use]
    pub fn on_quarantine(mut self, on_quarantine: OnQuarantine) -> Self {
        self.settings.quarantine.on_quarantine = on_quarantine;
        self
    }

    /// How many of the last 1,000 records may make a component fault before it is quarantined; 100 by default.
    #[must_use]
    pub fn quarantine_faults(mut self, records: u32) -> Self {
        self.settings.quarantine.quarantine_faults = records;
        self
    }

    /// Writes each rejected record, unchanged, to this topic of the same log, with headers that say where it comes from
    /// and why it was rejected. A record that the topic holds is not written again. Takes the right to read and to
    /// write the topic. With [`TableBuilder::ensure_topic`], it is created if it does not exist.
    #[must_use]
    pub fn dead_letter(mut self, topic: impl Into<String>, on_error: DeadLetterOnError) -> Self {
        self.settings.dead_letters = Some(DeadLetterSettings { topic: topic.into(), on_error });
        self
    }

    /// What a rejected record does to the entry of its key; [`OnReject::Keep`] by default.
    #[must_use]
    pub fn on_reject(mut self, on_reject: OnReject) -> Self {
        self.settings.on_reject = on_reject;
        self
    }

    /// How long an entry lives after the timestamp of its record; for ever by default. An expired
    /// entry is hidden, except from [`Table::get_expired`], until a newer record comes. Its record
    /// stays in the topic. The table writes no tombstone for it, because a tombstone that crosses a
    /// late heartbeat would delete a living entry.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = Some(ttl);
        self
    }

    /// Keeps a checkpoint in this folder, which only one table at a time can use. If the folder has a
    /// sound checkpoint, the table loads it, and reads only newer records from the log. A checkpoint is
    /// used if it is younger than the topic's `delete.retention.ms`. Reading that setting takes the right
    /// DESCRIBE_CONFIGS; without it, set [`TableBuilder::checkpoint_max_age`].
    #[must_use]
    pub fn checkpoint(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.checkpoint.folder = Some(folder.into());
        self
    }

    /// How old a checkpoint may be; by default, the topic's `delete.retention.ms`. A longer time lets
    /// deleted entries come back. Has no effect without [`TableBuilder::checkpoint`].
    #[must_use]
    pub fn checkpoint_max_age(mut self, max_age: Duration) -> Self {
        self.settings.checkpoint.max_age = Some(max_age);
        self
    }

    /// How many bytes the table may use for entries, watch history and rejected records; no limit by
    /// default. A table that exceeds it applies no more records and is degraded, keeps its contents
    /// readable, and continues when there is room again. The same happens when the process exceeds
    /// [`set_process_memory_limit`](crate::set_process_memory_limit).
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.settings.memory_limit = Some(bytes);
        self
    }

    /// The clock by which entries expire and checkpoints age; the machine's by default.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.settings.clock = clock;
        self
    }

    /// Finds the topic, within the catch-up timeout (and a second at least), and begins to load it.
    /// [`Table::wait_until_ready`] waits for the table. Needs a tokio runtime, on which the table's tasks run.
    ///
    /// # Errors
    ///
    /// [`TableError`] if the topic does not exist or cannot be read.
    pub async fn open(self) -> Result<Table, TableError> {
        let codecs = self.codecs.clone();
        let (shared, stop, stopped) = self.prepare().await?;
        let (swaps, swap_requests) = mpsc::channel(SWAP_REQUESTS);
        tokio::spawn(supervisor::run(shared.clone(), codecs, swap_requests, stopped));
        Ok(Table::new(shared, stop, swaps))
    }

    /// Finds the topic as [`TableBuilder::open`] does, for a table that has failed because a codec cannot be loaded. It
    /// reads nothing, and uses none of its codecs.
    #[cfg(feature = "cli")]
    pub(crate) async fn open_without_codec(self, reason: String) -> Result<Table, TableError> {
        let (shared, stop, _) = self.prepare().await?;
        let (swaps, _) = mpsc::channel(SWAP_REQUESTS);
        let topic = shared.topic_name();
        supervisor::fail_table(shared.clone(), TableError::NoCodec { topic, reason });
        Ok(Table::new(shared, stop, swaps))
    }

    /// Finds the topic and the dead-letter topic. Returns the state of the table, and both ends of what stops it.
    async fn prepare(self) -> Result<(Arc<Shared>, watch::Sender<bool>, watch::Receiver<bool>), TableError> {
        let (log, name) = (&*self.log, &*self.topic);
        let timeout = self.settings.catchup_timeout.max(MIN_DESCRIBE_TIMEOUT);
        let topic = with_timeout(log, name, "describe", timeout, async {
            match &self.ensure {
                None => log.describe(name).await,
                Some(how) => Ok(ensure_topic(log, name, how).await?.topic),
            }
        });
        let topic = Arc::new(topic.await?);
        if let Some(DeadLetterSettings { topic: dead_letter, .. }) = &self.settings.dead_letters {
            let opened = async { Ok(open_topic(log, &topic, dead_letter, self.ensure.is_some()).await) };
            with_timeout(log, dead_letter, "describe", timeout, opened).await??;
        }
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared::new(self.log, topic, self.codecs, self.settings));
        Ok((shared, stop, stopped))
    }

    /// Loads the topic, and returns when the table is complete as of now, or degraded after the
    /// catch-up timeout; see [`Table::status`].
    ///
    /// # Errors
    ///
    /// [`TableError`] if the topic does not exist or cannot be read, or the log fails.
    pub async fn start(self) -> Result<Table, TableError> {
        let table = self.open().await?;
        table.wait_until_ready().await?;
        Ok(table)
    }
}
