//! The state of a generation that others may read: its topic and codecs, its progress, and its rejected
//! records.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, watch};

use crate::checkpoint::CheckpointError;
use crate::codec::Codecs;
use crate::codec::workers::{Lane, Purpose};
use crate::log::{Offset, OffsetRange, TopicDescription};
use crate::sync::lock;
use crate::table::positions::Positions;
use crate::table::quarantine::Quarantine;
use crate::table::reject::{RecentRejects, RejectedRecord};
use crate::table::status::{CheckpointStats, DeadLetterStats, LoadProgress, PartitionProgress, Stats};
use crate::table::swap_gate::{Retention, SwapGate};
use crate::table::view::{Counters, View};

/// The state of a generation that others may read.
#[derive(Debug)]
pub(super) struct GenerationState {
    pub(super) number: u64,
    pub(super) topic: Arc<TopicDescription>,
    pub(super) codecs: Codecs,
    /// The fingerprint of the codecs.
    pub(super) fingerprint: Arc<str>,
    /// The queue of codec workers that decodes its batches.
    pub(super) lane: Lane,
    /// Whether it has begun to read the topic, so that there is something to serve.
    pub(super) is_reading: AtomicBool,
    /// The bytes that its view uses.
    pub(super) view_bytes: AtomicU64,
    /// A std lock: held to copy some numbers.
    progress: Mutex<Progress>,
    /// A std lock: held to read or change a field.
    loading: Mutex<Loading>,
    /// A std lock: held to push or to copy.
    rejects: Mutex<RecentRejects>,
    pub(super) quarantine: Quarantine,
    /// Until when it applies nothing, so that the generation that will replace it can reach it. A std
    /// lock: held to read or to set it.
    held_until: Mutex<Option<tokio::time::Instant>>,
    /// Whether it applies nothing any more.
    is_frozen: watch::Sender<bool>,
    /// Whether it may be served when it is complete. A std lock: held to clone or replace it.
    gate: Mutex<Arc<SwapGate>>,
    /// What keeps it after it was replaced. A std lock: held to take or set it.
    retention: Mutex<Option<Retention>>,
    /// Notified when another generation is served in its place.
    pub(super) replaced: Notify,
}

/// The numbers of a view, apart from its rows, which nobody may read before the view is served.
#[derive(Debug, Default)]
struct Progress {
    counters: Counters,
    positions: Positions,
    entries: usize,
    groups: usize,
}

/// How far loading is.
#[derive(Debug)]
struct Loading {
    began: Instant,
    /// What each partition held when loading began.
    ranges: Vec<OffsetRange>,
    /// How long loading took; `None` while it goes on.
    catch_up: Option<Duration>,
    /// How many records were read while loading.
    replayed: u64,
    checkpoint: CheckpointLoad,
}

/// What was loaded from the checkpoint.
#[derive(Debug, Default)]
struct CheckpointLoad {
    records: u64,
    /// Why it was not loaded, by a generation that does not write it.
    unused: Option<Arc<str>>,
    /// The time as of which it is complete, in milliseconds since 1970, and how old it may be, for a generation that does
    /// not write it.
    age: Option<(i64, Option<Duration>)>,
}

impl Loading {
    /// The partitions that have not reached the end offset they had when loading began.
    fn incomplete(&self, position: impl Fn(&OffsetRange) -> Offset) -> impl Iterator<Item = &OffsetRange> {
        self.ranges.iter().filter(move |range| range.end > range.start && position(range) < range.end)
    }

    fn progress(&self, positions: &Positions) -> LoadProgress {
        let count = |from: Offset, to: Offset| u64::try_from(to - from).unwrap_or(0);
        let mut progress = LoadProgress { done: 0, total: 0, elapsed: self.began.elapsed() };
        for range in &self.ranges {
            let position = positions.get(range.partition).unwrap_or(0);
            progress.done += count(range.start, position.min(range.end));
            progress.total += count(range.start, range.end);
        }
        progress
    }
}

impl GenerationState {
    pub(super) fn new(
        number: u64,
        topic: Arc<TopicDescription>,
        codecs: Codecs,
        gate: Arc<SwapGate>,
    ) -> Self {
        Self {
            number,
            topic,
            fingerprint: codecs.fingerprint().into(),
            lane: Lane::new(&codecs, Purpose::Read),
            codecs,
            is_reading: AtomicBool::new(false),
            view_bytes: AtomicU64::new(0),
            progress: Mutex::default(),
            loading: Mutex::new(Loading {
                began: Instant::now(),
                ranges: Vec::new(),
                catch_up: None,
                replayed: 0,
                checkpoint: CheckpointLoad::default(),
            }),
            rejects: Mutex::default(),
            quarantine: Quarantine::default(),
            held_until: Mutex::default(),
            is_frozen: watch::Sender::default(),
            gate: Mutex::new(gate),
            retention: Mutex::default(),
            replaced: Notify::new(),
        }
    }

    /// Whether it may be served when it is complete.
    pub(super) fn gate(&self) -> Arc<SwapGate> {
        lock(&self.gate).clone()
    }

    /// Keeps the generation when it is replaced: it then waits for this gate.
    pub(super) fn retain(&self, retention: Retention) {
        *lock(&self.retention) = Some(retention);
    }

    /// Ends that the generation is kept when it is replaced.
    pub(super) fn take_retention(&self) -> Option<Retention> {
        lock(&self.retention).take().filter(Retention::is_wanted)
    }

    /// Makes the generation, which is being replaced, wait behind the gate that keeps it. Returns the gate; `None` if
    /// nothing keeps it.
    pub(super) fn close_gate(&self) -> Option<Arc<SwapGate>> {
        let gate = lock(&self.retention).as_ref().filter(|retention| retention.is_wanted())?.gate.clone();
        *lock(&self.gate) = gate.clone();
        Some(gate)
    }

    /// Copies the numbers of a view.
    pub(super) fn update_progress(&self, view: &View) {
        let mut progress = lock(&self.progress);
        progress.counters.clone_from(&view.counters);
        progress.positions.clone_from(view.positions());
        progress.entries = view.rows().len();
        progress.groups = view.rows().group_count();
        drop(progress);
        self.view_bytes.store(view.byte_len(), Ordering::Relaxed);
    }

    /// Adds a partition that loading has to complete.
    pub(super) fn add_range(&self, range: OffsetRange) {
        lock(&self.loading).ranges.push(range);
    }

    /// Sets how many records are loaded from the checkpoint.
    pub(super) fn set_loaded(&self, records: u64) {
        lock(&self.loading).checkpoint.records = records;
    }

    /// How many records were loaded from the checkpoint.
    pub(super) fn loaded(&self) -> u64 {
        lock(&self.loading).checkpoint.records
    }

    /// Sets the time as of which the checkpoint is complete, and how old it may be, for a generation that only loads it.
    pub(super) fn set_checkpoint_age(&self, as_of: i64, max_age: Option<Duration>) {
        lock(&self.loading).checkpoint.age = Some((as_of, max_age));
    }

    /// The time as of which the checkpoint is complete, and how old it may be, for a generation that only loads it.
    pub(super) fn checkpoint_age(&self) -> Option<(i64, Option<Duration>)> {
        lock(&self.loading).checkpoint.age
    }

    /// Sets why the checkpoint is not loaded, for a generation that would only load it.
    pub(super) fn set_checkpoint_unused(&self, reason: &CheckpointError) {
        lock(&self.loading).checkpoint.unused = Some(reason.to_string().into());
    }

    pub(super) fn checkpoint_unused(&self) -> Option<Arc<str>> {
        lock(&self.loading).checkpoint.unused.clone()
    }

    /// Whether `view` has everything that the topic held when loading began.
    pub(super) fn is_loaded(&self, view: &View) -> bool {
        lock(&self.loading).incomplete(|range| view.position(range.partition)).next().is_none()
    }

    /// Describes the partitions that are not loaded yet; empty if all are.
    pub(super) fn describe_incomplete(&self) -> String {
        let positions = lock(&self.progress).positions.clone();
        let position = |range: &OffsetRange| positions.get(range.partition).unwrap_or(0);
        let loading = lock(&self.loading);
        let incomplete = loading
            .incomplete(position)
            .map(|range| format!("partition {} at {} of {}", range.partition, position(range), range.end));
        incomplete.collect::<Vec<_>>().join(", ")
    }

    /// Ends the measurement of loading.
    pub(super) fn finish_loading(&self, records: u64) {
        let mut loading = lock(&self.loading);
        loading.catch_up = Some(loading.began.elapsed());
        loading.replayed = records;
    }

    /// Sets whether it applies no more records.
    pub(super) fn set_frozen(&self, is_frozen: bool) {
        self.is_frozen.send_if_modified(|current| std::mem::replace(current, is_frozen) != is_frozen);
    }

    /// Waits until it applies no more records, or until it applies them again.
    pub(super) async fn wait_until_frozen(&self, is_frozen: bool) {
        // OK to ignore: the sender lives in `self`.
        let _ = self.is_frozen.subscribe().wait_for(|current| *current == is_frozen).await;
    }

    /// Whether it applies no more records.
    pub(super) fn is_frozen(&self) -> bool {
        *self.is_frozen.borrow()
    }

    /// Stops applying until this time.
    pub(super) fn hold_until(&self, until: tokio::time::Instant) {
        *lock(&self.held_until) = Some(until);
    }

    /// Applies again at once.
    pub(super) fn release(&self) {
        *lock(&self.held_until) = None;
    }

    /// Until when nothing is applied, if that is in the future.
    pub(super) fn held_until(&self) -> Option<tokio::time::Instant> {
        lock(&self.held_until).filter(|until| *until > tokio::time::Instant::now())
    }

    pub(super) fn push_reject(&self, reject: RejectedRecord) {
        lock(&self.rejects).push(reject);
    }

    pub(super) fn rejects(&self) -> Vec<RejectedRecord> {
        lock(&self.rejects).to_vec()
    }

    pub(super) fn reject_bytes(&self) -> u64 {
        lock(&self.rejects).byte_len() as u64
    }

    /// How far loading is; `None` when it is done.
    pub(super) fn load_progress(&self) -> Option<LoadProgress> {
        let positions = lock(&self.progress).positions.clone();
        let loading = lock(&self.loading);
        loading.catch_up.is_none().then(|| loading.progress(&positions))
    }

    /// The statistics of a table that serves this generation, or loads it while it serves none.
    pub(super) fn stats(
        &self,
        status_since: SystemTime,
        stale_since: Option<SystemTime>,
        loading_progress: Option<LoadProgress>,
        checkpoint: Option<CheckpointStats>,
        dead_letters: Option<DeadLetterStats>,
    ) -> Stats {
        let progress = lock(&self.progress);
        let loading = lock(&self.loading);
        let Progress { counters, positions, entries, groups } = &*progress;
        let partition = |range: &OffsetRange| PartitionProgress {
            partition: range.partition,
            position: positions.get(range.partition).unwrap_or(0).max(range.start),
            start: range.start,
            target: range.end,
        };
        let mut partitions: Vec<PartitionProgress> = loading.ranges.iter().map(partition).collect();
        partitions.sort_by_key(|progress| progress.partition);
        Stats {
            status_since,
            stale_since,
            generation: self.number,
            entries: *entries as u64,
            groups: *groups as u64,
            records: counters.records,
            tombstones: counters.tombstones,
            keyless: counters.keyless,
            rejects: counters.rejects.clone(),
            foreign: counters.anomalies.foreign,
            cross_partition: counters.anomalies.cross_partition,
            older: counters.anomalies.older,
            other_partitioner: counters.anomalies.other_partitioner,
            payload_bytes: counters.payload_bytes,
            loading: loading_progress,
            catch_up: loading.catch_up,
            replayed: loading.catch_up.map_or(counters.records, |_| loading.replayed),
            checkpoint,
            dead_letters,
            partitions,
        }
    }
}
