//! What a table's handles and its task share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{broadcast, watch};

use crate::codec::Codecs;
use crate::log::{Log, Offset, OffsetRange, TopicDescription};
use crate::table::load::Step;
use crate::table::reject::{Reject, Ring};
use crate::table::stats::{PartitionProgress, Progress, Stats};
use crate::table::status::{Conditions, Status};
use crate::table::view::{View, position};
use crate::table::wait::EndOffsets;
use crate::table::watch::{Change, Published};

/// How many publications a watcher may lag behind before it is told that it
/// missed some.
const WATCH_LAG: usize = 1024;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) log: Arc<dyn Log>,
    /// As it was when the table was started.
    pub(super) topic: Arc<TopicDescription>,
    pub(super) codecs: Codecs,
    pub(super) catchup_timeout: Duration,
    /// When that is over.
    pub(super) late: tokio::time::Instant,
    view: ArcSwap<View>,
    /// Held while a moment or a status is made, published and told to watchers, and
    /// while a watcher takes its first, so that it misses nothing and sees nothing
    /// twice. A std lock: held for no longer than a batch takes; no read takes it.
    watchers: Mutex<broadcast::Sender<Published>>,
    /// Changes with every publication and every status.
    applied: watch::Sender<()>,
    status: watch::Sender<Status>,
    /// A std lock: held to look or to set. Since when the status is what it is.
    since: Mutex<SystemTime>,
    pub(super) end_offsets: EndOffsets,
    /// A std lock: held to look or to change a field.
    conditions: Mutex<Conditions>,
    /// A std lock: held to push or to copy.
    rejects: Mutex<Ring>,
    /// A std lock: held to look or to change a field.
    loading: Mutex<Loading>,
    /// Of the generation that is read. A std lock: held to copy some numbers.
    progress: Mutex<Progress>,
}

/// How the loading of a generation went.
#[derive(Debug)]
struct Loading {
    began: Instant,
    ranges: Vec<OffsetRange>,
    catch_up: Option<Duration>,
    replayed: u64,
}

impl Loading {
    fn begin() -> Self {
        Self { began: Instant::now(), ranges: Vec::new(), catch_up: None, replayed: 0 }
    }

    fn is_done(&self, positions: &[Offset]) -> bool {
        self.behind(positions).next().is_none()
    }

    /// The partitions that are not where they ended when loading began.
    fn behind(&self, positions: &[Offset]) -> impl Iterator<Item = &OffsetRange> {
        self.ranges
            .iter()
            .filter(|range| range.end > range.start && position(positions, range.partition) < range.end)
    }

    /// How far loading is, for people.
    fn progress(&self, positions: &[Offset]) -> String {
        let behind = self.behind(positions).map(|range| {
            let position = position(positions, range.partition);
            format!("partition {} at {position} of {}", range.partition, range.end)
        });
        behind.collect::<Vec<_>>().join(", ")
    }
}

impl Shared {
    pub(super) fn new(
        log: Arc<dyn Log>,
        topic: Arc<TopicDescription>,
        codecs: Codecs,
        catchup_timeout: Duration,
    ) -> Self {
        let view = View::empty(1, topic.clone());
        Self {
            progress: Mutex::new(Progress::of(&view)),
            view: ArcSwap::from_pointee(view),
            log,
            topic,
            codecs,
            catchup_timeout,
            late: far_ahead(catchup_timeout),
            watchers: Mutex::new(broadcast::channel(WATCH_LAG).0),
            applied: watch::channel(()).0,
            status: watch::channel(Status::Loading).0,
            since: Mutex::new(SystemTime::now()),
            end_offsets: EndOffsets::default(),
            conditions: Mutex::default(),
            rejects: Mutex::default(),
            loading: Mutex::new(Loading::begin()),
        }
    }

    /// The newest moment, for a look.
    pub(super) fn view(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// The newest moment, to be kept.
    pub(super) fn view_to_keep(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// A receiver of what is published from now on, and moment and status now.
    pub(super) fn subscribe(&self) -> (broadcast::Receiver<Published>, Arc<View>, Status) {
        let watchers = lock(&self.watchers);
        (watchers.subscribe(), self.view.load_full(), self.status())
    }

    /// Changes whenever something was applied or the status changed.
    pub(super) fn subscribe_applied(&self) -> watch::Receiver<()> {
        self.applied.subscribe()
    }

    pub(super) fn subscribe_status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(super) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Takes steps without publishing what comes of them.
    pub(super) fn take(&self, view: &mut View, steps: Vec<Step>) {
        self.take_and_tell(view, steps, None);
    }

    /// Takes steps, publishes the moment behind them, and tells watchers.
    pub(super) fn take_and_publish(&self, view: &mut View, steps: Vec<Step>) {
        let watchers = lock(&self.watchers);
        let mut changes = Vec::new();
        self.take_and_tell(view, steps, (watchers.receiver_count() > 0).then_some(&mut changes));
        self.view.store(Arc::new(view.clone()));
        if !changes.is_empty() {
            // Fails if the last watcher left just now.
            let _ = watchers.send(Published::Changes(changes.into()));
        }
        drop(watchers);
        self.applied.send_replace(());
    }

    fn take_and_tell(&self, view: &mut View, steps: Vec<Step>, mut changes: Option<&mut Vec<Change>>) {
        for step in steps {
            match step {
                Step::Apply(decoded) => {
                    view.apply(decoded, changes.as_deref_mut(), |reject| self.reject(reject));
                }
                Step::Position(partition, offset) => view.advance(partition, offset),
            }
        }
        lock(&self.progress).tell(view);
    }

    /// Publishes a generation for the first time, in the place of what was served, and
    /// tells watchers the difference.
    pub(super) fn switch(&self, view: &View) {
        let watchers = lock(&self.watchers);
        let old = self.view.swap(Arc::new(view.clone()));
        lock(&self.progress).tell(view);
        if watchers.receiver_count() > 0 {
            let difference = Published::difference(&old, view);
            // Fails if the last watcher left just now.
            if old.generation != view.generation {
                let _ = watchers.send(Published::Generation(view.generation));
            }
            let _ = watchers.send(difference);
        }
        drop(watchers);
        self.applied.send_replace(());
    }

    /// A generation begins to load.
    pub(super) fn begin_loading(&self, view: &View) {
        *lock(&self.loading) = Loading::begin();
        lock(&self.progress).tell(view);
        *lock(&self.rejects) = Ring::default();
    }

    /// What a partition holds belongs to what is being loaded.
    pub(super) fn expect(&self, range: OffsetRange) {
        lock(&self.loading).ranges.push(range);
    }

    /// The gate: everything that was there when loading began is applied.
    pub(super) fn is_loaded(&self, view: &View) -> bool {
        lock(&self.loading).is_done(view.positions())
    }

    /// Which partitions are not loaded, for people.
    pub(super) fn behind(&self) -> String {
        let positions = lock(&self.progress).positions.clone();
        let progress = lock(&self.loading).progress(&positions);
        if progress.is_empty() { progress } else { format!(": {progress}") }
    }

    /// A generation has loaded what there was when it began.
    pub(super) fn finish_loading(&self, replayed: u64) {
        let mut loading = lock(&self.loading);
        loading.catch_up = Some(loading.began.elapsed());
        loading.replayed = replayed;
        drop(loading);
        self.update(|conditions| conditions.caught_up = true);
    }

    /// Changes what the status follows from, and tells those who wait for it.
    pub(super) fn update(&self, change: impl FnOnce(&mut Conditions)) {
        let watchers = lock(&self.watchers);
        let mut conditions = lock(&self.conditions);
        change(&mut conditions);
        let status = conditions.status();
        drop(conditions);
        let changed = self.status.send_if_modified(|current| {
            let changed = current.name() != status.name() || current.reason() != status.reason();
            *current = status.clone();
            changed
        });
        if changed {
            *lock(&self.since) = SystemTime::now();
            tracing::info!(topic = self.topic.name, "table is {status}");
            // Fails if there is no watcher.
            let _ = watchers.send(Published::Status(status));
        }
        drop(watchers);
        self.applied.send_replace(());
    }

    /// Whether what is served is not of the topic as it is now.
    pub(super) fn is_outdated(&self) -> bool {
        lock(&self.conditions).outdated.is_some()
    }

    /// Whether the table has been complete once.
    pub(super) fn was_complete(&self) -> bool {
        lock(&self.conditions).caught_up
    }

    pub(super) fn rejects(&self) -> Vec<Reject> {
        lock(&self.rejects).to_vec()
    }

    fn reject(&self, reject: Reject) {
        let (partition, offset) = (reject.partition, reject.offset);
        tracing::debug!(
            topic = self.topic.name,
            partition,
            offset,
            "rejected a record: {}",
            reject.rejection
        );
        lock(&self.rejects).push(reject);
    }

    pub(super) fn stats(&self) -> Stats {
        let Progress { generation, counters, positions, entries, groups } = lock(&self.progress).clone();
        let loading = lock(&self.loading);
        let progress = |range: &OffsetRange| PartitionProgress {
            partition: range.partition,
            position: position(&positions, range.partition).max(range.start),
            start: range.start,
            target: range.end,
        };
        Stats {
            status_since: *lock(&self.since),
            generation,
            entries: entries as u64,
            groups: groups as u64,
            records: counters.records,
            tombstones: counters.tombstones,
            keyless: counters.keyless,
            foreign: counters.foreign,
            rejects: counters.rejects,
            cross_partition: counters.cross_partition,
            payload_bytes: counters.payload_bytes,
            catch_up: loading.catch_up,
            replayed: loading.catch_up.map_or(counters.records, |_| loading.replayed),
            partitions: loading.ranges.iter().map(progress).collect(),
        }
    }
}

/// The moment that is so far ahead, or as good as never.
fn far_ahead(time: Duration) -> tokio::time::Instant {
    const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    let now = tokio::time::Instant::now();
    now.checked_add(time).unwrap_or(now + NEVER)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Should a batch make its thread panic, the table ends, and the status that says
    // so is behind one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
