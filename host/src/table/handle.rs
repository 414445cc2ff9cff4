//! The handle of a table: reads, watchers, status.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::codec::Codecs;
use crate::log::{Ack, TopicDescription};
use crate::table::barrier::{self, Freshness};
#[cfg(feature = "cli")]
use crate::table::dead_letters::{CompareLettersError, DeadLetterComparison, compare};
use crate::table::entry::Entry;
use crate::table::error::TableError;
use crate::table::reject::{RejectNotice, RejectedRecord};
use crate::table::resumer::Resumer;
#[cfg(feature = "cli")]
use crate::table::shared::CodecRevocation;
use crate::table::shared::Shared;
use crate::table::snapshot::Snapshot;
use crate::table::status::{Latencies, Stats, Status};
use crate::table::swap::{PreparedSwap, SwapRequest};
use crate::table::swap_gate::SwapGate;
use crate::table::watch::{WatchStart, WatchToken, Watcher};

/// A topic as an in-memory table. A clone is a handle to the same table, which stops when the last handle
/// is dropped.
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
    /// Dropped with the last handle, which stops the table's tasks.
    stop: Arc<watch::Sender<bool>>,
    swaps: mpsc::Sender<SwapRequest>,
}

/// Shows topic, status and size: the contents of a table must not appear in logs.
impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("topic", &self.topic().name)
            .field("status", &self.status())
            .field("entries", &self.len())
            .finish_non_exhaustive()
    }
}

impl Table {
    pub(super) fn new(
        shared: Arc<Shared>,
        stop: watch::Sender<bool>,
        swaps: mpsc::Sender<SwapRequest>,
    ) -> Self {
        Self { shared, stop: Arc::new(stop), swaps }
    }

    /// Waits until loading has ended: the table is complete, degraded, or stopped.
    ///
    /// # Errors
    ///
    /// [`TableError`] if the table failed: because of the log, a record that halts it, or a panic.
    ///
    /// # Cancel safety
    ///
    /// Loading continues if this is dropped.
    pub async fn wait_until_ready(&self) -> Result<Status, TableError> {
        let mut status = self.shared.subscribe_status();
        let ended = status.wait_for(|status| !matches!(status, Status::Loading)).await;
        match ended.as_deref() {
            Ok(Status::Failed(error)) => Err(TableError::clone(error)),
            Ok(status) => Ok(status.clone()),
            Err(_) => Ok(Status::Stopped),
        }
    }

    /// The topic that is served, with the identity it had when its generation began.
    #[must_use]
    pub fn topic(&self) -> Arc<TopicDescription> {
        self.shared.view().topic.clone()
    }

    /// Returns the entry of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Entry> {
        self.shared.view().rows().get(key).cloned()
    }

    /// Whether a key has an entry.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.shared.view().rows().get(key).is_some()
    }

    /// Returns the notice on a key whose newest record was rejected, whether or not the key has an
    /// entry.
    #[must_use]
    pub fn notice(&self, key: &str) -> Option<RejectNotice> {
        self.shared.view().notice(key).cloned()
    }

    /// Returns the expired entry of a key, in a table with a time to live.
    #[must_use]
    pub fn get_expired(&self, key: &str) -> Option<Entry> {
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

    /// Returns the entry of a member of a group. A table without a group scheme has no groups.
    #[must_use]
    pub fn member(&self, group: &str, member: &str) -> Option<Entry> {
        self.shared.view().rows().member(group, member).cloned()
    }

    /// Returns the entries of a group, by member.
    #[must_use]
    pub fn members(&self, group: &str) -> Vec<Entry> {
        self.shared.view().rows().members(group).cloned().collect()
    }

    /// The number of members of a group.
    #[must_use]
    pub fn member_count(&self, group: &str) -> usize {
        self.shared.view().rows().member_count(group)
    }

    /// Returns the names of the groups that have members, in order.
    #[must_use]
    pub fn groups(&self) -> Vec<String> {
        self.shared.view().rows().groups().map(str::to_owned).collect()
    }

    /// Returns the contents of the table at this time, to be iterated or kept. Copies nothing.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.shared.view_to_keep())
    }

    /// Watches the table: its entries (unless `start` asks for changes only), then every change and
    /// every change of status.
    #[must_use]
    pub fn watch(&self, start: WatchStart) -> Watcher {
        Watcher::new(&self.shared.hub, start, Arc::new(Resumer(Arc::downgrade(&self.shared))))
    }

    /// Waits until everything acknowledged before the call is visible.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if this is dropped.
    pub async fn barrier(&self, timeout: Duration) -> Freshness {
        barrier::barrier(&self.shared, timeout).await
    }

    /// Waits until acknowledged writes are visible. Does not ask the log, so the acknowledgements
    /// must be of the topic that is served. If one has no offset, this is a [`Table::barrier`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if this is dropped.
    pub async fn wait_for(&self, acks: &[Ack], timeout: Duration) -> Freshness {
        barrier::wait_for(&self.shared, acks, timeout).await
    }

    /// Waits until the table has applied everything that a watcher had seen, so that another one can resume with its
    /// token. Returns false if it has not within the timeout, or has ended. Returns true for a token of another topic or of other
    /// codecs: with it, a watcher starts again.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if this is dropped.
    #[must_use = "the table may be behind"]
    pub async fn wait_for_token(&self, token: &WatchToken, timeout: Duration) -> bool {
        barrier::wait_for_token(&self.shared, token, timeout).await
    }

    /// Reports that a codec must not be used any more; `None` if none is revoked.
    #[cfg(feature = "cli")]
    pub(crate) fn set_revocation(&self, revocation: Option<CodecRevocation>) {
        self.shared.set_revocation(revocation);
    }

    /// Returns why the codecs with this fingerprint must not be used at all any more.
    #[cfg(feature = "cli")]
    pub(crate) fn freeze_reason(&self, fingerprint: impl FnOnce() -> String) -> Option<Arc<str>> {
        self.shared.freeze_reason(fingerprint)
    }

    /// Returns whether the table is complete, and if not, why.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Returns statistics: what the table has read and what it holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Returns how long the table's work took since it was started.
    #[must_use]
    pub fn latencies(&self) -> Latencies {
        let Shared { apply_latency, barrier_latency, .. } = &*self.shared;
        Latencies { apply: apply_latency.latency(), barrier: barrier_latency.latency() }
    }

    /// Returns the records rejected last, oldest first: at most 1,000, and at most 16 MiB.
    #[must_use]
    pub fn rejects(&self) -> Vec<RejectedRecord> {
        self.shared.rejects()
    }

    /// Decodes the topic with other codecs: loads another generation beside the one that is served,
    /// which continues to follow the topic, and switches in one step when the new one is complete
    /// and not behind. Returns the number of the new generation. It continues the checkpoint if it can
    /// load it; otherwise, none is written until the table is started again.
    ///
    /// # Errors
    ///
    /// [`TableError::Loading`] if the topic is being loaded already; otherwise the reason why the topic
    /// could not be loaded. The table then continues with the old codecs.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it returns, the swap is cancelled, unless the new generation is
    /// served already.
    pub async fn swap_codecs(&self, codecs: Codecs) -> Result<u64, TableError> {
        let ended = |_| TableError::Ended { topic: self.topic().name.clone() };
        let (answer, served) = oneshot::channel();
        let request = SwapRequest { codecs, gate: SwapGate::open(), answer };
        self.swaps.send(request).await.map_err(|_| ended(()))?;
        served.await.map_err(|_| ended(()))?
    }

    /// Decodes the topic with other codecs, as [`Table::swap_codecs`] does, and returns when the other generation is
    /// complete, without serving it. It can be compared with what is served, and then be committed or dropped. It is
    /// loaded from the table's checkpoint, if there is one that can be used. Whoever writes that goes on.
    ///
    /// # Errors
    ///
    /// [`TableError::Loading`] if the topic is being loaded already, or another swap is prepared or kept; otherwise the
    /// reason why the topic could not be loaded.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it returns, the swap is cancelled.
    pub async fn prepare_swap(&self, codecs: Codecs) -> Result<PreparedSwap, TableError> {
        let (request, mut prepared) = PreparedSwap::request(self.shared.clone(), codecs);
        let ended = |_| TableError::Ended { topic: self.topic().name.clone() };
        self.swaps.send(request).await.map_err(ended)?;
        prepared.wait_until_complete().await?;
        Ok(prepared)
    }

    /// Decodes the dead letters of the topic with the served codecs and with others, within a time; `None` for a table
    /// without a dead-letter topic.
    #[cfg(feature = "cli")]
    pub(crate) async fn compare_dead_letters(
        &self,
        codecs: &Codecs,
        timeout: Duration,
    ) -> Option<Result<DeadLetterComparison, CompareLettersError>> {
        let dead_letters = self.shared.dead_letters.as_ref()?;
        let served = self.shared.reported();
        let compared = compare(
            &*self.shared.log,
            &served.topic,
            dead_letters.topic(),
            [&served.codecs, codecs],
            timeout,
        );
        Some(compared.await)
    }

    /// Stops reading, and waits until the table's tasks have ended. The contents stay readable; the
    /// status is [`Status::Stopped`], or [`Status::Failed`] if the table had failed.
    ///
    /// # Cancel safety
    ///
    /// The table stops even if this is dropped.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let mut ended = self.shared.ended.subscribe();
        // OK to ignore: the sender lives in `shared`.
        let _ = ended.wait_for(|&ended| ended).await;
    }
}
