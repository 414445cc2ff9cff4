//! The table: a topic's newest value for each key, in memory.
//!
//! One task a table takes the partition streams of its log, has their batches
//! decoded by the codec workers (several at once, applied in each partition's
//! order), applies them to its rows, and publishes a moment of them: a clone that
//! shares all that did not change since. A reader takes the newest moment, so it
//! never waits, never sees half a batch, and can keep it as a [`Snapshot`] at no cost.
//!
//! Progress counts what was applied: positions are part of what is published.
//! Names neither Kafka nor wasmtime.

mod clock;
mod decode;
mod decoding;
mod entry;
mod error;
mod expiry;
mod load;
mod mistake;
#[cfg(test)]
mod model;
mod reject;
mod resume;
mod rows;
mod settings;
mod shared;
mod snapshot;
mod stats;
mod status;
mod view;
mod wait;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use clock::{Clock, SystemClock};
pub use entry::{Entry, Notice};
pub use error::TableError;
pub use mistake::{Mistake, Tally};
pub use reject::{Part, Reject};
pub use resume::CheckpointStats;
pub use settings::{CATCHUP_TIMEOUT, OnReject};
pub use snapshot::Snapshot;
pub use stats::{LoadProgress, PartitionProgress, Stats};
pub use status::Status;
pub use wait::Freshness;
pub use watch::{
    CHANGES_KEPT, Cause, Change, InvalidToken, WatchEvent, WatchFilter, WatchStart, WatchToken, Watcher,
};

use crate::codec::Codecs;
use crate::log::{Ack, EnsureTopic, Log, TopicDescription, ensure_topic, within};
use settings::{CheckpointSettings, Settings};
use shared::Shared;

/// A topic, materialized. A clone is a handle to the same table, which stops when
/// the last handle is dropped.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use ktables::codec::Codecs;
/// use ktables::table::Table;
///
/// let log = ktables::log::open("dir:./data")?;
/// let table = Table::builder(log, "services", Codecs::default()).start().await?;
/// if let Some(entry) = table.get("billing") {
///     println!("{}", entry.json());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Table {
    shared: Arc<Shared>,
    /// Dropped with the last handle, which stops the task.
    stop: Arc<tokio::sync::watch::Sender<bool>>,
}

/// Topic, status and size: what a table holds is not for logs.
impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("topic", &self.topic().name)
            .field("status", &self.status())
            .field("entries", &self.len())
            .finish_non_exhaustive()
    }
}

/// How a table is to be made.
#[derive(Debug)]
pub struct TableBuilder {
    log: Arc<dyn Log>,
    topic: String,
    codecs: Codecs,
    ensure: Option<EnsureTopic>,
    settings: Settings,
}

/// How long a table looks for its topic, however short its catch-up timeout is.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

impl TableBuilder {
    /// How long [`TableBuilder::start`] and [`Table::ready`] wait for the table
    /// to be complete; [`CATCHUP_TIMEOUT`] by default.
    #[must_use]
    pub fn catchup_timeout(mut self, timeout: Duration) -> Self {
        self.settings.catchup_timeout = timeout;
        self
    }

    /// Makes the topic if it is not there, and looks at its policy, before it is read; by
    /// default a topic that is not there is an error, and no other right is asked for than
    /// to read it. For writers and deployments there is [`ensure_topic`].
    #[must_use]
    pub fn ensure_topic(mut self, how: EnsureTopic) -> Self {
        self.ensure = Some(how);
        self
    }

    /// What a rejected record does to the entry of its key; [`OnReject::Keep`] by
    /// default.
    #[must_use]
    pub fn on_reject(mut self, on_reject: OnReject) -> Self {
        self.settings.on_reject = on_reject;
        self
    }

    /// How long an entry lives after the timestamp of its record; for ever by default.
    /// One that is expired is hidden, but for [`Table::expired`], until a newer record
    /// comes. Its record stays in the topic: a tombstone for it is left to whoever wrote
    /// it, because one that crosses with a late heartbeat would delete a living entry.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = Some(ttl);
        self
    }

    /// Keeps a checkpoint in this folder, which one table at a time uses, and begins with
    /// the one that is there, if it is sound: a start then reads from the log only what came
    /// since. It is used if it is younger than the topic's `delete.retention.ms`; asking for
    /// that takes DESCRIBE_CONFIGS, or [`TableBuilder::checkpoint_max_age`] says it.
    #[must_use]
    pub fn checkpoint(mut self, folder: impl Into<PathBuf>) -> Self {
        let max_age = self.settings.checkpoint.and_then(|settings| settings.max_age);
        self.settings.checkpoint = Some(CheckpointSettings { folder: folder.into(), max_age });
        self
    }

    /// How old a checkpoint may be: no longer than the log keeps tombstones, or entries come
    /// back that were deleted. Of no effect without [`TableBuilder::checkpoint`] before it.
    #[must_use]
    pub fn checkpoint_max_age(mut self, max_age: Duration) -> Self {
        if let Some(settings) = &mut self.settings.checkpoint {
            settings.max_age = Some(max_age);
        }
        self
    }

    /// How many bytes the table may take: its entries with all that they need, what watchers may
    /// be shown, rejected records. None by default. When it takes more, it applies no more records,
    /// is degraded, keeps its contents readable, and goes on when there is room again. So it does
    /// when the process takes more than [`set_process_limit`](crate::set_process_limit) says.
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.settings.memory_limit = Some(bytes);
        self
    }

    /// The clock by which entries expire, and by which a checkpoint ages; the machine's by
    /// default.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.settings.clock = clock;
        self
    }

    /// Looks for the topic, for as long as the catch-up timeout (and a second at least), and begins to load;
    /// [`Table::ready`] waits. Needs a tokio runtime, on which the table's task runs.
    ///
    /// # Errors
    ///
    /// [`TableError`] if there is no such topic or it cannot be read.
    pub async fn open(self) -> Result<Table, TableError> {
        let (log, name) = (&*self.log, &*self.topic);
        let patience = self.settings.catchup_timeout.max(LEAST_PATIENCE);
        let topic = within(log, name, patience, async {
            match &self.ensure {
                None => log.describe(name).await,
                Some(how) => Ok(ensure_topic(log, name, how).await?.topic),
            }
        });
        let topic = topic.await?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let shared = Arc::new(Shared::new(self.log, Arc::new(topic), self.codecs, self.settings));
        tokio::spawn(load::run(shared.clone(), stopped));
        Ok(Table { shared, stop: Arc::new(stop) })
    }

    /// Loads, and returns when the table is complete as of now, or degraded after
    /// the catch-up timeout: see [`Table::status`].
    ///
    /// # Errors
    ///
    /// [`TableError`] if there is no such topic, it cannot be read, or the log
    /// fails.
    pub async fn start(self) -> Result<Table, TableError> {
        let table = self.open().await?;
        table.ready().await?;
        Ok(table)
    }
}

impl Table {
    /// A table of a topic, read through these codecs.
    pub fn builder(log: Arc<dyn Log>, topic: impl Into<String>, codecs: Codecs) -> TableBuilder {
        TableBuilder { log, topic: topic.into(), codecs, ensure: None, settings: Settings::default() }
    }

    /// Waits until loading has come to an end: complete, or degraded.
    ///
    /// # Errors
    ///
    /// [`TableError`] if the log failed.
    ///
    /// # Cancel safety
    ///
    /// Loading goes on if this is dropped.
    pub async fn ready(&self) -> Result<Status, TableError> {
        let mut status = self.shared.subscribe_status();
        let ended = status.wait_for(|status| !matches!(status, Status::Loading)).await;
        match ended.as_deref() {
            Ok(Status::Failed(error)) => Err(TableError::clone(error)),
            Ok(status) => Ok(status.clone()),
            Err(_) => Ok(Status::Stopped),
        }
    }

    /// The topic the table was started on.
    #[must_use]
    pub fn topic(&self) -> &TopicDescription {
        &self.shared.topic
    }

    /// The entry of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Entry> {
        self.shared.view().rows().get(key).cloned()
    }

    /// Whether there is an entry for a key.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.shared.view().rows().get(key).is_some()
    }

    /// The notice on a key whose newest record was rejected, whether or not there
    /// is an entry for it.
    #[must_use]
    pub fn notice(&self, key: &str) -> Option<Notice> {
        self.shared.view().notice(key).cloned()
    }

    /// The entry of a key whose time is over, in a table whose entries expire.
    #[must_use]
    pub fn expired(&self, key: &str) -> Option<Entry> {
        self.shared.view().expired(key).cloned()
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.view().rows().len()
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of a member of a group. In a table without a group scheme there
    /// are no groups.
    #[must_use]
    pub fn member(&self, group: &str, member: &str) -> Option<Entry> {
        self.shared.view().rows().member(group, member).cloned()
    }

    /// The entries of a group, by member.
    #[must_use]
    pub fn members(&self, group: &str) -> Vec<Entry> {
        self.shared.view().rows().members(group).cloned().collect()
    }

    /// The number of members of a group.
    #[must_use]
    pub fn member_count(&self, group: &str) -> usize {
        self.shared.view().rows().member_count(group)
    }

    /// The names of the groups that have members, in order.
    #[must_use]
    pub fn groups(&self) -> Vec<String> {
        self.shared.view().rows().groups().map(str::to_owned).collect()
    }

    /// One consistent moment of the whole table, to be iterated or kept. Costs no
    /// copy.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.shared.view_to_keep())
    }

    /// The entries now (unless only changes are wanted), then every change and
    /// every change of status.
    #[must_use]
    pub fn watch(&self, start: WatchStart) -> Watcher {
        Watcher::new(&self.shared, start)
    }

    /// Waits until everything acknowledged before the call is visible.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if this is dropped.
    pub async fn barrier(&self, timeout: Duration) -> Freshness {
        wait::barrier(&self.shared, timeout).await
    }

    /// Waits until records are visible: those whose places acknowledged writes
    /// gave. Asks the log nothing, so the places are taken for ones in the generation
    /// that is served; where an offset was not told, it is a [`Table::barrier`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if this is dropped.
    pub async fn wait_for(&self, acks: &[Ack], timeout: Duration) -> Freshness {
        wait::wait_for(&self.shared, acks, timeout).await
    }

    /// Whether the table is complete, and if not, why.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// What the table has read and holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// The records rejected last, oldest first: at most 1,000 of them.
    #[must_use]
    pub fn rejects(&self) -> Vec<Reject> {
        self.shared.rejects()
    }

    /// Stops reading. The contents stay readable; the status is
    /// [`Status::Stopped`].
    ///
    /// # Cancel safety
    ///
    /// The table stops even if this is dropped.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let mut ended = self.shared.ended.subscribe();
        // The sender lives in `shared`.
        let _ = ended.wait_for(|&ended| ended).await;
    }
}
