//! What a table's handles and its task share.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::codec::Codecs;
use crate::codec::workers::{Lane, Purpose};
use crate::log::{Log, Offset, OffsetRange, TopicDescription};
use crate::table::decoding::Step;
use crate::table::error::TableError;
use crate::table::expiry::Deadlines;
use crate::table::reject::{Reject, Ring};
use crate::table::resume::Checkpointing;
use crate::table::settings::Settings;
use crate::table::stats::{LoadProgress, PartitionProgress, Progress, Stats};
use crate::table::status::{Conditions, Status};
use crate::table::view::{Effects, View, position};
use crate::table::wait::EndOffsets;
use crate::table::watch::{Hub, SharedHub, WatchItem};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) log: Arc<dyn Log>,
    /// As it was when the table was started.
    pub(super) topic: Arc<TopicDescription>,
    pub(super) codecs: Codecs,
    /// Where decoding queues.
    pub(super) lane: Lane,
    pub(super) settings: Settings,
    /// When that is over.
    pub(super) late: tokio::time::Instant,
    view: ArcSwap<View>,
    /// Held while a moment or a status is made, published and told to watchers, and
    /// while a watcher takes its first, so that it misses nothing and sees nothing twice.
    pub(super) hub: SharedHub,
    /// Changes with every publication and every status.
    applied: watch::Sender<()>,
    status: watch::Sender<Status>,
    /// Whether a generation is read, of which there is something to be served.
    pub(super) reads: AtomicBool,
    /// Whether the task is over, and with it what it kept.
    pub(super) ended: watch::Sender<bool>,
    /// A std lock: held to look or to set. Since when the status is what it is.
    since: Mutex<SystemTime>,
    pub(super) end_offsets: EndOffsets,
    /// A std lock: held to look or to change a field.
    conditions: Mutex<Conditions>,
    /// A std lock: held to push or to copy.
    rejects: Mutex<Ring>,
    /// A std lock: held to look or to change a field.
    loading: Mutex<Loading>,
    pub(super) checkpointing: Checkpointing,
    /// Of the generation that is read. A std lock: held to copy some numbers.
    progress: Mutex<Progress>,
}

/// What a table's task works on.
pub(super) struct Work {
    /// The moment it makes.
    pub(super) view: View,
    /// When its entries expire, if they do.
    pub(super) deadlines: Option<Deadlines>,
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

    /// How far loading is.
    fn how_far(&self, positions: &[Offset]) -> LoadProgress {
        let count = |from: Offset, to: Offset| u64::try_from(to - from).unwrap_or(0);
        let mut progress = LoadProgress { done: 0, of: 0, elapsed: self.began.elapsed() };
        for range in &self.ranges {
            progress.done += count(range.start, position(positions, range.partition).min(range.end));
            progress.of += count(range.start, range.end);
        }
        progress
    }

    /// Which partitions are behind, for people.
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
        settings: Settings,
    ) -> Self {
        let view = Arc::new(View::empty(1, topic.clone()));
        Self {
            progress: Mutex::new(Progress::of(&view)),
            hub: Arc::new(Mutex::new(Hub::new(view.clone()))),
            view: ArcSwap::new(view),
            log,
            topic,
            lane: Lane::new(&codecs, Purpose::Read),
            codecs,
            late: far_ahead(settings.catchup_timeout),
            settings,
            applied: watch::channel(()).0,
            status: watch::channel(Status::Loading).0,
            reads: AtomicBool::new(false),
            ended: watch::channel(false).0,
            since: Mutex::new(SystemTime::now()),
            end_offsets: EndOffsets::default(),
            conditions: Mutex::default(),
            rejects: Mutex::default(),
            loading: Mutex::new(Loading::begin()),
            checkpointing: Checkpointing::default(),
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
    pub(super) fn take(&self, work: &mut Work, steps: Vec<Step>) -> Result<(), TableError> {
        self.take_and_tell(work, steps, None)
    }

    /// Takes steps, publishes the moment behind them, and tells watchers.
    pub(super) fn take_and_publish(&self, work: &mut Work, steps: Vec<Step>) -> Result<(), TableError> {
        let mut told = Vec::new();
        let is_watched = lock(&self.hub).is_on();
        let taken = self.take_and_tell(work, steps, is_watched.then_some(&mut told));
        let view = Arc::new(work.view.clone());
        let mut hub = lock(&self.hub);
        self.view.store(view.clone());
        match hub.is_on() && !is_watched {
            // Somebody has begun to watch while nobody wrote down what happens.
            true => hub.publish_unrecorded(view),
            false => hub.publish(view, told),
        }
        drop(hub);
        self.applied.send_replace(());
        taken
    }

    fn take_and_tell(
        &self,
        work: &mut Work,
        steps: Vec<Step>,
        told: Option<&mut Vec<WatchItem>>,
    ) -> Result<(), TableError> {
        let Work { view, deadlines } = work;
        let mut rejected = |reject| self.reject(reject);
        let on_reject = self.settings.on_reject;
        let mut effects = Effects { told, rejected: &mut rejected, on_reject, deadlines: deadlines.as_mut() };
        let taken = steps.into_iter().try_for_each(|step| {
            match step {
                Step::Apply(decoded, ..) => return view.apply(decoded, &mut effects),
                Step::Position(partition, offset, _) => view.advance(partition, offset),
                Step::Start(partition, offset) => view.begin_at(partition, offset, &mut effects),
            }
            Ok(())
        });
        view.expire(self.settings.clock.now(), &mut effects);
        lock(&self.progress).tell(view);
        taken.map_err(|reject| TableError::halted(&self.topic.name, *reject))
    }

    /// Publishes a generation for the first time, in the place of what was served, and
    /// tells watchers the difference.
    pub(super) fn switch(&self, view: &View) {
        let view = Arc::new(view.clone());
        lock(&self.progress).tell(&view);
        let mut hub = lock(&self.hub);
        self.view.store(view.clone());
        hub.replace(view);
        drop(hub);
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

    /// Loading takes longer than it should.
    pub(super) fn tell_late(&self) {
        let reason = format!("still loading after {:?}{}", self.settings.catchup_timeout, self.behind());
        self.update(|conditions| conditions.late = Some(reason.into()));
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
        let mut hub = lock(&self.hub);
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
            let topic = &self.topic.name;
            match &status {
                Status::Failed(_) => {
                    tracing::error!(topic, "table is {status}; its contents stay as they are")
                }
                Status::Degraded(_) => tracing::warn!(topic, "table is {status}"),
                _ => tracing::info!(topic, "table is {status}"),
            }
            hub.publish_status(status);
        }
        drop(hub);
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

    /// The bytes of what is kept besides views: rejected records, and what watchers may be shown.
    pub(super) fn bytes_beside(&self) -> u64 {
        let rejects = lock(&self.rejects).byte_len();
        (rejects + lock(&self.hub).byte_len()) as u64
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
        let mut partitions: Vec<PartitionProgress> = loading.ranges.iter().map(progress).collect();
        partitions.sort_by_key(|progress| progress.partition);
        Stats {
            status_since: *lock(&self.since),
            generation,
            entries: entries as u64,
            groups: groups as u64,
            records: counters.records,
            tombstones: counters.tombstones,
            keyless: counters.keyless,
            rejects: counters.rejects,
            foreign: counters.mistakes.foreign,
            cross_partition: counters.mistakes.cross_partition,
            older: counters.mistakes.older,
            other_partitioner: counters.mistakes.other_partitioner,
            payload_bytes: counters.payload_bytes,
            loading: loading.catch_up.is_none().then(|| loading.how_far(&positions)),
            catch_up: loading.catch_up,
            replayed: loading.catch_up.map_or(counters.records, |_| loading.replayed),
            checkpoint: self.checkpointing.stats(self.settings.checkpoint.as_ref()),
            partitions,
        }
    }
}

/// The moment that is so far ahead, or as good as never.
fn far_ahead(time: Duration) -> tokio::time::Instant {
    const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    let now = tokio::time::Instant::now();
    now.checked_add(time).unwrap_or(now + NEVER)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Should a batch make its thread panic, the table ends, and the status that says
    // so is behind one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
